"""Radius and stride of random networks against pixels that are poked, and against tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.geometry.tiling import FrameTiling
from engine.inference.tiles import predict
from engine.model.graph import receptive_field

N = 2  # channels throughout


class Net:
    """Builds a graph from `image` on, node by node. Weights are positive: nothing cancels."""

    def __init__(self, opset: int = 18) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.opset = opset

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, kernel: tuple[int, int], n_out: int = N, n_in: int = N, **a: Any) -> str:
        w = self.constant(np.full((n_out, n_in, *kernel), 1 / kernel[0] / kernel[1]))
        return self.add("Conv", x, w, kernel_shape=list(kernel), **a)

    def model(self, last: str, functions: Any = ()) -> onnx.ModelProto:
        nodes = [*self.nodes, helper.make_node("Identity", [last], ["probabilities"])]
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "net",
            [
                info("image", TensorProto.FLOAT, ["B", N, "H", "W"]),
                info("statistics", TensorProto.FLOAT, ["B", N, 2]),
            ],
            [info("probabilities", TensorProto.FLOAT, ["B", N, "H", "W"])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("own", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


class Session:
    """The plain runtime, for graphs that are no models of ours."""

    n_outputs, dtype = N, np.float32

    def __init__(self, model: onnx.ModelProto) -> None:
        data = model.SerializeToString()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(self, pixels: Any, statistics: Any, out: Any = None) -> Any:
        wanted = {i.name for i in self.session.get_inputs()}
        feeds = {"image": pixels, "statistics": statistics}
        return self.session.run(None, {k: v for k, v in feeds.items() if k in wanted})[0]


STATISTICS = np.tile(np.float32([0, 1]), (N, 1))


def poked_radius(model: onnx.ModelProto, stride: int, reach: int) -> tuple[int, int]:
    """Poke one line of a dark frame at a time; how far from it does an aligned window change?"""
    session = Session(model)
    side = -(-(2 * reach + 24) // stride) * stride + 3 * stride
    middle = side // 2 // stride * stride
    window = slice(middle, middle + stride)
    radius = [0, 0]
    dark = session.run(np.zeros((1, N, side, side), np.float32), STATISTICS[None])
    for axis in (0, 1):
        for position in range(side):
            frame = np.zeros((1, N, side, side), np.float32)
            frame[(0, 0, position) if axis == 0 else (0, 0, slice(None), position)] = 1e4
            result = session.run(frame, STATISTICS[None])
            seen = np.moveaxis(result != dark, 2 + axis, 0)[window]
            if seen.any():
                beyond = max(window.start - position, position - window.stop + 1)
                radius[axis] = max(radius[axis], beyond)
    return radius[0], radius[1]


sides = st.integers(1, 4)
halves = st.integers(0, 4)


CENTRED = ("conv", "auto", "pool", "norm", "pointwise")
MOVING = ("pad", "shift")  # apart from what it does, mirrors at the edge or shifts all pixels


@st.composite
def same_size(draw: Any, kinds: tuple[str, ...]) -> Callable[[Net, str], str]:
    """Something that keeps the size."""
    kind = draw(st.sampled_from(kinds))
    kernel, dilations = draw(st.tuples(sides, sides)), draw(st.tuples(*[st.integers(1, 3)] * 2))
    extents = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    before = [draw(st.integers(0, e)) for e in extents]
    pads = [*before, *(e - b for e, b in zip(extents, before, strict=True))]
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    policy = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    pool = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    shift = draw(st.tuples(halves, halves))

    def build(net: Net, x: str) -> str:
        if kind == "conv":
            return net.conv(x, kernel, pads=pads, dilations=list(dilations))
        if kind == "auto":
            return net.conv(x, kernel, auto_pad=policy)
        if kind == "pad":
            widths = net.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
            padded = net.add("Pad", x, widths, mode=mode)
            return net.conv(padded, kernel, dilations=list(dilations))
        if kind == "shift":
            padded = net.add(
                "Pad",
                x,
                net.constant([*shift, 0, 0], np.int64),
                "",
                net.constant([2, 3], np.int64),
            )
            ends = [-s if s else 2**40 for s in shift]
            bounds = (net.constant(v, np.int64) for v in ([0, 0], ends, [2, -1]))
            return net.add("Slice", padded, *bounds)
        if kind == "pool":
            attributes = {"dilations": list(dilations)} if pool == "MaxPool" else {}
            own = pads if pool == "MaxPool" else [0, 0, kernel[0] - 1, kernel[1] - 1]
            if any(p >= k for p, k in zip(own, kernel * 2, strict=True)):
                return x  # ONNX Runtime wants less padding than kernel
            return net.add(pool, x, kernel_shape=list(kernel), pads=own, **attributes)
        if kind == "norm":
            axes = net.constant([1], np.int64)
            mean = net.add("ReduceMean", x, axes, keepdims=1)
            return net.add("Add", net.add("Mul", mean, net.constant(0.5)), x)
        scale = net.constant(np.full((1, N, 1, 1), 0.5))
        return net.add("Relu", net.add("Mul", x, scale))

    return build


@st.composite
def network(draw: Any, kinds: tuple[str, ...], depth: int = 2) -> Callable[[Net, str], str]:
    """Blocks of the same size, and one excursion to a coarser grid and back."""
    parts = draw(st.lists(same_size(kinds), min_size=0, max_size=2))
    if depth and draw(st.booleans()):
        parts.append(draw(excursion(kinds, depth)))
    return lambda net, x: _chain(net, x, parts)


def _chain(net: Net, x: str, parts: Any) -> str:
    for part in parts:
        x = part(net, x)
    return x


DOWN: dict[str, Callable[[Net, str], str]] = {
    "max pool": lambda n, x: n.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "overlapping pool": lambda n, x: n.add(
        "AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]
    ),
    "conv 3": lambda n, x: n.conv(x, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    "conv 2 x 4": lambda n, x: n.conv(x, (2, 4), strides=[2, 2], pads=[0, 1, 0, 1]),
    "same upper": lambda n, x: n.conv(x, (3, 5), strides=[2, 2], auto_pad="SAME_UPPER"),
    "same lower": lambda n, x: n.conv(x, (4, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
    "space to depth": lambda n, x: n.conv(
        n.add("SpaceToDepth", x, blocksize=2), (1, 1), n_in=4 * N
    ),
    "every other": lambda n, x: n.add(
        "Slice", x, *(n.constant(v, np.int64) for v in ([1, 0], [2**63 - 1] * 2, [2, 3], [2, 2]))
    ),
    "resize": lambda n, x: n.add("Resize", x, "", n.constant([1, 1, 0.5, 0.5]), mode="linear"),
}


def resize(mode: str, grid: str, nearest: str = "floor") -> Callable[[Net, str], str]:
    def build(net: Net, x: str) -> str:
        return net.add(
            "Resize", x, "", net.constant([1, 1, 2, 2]), mode=mode,
            coordinate_transformation_mode=grid, nearest_mode=nearest,
        )  # fmt: skip

    return build


def transposed(kernel: int, **attributes: Any) -> Callable[[Net, str], str]:
    def build(net: Net, x: str) -> str:
        w = net.constant(np.full((N, N, kernel, kernel), 0.5))
        return net.add(
            "ConvTranspose", x, w, kernel_shape=[kernel] * 2, strides=[2, 2], **attributes
        )

    return build


def to_space(net: Net, x: str) -> str:
    return net.add("DepthToSpace", net.conv(x, (1, 1), n_out=4 * N), blocksize=2)


UP: dict[str, Callable[[Net, str], str]] = {
    "transposed 2": transposed(2),
    "transposed 3": transposed(3, pads=[1, 1, 1, 1], output_padding=[1, 1]),
    "transposed 4": transposed(4, pads=[1, 1, 1, 1]),
    "transposed 3, lopsided": transposed(3, pads=[0, 1, 1, 0]),
    "to space": to_space,
    "linear": resize("linear", "half_pixel"),
    "linear, torch": resize("linear", "pytorch_half_pixel"),
    "linear, asymmetric": resize("linear", "asymmetric"),
    **{
        f"nearest, {grid}, {nearest}": resize("nearest", grid, nearest)
        for grid in ("half_pixel", "asymmetric")
        for nearest in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    },
}


@st.composite
def excursion(draw: Any, kinds: tuple[str, ...], depth: int) -> Callable[[Net, str], str]:
    down, up = draw(st.sampled_from(sorted(DOWN))), draw(st.sampled_from(sorted(UP)))
    inner = draw(network(kinds, depth - 1))
    skip = draw(st.sampled_from(["none", "add", "concat"]))

    def build(net: Net, x: str) -> str:
        y = UP[up](net, inner(net, DOWN[down](net, x)))
        if skip == "add":
            return net.add("Add", x, y)
        if skip == "concat":
            return net.conv(net.add("Concat", x, y, axis=1), (1, 1), n_in=2 * N)
        return y

    return build


def assert_radius_and_tiles(model: onnx.ModelProto, seed: int = 0, *, least: bool = True) -> None:
    """The radius suffices for tiles, and none that is smaller would do."""
    field = receptive_field(model)
    assert field.radius is not None, field.reason
    # Positive weights: what can matter does.
    poked = max(poked_radius(model, field.stride, field.radius))
    stride = field.stride
    halo = -(-field.radius // stride) * stride
    assert poked <= field.radius
    if least:
        assert -(-poked // stride) * stride == halo
    # A tile must hold what is mirrored at the frame's edge.
    tile = 2 * halo + stride * -(-16 // stride)
    height, width = tile + 3 * stride, tile + 5 * stride
    frame = np.random.default_rng(seed).random((N, height, width), dtype=np.float32)
    runtime = Session(model)
    whole = predict(frame, STATISTICS, FrameTiling(height, width, stride, halo, None), runtime)
    tiled = predict(frame, STATISTICS, FrameTiling(height, width, stride, halo, tile), runtime)
    assert np.abs(tiled - whole).max() <= 1e-5 * max(float(np.ptp(whole)), 1e-6)


@settings(max_examples=60)
@given(network(CENTRED), st.integers(0, 2**16))
def test_random_networks(build: Callable[[Net, str], str], seed: int) -> None:
    net = Net()
    assert_radius_and_tiles(net.model(build(net, "image")), seed)


@settings(max_examples=60)
@given(network(CENTRED + MOVING), st.integers(0, 2**16))
def test_random_networks_that_shift_and_mirror(build: Callable[[Net, str], str], seed: int) -> None:
    net = Net()
    assert_radius_and_tiles(net.model(build(net, "image")), seed, least=False)


def test_a_shift_and_its_reverse_need_a_halo_in_between() -> None:
    # Each pixel sees itself alone; but a tile loses its last four rows on the way.
    net = Net()
    down = net.add("Pad", "image", net.constant([0, 0, 4, 0, 0, 0, 0, 0], np.int64))
    bounds = ([0], [-4], [2])
    cut = net.add("Slice", down, *(net.constant(v, np.int64) for v in bounds))
    up = net.add("Pad", cut, net.constant([0, 0, -4, 0, 0, 0, 4, 0], np.int64))
    model = net.model(up)
    assert poked_radius(model, 1, 8) == (0, 0)
    assert receptive_field(model).radius == 4
    assert_radius_and_tiles(model, least=False)


@pytest.mark.parametrize("down", sorted(DOWN))
def test_every_way_down(down: str) -> None:
    net = Net()
    inner = net.conv(DOWN[down](net, "image"), (3, 3), pads=[1, 1, 1, 1])
    assert_radius_and_tiles(net.model(transposed(2)(net, inner)))


@pytest.mark.parametrize("up", sorted(UP))
def test_every_way_up(up: str) -> None:
    net = Net()
    inner = net.conv(DOWN["max pool"](net, "image"), (3, 3), pads=[1, 1, 1, 1])
    assert_radius_and_tiles(net.model(UP[up](net, inner)))


def test_valid_convolutions_with_a_cut_skip() -> None:
    net = Net()
    inner = net.conv(net.conv("image", (3, 3)), (3, 5))  # 4 px shorter, 6 px narrower
    corner = [net.constant(v, np.int64) for v in ([2, 3], [-2, -3], [2, 3])]
    both = net.add("Add", net.add("Slice", "image", *corner), inner)
    pads = net.constant([0, 0, 2, 3, 0, 0, 2, 3], np.int64)
    assert_radius_and_tiles(net.model(net.add("Pad", both, pads)))


def assert_no_radius(model: onnx.ModelProto, reason: str) -> None:
    field = receptive_field(model)
    assert field.radius is None
    assert reason in field.reason


def whole_frame_cases() -> dict[str, tuple[Callable[[Net], str], str]]:
    def group_norm(n: Net) -> str:
        flat = n.add("Reshape", "image", n.constant([0, 1, -1], np.int64))
        ones = n.constant([1.0])
        normal = n.add("InstanceNormalization", flat, ones, ones)
        return n.add("Reshape", normal, n.add("Shape", "image"))

    def attention(n: Net) -> str:
        flat = n.add("Reshape", "image", n.constant([0, N, -1], np.int64))
        mixed = n.add(
            "MatMul", n.add("MatMul", flat, n.add("Transpose", flat, perm=[0, 2, 1])), flat
        )
        return n.add("Reshape", mixed, n.add("Shape", "image"))

    def coordinates(n: Net) -> str:
        # 0, 1, 2 ... along X, from the size of the frame.
        width = n.add("Gather", n.add("Shape", "image"), n.constant(3, np.int64), axis=0)
        ramp = n.add("Range", n.constant(0, np.int64), width, n.constant(1, np.int64))
        return n.add("Add", "image", n.add("Cast", ramp, to=TensorProto.FLOAT))

    def fixed(n: Net) -> str:
        return n.add("Mul", "image", n.constant(np.ones((1, 1, 1, 64))))

    def fixed_and_hidden(n: Net) -> str:
        axes = n.constant([0, 1, 2], np.int64)
        return n.add("Mul", "image", n.add("Unsqueeze", n.constant(np.ones(64)), axes))

    def sizes(n: Net) -> str:
        small = n.add("MaxPool", "image", kernel_shape=[2, 2], strides=[2, 2])
        return n.add("Resize", small, "", "", n.add("Shape", "image"))

    def fixed_size(n: Net) -> str:
        return n.add("Resize", "image", "", "", n.constant([1, N, 64, 64], np.int64))

    def branch(n: Net) -> str:
        # The graph within takes `image` by its name, which is none of the node's inputs.
        mean = helper.make_node("GlobalAveragePool", ["image"], ["inner"])
        value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["B", N, 1, 1])
        body = helper.make_graph([mean], "body", [], [value])
        yes = n.constant(True, np.bool_)
        return n.add("Add", "image", n.add("If", yes, then_branch=body, else_branch=body))

    def dynamic(n: Net) -> str:
        return n.add("Conv", "image", n.add("GlobalAveragePool", "image"), kernel_shape=[1, 1])

    def resized(**attributes: Any) -> Callable[[Net], str]:
        return lambda n: n.add("Resize", "image", "", n.constant([1, 1, 3, 3]), **attributes)

    def reduced(axes: list[int], **attributes: Any) -> Callable[[Net], str]:
        def build(n: Net) -> str:
            mean = n.add("ReduceMean", "image", n.constant(axes, np.int64), **attributes)
            return n.add("Sub", "image", mean)

        return build

    def pad(mode: str) -> Callable[[Net], str]:
        def build(n: Net) -> str:
            wide = n.add("Pad", "image", n.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode=mode)
            return n.conv(wide, (3, 3))

        return build

    def cut(start: int, end: int) -> Callable[[Net], str]:
        def build(n: Net) -> str:
            bounds = (n.constant([v], np.int64) for v in (start, end, 2))
            return n.add("Add", "image", n.add("Slice", "image", *bounds))

        return build

    one = [np.ones(N, np.float32)] * 2
    return {
        "group": (group_norm, "InstanceNormalization sees the whole frame"),
        "attention": (attention, "MatMul sees the whole frame"),
        "coordinates": (coordinates, "size of the frame"),
        "fixed": (fixed, "differ between pixels"),
        "fixed and hidden": (fixed_and_hidden, "differ between pixels"),
        "sizes": (sizes, "computes with the size of the frame"),
        "fixed size": (fixed_size, "Resize has a size that is computed or fixed"),
        "branch": (branch, "If holds a graph of its own"),
        "dynamic weights": (dynamic, "whole frame"),
        "mean of all": (reduced([2, 3]), "ReduceMean sees the whole frame"),
        "mean of rows": (reduced([-1]), "ReduceMean sees the whole frame"),
        "thirds": (resized(mode="linear"), "depends on the place"),
        "wrapped": (pad("wrap"), "Pad (wrap) depends on the size"),
        "cut from the end": (cut(-8, 2**40), "Slice depends on the size"),
        "cut at": (cut(0, 8), "Slice depends on the size"),
        "layer": (
            lambda n: n.add("LayerNormalization", "image", n.constant(1.0), axis=-1),
            "LayerNormalization sees the whole frame",
        ),
        "training": (
            lambda n: n.add(
                "BatchNormalization", "image", *(n.constant(v) for v in one * 2), training_mode=1
            ),
            "training mode",
        ),
        "other axis": (lambda n: n.add("Softmax", "image", axis=-1), "another axis"),
        "default axis": (lambda n: n.add("Softmax", "image"), "another axis"),
        "another domain": (lambda n: n.add("Relu", "image", domain="own"), "own.Relu is not"),
        "noise": (
            lambda n: n.add("Add", "image", n.add("RandomNormal", shape=[1, N, 1, 1])),
            "RandomNormal is random",
        ),
    }


@pytest.mark.parametrize("case", sorted(whole_frame_cases()))
def test_what_can_see_the_whole_frame_has_no_radius(case: str) -> None:
    build, reason = whole_frame_cases()[case]
    net = Net(19 if case == "wrapped" else 18)
    assert_no_radius(net.model(build(net)), reason)


def test_softmax_of_old_graphs_runs_over_all_pixels() -> None:
    net = Net(opset=11)
    model = net.model(net.add("Softmax", "image", axis=1))
    assert_no_radius(model, "Softmax before opset 13 sees the whole frame")
    # And so it does: one pixel changes what is far from it.
    frame = np.zeros((1, N, 32, 32), np.float32)
    before = Session(model).run(frame, STATISTICS[None])
    frame[0, 0, 0, 0] = 5
    assert (Session(model).run(frame, STATISTICS[None]) != before).all()


def test_a_function_of_the_models_own_is_not_taken_for_the_operator_of_its_name() -> None:
    body = [helper.make_node("GlobalAveragePool", ["x"], ["mean"])]
    body.append(helper.make_node("Add", ["x", "mean"], ["y"]))
    opsets = [helper.make_opsetid("", 18)]
    for domain in ("own", ""):
        function = helper.make_function(domain, "Relu", ["x"], ["y"], body, opsets)
        net = Net()
        model = net.model(net.add("Relu", "image", domain=domain), [function])
        assert_no_radius(model, "Relu is not understood")


def test_nodes_out_of_order_are_refused() -> None:
    # Read in this order, the sum would not seem to see what is pooled after it.
    net = Net()
    total = net.add("Add", "image", "t1")
    net.add("GlobalAveragePool", "image")
    with pytest.raises(ModelError, match="comes too early"):
        receptive_field(net.model(total))


def test_probabilities_of_another_size_are_refused() -> None:
    net = Net()
    with pytest.raises(ModelError, match="not of the image's own size"):
        receptive_field(net.model(net.conv("image", (3, 3))))
    net = Net()
    half = net.add("MaxPool", "image", kernel_shape=[2, 2], strides=[2, 2])
    with pytest.raises(ModelError, match="not of the image's own size"):
        receptive_field(net.model(half))
