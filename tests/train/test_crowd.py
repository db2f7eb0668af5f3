"""Objects of a patch's mirror images, laid over it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.util import view_as_windows

from engine.model.spec import Normalisation
from tests.train.data import nuclei
from train.augment import LIGHT
from train.crowd import OVERLAP, crowd
from train.data.frames import make_frame
from train.data.patches import Patches
from train.policies import POLICIES
from train.settings import TrainSettings

SIDE = 96
seeds = st.integers(0, 10_000)


def _patch(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    image, labels = nuclei(seed % 7, SIDE)
    spread = (image - image.min()) / np.ptp(image)
    return spread[None].astype(np.float32), labels.astype(np.int32)


def _mirrored(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """The seven other ways in which a square lies on itself."""
    turned = [np.rot90(one, k) for one in (labels, labels.T) for k in range(4)]
    return turned[1:]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_objects_stay_and_others_are_mirror_images_with_room(seed: int) -> None:
    image, labels = _patch(seed)
    known = np.ones(labels.shape, dtype=bool)
    _, more = crowd(image, labels, known, np.random.default_rng(seed))
    assert np.array_equal(more[labels > 0], labels[labels > 0])
    for new in np.setdiff1d(more, labels):
        shown = more == new
        sources = [one == at for one in _mirrored(labels) for at in np.unique(one[shown]) if at > 0]
        fits = [s for s in sources if not (shown & ~s).any()]
        assert any(shown.sum() >= (1 - OVERLAP) * one.sum() for one in fits)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_image_changes_around_new_objects_alone_and_gains_light(seed: int) -> None:
    image, labels = _patch(seed)
    before = image.copy()
    known = np.ones(labels.shape, dtype=bool)
    lit, more = crowd(image, labels, known, np.random.default_rng(seed))
    assert np.array_equal(image, before)
    new = (more > 0) & (labels == 0)
    if not new.any():
        assert np.array_equal(lit, image)
        return
    assert lit[:, new].mean() > image[:, new].mean()
    # An object may be mostly hidden: its light reaches no further than the object did.
    far = ndimage.distance_transform_edt(more == 0) > 3 * LIGHT
    assert np.array_equal(lit[:, far], image[:, far])


def test_more_objects_touch() -> None:
    def touching(labels: NDArray[np.int32]) -> int:
        windows = view_as_windows(labels, (3, 3)).reshape(-1, 9)
        low, high = np.where(windows > 0, windows, 10**6).min(axis=1), windows.max(axis=1)
        return int(np.count_nonzero((high > 0) & (low != high)))

    known = np.ones((SIDE, SIDE), dtype=bool)
    patches = [_patch(seed) for seed in range(7)]
    crowds = [crowd(*one, known, np.random.default_rng(i))[1] for i, one in enumerate(patches)]
    assert sum(map(touching, crowds)) > 2 * sum(touching(one[1]) for one in patches)


def test_what_is_not_known_in_full_is_laid_over_nothing() -> None:
    image, labels = _patch(3)
    known = labels == 0
    lit, more = crowd(image, labels, known, np.random.default_rng(0))
    assert np.array_equal(more, labels) and np.array_equal(lit, image)


def test_a_patch_of_nothing_or_of_one_object_alone_stays_as_it_is() -> None:
    image = np.random.default_rng(0).random((1, 16, 16), dtype=np.float32)
    for labels in (np.zeros((16, 16), np.int32), np.ones((16, 16), np.int32)):
        lit, more = crowd(image, labels, labels >= 0, np.random.default_rng(0))
        assert lit is image and more is labels


def test_patches_are_crowded_where_objects_are_told_apart_alone() -> None:
    image, labels = _patch(2)
    frame = make_frame("n", image, labels, Normalisation())
    always = POLICIES["none"].model_copy(update={"crowd_chance": 1.0})
    given = {"data": "", "layout": "pairs", "channels": (2, 4), "patch": 64}

    def drawn(**more: object) -> int:
        settings = TrainSettings.model_validate(given | more)
        patches = Patches([frame], np.ones(1), settings, epoch=0, count=4)
        return sum(len(np.unique(patches.draw(i)[1])) for i in range(4))

    plain = drawn(augment="none")
    assert drawn(augment=always) > plain
    assert drawn(augment=always, instances="none") == plain
