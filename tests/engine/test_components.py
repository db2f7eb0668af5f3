from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label as oracle

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
