from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import FrameError
from engine.intensity import frame_statistics, percentiles
from engine.model import Normalisation

dtypes = st.sampled_from(["uint8", "uint16", "int16", "float32"])
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)


@given(
    dtypes.flatmap(
        lambda d: hnp.arrays(
            d,
            shapes,
            elements=hnp.from_dtype(np.dtype(d), allow_nan=False, allow_infinity=False),
        )
    ),
    st.lists(st.floats(0, 100), min_size=1, max_size=3),
)
def test_percentiles_equal_numpys(values: np.ndarray, levels: list[float]) -> None:
    expected = np.percentile(values, levels, method="inverted_cdf").astype(np.float32)
    assert np.array_equal(percentiles(values, tuple(levels)), expected)


def test_statistics_are_per_channel() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 1000, (2, 50, 60), dtype=np.uint16)
    frame[1] += 500
    found = frame_statistics(frame, Normalisation())
    for channel, (low, high) in zip(frame, found, strict=True):
        expected = np.percentile(channel, (1, 99.8), method="inverted_cdf")
        assert (low, high) == tuple(expected)


def test_a_fixed_range_is_taken_as_it_is() -> None:
    frame = np.zeros((2, 4, 4), np.uint8)
    found = frame_statistics(frame, Normalisation(policy="range", low=-1000, high=1000))
    assert found.tolist() == [[-1000, 1000], [-1000, 1000]]


def test_sparse_objects_are_normalised_by_the_range() -> None:
    frame = np.zeros((1, 100, 100), np.uint8)
    frame[0, :2, :2] = 200  # 0.04 %: above the high percentile
    assert frame_statistics(frame, Normalisation()).tolist() == [[0, 200]]


@pytest.mark.parametrize(
    ("value", "sentence"), [(7, "every pixel has the value 7"), (np.nan, "NaN")]
)
def test_frames_without_contrast_or_with_nan_are_refused(value: float, sentence: str) -> None:
    frame = np.full((1, 8, 8), value, np.float32)
    with pytest.raises(FrameError, match=sentence):
        frame_statistics(frame, Normalisation())
