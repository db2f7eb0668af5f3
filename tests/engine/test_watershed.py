"""Touching objects cut apart; holes; what is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from skimage.io import imread

from engine.labels.components import label_frame
from engine.labels.holes import fill_holes
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from tests.engine import jobs

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


def cut(mask: NDArray[np.bool_], **postprocessing: Any) -> NDArray[np.uint32]:
    return label_instances(mask, Postprocessing(0.5, instances="watershed", **postprocessing))


def discs(shape: tuple[int, int], *places: tuple[int, int, int]) -> NDArray[np.bool_]:
    y, x = np.indices(shape)
    return np.any([(y - a) ** 2 + (x - b) ** 2 <= r * r for a, b, r in places], axis=0)


def blots(seed: int, side: int = 70) -> NDArray[np.bool_]:
    """Smooth shapes, many of which touch."""
    frame = jobs.blobs((side, side + 9), seed=seed)
    return frame > np.percentile(frame, 55)


def test_touching_discs_are_cut_where_they_are_narrow() -> None:
    mask = discs((60, 90), (30, 25, 15), (30, 52, 15), (10, 80, 6))
    assert label_frame(mask)[1] == 2
    found = cut(mask)
    assert found.max() == 3 and np.array_equal(found > 0, mask)
    assert found[30, 25] == 2 and found[30, 52] == 3 and found[10, 80] == 1
    neck = np.flatnonzero(np.diff(found[30, 11:67].astype(int)))
    assert abs(neck + 11 - 38) <= 1  # half-way
    assert cut(mask, min_distance=28).max() == 2  # their centres are 27 px apart
    assert cut(mask, min_distance=26).max() == 3
    assert cut(mask, seed_height=15).max() == 2


def test_a_ridge_of_equal_heights_is_one_seed() -> None:
    assert cut(np.ones((9, 40), bool)).max() == 1
    assert cut(np.ones((40, 40), bool)).max() == 1
    bar = np.ones((11, 60), bool)
    bar[0, 30] = False  # dents the ridge by less than a seed's height
    assert cut(bar).max() == 1


@settings(max_examples=25)
@given(
    st.integers(0, 2**16), st.sampled_from([0.0, 4.0, 9.5]), st.sampled_from([0.3, 1.0, 2.0]),
    st.booleans(),
)  # fmt: skip
def test_a_component_is_cut_as_if_it_were_alone(
    seed: int, min_distance: float, seed_height: float, is_noisy: bool
) -> None:
    mask = blots(seed)
    if is_noisy:
        mask ^= np.random.default_rng(seed).random(mask.shape) < 0.05
    postprocessing = {"min_distance": min_distance, "seed_height": seed_height}
    found = cut(mask, **postprocessing)
    whole, count = label_frame(mask)
    boxes = ndimage.find_objects(whole.astype(int))
    assert np.array_equal(found > 0, mask)
    for number in range(1, count + 1):
        box = boxes[number - 1]
        alone = cut(whole[box] == number, **postprocessing)  # its box is all there is
        inside = whole == number
        pairs = np.unique(np.stack([found[inside], alone[alone > 0]]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    ids, first = np.unique(found[found > 0], return_index=True)
    assert ids.tolist() == list(range(1, len(ids) + 1)) and (np.diff(first) > 0).all()
    for number in ids:  # parts are in one piece
        assert label_frame(found == number)[1] == 1


@given(masks)
def test_any_mask_keeps_its_pixels(mask: np.ndarray) -> None:
    assert np.array_equal(cut(mask) > 0, mask)
    assert np.array_equal(cut(mask, min_distance=3, seed_height=0.01) > 0, mask)


@given(masks)
def test_holes_are_scipys(mask: np.ndarray) -> None:
    assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


@settings(max_examples=30)
@given(
    st.integers(0, 2**16), st.integers(0, 60), st.integers(0, 400), st.booleans(), st.booleans(),
    st.sampled_from(["components", "watershed"]),
)  # fmt: skip
def test_what_is_dropped(
    seed: int, least: int, more: int, fill: bool, clear: bool, method: str
) -> None:
    mask = blots(seed, 50)
    most = least + more if more else 0
    postprocessing = Postprocessing(0.5, least, most, method, fill, clear)
    found = label_instances(mask, postprocessing)
    every = label_instances(mask, Postprocessing(0.5, instances=method, fill_holes=fill))
    area = np.bincount(every.ravel())
    good = (area >= least) & (area <= (most or mask.size))
    if clear:
        good[[*every[0], *every[-1], *every[:, 0], *every[:, -1]]] = False
    good[0] = False
    assert np.array_equal(found > 0, good[every])
    expected = np.where(good, np.cumsum(good), 0)  # raster order: ranks close up
    assert np.array_equal(found, expected[every])


@pytest.mark.realdata
def test_nuclei_that_touch_are_told_apart(realdata: Path) -> None:
    paths = sorted((realdata / "hela/01_ST/SEG").glob("*.tif"))[30:]
    truth = [len(np.unique(t)) - 1 for t in (imread(path) for path in paths[::6])]
    joined = [label_frame(imread(path) > 0)[1] for path in paths[::6]]
    parts = [int(cut(imread(path) > 0).max()) for path in paths[::6]]
    errors = [sum(abs(a - b) for a, b in zip(truth, n, strict=True)) for n in (joined, parts)]
    assert errors[1] < errors[0] / 2  # of the counts: most of what touches is cut, little else
