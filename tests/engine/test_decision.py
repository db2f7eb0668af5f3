"""Outputs that are decided in the graph are those that would be decided outside of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from engine.inference.outputs import Outputs, nothing
from engine.inference.probability import to_8_bit
from engine.labels.classes import each_class
from engine.labels.postprocessing import Postprocessing
from engine.model.graph.decision import Decision, decide
from tests import networks

LEVELS = (0.5, 0.55, 1 / 3)


def decided(values: np.ndarray, decision: Decision, opset: int = 18) -> np.ndarray:
    """What comes out where a network gives `values`, (K, Y, X)."""
    found: np.ndarray = session(len(values), decision, opset).run(None, {"image": values[None]})[0]
    return found[0]


@cache
def session(n_outputs: int, decision: Decision, opset: int) -> Any:
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n_outputs, "H", "W"])
        for name in ("image", "probabilities")
    ]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["probabilities"])], "same", info[:1], info[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    decide(model, decision)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def near(level: float) -> list[float]:
    """A threshold as float32, and its neighbours."""
    at = np.float32(level)
    return [float(np.nextafter(at, at + np.float32(way))) for way in (-1, 0, 1)]


values = st.one_of(
    st.sampled_from([0.0, 1.0, *(value for level in LEVELS for value in near(level))]),
    st.floats(0, 1, width=32),
)
wild = st.one_of(values, st.sampled_from([np.nan, np.inf, -np.inf, -3.0, 7.0]))


@given(arrays(np.float32, (2, 3, 4), elements=values), st.sampled_from(LEVELS), st.booleans())
def test_masks_are_the_same_bit_by_bit(
    probability: np.ndarray, level: float, by_cores: bool
) -> None:
    how = Postprocessing(level, instances="cores" if by_cores else "components", core_threshold=0.4)
    found = Outputs(decided(probability, Decision(1, level, 0.4 if by_cores else None)), 1)
    assert found.is_decided and found.is_finite
    mask, core = found.masks(how)
    assert np.array_equal(mask, probability[0] >= np.float32(level))
    assert np.array_equal(found.class_map(level), mask)
    if by_cores:
        assert np.array_equal(core, probability[1] >= np.float32(0.4))
    else:
        assert core is None
    assert np.array_equal(found.values[1], to_8_bit(probability[0]))
    assert np.array_equal(found.certainty(), to_8_bit(probability[0]) / np.float32(255))
    with pytest.raises(ValueError, match="no probabilities"):
        found.probability  # noqa: B018 - it raises


@given(arrays(np.float32, (3, 3, 4), elements=values), st.sampled_from([13, 17, 18]))
def test_of_several_classes_the_first_of_the_highest_wins(
    probability: np.ndarray, opset: int
) -> None:
    found, whole = (
        Outputs(each, 3) for each in (decided(probability, Decision(3, 0.5), opset), probability)
    )
    classes = probability.argmax(axis=0)
    assert np.array_equal(found.class_map(0.5), classes)
    assert np.array_equal(whole.class_map(0.5), classes)
    chosen, certain = (
        np.take_along_axis(one.each_class(3), classes[None], axis=0)[0] for one in (found, whole)
    )
    assert np.array_equal(certain, whole.certainty())
    assert np.array_equal(chosen, to_8_bit(certain) / np.float32(255))


@given(arrays(np.float32, (3, 2, 3), elements=wild), st.sampled_from(["cores", "one", "classes"]))
def test_what_is_not_finite_is_told(probability: np.ndarray, kind: str) -> None:
    decision = {
        "cores": Decision(1, 0.5, 0.5), "one": Decision(1, 0.5), "classes": Decision(3, 0.5)
    }[kind]  # fmt: skip
    found = Outputs(decided(probability, decision), decision.n_classes)
    # An output that is not asked for counts as well.
    assert found.is_finite == np.isfinite(probability).all()
    assert Outputs(probability, 3).is_finite == found.is_finite


@given(arrays(np.float32, (2, 5, 6), elements=wild))
def test_what_lies_outside_of_a_window_is_not_looked_at(probability: np.ndarray) -> None:
    for window in (probability[:, 1:-1, 1:-1], probability[:, ::2, ::2], probability[::-1, :, :3]):
        assert Outputs(window, 2).is_finite == np.isfinite(window).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_nothing_is_background_either_way(n_classes: int) -> None:
    spec = networks.spec(classes=("background", "a", "b")[:n_classes])
    decision = Decision(spec.n_class_outputs, 0.5)
    found, whole = (nothing(spec, (2, 3), one) for one in (decision, None))
    how: Any = Postprocessing(0.5)
    assert found.is_decided and not whole.is_decided
    assert not found.class_map(0.5).any() and not whole.class_map(0.5).any()
    assert np.array_equal(found.certainty(), whole.certainty())
    assert not found.masks(how)[0].any()
    if n_classes == 2:
        assert np.array_equal(each_class(whole.values)[0], np.ones((2, 3), np.float32))
