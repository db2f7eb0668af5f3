"""Runs of pixels against pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from engine.labels import cores
from engine.labels.components import label_frame
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import components_of, places_of, runs_of_labels, runs_of_mask

QUICK = settings(max_examples=40)


@st.composite
def planes(draw: st.DrawFn) -> np.ndarray:
    """A few values, in patches or as noise, (Y, X)."""
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = draw(st.sampled_from([1, 3, 9]))
    small = rng.integers(0, draw(st.integers(1, 4)) + 1, [-(-n // side) for n in shape])
    return np.kron(small, np.ones((side, side), int))[: shape[0], : shape[1]].astype(np.uint32)


@QUICK
@given(planes())
def test_runs_are_the_plane(plane: np.ndarray) -> None:
    labelled, mask = runs_of_labels(plane), runs_of_mask(plane > 0)
    assert labelled.label is not None
    assert np.array_equal(labelled.painted(labelled.label), plane)
    ones = np.ones(len(mask), np.uint32)
    assert np.array_equal(mask.painted(ones), plane > 0)
    for runs in (labelled, mask):
        assert np.array_equal(runs.pixels(), np.flatnonzero(plane))
        assert (runs.length > 0).all() and (runs.column + runs.length <= plane.shape[1]).all()
        assert np.array_equal(runs.row, runs.start // plane.shape[1])


@QUICK
@given(planes())
def test_components_are_those_of_pixels(plane: np.ndarray) -> None:
    expected, count = ndimage.label(plane > 0, np.ones((3, 3)))
    runs = runs_of_mask(plane > 0)
    component, found = components_of(runs)
    assert found == count
    assert np.array_equal(runs.painted((component + 1).astype(np.uint32)), expected)
    assert np.array_equal(label_frame(plane > 0)[0], expected)


@given(st.lists(st.booleans(), max_size=40))
def test_places(flags: list[bool]) -> None:
    array = np.array(flags, dtype=bool)
    assert np.array_equal(places_of(array), np.flatnonzero(array))


@pytest.mark.parametrize("radius", [1, 3, 7])
def test_tables_find_the_same_core_as_one_after_the_other(radius: int) -> None:
    core = np.random.default_rng(radius).random((40, 50)) < 0.02
    pixels = np.flatnonzero(~core)
    found = cores._nearest(pixels, core, radius)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "LARGEST_TABLE", 0)
        wanted = cores._nearest(pixels, core, radius)
    assert len(wanted[0]) and len(wanted[2])
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("side", [1, 16])
def test_what_is_dropped_and_numbered_is_the_same_for_noise_and_objects(side: int) -> None:
    """Of squares of a pixel, runs are many, and of large ones few: both ways give one answer."""
    small = np.random.default_rng(5).random((12, 14)) < 0.3
    mask = np.kron(small, np.ones((side, side), bool))
    assert runs_of_mask(mask).is_noise == (side == 1)
    found = label_instances(mask, Postprocessing(0.5, 2 * side * side))
    expected = label_instances(small, Postprocessing(0.5, 2))
    assert np.array_equal(found, np.kron(expected, np.ones((side, side), np.uint32)))
