"""Patches: image and truth stay together, and each patch follows from its seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from engine.model.spec import Normalisation
from tests.train.data import nuclei
from train.augment import vary_intensity
from train.data.frames import LabelledFrame, make_frame
from train.data.patches import Patches, cut_patch, shares_by_area, whole_frame
from train.geometry import random_geometry
from train.policies import POLICIES, AugmentSettings
from train.settings import TrainSettings


def _frame(seed: int = 0, size: int = 64, border: int = 0) -> LabelledFrame:
    image, labels = nuclei(seed, size)
    return make_frame(f"n{seed}", image[None], labels.astype(np.int32), Normalisation(), border)


def _settings(**values: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {"data": "", "layout": "pairs", "channels": (2, 4), "patch": 32} | values
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_image_truth_and_what_counts_are_cut_at_the_same_place(policy: str) -> None:
    """The nearest of four pixels has at least a quarter of the linear weight."""
    labels = _frame().labels
    as_they_are = Normalisation(policy="range", low=0, high=1)
    image = np.stack([labels > 0, labels > 0]).astype(np.float32)
    frame = make_frame("b", image, labels, as_they_are, known=labels == 0)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        geometry = random_geometry(rng, (64, 64), 32, POLICIES[policy])
        patch, truth, counts = cut_patch(frame, geometry.on((64, 64)))
        assert (patch[:, truth > 0] >= 0.2499).all() and (patch[:, truth == 0] <= 0.7501).all()
        assert np.array_equal(counts, truth == 0)


def test_the_policy_none_changes_no_intensity() -> None:
    image = whole_frame(_frame(), _settings()).image.numpy()
    varied = vary_intensity(image, _frame().labels, np.random.default_rng(0), POLICIES["none"])
    assert np.array_equal(varied, image)


@pytest.mark.parametrize("chance", ["object_gain", "blur", "gamma", "gain", "offset", "noise"])
def test_each_chance_is_a_share_of_patches(chance: str) -> None:
    settings = POLICIES["none"].model_copy(update={f"{chance}_chance": 0.3})
    frame = _frame()
    image = whole_frame(frame, _settings()).image.numpy()
    before = image.copy()
    varied = [
        vary_intensity(image, frame.labels, np.random.default_rng(i), settings) for i in range(300)
    ]
    assert np.array_equal(image, before), "what is handed in stays as it is"
    shares = np.mean([not np.array_equal(one, image) for one in varied])
    assert shares == pytest.approx(0.3, abs=0.09)


def test_a_policy_is_given_by_its_name_and_saved_by_its_values() -> None:
    settings = _settings(augment="light")
    assert settings.augment == POLICIES["light"]
    assert TrainSettings.model_validate(settings.as_json()) == settings
    assert _settings().augment == POLICIES["light"]
    assert POLICIES["strong"] == AugmentSettings()
    with pytest.raises(ValidationError, match=r"scale goes from 2 down to 0\.5; swap the two"):
        AugmentSettings(scale=(2, 0.5))


def test_patches_follow_from_seed_epoch_and_index_alone() -> None:
    frames = [_frame(i) for i in range(3)]
    shares = shares_by_area(frames, [False] * 3, 0.5)

    def drawn(seed: int, epoch: int, index: int) -> torch.Tensor:
        return Patches(frames, shares, _settings(seed=seed), epoch, 8)[index].image

    assert torch.equal(drawn(1, 2, 3), drawn(1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 4)):
        assert not torch.equal(drawn(1, 2, 3), drawn(*other))


def test_the_margin_weighs_nothing() -> None:
    example = whole_frame(_frame(border=10), _settings())
    weight = example.weight[0]
    assert (weight[10:-10, 10:-10] >= 1).all()
    weight[10:-10, 10:-10] = 0
    assert not weight.any()


def test_normalised_patches_span_the_frame_s_percentiles() -> None:
    frame = _frame()
    image = whole_frame(frame, _settings()).image[0].numpy()
    low, high = frame.statistics[0]
    assert np.allclose(image, (frame.image[0] - low) / (high - low), atol=1e-5)


def test_varied_intensities_stay_finite_and_differ() -> None:
    frame = _frame()
    example = whole_frame(frame, _settings())
    every = AugmentSettings(gamma_chance=1, gain_chance=1, offset_chance=1)
    for seed in range(50):
        image = example.image.numpy()
        varied = vary_intensity(image, frame.labels, np.random.default_rng(seed), every)
        assert varied.dtype == np.float32
        assert varied.shape == image.shape
        assert np.isfinite(varied).all()
        assert not np.array_equal(varied, image)


def test_an_object_is_dimmed_together_with_its_blurred_rim() -> None:
    """Else a ring stays, and the visible edge no longer lies where the truth has it."""
    y, x = np.mgrid[:96, :96] - 48
    truth = np.hypot(y, x) <= 12
    image = ndimage.gaussian_filter(truth.astype(np.float32), 2.0)[None]
    only_objects = AugmentSettings(
        object_gain=(0.1, 0.1), object_gain_chance=1, blur_chance=0, noise_chance=0,
        gain=(1, 1), gamma=(1, 1), offset=0,
    )  # fmt: skip
    varied = vary_intensity(image, truth.astype(np.int32), np.random.default_rng(0), only_objects)
    rim = np.abs(np.hypot(y, x) - 12) < 3
    assert np.allclose(varied[0][truth], 0.1 * image[0][truth], atol=0.01)
    assert np.allclose(varied[0][rim], 0.1 * image[0][rim], atol=0.03)


@given(
    st.lists(st.tuples(st.integers(8, 90), st.booleans()), min_size=1, max_size=9),
    st.floats(0, 0.99),
)
def test_shares_are_a_distribution_with_the_wanted_synthetic_part(
    frames: list[tuple[int, bool]], wanted: float
) -> None:
    labels = [np.ones((side, side), np.int32) for side, _ in frames]
    is_made = [made for _, made in frames]
    cut = [LabelledFrame("", one[None], np.zeros((1, 2), np.float32), one) for one in labels]
    shares = shares_by_area(cut, is_made, wanted)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    if any(is_made) and not all(is_made):
        assert shares[is_made].sum() == pytest.approx(wanted)
    for kind in (True, False):  # within a kind by the side of the frame
        ours = [(share, side) for share, (side, made) in zip(shares, frames, strict=True)
                if made == kind]  # fmt: skip
        assert np.allclose([share * ours[0][1] for share, _ in ours],
                           [ours[0][0] * side for _, side in ours])  # fmt: skip
