from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import FrameError
from engine.model.spec import Normalisation
from engine.model.statistics import (
    Histogram,
    _near_the_ends,
    frame_statistics,
    is_blank,
    normalisable,
    windowed_statistics,
)

ALL = ["uint8", "uint16", "int16", "float32", "uint32", "int32", "uint64", "int64"]
dtypes = st.sampled_from(ALL)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)


def of_type(dtype: str) -> st.SearchStrategy[Any]:
    """Values of a type; of integers often the largest, many of which are one float32."""
    if dtype == "float32":
        return hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    limit = int(np.iinfo(dtype).max)
    return st.integers(limit - 5, limit) | hnp.from_dtype(np.dtype(dtype))


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
    histogram = Histogram(values.dtype)
    histogram.count(values)
    if histogram.is_wide:
        histogram.refine(tuple(levels))
        histogram.count(values)
    assert np.array_equal(histogram.percentiles(tuple(levels)), expected)


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
    frame[0, 0, 0] = 1
    found = frame_statistics(frame, Normalisation(policy="range", low=-1000, high=1000))
    assert found.tolist() == [[-1000, 1000], [-1000, 1000]]


def test_sparse_objects_are_normalised_by_the_range() -> None:
    frame = np.zeros((1, 100, 100), np.uint8)
    frame[0, :2, :2] = 200  # 0.04 %: above the high percentile
    assert frame_statistics(frame, Normalisation()).tolist() == [[0, 200]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_frames_with_nan_are_refused(value: float) -> None:
    frame = np.full((1, 8, 8), value, np.float32)
    for how in POLICIES:
        with pytest.raises(FrameError, match="64 of 64 pixels are NaN or infinite"):
            frame_statistics(frame, how)
        with pytest.raises(FrameError, match="NaN"):
            windowed_statistics(lambda: iter([frame]), how)


POLICIES = (Normalisation(), Normalisation(policy="range", low=0, high=200))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("how", POLICIES, ids=lambda how: how.policy)
def test_a_blank_frame_is_one_whose_channels_are_all_constant(
    dtype: str, how: Normalisation
) -> None:
    for value in (0, 7, 100):
        frame = np.full((2, 8, 8), value, dtype)
        frame[1] += 3
        found = frame_statistics(frame, how)
        assert is_blank(found) and found.tolist() == [[value, value], [value + 3, value + 3]]
        frame[1, 3, 3] += 1
        assert not is_blank(frame_statistics(frame, how))
        # The constant one beside it is 0 to the network, unless the range is fixed.
        found = normalisable(frame_statistics(frame, how))
        assert (found[:, 0] < found[:, 1]).all()
        if how.policy == "percentile":
            assert found[0, 0] == value


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_constant_channel_normalises_to_0(value: float) -> None:
    pixel = np.float32(value)
    low, high = normalisable(np.array([[pixel, pixel]]))[0]
    with np.errstate(over="ignore"):
        assert (pixel - low) / (high - low) == 0


@given(
    st.sampled_from(ALL).flatmap(
        lambda d: hnp.arrays(
            d,
            hnp.array_shapes(min_dims=3, max_dims=3, max_side=20),
            elements=of_type(d),
        )
    ),
    st.integers(1, 20),
    st.sampled_from(POLICIES),
)
def test_windows_give_the_statistics_of_the_frame(
    frame: np.ndarray, side: int, how: Normalisation
) -> None:
    def windows() -> Iterator[np.ndarray]:
        for y in range(0, frame.shape[1], side):
            for x in range(0, frame.shape[2], side):
                yield frame[:, y : y + side, x : x + side]

    try:
        wanted = frame_statistics(frame, how)
    except FrameError:
        with pytest.raises(FrameError):
            windowed_statistics(windows, how)
        return
    assert windowed_statistics(windows, how).tolist() == wanted.tolist()
    # What the network sees is float32, and the statistics are those of that.
    assert frame_statistics(frame.astype(np.float32), how).tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_percentiles_near_the_ends_are_those_of_all_pixels(dtype: str) -> None:
    rng = np.random.default_rng(7)
    shape, found = (2, 260, 300), 0
    spread = rng.normal(90, 20, shape)
    for values in (spread, np.where(rng.random(shape) < 0.9, 40, spread), np.full(shape, 7.0)):
        frame = values.clip(0, 255).astype(dtype)
        for low, high in ((0, 100), (1, 99.8), (5, 95), (7, 90)):
            how = Normalisation(low=low, high=high)
            wanted = windowed_statistics(lambda frame=frame: iter([frame]), how)
            assert np.array_equal(frame_statistics(frame, how), wanted)
            found += _near_the_ends(frame[0], (low, high)) is not None
    assert found  # or the plain way did it all
