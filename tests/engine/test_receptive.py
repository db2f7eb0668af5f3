"""The receptive field that is read off a graph, against the one found by poking its pixels."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from engine.model.graph import receptive_field
from tests import networks


def measured_radius(model: onnx.ModelProto, stride: int, axis: int) -> int:
    """Poke single pixels of a line of zeros and see which aligned windows change."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    length = 32 * stride
    shape = (length, stride) if axis == 0 else (stride, length)
    statistics = np.float32([[[0, 1]]])

    def run(image: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": image[None, None], "statistics": statistics})[0][0, 0]

    zero = run(np.zeros(shape, np.float32))
    window = slice(16 * stride, 17 * stride)
    radius = 0
    for position in range(length):
        image = np.zeros(shape, np.float32)
        image[(position, slice(None)) if axis == 0 else (slice(None), position)] = 1e6
        changed = run(image) != zero
        line = changed.any(axis=1 - axis)[window]
        if line.any():
            radius = max(radius, window.start - position, position - window.stop + 1)
    return radius


@pytest.mark.parametrize("widths", [(2,), (2, 2), (2, 2, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_equals_the_measured_one(widths: tuple[int, ...], axis: int) -> None:
    model = networks.unet(widths, activation=False, rim=True)
    field = receptive_field(model)
    assert field.stride == 2 ** (len(widths) - 1)
    assert measured_radius(model, field.stride, axis) == field.radius


def test_the_papers_shape() -> None:
    field = receptive_field(networks.unet((16, 32, 64, 128)))
    assert (field.stride, field.radius) == (8, 46)  # a halo of 48 px


def test_instance_normalisation_has_no_radius() -> None:
    field = receptive_field(networks.unet((2, 2), instance_norm=True))
    assert field.radius is None and "whole frame" in field.reason


def test_an_unknown_operator_has_no_radius() -> None:
    model = networks.unet((2, 2))
    node = helper.make_node("NonMaxSuppression", ["sigmoid_in"], ["probabilities"])
    model.graph.node[-1].output[0] = "sigmoid_in"
    model.graph.node.append(node)
    field = receptive_field(model)
    assert field.radius is None and "NonMaxSuppression" in field.reason


def resized(**attributes: object) -> onnx.ModelProto:
    """MaxPool and Resize back to the image's size."""
    from onnx import TensorProto, numpy_helper

    nodes = [
        helper.make_node("MaxPool", ["image"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["p", "", "scales"], ["probabilities"], **attributes),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "resized",
        [
            info("image", TensorProto.FLOAT, ["N", 1, "H", "W"]),
            info("statistics", TensorProto.FLOAT, ["N", 1, 2]),
        ],
        [info("probabilities", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [scales],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    ],
)
def test_resizing_on_an_aligned_grid_has_the_measured_radius(attributes: dict[str, str]) -> None:
    model = resized(**attributes)
    field = receptive_field(model)
    assert field.radius is not None
    assert measured_radius(model, field.stride, 0) <= field.radius <= 4


@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
    ],
)
def test_resizing_by_the_size_of_the_frame_has_no_radius(attributes: dict[str, str]) -> None:
    field = receptive_field(resized(**attributes))
    assert field.radius is None and "depends on the size of the whole frame" in field.reason
