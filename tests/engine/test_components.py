from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label as oracle

from engine.labels.components import areas_and_first_pixels, label_frame, label_part, renumber
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing


def components(mask: np.ndarray, min_area: int = 0) -> np.ndarray:
    return label_instances(mask, Postprocessing(0.5, min_area))


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


@given(masks)
def test_equals_scikit_image_up_to_numbering(mask: np.ndarray) -> None:
    found, expected = components(mask), oracle(mask, connectivity=2)
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


volumes = st.tuples(
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=9), st.integers(0, 2**16), st.floats(0, 1)
).map(lambda drawn: np.random.default_rng(drawn[1]).random(drawn[0]) < drawn[2])


@given(volumes, st.booleans())
def test_parts_are_labelled_as_scipy_does_into_a_view(volume: np.ndarray, connect_z: bool) -> None:
    structure = np.zeros((3, 3, 3))
    structure[slice(None) if connect_z else 1] = 1
    expected, count = ndimage.label(volume, structure)
    out = np.full((volume.shape[0], volume.shape[1] + 2, volume.shape[2] + 3), 7, np.uint32)
    inside = out[:, : volume.shape[1], : volume.shape[2]]
    assert label_part(volume, inside, connect_z=connect_z) == count
    assert np.array_equal(inside, expected)
    assert (out[:, volume.shape[1] :] == 7).all() and (out[:, :, volume.shape[2] :] == 7).all()


@given(masks)
def test_over_edges_alone(mask: np.ndarray) -> None:
    found, count = label_frame(mask, corners=False)
    expected, n = ndimage.label(mask)
    assert count == n and np.array_equal(found, expected)


@given(volumes, st.integers(0, 2**16))
def test_areas_first_pixels_and_new_numbers_in_a_view(volume: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((*volume.shape[:2], volume.shape[2] + 1), np.uint32)[..., 1:]
    labels[...] = volume * rng.integers(1, 6, volume.shape)
    areas, first = areas_and_first_pixels(labels, 5)
    old = labels.copy()
    assert areas.tolist() == [int((old == i).sum()) for i in range(1, 6)]
    for i in np.flatnonzero(areas):
        assert first[i] == np.flatnonzero(old == i + 1)[0]
    kept = (rng.random(5) < 0.5) & (areas > 0)
    stay = [i for i in np.argsort(first) if kept[i]]
    assert renumber(labels, kept, first) == len(stay)
    for number, i in enumerate(stay, 1):
        assert np.array_equal(labels == number, old == i + 1)
    assert (labels > 0).sum() == areas[stay].sum()


@given(masks, st.integers(0, 12))
def test_ids_count_up_in_raster_order_of_first_pixels(mask: np.ndarray, min_area: int) -> None:
    labels = components(mask, min_area)
    ids, first = np.unique(labels[labels > 0], return_index=True)
    assert ids.tolist() == list(range(1, len(ids) + 1))
    assert (np.diff(first) > 0).all()
    assert labels.dtype == np.uint32


@given(masks, st.integers(0, 12))
def test_small_objects_go_and_others_stay_as_they_are(mask: np.ndarray, min_area: int) -> None:
    everything, kept = components(mask), components(mask, min_area)
    areas = np.bincount(everything.ravel())
    expected = (everything > 0) & (areas[everything] >= min_area)
    assert np.array_equal(kept > 0, expected)


@pytest.mark.parametrize(
    ("picture", "count"),
    [
        (["#..", ".#.", "..#"], 1),  # corners touch: one object of the 8-neighbourhood
        (["#.#", "...", "#.#"], 4),
        (["###", "#.#", "###"], 1),
        (["...", "...", "..."], 0),
    ],
)
def test_by_hand(picture: list[str], count: int) -> None:
    mask = np.array([[c == "#" for c in row] for row in picture])
    assert components(mask).max() == count
