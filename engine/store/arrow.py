"""Arrow arrays from their buffers: `pyarrow.array` and `pyarrow.scalar` import pandas if they can.

That takes 0.2 s of each process, for what no job needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Values: TypeAlias = NDArray[Any] | Sequence[Any] | pa.Array


def table_of(columns: Mapping[str, Values], schema: pa.Schema) -> pa.Table:
    """A table of the columns of `schema`, by name: arrays, or sequences in which None is null."""
    arrays = [array_of(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def array_of(values: Values, kind: pa.DataType) -> pa.Array:
    """Values, (n,), as an array of a numeric, boolean or string type.

    TypeError where a value is of another kind: a fraction among integers, a number among strings.
    """
    if isinstance(values, pa.Array):
        return values
    valid, missing = None, 0
    if not isinstance(values, np.ndarray):
        is_there = np.array([value is not None for value in values], dtype=bool)
        missing = int(len(values) - is_there.sum())
        if missing:
            valid = _bits(is_there)
    if pa.types.is_string(kind):
        encoded = [b"" if value is None else str.encode(value) for value in values]
        return _strings([len(one) for one in encoded], b"".join(encoded), valid, missing)
    numbers = _numbers(values, np.dtype(kind.to_pandas_dtype()))
    data = _bits(numbers) if pa.types.is_boolean(kind) else pa.py_buffer(numbers)
    return pa.Array.from_buffers(kind, len(numbers), [valid, data], missing)


def picked(texts: Sequence[str], numbers: NDArray[Any]) -> pa.Array:
    """Of some texts those that numbers, (n,), name: an array of n strings."""
    encoded = [text.encode() for text in texts]
    sizes = np.array([len(one) for one in encoded])
    return _strings(sizes[numbers], b"".join(map(encoded.__getitem__, numbers.tolist())))


def _strings(
    sizes: Sequence[int] | NDArray[Any],
    data: bytes,
    valid: pa.Buffer | None = None,
    missing: int = 0,
) -> pa.Array:
    """Strings of so many bytes each, which lie in `data` one after the other."""
    ends = np.zeros(len(sizes) + 1, dtype=np.int32)
    np.cumsum(sizes, out=ends[1:])
    buffers = [valid, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(sizes), buffers, missing)


def _numbers(values: NDArray[Any] | Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(values, np.ndarray):
        zero = dtype.type(0)
        values = np.array([zero if value is None else value for value in values])
    if not len(values):
        return np.zeros(0, dtype)
    return np.ascontiguousarray(values.astype(dtype, casting="same_kind", copy=False))


def _bits(values: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
