"""Every tensor that an ONNX file holds, wherever it stands, and what it claims to be."""

from __future__ import annotations

import math
from collections.abc import Iterator

from google.protobuf.message import Message
from onnx import TensorProto, helper

PACKED = 8  # elements of the smallest types in one stored value, at the most


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
