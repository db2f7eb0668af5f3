"""Arrow arrays from buffers are those that pyarrow makes, and import no pandas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store.arrow import array_of, table_of

KINDS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats() | st.integers(-(2**53), 2**53),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"])),
}


@given(st.data(), st.sampled_from(list(KINDS)))
def test_are_those_of_pyarrow(data: st.DataObject, kind: pa.DataType) -> None:
    values = data.draw(st.lists(st.none() | KINDS[kind], max_size=20))
    found, expected = array_of(values, kind), pa.array(values, kind)
    found.validate(full=True)
    assert found.null_count == expected.null_count
    assert str(found.to_pylist()) == str(expected.to_pylist())  # NaN is not equal to itself


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint32, np.int64, np.float64])
@pytest.mark.parametrize("n", [0, 1, 9])
def test_arrays_of_numpy_are_too(dtype: Any, n: int) -> None:
    values = np.arange(2 * n).astype(dtype)[::2]
    kind = pa.bool_() if dtype is bool else pa.float64()
    schema = pa.schema([("a", kind)])
    assert table_of({"a": values, "b": [1]}, schema).equals(pa.table({"a": values}, schema=schema))


@pytest.mark.parametrize(
    ("values", "kind"), [([1.5], pa.int64()), (["a"], pa.int64()), ([1], pa.string())]
)
def test_what_is_of_another_kind_is_refused(values: list[Any], kind: pa.DataType) -> None:
    with pytest.raises(TypeError):
        array_of(values, kind)


def test_no_pandas() -> None:
    code = (
        "import sys, pyarrow as pa; from engine.store.arrow import array_of\n"
        "for kind in (pa.int64(), pa.bool_(), pa.string()): array_of([None], kind)\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
