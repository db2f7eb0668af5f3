"""The tensors of an ONNX file: what they claim to be, their shapes, the type of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper

from engine.model.spec import IMAGE, PROBABILITIES, STATISTICS

PACKED = 8  # elements of the smallest types in one stored value, at the most
Shape = tuple[int | None, ...]  # None: not known
_CAST = f"{IMAGE}_as_float"


def tensors(message: Message) -> Iterator[TensorProto]:
    """All tensors below `message`: initializers, attributes, sparse ones, subgraphs, functions."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if not isinstance(value, Message) else (value,):
            yield from tensors(child)


def is_external(tensor: TensorProto) -> bool:
    """Whether its values are, or could be, read from another file."""
    return tensor.data_location == TensorProto.EXTERNAL or bool(tensor.external_data)


def overstates(tensor: TensorProto) -> bool:
    """Whether its shape claims more values than the file holds: memory for nothing."""
    if any(n < 0 for n in tensor.dims):
        return True
    claimed = math.prod(tensor.dims)
    if not claimed:
        return False
    kind = tensor.data_type
    if kind not in helper.get_all_tensor_dtypes():
        return True
    if tensor.raw_data:
        stored = len(tensor.raw_data)
        size = helper.tensor_dtype_to_np_dtype(kind).itemsize
        return claimed > PACKED * stored if size == 1 else claimed * size > stored
    return claimed > PACKED * len(getattr(tensor, helper.tensor_dtype_to_field(kind)))


def inferred_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the main graph's tensors by ONNX's inference, as far as it finds them.

    Weights are not touched: their shapes are enough.
    """
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    known = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if len(tensor.dims) <= 1:
            light.graph.initializer.append(tensor)  # axes and shapes
        elif tensor.name not in known:
            kind, dims = tensor.data_type, list(tensor.dims)
            value = helper.make_tensor_value_info(tensor.name, kind, dims)
            light.graph.input.append(value)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in [*inferred.graph.input, *inferred.graph.value_info]
        if value.type.tensor_type.HasField("shape")
    }


def accept_pixels(model: onnx.ModelProto, dtype: str) -> None:
    """Change `model` so that its `image` input is of `dtype`, behind a Cast to float32.

    Pixels then enter in their own type, a half or a quarter of the bytes.
    """
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


def fix_shape(model: onnx.ModelProto, shape: tuple[int, int, int], factor: int = 1) -> None:
    """Change `model` so that it takes batches (N, H, W) of one shape alone.

    `factor`: by which its output is smaller than its input.
    """
    n, height, width = shape
    for value in (*model.graph.input, *model.graph.output):
        by = factor if value.name == PROBABILITIES else 1
        sizes = {0: n} if value.name == STATISTICS else {0: n, 2: height // by, 3: width // by}
        if value.name in (IMAGE, STATISTICS, PROBABILITIES):
            for axis, size in sizes.items():
                value.type.tensor_type.shape.dim[axis].dim_value = size
