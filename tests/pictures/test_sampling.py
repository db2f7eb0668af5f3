"""Frames at the size in which they are drawn: means and nearest pixels, whatever the windows."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.results.pictures.sampling import mean_of, nearest

sides = st.integers(1, 40)


def windows_of(pixels, cuts):
    ys = sorted({0, pixels.shape[0], *(c % pixels.shape[0] for c in cuts)})
    xs = sorted({0, pixels.shape[1], *(c % pixels.shape[1] for c in cuts)})
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            yield slice(y0, y1), slice(x0, x1), pixels[y0:y1, x0:x1]


@given(sides, sides, sides, sides, st.lists(st.integers(0, 39), max_size=3), st.integers(0, 9))
def test_means_equal_those_of_what_falls_into_each_pixel(height, width, rows, columns, cuts, seed):
    pixels = np.random.default_rng(seed).integers(0, 1000, (height, width)).astype(np.uint16)
    found = mean_of(windows_of(pixels, cuts), pixels.shape, (rows, columns))
    assert found.shape == (rows, columns)

    def fall(n, size, at):  # those pixels of an axis that are drawn at a place
        if n > size:
            return [nearest(n, size)[at]]
        return [i for i in range(size) if int((i + 0.5) * n / size) == at]

    for y in (0, rows // 2, rows - 1):
        for x in (0, columns // 2, columns - 1):
            inside = np.ix_(fall(rows, height, y), fall(columns, width, x))
            np.testing.assert_allclose(found[y, x], pixels[inside].mean(), rtol=1e-5)


@given(sides, sides)
def test_nearest_is_the_middle_of_what_falls_there(n, size):
    picked = nearest(n, size)
    assert len(picked) == n and (np.diff(picked) >= 0).all()
    if n <= size:
        assert [int((p + 0.5) * n / size) for p in picked] == list(range(n))
    else:
        assert set(picked) == set(range(size))
    if n == size:
        assert list(picked) == list(range(n))
