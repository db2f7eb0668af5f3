"""Lets pixels enter a graph in their own type, a half or a quarter of the bytes of float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from engine.model.spec import IMAGE

_CAST = f"{IMAGE}_as_float"


def accept_pixels(model: onnx.ModelProto, dtype: str) -> None:
    """Change `model` so that its `image` input is of `dtype`, behind a Cast to float32."""
    if dtype == "float32":
        return
    for value in model.graph.input:
        if value.name == IMAGE:
            value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == IMAGE:
                node.input[position] = _CAST
    model.graph.node.insert(
        0, helper.make_node("Cast", [IMAGE], [_CAST], to=TensorProto.FLOAT, name=_CAST)
    )
