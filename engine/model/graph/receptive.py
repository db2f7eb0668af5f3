"""Stride and receptive field, read off an ONNX graph by interval arithmetic.

Ask which input pixels one stride-aligned window of output pixels depends on, and walk the graph
backwards: each operator turns an interval of output indices into the interval of input indices
that it reads (`operators.py`). What sticks out of the window is the radius. This is exact for the
alignment that tiles have (Araujo et al., "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019, do the same with closed formulas for single-path networks).

A graph need not mean well: whatever could let one pixel see another in a way that is not followed
here (an unknown operator, one of another domain or defined by the model itself, a graph within a
node, values computed from the frame's size, random ones) leaves it without a radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from engine.errors import ModelError
from engine.model.graph.operators import BROADCASTING, POINT, Along, NoReach, Operator, reach
from engine.model.graph.tensors import Shape, inferred_shapes
from engine.model.spec import IMAGE, PROBABILITIES

RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike"]
)  # fmt: skip
SIZES = frozenset(["Shape", "Size"])
STANDARD = frozenset(["", "ai.onnx"])
REASONS_LISTED = 3
FAR = 2000  # strides; size of the frame that is followed

Interval = tuple[int, int]  # inclusive at both ends


@dataclass(frozen=True)
class ReceptiveField:
    """What one output pixel can see, along the worse of the two axes."""

    stride: int  # px; coarsest grid in the network
    radius: int | None  # px beyond a stride-aligned window; None: all of the frame
    reason: str = ""  # why the radius is None


def receptive_field(model: onnx.ModelProto) -> ReceptiveField:
    """Stride and receptive radius of the path from `image` to `probabilities`.

    Raises ModelError for a graph that does not lead from one to the other at the same size. A
    graph with an operator that sees the whole frame, or that is not known here, has no radius.
    """
    walk = _Walk(model)
    if walk.reasons:
        reasons = list(dict.fromkeys(walk.reasons))[:REASONS_LISTED]
        return ReceptiveField(walk.stride, None, ", ".join(reasons))
    try:
        radius = max(walk.radius(axis) for axis in (0, 1))
    except NoReach as reason:
        return ReceptiveField(walk.stride, None, str(reason))
    return ReceptiveField(walk.stride, radius)


def _within(reads: Interval, length: int, mirrors: bool) -> Interval:
    """The part of an interval that there is, with what is mirrored into it."""
    first, last = reads
    if mirrors:
        inside = [first, last]
        if first < 0:
            inside += [0, -first]
        if last >= length:
            inside += [length - 1, 2 * (length - 1) - last]
        inside = [i for i in inside if 0 <= i < length]
        return (min(inside), max(inside)) if inside else (0, length - 1)
    # Padding beyond the ends stands for itself; some index is needed to stand for it.
    return min(max(first, 0), length - 1), max(min(last, length - 1), 0)


@dataclass(frozen=True)
class _Step:
    """A node that pixels pass through."""

    node: onnx.NodeProto
    reads: tuple[str, ...]  # the inputs that hold pixels
    along: tuple[Along, Along]  # Y and X


class _Walk:
    """The nodes that pixels pass through, and the pitch of the grid each tensor lies on."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.reasons: list[str] = []
        self.steps: list[_Step] = []
        # Pixels of the image per pixel of the tensor, along Y and X.
        self.pitch: dict[str, tuple[Fraction, Fraction]] = {IMAGE: (Fraction(1), Fraction(1))}
        self._suspect: dict[str, str] = {}  # of tensors without pixels: why they may depend on them
        self._functions = {(f.domain, f.name) for f in model.functions}
        self._opset = max(
            (o.version for o in model.opset_import if o.domain in STANDARD), default=1
        )
        self._model = model
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._constants: dict[str, Any] = {}
        for tensor in model.graph.initializer:
            self._learn(tensor.name, tensor)
        known = {"", *(v.name for v in model.graph.input)}
        for sparse in model.graph.sparse_initializer:
            self._shapes[sparse.values.name] = tuple(sparse.dims)
        known |= set(self._shapes)
        for node in model.graph.node:
            if any(name not in known for name in node.input):
                raise ModelError(f"the graph's node {node.name or node.op_type} comes too early")
            known.update(node.output)
            self._follow(node)
        if PROBABILITIES not in self.pitch:
            raise ModelError(f"the graph has no path from {IMAGE!r} to {PROBABILITIES!r}")
        if not self.reasons and any(pitch != 1 for pitch in self.pitch[PROBABILITIES]):
            raise ModelError("the graph's probabilities are not of the image's own size")

    @property
    def stride(self) -> int:
        """Common multiple of all pitches."""
        pitches = [p for pair in self.pitch.values() for p in pair]
        return math.lcm(*(p.numerator for p in pitches))

    def sizes(self, axis: int, n: int) -> dict[str, int]:
        """Lengths of all tensors for an image of `n` px along `axis`.

        NoReach where they do not fit together, ModelError where the probabilities are not of the
        image's size.
        """
        sizes = {IMAGE: n}
        for step in self.steps:
            incoming = {sizes[name] for name in step.reads}
            if len(incoming) > 1:
                raise NoReach(f"{step.node.op_type} takes images of several sizes")
            length = step.along[axis].length(incoming.pop())
            sizes.update(dict.fromkeys(step.node.output, length))
        if sizes[PROBABILITIES] != n:
            raise ModelError("the graph's probabilities are not of the image's own size")
        return sizes

    def radius(self, axis: int) -> int:
        """Px beyond a stride-aligned window that it depends on, along one axis."""
        n = FAR * self.stride  # larger than any kernel
        sizes = self.sizes(axis, n)
        self.sizes(axis, n + self.stride)
        radius = self._beyond(axis, n, sizes, n // 2 // self.stride * self.stride)
        if any(step.along[axis].mirrors for step in self.steps):
            # At the ends of a frame mirrored pixels count as well, on the other side.
            near = range(0, min(radius + self.stride, n), self.stride)
            ends = [*near, *(n - self.stride - start for start in near)]
            radius = max([radius, *(self._beyond(axis, n, sizes, start) for start in ends)])
        return radius

    def _beyond(self, axis: int, n: int, sizes: dict[str, int], start: int) -> int:
        """How far a tile must reach beyond the window at `start` of a frame of `n` px.

        The tile has to hold what the window is made from in the image, and in every tensor on the
        way: a tile's tensors end where the tile does, even if later steps lead back inside.
        """
        stop = start + self.stride
        needed: dict[str, Interval] = {PROBABILITIES: (start, stop - 1)}
        for step in reversed(self.steps):
            wanted = [needed[name] for name in step.node.output if name in needed]
            if not wanted:
                continue
            along = step.along[axis]
            ends = (along.first(min(w[0] for w in wanted)), along.last(max(w[1] for w in wanted)))
            ends = _within((min(ends), max(ends)), sizes[step.reads[0]], along.mirrors)
            for name in step.reads:
                first, last = needed.get(name, ends)
                needed[name] = (min(first, ends[0]), max(last, ends[1]))
        beyond = [Fraction(0)]
        for name, (first, last) in needed.items():
            pitch = self.pitch[name][axis]
            shorter = n - pitch * sizes[name]  # than the image, in px
            beyond += [start - pitch * first, pitch * (last + 1) + shorter - stop]
        return math.ceil(max(beyond))

    def _learn(self, name: str, tensor: onnx.TensorProto) -> None:
        self._shapes[name] = tuple(tensor.dims)
        if len(tensor.dims) <= 1:  # values are wanted of scales alone; weights would be copied
            self._constants[name] = numpy_helper.to_array(tensor)

    def _follow(self, node: onnx.NodeProto) -> None:
        reads = tuple(dict.fromkeys(name for name in node.input if name in self.pitch))
        suspects = [self._suspect[name] for name in node.input if name in self._suspect]
        if opaque := self._opaque(node):
            # What is in there may read any tensor by its name.
            self._pass(node, reads or (IMAGE,), opaque)
        elif node.op_type == "Constant":
            self._constant(node)
        elif reads and node.op_type not in SIZES:
            try:
                if suspects:
                    raise NoReach(suspects[0])
                along = self._along(node, reads)
            except NoReach as reason:
                self._pass(node, reads, str(reason))
            else:
                self._pass(node, reads, "", along)
        elif reads:
            self._mark(node, "the graph computes with the size of the frame")
        elif node.op_type in RANDOM:
            self._mark(node, f"{node.op_type} is random")
        elif suspects:
            self._mark(node, suspects[0])

    def _opaque(self, node: onnx.NodeProto) -> str:
        kind = f"{node.domain}.{node.op_type}" if node.domain not in STANDARD else node.op_type
        if (node.domain, node.op_type) in self._functions or node.domain not in STANDARD:
            return f"{kind} is not understood"
        graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        if any(attribute.type in graphs for attribute in node.attribute):
            return f"{kind} holds a graph of its own"
        return ""

    def _along(self, node: onnx.NodeProto, reads: tuple[str, ...]) -> tuple[Along, Along]:
        along = reach(Operator(node, self._constants, self._shapes, self._opset))
        if node.op_type in BROADCASTING:
            if len({self.pitch[name] for name in reads}) > 1:
                raise NoReach(f"{node.op_type} takes images of several sizes")
            for name in node.input:
                if name in self.pitch or not name:
                    continue
                shape = self._shape(name)
                if shape is None or len(shape) > 4 or any(n != 1 for n in shape[-2:]):
                    raise NoReach(f"{node.op_type} has an input that may differ between pixels")
        elif reads != (node.input[0],):
            raise NoReach(f"{node.op_type} computes more than its input from the image")
        return along

    def _shape(self, name: str) -> Shape | None:
        return self._shapes[name] if name in self._shapes else self._inferred.get(name)

    @cached_property
    def _inferred(self) -> dict[str, Shape]:
        return inferred_shapes(self._model)

    def _pass(
        self,
        node: onnx.NodeProto,
        reads: tuple[str, ...],
        reason: str,
        along: tuple[Along, Along] = (POINT, POINT),
    ) -> None:
        if reason:
            self.reasons.append(reason)
        self.steps.append(_Step(node, reads, along))
        y, x = self.pitch[reads[0]]
        pitch = (y * along[0].step, x * along[1].step)
        self.pitch.update({name: pitch for name in node.output if name})

    def _mark(self, node: onnx.NodeProto, reason: str) -> None:
        self._suspect.update(dict.fromkeys(node.output, reason))

    def _constant(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.name == "value":
                self._learn(node.output[0], attribute.t)
            elif attribute.name == "sparse_value":
                self._shapes[node.output[0]] = tuple(attribute.sparse_tensor.dims)
            elif attribute.name.startswith("value_") and "string" not in attribute.name:
                value = np.asarray(onnx.helper.get_attribute_value(attribute))
                self._shapes[node.output[0]] = value.shape
                self._constants[node.output[0]] = value
