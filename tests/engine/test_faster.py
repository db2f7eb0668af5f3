"""Graphs that are changed so as to be faster: the same network, against onnx's own evaluation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.model.file import open_model
from engine.model.graph.faster import Shuffle, split_concatenations, take_off_shuffle
from engine.model.graph.memory import activation_bytes
from engine.model.spec import IMAGE, PROBABILITIES
from engine.runtimes.base import Target
from engine.runtimes.registry import REFERENCE, open_session
from tests.engine.test_runtime import STATISTICS

Floats = NDArray[np.float32]


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, Floats], channels: int,
             out_channels: int, inputs: int = 1) -> onnx.ModelProto:  # fmt: skip
    """A graph from IMAGE (1, channels, H, W), and its siblings, to PROBABILITIES."""
    kind = TensorProto.FLOAT
    names = [IMAGE, *(f"{IMAGE}_{n}" for n in range(1, inputs))]
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(n, kind, [None, channels, None, None]) for n in names],
        [helper.make_tensor_value_info(PROBABILITIES, kind, [None, out_channels, None, None])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def result(model: onnx.ModelProto, feed: dict[str, Floats]) -> Floats:
    """What onnx's reference evaluation gives."""
    onnx.checker.check_model(model)
    (found,) = ReferenceEvaluator(model).run([PROBABILITIES], feed)
    return np.asarray(found)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def joined(rng: np.random.Generator, parts: int, axis: int = 1, **conv: int) -> onnx.ModelProto:
    """A convolution over a concatenation of convolutions of `parts` inputs."""
    weights = {f"w{n}": rng.normal(size=(n + 2, 2, 1, 1)).astype(np.float32) for n in range(parts)}
    total = sum(n + 2 for n in range(parts)) // conv.get("group", 1)
    weights |= {
        "kernel": rng.normal(size=(4, total, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
    }
    names = [IMAGE, *(f"{IMAGE}_{n}" for n in range(1, parts))]
    nodes = [helper.make_node("Conv", [name, f"w{n}"], [f"x{n}"]) for n, name in enumerate(names)]
    nodes += [
        helper.make_node("Concat", [f"x{n}" for n in range(parts)], ["joined"], axis=axis),
        helper.make_node("Conv", ["joined", "kernel", "bias"], ["y"], pads=[1, 1, 1, 1], **conv),
        helper.make_node("Relu", ["y"], [PROBABILITIES]),
    ]
    return graph_of(nodes, weights, 2, 4, parts)


@given(st.integers(2, 4), st.sampled_from([1, -3]), st.integers(0, 2**32 - 1))
def test_a_convolution_over_a_concatenation_becomes_a_sum(parts: int, axis: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = joined(rng, parts, axis)
    feed = {value.name: rng.normal(size=(1, 2, 5, 7)).astype(np.float32)
            for value in model.graph.input}  # fmt: skip
    wanted = result(model, feed)
    split_concatenations(model)
    assert "Concat" not in kinds(model)
    assert kinds(model).count("Conv") == 2 * parts
    assert "kernel" not in {one.name for one in model.graph.initializer}
    np.testing.assert_allclose(result(model, feed), wanted, rtol=1e-4, atol=1e-5)


def test_new_names_are_none_that_the_graph_has() -> None:
    rng = np.random.default_rng(0)
    model = joined(rng, 2)
    last = model.graph.node[-1]
    last.output[0] = "y_part_0"
    model.graph.node.append(helper.make_node("Identity", ["y_part_0"], ["y__weight_0"]))
    model.graph.node.append(helper.make_node("Identity", ["y__weight_0"], [PROBABILITIES]))
    feed = {value.name: rng.normal(size=(1, 2, 5, 7)).astype(np.float32)
            for value in model.graph.input}  # fmt: skip
    wanted = result(model, feed)
    split_concatenations(model)
    assert "Concat" not in kinds(model)
    np.testing.assert_allclose(result(model, feed), wanted, rtol=1e-4, atol=1e-5)


def unchanged(model: onnx.ModelProto) -> bool:
    before = model.SerializeToString()
    split_concatenations(model)
    return bool(model.SerializeToString() == before)


def test_what_is_no_such_convolution_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    assert unchanged(joined(rng, 3, group=3))

    read_twice = joined(rng, 2)
    read_twice.graph.node.append(helper.make_node("Relu", ["joined"], ["other"]))
    assert unchanged(read_twice)

    read_inside = joined(rng, 2)
    inner = helper.make_graph(
        [helper.make_node("Identity", ["joined"], ["inside"])], "inner", [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )  # fmt: skip
    choice = helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=inner)
    read_inside.graph.node.append(choice)
    assert unchanged(read_inside)

    given_back = joined(rng, 2)
    given_back.graph.output.append(
        helper.make_tensor_value_info("joined", TensorProto.FLOAT, [None, 5, None, None])
    )
    assert unchanged(given_back)

    computed = joined(rng, 2)
    kernel = next(one for one in computed.graph.initializer if one.name == "kernel")
    computed.graph.initializer.remove(kernel)
    kernel.name = "stored"
    computed.graph.initializer.append(kernel)
    computed.graph.node.insert(0, helper.make_node("Identity", ["stored"], ["kernel"]))
    assert unchanged(computed)

    replaceable = joined(rng, 2)
    replaceable.graph.input.append(
        helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [4, 5, 3, 3])
    )
    assert unchanged(replaceable)

    of_others = joined(rng, 2)
    next(node for node in of_others.graph.node if node.output[0] == "y").domain = "others"
    assert unchanged(of_others)

    alone = joined(rng, 1)
    assert unchanged(alone)

    along_rows = joined(rng, 2)
    for node in along_rows.graph.node:
        if node.op_type == "Concat":
            node.attribute[0].i = 2
    assert unchanged(along_rows)


def names(model: onnx.ModelProto) -> set[str]:
    return {one.name for one in model.graph.initializer}


def test_a_kernel_that_two_convolutions_share_goes_with_the_last() -> None:
    rng = np.random.default_rng(0)
    model = joined(rng, 2)
    nodes = list(model.graph.node)
    again = helper.make_node("Concat", ["x0", "x1"], ["again"], axis=1)
    conv = helper.make_node("Conv", ["again", "kernel"], ["z"], pads=[1, 1, 1, 1])
    total = helper.make_node("Add", ["y", "z"], ["total"])
    nodes[-1].input[0] = "total"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:-1], again, conv, total, nodes[-1]])
    feed = {value.name: rng.normal(size=(1, 2, 5, 7)).astype(np.float32)
            for value in model.graph.input}  # fmt: skip
    wanted = result(model, feed)
    split_concatenations(model)
    assert "Concat" not in kinds(model) and "kernel" not in names(model)
    np.testing.assert_allclose(result(model, feed), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "how",
    [
        {"strides": [2, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
        {"pads": [0, 1, 2, 0]},
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_convolution_keeps_how_it_moves(how: dict[str, object], dtype: type) -> None:
    """And its type; and the same tensor may be joined twice."""
    rng = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    kernel = numpy_helper.from_array(rng.normal(size=(3, 4, 3, 3)).astype(dtype), "kernel")
    graph = helper.make_graph(
        [
            helper.make_node("Concat", [IMAGE, IMAGE], ["joined"], axis=1),
            helper.make_node("Conv", ["joined", "kernel"], [PROBABILITIES], **how),
        ],
        "graph",
        [helper.make_tensor_value_info(IMAGE, kind, [1, 2, 9, 8])],
        [helper.make_tensor_value_info(PROBABILITIES, kind, [1, 3, None, None])],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    feed = {IMAGE: rng.normal(size=(1, 2, 9, 8)).astype(dtype)}
    wanted = result(model, feed)
    split_concatenations(model)
    assert kinds(model) == ["Conv", "Conv", "Add"]
    tolerance = 1e-4 if dtype is np.float32 else 0.05
    np.testing.assert_allclose(result(model, feed), wanted, rtol=tolerance, atol=tolerance)


def shuffled(block: int, mode: str, channels: int, *after: str) -> onnx.ModelProto:
    """DepthToSpace, with pointwise operators behind it."""
    names = [f"y{n}" for n in range(len(after))] + [PROBABILITIES]
    nodes = [helper.make_node("DepthToSpace", [IMAGE], [names[0]], blocksize=block, mode=mode)]
    nodes += [helper.make_node(kind, [names[n]], [names[n + 1]]) for n, kind in enumerate(after)]
    return graph_of(nodes, {}, channels * block**2, channels)


@given(
    st.integers(1, 3), st.sampled_from(["CRD", "DCR"]), st.integers(1, 3), st.integers(1, 2),
    st.lists(st.sampled_from(["Sigmoid", "Identity"]), min_size=1, max_size=2),
)  # fmt: skip
def test_what_is_taken_off_gives_the_same_bytes(
    block: int, mode: str, channels: int, batch: int, after: list[str]
) -> None:
    rng = np.random.default_rng(0)
    size = (batch, channels * block**2, 4, 3)
    feed = {IMAGE: rng.normal(size=size).astype(np.float32)}
    model = shuffled(block, mode, channels, *after)
    wanted = result(model, feed)
    shuffle = take_off_shuffle(model)
    assert shuffle == Shuffle(block, mode == "DCR")
    out = np.full_like(wanted, np.nan)
    parts = result(model, feed)
    assert parts.shape == shuffle.source(wanted.shape)
    shuffle.apply(parts, out)
    np.testing.assert_array_equal(out, wanted)


def test_a_shuffle_stays_that_something_else_reads() -> None:
    for name in ("y0", "y1"):
        model = shuffled(2, "CRD", 1, "Identity", "Sigmoid")
        model.graph.node.append(helper.make_node("Relu", [name], ["other"]))
        before = model.SerializeToString()
        assert take_off_shuffle(model) is None
        assert model.SerializeToString() == before


def test_shapes_that_a_file_tells_of_what_comes_behind_are_forgotten() -> None:
    model = shuffled(2, "CRD", 1, "Identity", "Sigmoid")
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 6])
            for name in ("y0", "y1")]  # fmt: skip
    model.graph.value_info.extend(told)
    assert take_off_shuffle(model) is not None
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {IMAGE: np.zeros((1, 4, 4, 3), np.float32)})
    assert found.shape == (1, 4, 4, 3)


def test_pixels_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="45 x 44 px are no whole blocks of 2 px"):
        Shuffle(2, False).source((1, 1, 45, 44))


@pytest.mark.parametrize("after", [("Softmax",), ("Sigmoid", "Softmax"), ()])
def test_a_shuffle_stays_where_channels_meet_behind_it(after: tuple[str, ...]) -> None:
    model = shuffled(2, "CRD", 2, *after)
    before = model.SerializeToString()
    assert take_off_shuffle(model) is None
    assert model.SerializeToString() == before


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_bundled_model_gives_what_its_file_says(runtime: str) -> None:
    """Against the file as it is, by onnxruntime itself."""
    ort = pytest.importorskip("onnxruntime")
    model = open_model("nuclei")
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 60_000, (1, 1, 96, 112)).astype(np.uint16)
    session = ort.InferenceSession(model.data, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {IMAGE: frame.astype(np.float32), "statistics": STATISTICS})
    own = open_session(model, "uint16", Target(runtime, "cpu"), 1)
    assert own.shuffle is not None
    as_written = open_session(model, "uint16", REFERENCE, 1)
    assert as_written.shuffle is None, "what others are held against runs the graph of the file"
    found = own.run(frame, STATISTICS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_weights_among_the_inputs_take_no_part_in_the_memory_of_activations() -> None:
    """Files of early exporters have every weight there as well, numbers included."""
    rng = np.random.default_rng(0)
    model = joined(rng, 1)
    wanted = activation_bytes(model, 32, 48)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    for one in model.graph.initializer:
        info = helper.make_tensor_value_info(one.name, one.data_type, list(one.dims))
        model.graph.input.append(info)
    assert activation_bytes(model, 32, 48) <= wanted + sum(
        4 * int(np.prod(one.dims)) for one in model.graph.initializer
    )
