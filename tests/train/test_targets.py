"""Targets: touching objects cut apart, and the paper's border weights against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from train.data.targets import REACH, border_weights, cores, cut_apart

EIGHT = np.ones((3, 3))

label_images = arrays(
    np.int32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3]),
)


def test_two_that_touch_are_cut_by_two_pixels() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 3, np.int32)
    assert cut_apart(labels).tolist() == [[True, True, False, False, True, True]] * 3


def test_two_that_meet_at_a_corner_are_cut() -> None:
    labels = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]], np.int32)
    expected = labels > 0
    expected[1, 1] = expected[2, 2] = False
    assert np.array_equal(cut_apart(labels), expected)


def test_what_touches_nothing_is_left_whole() -> None:
    labels = np.array([[1, 1, 0, 2], [1, 1, 0, 2]], np.int32)
    assert np.array_equal(cut_apart(labels), labels > 0)


@given(label_images)
def test_a_component_never_holds_two_objects(labels: NDArray[np.int32]) -> None:
    apart = cut_apart(labels)
    components, count = ndimage.label(apart, structure=EIGHT)
    assert not (apart & (labels == 0)).any()
    for component in range(1, count + 1):
        assert len(np.unique(labels[components == component])) == 1


def _brute_force(foreground: NDArray[np.bool_], w0: float, sigma: float) -> NDArray[np.float64]:
    """Equation 2 as it stands: distance of every pixel to every object."""
    objects, count = ndimage.label(foreground, structure=EIGHT)
    if count < 2:
        return np.ones(foreground.shape)
    pixels = np.argwhere(np.ones(foreground.shape, dtype=bool))
    distances = np.stack([
        np.linalg.norm(pixels[:, None] - np.argwhere(objects == k)[None], axis=2).min(axis=1)
        for k in range(1, count + 1)
    ])  # fmt: skip
    d1, d2 = np.sort(distances, axis=0)[:2]
    return (1 + w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))).reshape(foreground.shape)


@st.composite
def blobs(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Foreground from single pixels to rounded blobs."""
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    seed, smooth = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 1.0, 2.0]))
    noise = np.random.default_rng(seed).normal(size=shape)
    field = ndimage.gaussian_filter(noise, smooth) if smooth else noise
    return np.asarray(field > np.quantile(field, draw(st.sampled_from([0.5, 0.8, 0.98]))))


@settings(max_examples=60, deadline=None)
@given(blobs(), st.sampled_from([1.5, 5.0]))
def test_border_weights_equal_brute_force(foreground: NDArray[np.bool_], sigma: float) -> None:
    cut_off = 10 * np.exp(-(REACH**2) / 2)  # what is beyond the reach may be missed, no more
    found = border_weights(foreground, 10.0, sigma)
    wanted = _brute_force(foreground, 10.0, sigma)
    assert np.abs(found - wanted).max() <= cut_off + 1e-5


def test_border_weight_in_the_middle_of_a_gap() -> None:
    foreground = np.zeros((9, 30), dtype=bool)
    foreground[:, 10], foreground[:, 14] = True, True
    weights = border_weights(foreground, 10.0, 5.0)
    assert weights[4, 12] == pytest.approx(1 + 10 * np.exp(-(4**2) / 50))
    assert weights[4, 10] == pytest.approx(1 + 10 * np.exp(-(4**2) / 50))
    assert weights[4, 29] == pytest.approx(1, abs=2e-3)


def test_one_object_alone_weighs_nothing_more() -> None:
    foreground = np.zeros((8, 8), dtype=bool)
    foreground[2:5, 2:5] = True
    assert (border_weights(foreground) == 1).all()


@st.composite
def blobs(draw: st.DrawFn) -> NDArray[np.int32]:
    """Blobs that touch, of sizes from one pixel on."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(4, 40)), draw(st.integers(4, 40))
    seeds = rng.random((height, width)) < draw(st.sampled_from([0.01, 0.03, 0.1]))
    distance, (y, x) = ndimage.distance_transform_edt(~seeds, return_indices=True)
    labels, _ = ndimage.label(seeds, structure=np.ones((3, 3)))
    found: NDArray[np.int32] = np.where(distance <= draw(st.integers(0, 8)), labels[y, x], 0)
    return found.astype(np.int32)


@given(blobs(), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_cores_are_what_lies_deep_in_each_object(labels: NDArray[np.int32], depth: float) -> None:
    """Against one distance transform for each object, in an image whose edge goes on for ever."""
    expected = np.zeros(labels.shape, dtype=bool)
    wide = np.pad(labels, 50, mode="edge")
    for label in np.unique(labels[labels > 0]):
        if (wide == label).all():
            expected[:] = True
            continue
        below = ndimage.distance_transform_edt(wide == label)[50:-50, 50:-50] - 0.5
        deepest = below[labels == label].max()
        expected |= (labels == label) & (below > min(depth, deepest / 2))
    found = cores(labels, depth)
    assert np.array_equal(found, expected)
    assert set(np.unique(labels[found])) == set(np.unique(labels[labels > 0])), "all have one"


def test_cores_of_neighbours_lie_four_pixels_apart() -> None:
    labels = np.zeros((12, 20), np.int32)
    labels[1:11, 1:10], labels[1:11, 10:19] = 1, 2
    core = cores(labels, 2.0)
    assert np.flatnonzero(core[5]).tolist() == [3, 4, 5, 6, 7, 12, 13, 14, 15, 16]
    assert np.flatnonzero(core[:, 5]).tolist() == [3, 4, 5, 6, 7, 8]
