"""Outlines: valid, of the object's area, and the object again when filled."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from shapely.geometry import MultiPolygon, Polygon

from engine.results.convert.polygons import polygons

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def shapes(found):
    return MultiPolygon([Polygon(outer, holes) for outer, *holes in found])


def filled(shape, size):
    """Pixels whose centres lie inside."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return shapely.contains_xy(shape, x, y)


@given(masks, st.integers(0, 50), st.integers(0, 50))
def test_any_mask_comes_back(mask, x, y):
    found = polygons(mask)
    shape = shapes(found)
    assert all(Polygon(outer, holes).is_valid for outer, *holes in found)
    assert shape.is_valid, shapely.is_valid_reason(shape)
    assert shape.area == mask.sum()
    np.testing.assert_array_equal(filled(shape, mask.shape), mask)
    moved = shapes(polygons(mask, (x, y)))
    assert moved.equals(shapely.affinity.translate(shape, x, y)) or not mask.any()


@given(masks)
def test_a_part_is_what_hangs_together_by_sides(mask):
    from scipy import ndimage

    assert len(polygons(mask)) == ndimage.label(mask)[1]
    for outer, *holes in polygons(mask):
        for ring in [outer, *holes]:
            assert ring[0] == ring[-1] and len(set(map(tuple, ring))) == len(ring) - 1
            steps = np.abs(np.diff(ring, axis=0))
            assert ((steps == 0).sum(axis=1) == 1).all(), "along pixel edges"
            assert ((steps[:-1] > 0) != (steps[1:] > 0)).all(), "corners alone"
        assert shapely.LinearRing(outer).is_ccw is True  # clockwise, with y downwards
        assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)


@pytest.mark.parametrize(
    ("rows", "parts", "holes"),
    [
        (["#"], 1, 0),
        (["##", "##"], 1, 0),
        (["###", "#.#", "###"], 1, 1),
        (["#.", ".#"], 2, 0),  # hangs together by a corner
        (["##.", "#.#", "###"], 1, 1),  # a hole that touches the outside at a corner
        (["#####", "#.#.#", "#####"], 1, 2),
        ([".#.", "#.#", ".#."], 4, 0),
        (["####", "#.##", "##.#", "####"], 1, 2),  # holes that touch at a corner
        (["#####", "#...#", "#.#.#", "#...#", "#####"], 2, 1),
    ],
)
def test_by_hand(rows, parts, holes):
    mask = np.array([[c == "#" for c in row] for row in rows])
    found = polygons(mask)
    assert (len(found), sum(len(rings) - 1 for rings in found)) == (parts, holes)


def test_corners_by_hand():
    (((*corners, last),),) = polygons(np.ones((2, 3), bool), (5, 7))
    assert sorted(corners) == [[5, 7], [5, 9], [8, 7], [8, 9]] and last == corners[0]
