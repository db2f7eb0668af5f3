"""Training patches: cut, varied, with target and weights, each drawn from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from train.augment import vary_intensity
from train.crowd import crowd
from train.data.frames import LabelledFrame
from train.geometry import Cut, random_geometry
from train.networks.normalise import normalise
from train.settings import TrainSettings
from train.tasks import task_of

TRIES = 3  # places to try for one with an object


class Example(NamedTuple):
    """What the loss needs, without the batch axis."""

    image: Tensor  # float32 (C, Y, X), normalised
    target: Tensor  # float32 (K, Y, X), 0 or 1
    weight: Tensor  # float32 (K, Y, X), of classes (1, Y, X); 0 where nothing is to be learnt
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
        image, labels, counts = self.draw(index)
        example = make_example(image, labels, counts, self.settings)
        return example._replace(frame=self._begin(index)[0])

    def draw(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
        """Patch `index` as `cut_patch` has it, its intensities varied."""
        at, rng = self._begin(index)
        frame = self.frames[at]
        settings = self.settings
        place = _place(frame, rng, settings)
        image, labels, counts = cut_patch(frame, place, padded=bool(settings.classes))
        apart = not settings.classes and settings.instances != "none"
        if apart and rng.random() < settings.augment.crowd_chance:
            image, labels = crowd(image, labels, counts, rng)
        # What is told apart by its class has no contrast of its own that could be varied.
        objects = np.zeros_like(labels) if settings.classes else labels
        return vary_intensity(image, objects, rng, settings.augment), labels, counts

    def name(self, index: int) -> str:
        """The name of the frame that patch `index` is cut from."""
        return self.frames[self._begin(index)[0]].name

    def _begin(self, index: int) -> tuple[int, np.random.Generator]:
        """Number of the frame that patch `index` is cut from, and what it is drawn by."""
        rng = np.random.default_rng([self.settings.seed, self.epoch, index])
        return int(rng.choice(len(self.frames), p=self.shares)), rng


def _place(frame: LabelledFrame, rng: np.random.Generator, settings: TrainSettings) -> Cut:
    """A random place, preferably one with an object: most of many frames is background."""
    beyond = 0 if settings.classes else None
    for _ in range(TRIES):
        geometry = random_geometry(rng, frame.shape, settings.patch, settings.augment)
        cut = geometry.on(frame.shape)
        if cut.nearest(frame.labels, beyond).any():
            break
    return cut


def cut_patch(
    frame: LabelledFrame, cut: Cut, *, padded: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """Normalised image (C, Y, X), labels (Y, X), and where the truth counts (Y, X).

    Outside the frame is its reflection, or with `padded` background: pixels at the low end of the
    frame's range, of class 0, which count.
    """
    lows = frame.statistics[:, 0] if padded else [None] * len(frame.image)
    raw = np.stack([cut.linear(plane, low) for plane, low in zip(frame.image, lows, strict=True)])
    image = normalise(torch.from_numpy(raw)[None], torch.from_numpy(frame.statistics)[None])
    labels = cut.nearest(frame.labels, 0 if padded else None)
    return image[0].numpy(), labels, cut.nearest(frame.counted, 1 if padded else None)


def whole_frame(frame: LabelledFrame, settings: TrainSettings) -> Example:
    """A frame as it is, with target and weights; for validation."""
    image = normalised(frame).numpy()
    return make_example(image, frame.labels, frame.counted, settings)


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
    target, weight = task_of(settings).targets(labels)
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
