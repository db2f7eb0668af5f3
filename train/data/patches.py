"""Training patches: cut, varied, with target and weights, each drawn from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from train.augment import Geometry, random_geometry, vary_intensity
from train.data.frames import LabelledFrame
from train.data.targets import border_weights, cores, cut_apart
from train.networks.normalise import normalise
from train.settings import TrainSettings

TRIES = 3  # places to try for one with an object


class Example(NamedTuple):
    """What the loss needs, without the batch axis."""

    image: Tensor  # float32 (C, Y, X), normalised
    target: Tensor  # float32 (K, Y, X), 0 or 1
    weight: Tensor  # float32 (K, Y, X), 0 where nothing is to be learnt
    frame: int = -1  # its index among the training frames


class Patches(Dataset[Example]):
    """`count` random patches. Patch i follows from seed, epoch and i alone.

    So workers, however many, give the same patches in the same order.
    """

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        shares: NDArray[np.float64],
        settings: TrainSettings,
        epoch: int,
        count: int,
    ) -> None:
        self.frames = frames
        self.shares = shares  # (len(frames),), probability that a patch is cut from each
        self.settings = settings
        self.epoch = epoch
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.epoch, index])
        at = int(rng.choice(len(self.frames), p=self.shares))
        frame = self.frames[at]
        image, labels, counts = cut_patch(frame, _place(frame, rng, settings))
        image = vary_intensity(image, cut_apart(labels), rng, settings.augment)
        return make_example(image, labels, counts, settings)._replace(frame=at)


def _place(frame: LabelledFrame, rng: np.random.Generator, settings: TrainSettings) -> Geometry:
    """A random place, preferably one with an object: most of many frames is background."""
    shape = (frame.labels.shape[0], frame.labels.shape[1])
    for _ in range(TRIES):
        geometry = random_geometry(rng, shape, settings.patch, settings.augment)
        if geometry.cut(frame.labels, 0, "reflect").any():
            break
    return geometry


def cut_patch(
    frame: LabelledFrame, geometry: Geometry
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """Normalised image (C, Y, X), labels (Y, X), and where the truth counts (Y, X)."""
    raw = np.stack([geometry.cut(plane.astype(np.float32), 1, "reflect") for plane in frame.image])
    labels = geometry.cut(frame.labels, 0, "reflect")
    image = normalise(torch.from_numpy(raw)[None], torch.from_numpy(frame.statistics)[None])
    return image[0].numpy(), labels, geometry.cut(_counts(frame), 0, "reflect")


def whole_frame(frame: LabelledFrame, settings: TrainSettings) -> Example:
    """A frame as it is, with target and weights; for validation."""
    image = normalised(frame).numpy()
    return make_example(image, frame.labels, _counts(frame), settings)


def normalised(frame: LabelledFrame) -> Tensor:
    """A frame's image (C, Y, X) as the network sees it."""
    raw = torch.from_numpy(frame.image.astype(np.float32))
    return normalise(raw[None], torch.from_numpy(frame.statistics)[None])[0]


def make_example(
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    counts: NDArray[np.bool_],
    settings: TrainSettings,
) -> Example:
    """Image, targets and weights as tensors. `counts` (Y, X): where the truth is known."""
    if settings.instances == "cores":
        target = np.stack([labels > 0, cores(labels, settings.core_depth)])
        weight = np.ones(target.shape, dtype=np.float32)
    else:
        target = cut_apart(labels)[None]
        weight = border_weights(target[0], settings.border_weight, settings.border_sigma)[None]
    return Example(
        torch.from_numpy(image),
        torch.from_numpy(target.astype(np.float32)),
        torch.from_numpy(weight * counts),
    )


def shares_by_area(
    frames: Sequence[LabelledFrame], synthetic: Sequence[bool], synthetic_share: float
) -> NDArray[np.float64]:
    """How often each frame is drawn: by the root of its area, synthetic ones as wanted.

    The root lies between every frame alike, which wears out small frames, and every pixel alike,
    which lets a few mosaics drown all else.
    """
    shares = np.sqrt([float(frame.labels.size) for frame in frames])
    made = np.array(synthetic, dtype=bool)
    if made.any() and not made.all():
        shares[made] *= synthetic_share / shares[made].sum()
        shares[~made] *= (1 - synthetic_share) / shares[~made].sum()
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _counts(frame: LabelledFrame) -> NDArray[np.bool_]:
    counts = np.zeros(frame.labels.shape, dtype=bool)
    counts[frame.inside] = True
    return counts
