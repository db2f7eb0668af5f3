"""Peak memory of a graph's activations, predicted from shapes and lifetimes.

The runtime runs nodes in topological order, frees a tensor after its last reader and computes
pointwise operators in place where nobody else reads their input. Replaying that with counted
bytes gives the peak that its arena has to reach; `ARENA_OVERHEAD` is what ONNX Runtime's CPU
arena was measured to need beyond it (fragmentation, layout conversions; docs/memory.md).
"""

from __future__ import annotations

import math

import onnx

from engine.errors import ModelError
from engine.model.graph.operators import POINTWISE
from engine.model.spec import IMAGE, PROBABILITIES

ARENA_OVERHEAD = 2.4
FLOAT_BYTES = 4
COPIES = frozenset(["Concat"])  # pointwise in reach, but never in place


def activation_bytes(model: onnx.ModelProto, height: int, width: int) -> int:
    """Bytes the runtime needs beside the weights to run one tile of (height, width) px."""
    sizes = _tensor_bytes(model, height, width)
    readers = _last_readers(model)
    live: dict[str, int] = {IMAGE: sizes.get(IMAGE, 0)}
    held = peak = live[IMAGE]
    for position, node in enumerate(model.graph.node):
        dying = [n for n in set(node.input) if n in live and readers.get(n) == position]
        produced = sum(sizes.get(name, 0) for name in node.output)
        in_place = node.op_type in POINTWISE - COPIES and any(
            live[name] >= produced for name in dying
        )
        workspace = _workspace(node, sizes)
        reused = max((live[name] for name in dying), default=0) if in_place else 0
        peak = max(peak, held + produced - reused + workspace)
        held += produced
        live.update({name: sizes.get(name, 0) for name in node.output})
        for name in dying:
            held -= live.pop(name)
    return math.ceil(peak * ARENA_OVERHEAD)


def _tensor_bytes(model: onnx.ModelProto, height: int, width: int) -> dict[str, int]:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_value = 1
        if len(dims) == 4:
            dims[2].dim_value, dims[3].dim_value = height, width
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the graph has no shapes for {height} x {width} px; export it again"
        ) from error
    sizes = {}
    for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        dims = value.type.tensor_type.shape.dim
        sizes[value.name] = FLOAT_BYTES * math.prod(d.dim_value or 1 for d in dims)
    if PROBABILITIES not in sizes:
        raise ModelError(f"the graph has no output named {PROBABILITIES!r}")
    return sizes


def _last_readers(model: onnx.ModelProto) -> dict[str, int]:
    last: dict[str, int] = {}
    for position, node in enumerate(model.graph.node):
        last.update(dict.fromkeys(node.input, position))
    last[PROBABILITIES] = len(model.graph.node)
    return last


def _workspace(node: onnx.NodeProto, sizes: dict[str, int]) -> int:
    """A transposed convolution multiplies into columns before it adds them up."""
    return sizes.get(node.output[0], 0) if node.op_type == "ConvTranspose" else 0
