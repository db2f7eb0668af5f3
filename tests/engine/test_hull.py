"""Areas of convex hulls against scikit-image's convex_hull_image."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.morphology import convex_hull_image

from engine.measure.hulls import RowEnds, convex_areas, merged_rows
from tests.engine.test_stitch import SHAPES


def rows_of(labels: NDArray[Any], top: int = 0, left: int = 0) -> RowEnds:
    """Row ends by a loop over labels and rows."""
    rows = []
    for label in np.unique(labels[labels > 0]):
        for y, row in enumerate(labels == label):
            if row.any():
                x = np.flatnonzero(row)
                rows.append((label, y + top, x[0] + left, x[-1] + left))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return RowEnds(columns[0], *columns[1:].astype(np.int32))


def expected(labels: NDArray[Any]) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels_there = np.unique(labels[labels > 0])
        return [int(convex_hull_image(labels == one).sum()) for one in labels_there]


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_scattered_pixels(seed: int, height: int, width: int, density: float) -> None:
    # Not even connected: pieces of an object in a plane need not be, where planes connect.
    rng = np.random.default_rng(seed)
    labels = (rng.random((height, width)) < density) * rng.integers(1, 5, (height, width))
    assert convex_areas(rows_of(labels)).tolist() == expected(labels)


@given(st.lists(st.tuples(*[st.integers(3, 40)] * 4, st.integers(1, 12), st.integers(1, 12))))
def test_ellipses(ellipses: list[tuple[int, ...]]) -> None:
    labels = np.zeros((48, 48), int)
    y, x = np.mgrid[:48, :48]
    for number, (cy, cx, _, tilt, a, b) in enumerate(ellipses):
        u, v = y - cy, x - cx + (y - cy) * (tilt - 20) // 20
        labels[(u / a) ** 2 + (v / b) ** 2 <= 1] = number + 1
    assert convex_areas(rows_of(labels)).tolist() == expected(labels)


@pytest.mark.parametrize("shape", SHAPES, ids=["spiral", "comb", "checks", "corners", "full"])
def test_hard_shapes_far_from_the_corner(shape: Any) -> None:
    labels = shape(32).astype(int)
    for turned in (labels, labels.T, labels[::-1], np.tril(labels)):
        rows = rows_of(turned, 99_000, 87_000)
        assert convex_areas(rows).tolist() == expected(turned)


@given(st.integers(0, 2**32), st.integers(2, 24), st.integers(2, 24))
def test_rows_of_pieces_are_rows_of_the_whole(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((height, width)) < 0.6) * rng.integers(1, 4, (height, width))
    y, x = int(rng.integers(1, height)), int(rng.integers(1, width))
    pieces = [
        rows_of(labels[:y, :x]), rows_of(labels[y:, x:], y, x),
        rows_of(labels[:y, x:], 0, x), rows_of(labels[y:, :x], y, 0),
    ]  # fmt: skip
    merged, whole = merged_rows(pieces), rows_of(labels)
    for name in ("object", "y", "left", "right"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name))


def test_a_curve_that_loses_its_points_one_by_one() -> None:
    # Each round only the last point but one lies behind: a chord from the end sweeps backwards.
    y = np.arange(200)
    left = y * y
    left[-1] = 0
    rows = RowEnds(np.zeros(200, np.int64), y, left, np.full(200, 40_000))
    labels = np.arange(40_001) >= left[:, None]
    assert convex_areas(rows).tolist() == expected(labels.astype(int))
    assert convex_areas(RowEnds(*[np.zeros(0, np.int64)] * 4)).tolist() == []
