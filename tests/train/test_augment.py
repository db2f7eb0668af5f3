"""Patches: image and truth stay together, and each patch follows from its seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine.model.spec import Normalisation
from tests.train.data import nuclei
from train.augment import Geometry, random_geometry, vary_intensity
from train.data.frames import LabelledFrame, make_frame
from train.data.patches import Patches, cut_patch, shares_by_area, whole_frame
from train.settings import AugmentSettings, TrainSettings


def _frame(seed: int = 0, size: int = 64, border: int = 0) -> LabelledFrame:
    image, labels = nuclei(seed, size)
    return make_frame(f"n{seed}", image[None], labels.astype(np.int32), Normalisation(), border)


def _settings(**values: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {"data": "", "layout": "pairs", "channels": (2, 4), "patch": 32} | values
    )


def test_a_geometry_that_changes_nothing_cuts_what_lies_there() -> None:
    frame = _frame()
    patch = Geometry(np.eye(2), np.array([5.0, 7.0]), 16).cut(frame.labels, 0, "reflect")
    assert np.array_equal(patch, frame.labels[5:21, 7:23])


def test_quarter_turns_and_flips_lose_no_pixel() -> None:
    settings = AugmentSettings(scale=(1.0, 1.0), rotate=False)
    plane = np.arange(16 * 16, dtype=np.int32).reshape(16, 16)
    symmetries = {np.rot90(p, k).tobytes() for p in (plane, plane.T) for k in range(4)}
    seen = set()
    for seed in range(40):
        geometry = random_geometry(np.random.default_rng(seed), (16, 16), 16, settings)
        centred = Geometry(geometry.matrix, 7.5 - geometry.matrix @ np.full(2, 7.5), 16)
        seen.add(centred.cut(plane, 0, "reflect").tobytes())
    assert seen == symmetries


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_magnification_changes_areas_by_its_square(scale: float) -> None:
    settings = AugmentSettings(scale=(scale, scale))
    labels = np.zeros((128, 128), np.int32)
    labels[54:74, 54:74] = 1
    geometry = random_geometry(np.random.default_rng(0), (128, 128), 512, settings)
    patch = geometry.cut(labels, 0, "constant")
    assert (patch > 0).sum() == pytest.approx(400 * scale**2, rel=0.1)


def test_image_and_labels_are_cut_at_the_same_place() -> None:
    frame = _frame()
    as_they_are = Normalisation(policy="range", low=0, high=1)
    bright = make_frame("b", frame.labels[None].astype(np.float32), frame.labels, as_they_are)
    settings = AugmentSettings()
    for seed in range(10):
        geometry = random_geometry(np.random.default_rng(seed), (64, 64), 32, settings)
        image, foreground, _ = cut_patch(bright, geometry)
        assert (image[0][foreground] > 0.2).all()


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
    foreground = frame.labels > 0
    for seed in range(50):
        image = example.image.numpy()
        varied = vary_intensity(image, foreground, np.random.default_rng(seed), AugmentSettings())
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
        object_gain=(0.1, 0.1), object_gain_chance=0.999, blur_chance=0, noise_chance=0,
        gain=(1, 1), gamma=(1, 1), offset=0,
    )  # fmt: skip
    varied = vary_intensity(image, truth, np.random.default_rng(0), only_objects)
    rim = np.abs(np.hypot(y, x) - 12) < 3
    assert np.allclose(varied[0][truth], 0.1 * image[0][truth], atol=0.01)
    assert np.allclose(varied[0][rim], 0.1 * image[0][rim], atol=0.03)


def test_shares_are_a_distribution_with_the_wanted_synthetic_part() -> None:
    frames = [_frame(0, 32), _frame(1, 64), _frame(2, 64)]
    shares = shares_by_area(frames, [False, False, True], 0.4)
    assert shares.sum() == pytest.approx(1)
    assert shares[2] == pytest.approx(0.4)
    assert shares[1] == pytest.approx(2 * shares[0])
