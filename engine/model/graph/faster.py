"""The same network with less copying: what a graph is changed to before a processor runs it.

    Conv(Concat(a, b))                  Conv(a) + Conv(b), which runtimes add as they convolve: the
                                        two inputs are never copied side by side
    DepthToSpace, Sigmoid: the end      Sigmoid, and `Shuffle`, which is one copy where runtimes
                                        take two and more

The first adds in another order, so that outputs differ by their last bits (in bfloat16 as much as
that rounds anyway); the second changes none.
What they bring is in benchmarks/results/faster-graphs.md.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from engine.model.graph.receptive import STANDARD
from engine.model.graph.tensors import inferred_shapes
from engine.model.spec import PROBABILITIES

ALONE = ("Sigmoid", "Identity")  # operators that treat each value alone


def speed_up(model: onnx.ModelProto) -> Shuffle | None:
    """Change `model` as above. Returns what makes the result of its output then; None: it is it."""
    split_concatenations(model)
    return take_off_shuffle(model)


def split_concatenations(model: onnx.ModelProto) -> None:
    """Change convolutions over a concatenation along the channels into sums of convolutions.

    Only where nothing else reads the concatenation, and how many channels it joins is known.
    """
    graph = model.graph
    readers = _readers(graph)
    joined = {
        node.output[0]: node
        for node in graph.node
        if _is(node, "Concat")
        and _attribute(node, "axis", 0) in (1, -3)
        and len(node.input) > 1
        and readers[node.output[0]] == 1
    }
    if not joined:
        return
    given = {value.name for value in graph.input}  # where a weight could be replaced
    kernels = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
    channels = {name: shape[1] for name, shape in inferred_shapes(model).items() if len(shape) == 4}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = joined.get(node.input[0]) if _is(node, "Conv") else None
        kernel = kernels.get(node.input[1]) if source else None
        if source is None or kernel is None or _attribute(node, "group", 1) != 1:
            nodes.append(node)
            continue
        widths = [channels.get(name) or 0 for name in source.input]
        if not all(widths):
            nodes.append(node)
            continue
        nodes.remove(source)
        prefix = _free(f"{node.output[0]}_", graph, readers)
        nodes += _sum_of(node, source.input, widths, kernel, graph, prefix)
        readers[kernel.name] -= 1
        if not readers[kernel.name]:
            graph.initializer.remove(kernel)
    del graph.node[:]
    graph.node.extend(nodes)


def _sum_of(
    node: onnx.NodeProto,
    sources: Sequence[str],
    widths: Sequence[int],
    kernel: onnx.TensorProto,
    graph: onnx.GraphProto,
    prefix: str,  # of new names
) -> list[onnx.NodeProto]:
    """Convolutions of each source, and their sums; the last one has the node's output."""
    (out,) = node.output
    places = itertools.pairwise(itertools.accumulate(widths, initial=0))
    nodes, total = [], ""
    for number, (source, (start, stop)) in enumerate(zip(sources, places, strict=True)):
        values = numpy_helper.to_array(kernel)[:, start:stop]
        part = numpy_helper.from_array(np.ascontiguousarray(values), f"{prefix}weight_{number}")
        graph.initializer.append(part)
        bias = node.input[2:] if number == 0 else ()
        name = f"{prefix}part_{number}"
        nodes.append(helper.make_node("Conv", [source, part.name, *bias], [name], name))
        nodes[-1].attribute.extend(node.attribute)
        if total:
            is_last = number == len(sources) - 1
            result = out if is_last else f"{prefix}sum_{number}"
            nodes.append(helper.make_node("Add", [total, name], [result], result))
            total = result
        else:
            total = name
    return nodes


@dataclass(frozen=True)
class Shuffle:
    """What is left to be done of a `DepthToSpace`: channels become blocks of pixels."""

    factor: int  # px along each side of a block
    depth_first: bool  # of a channel's number: place in the block, then channel ("DCR")

    def source(self, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """Shape of what becomes an array of `shape`, (N, K, H, W)."""
        n, channels, height, width = shape
        if height % self.factor or width % self.factor:
            raise ValueError(f"{height} x {width} px are no whole blocks of {self.factor} px")
        return n, channels * self.factor**2, height // self.factor, width // self.factor

    def apply(self, values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Fill `out`, (N, K, H, W), with `values`, of the shape `source` says."""
        n, channels, height, width = out.shape
        f = self.factor
        if self.depth_first:
            parts = values.reshape(n, f, f, channels, height // f, width // f)
            parts = parts.transpose(0, 3, 1, 2, 4, 5)
        else:
            parts = values.reshape(n, channels, f, f, height // f, width // f)
        for y, x in np.ndindex(f, f):  # as one assignment it takes five times as long
            out[:, :, y::f, x::f] = parts[:, :, y, x]


def take_off_shuffle(model: onnx.ModelProto) -> Shuffle | None:
    """Cut a `DepthToSpace` off that only operators follow which treat each value alone.

    Returns what makes the result of the output then, whose shape changes; None: nothing was cut.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    after, node = None, makers.get(PROBABILITIES)
    while node is not None and readers[node.output[0]] == 1 and _is(node, *ALONE):
        after, node = node, makers.get(node.input[0])
    (value,) = (one for one in graph.output if one.name == PROBABILITIES)
    sizes = value.type.tensor_type.shape.dim
    if (
        after is None
        or node is None
        or not _is(node, "DepthToSpace")
        or readers[node.output[0]] > 1
        or not sizes[1].dim_value
    ):
        return None
    found = Shuffle(_attribute(node, "blocksize", 0), _attribute(node, "mode", b"DCR") == b"DCR")
    after.input[0] = node.input[0]
    graph.node.remove(node)
    del graph.value_info[:]  # of what comes behind it, shapes are others now
    sizes[1].dim_value *= found.factor**2
    for size in sizes[2:]:
        if size.HasField("dim_value"):
            size.dim_value //= found.factor
        else:
            size.ClearField("dim_param")
    return found


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read: by nodes, by those of their subgraphs, as an output."""
    found = Counter(value.name for value in graph.output)
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                found += _readers(inner)
    return found


def _is(node: onnx.NodeProto, *kinds: str) -> bool:
    """Whether it is one of ONNX's own operators: those of others may have the same name."""
    return node.domain in STANDARD and node.op_type in kinds


def _free(name: str, graph: onnx.GraphProto, readers: Counter[str]) -> str:
    """`name`, or a longer one with which no name in the graph begins."""
    names = {*readers, *(one.name for one in graph.initializer)}
    names.update(made for node in graph.node for made in node.output)
    while any(one.startswith(name) for one in names):
        name += "_"
    return name


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
