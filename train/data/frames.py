"""Labelled frames in memory, read through the engine so that training sees the same pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError, UsageError
from engine.model.spec import Normalisation
from engine.model.statistics import frame_statistics, is_blank, normalisable, windowed
from engine.plan.channels import channel_number, parse_channels
from engine.stacks.base import Stack
from engine.stacks.open import open_stack
from engine.truth.color_masks import read_classes
from engine.truth.palette import Palette
from train.data.truth import Truth, TruthSource, read_frame_truth
from train.data.volumes import holds_numbers, open_volume, read_class_numbers


@dataclass(frozen=True)
class FrameSource:
    """A frame and its truth on disk. Frames of one group are never split apart."""

    name: str  # unique in the data set: "01/t003", "images/a.png", "images/b.tif[3]"
    group: str  # sequence, folder, patient, file, or the name itself
    image: Path
    truth: TruthSource
    time: int = 0  # frame number within its sequence or file
    plane: int | None = None  # of a file with several frames; None: it has one


@dataclass(frozen=True)
class LabelledFrame:
    """One frame ready to be cut into patches."""

    name: str
    image: NDArray[Any]  # (C, Y, X), raw pixel values in the dtype of the file
    statistics: NDArray[np.float32]  # (C, 2), of the whole frame
    labels: NDArray[np.int32]  # (Y, X), 0 is background, objects (or classes) are 1, 2, 3, ...
    ignore_border: int = 0  # px at each side that neither teach nor score
    known: NDArray[np.bool_] | None = None  # (Y, X), where labels are true; None: everywhere
    sha256: str = ""  # of image and truth as read
    image_sha256: str = ""  # of the image alone

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def inside(self) -> tuple[slice, slice]:
        """The part of the frame that counts, as an index of its last two axes."""
        b = self.ignore_border
        height, width = self.labels.shape
        return slice(b, height - b), slice(b, width - b)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """The pixels that teach and score, (Y, X): inside the margin, and of known truth."""
        counted = np.zeros(self.shape, dtype=bool)
        counted[self.inside] = True if self.known is None else self.known[self.inside]
        return counted


class NoContrast(StackError):
    """A frame with a channel that has one value only: there is nothing to normalise by."""


@dataclass(frozen=True)
class Reading:
    """How frames are read: what of `TrainSettings` says so."""

    normalisation: Normalisation
    ignore_border: int = 0
    masks: bool = False
    ignore_label: int | None = None
    channel: str | None = None
    palette: Palette | None = None


def load_frame(source: FrameSource, how: Reading) -> LabelledFrame:
    """Read one frame with its truth; StackError where the two do not fit."""
    image = read_image(source.image, source.plane, how.channel)
    truth = _read_truth(source.truth, how)
    labels = truth.labels
    if image.shape[1:] != labels.shape:
        raise StackError(
            f"{source.truth.file}: the truth is {_by(labels)} px, its image {_by(image[0])} px"
        )
    if 2 * how.ignore_border >= min(labels.shape):
        raise StackError(
            f"{source.image}: --ignore-border {how.ignore_border} leaves nothing of "
            f"{_by(labels)} px"
        )
    return make_frame(source.name, image, labels, how.normalisation, how.ignore_border, truth.known)


def _read_truth(source: TruthSource, how: Reading) -> Truth:
    if how.palette is not None:
        if holds_numbers(source):
            return Truth(read_class_numbers(source, how.palette))
        return Truth(read_classes(source.file, how.palette, source.plane))
    return read_frame_truth(source, masks=how.masks, ignore_label=how.ignore_label)


def make_frame(
    name: str,
    image: NDArray[Any],
    labels: NDArray[np.int32],
    normalisation: Normalisation,
    ignore_border: int = 0,
    known: NDArray[np.bool_] | None = None,
) -> LabelledFrame:
    """A labelled frame from arrays: image (C, Y, X), labels and `known` (Y, X).

    Raises NoContrast where percentiles of a channel would be one value, StackError where pixels
    are not finite.
    """
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    of_image = digest.hexdigest()
    digest.update(np.ascontiguousarray(labels).tobytes())
    if known is not None:
        digest.update(np.packbits(known).tobytes())
    try:
        image = windowed(image, normalisation.window)
        if normalisation.policy == "percentile":
            _require_contrast(name, image)
        statistics = frame_statistics(image, normalisation)
        if is_blank(statistics):
            value = statistics[0, 0]
            raise FrameError(f"every pixel has the value {value:g}: there is nothing to segment")
    except FrameError as error:
        raise StackError(f"{name}: {error}; take it out of the training data") from None
    statistics = normalisable(statistics)
    sha256 = digest.hexdigest()
    return LabelledFrame(name, image, statistics, labels, ignore_border, known, sha256, of_image)


def read_image(path: Path, plane: int | None = None, channel: str | None = None) -> NDArray[Any]:
    """A frame of an image file as (C, Y, X): its only one, or number `plane` of several.

    `channel` chooses channels as `stackseg segment --channel` does. Without it all are read, and
    grey that is stored as RGB is one channel. (The reader drops an opaque alpha channel.)
    """
    if plane is None:
        with open_stack(str(path)) as stack:
            if (n := stack.info.n_frames) != 1:
                raise StackError(f"{path}: holds {n} frames; give a file for each")
            pixels = stack.read(0, 0, _channels(stack, channel))
    else:
        stack = open_volume(path)
        pixels = stack.read(*divmod(plane, stack.info.size("Z")), _channels(stack, channel))
    rgb = channel is None and len(pixels) in (3, 4)
    if rgb and np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2]):
        return pixels[:1]
    return pixels


def _channels(stack: Stack, channel: str | None) -> list[int]:
    if channel is None:
        return list(range(stack.info.size("C")))
    try:
        return [channel_number(stack.info, one) for one in parse_channels(channel)]
    except ValueError as error:
        raise UsageError(f"--channel {channel!r} {error}") from None


def _require_contrast(name: str, image: NDArray[Any]) -> None:
    for at, channel in enumerate(image):
        value = channel.flat[0]
        if np.isfinite(value) and (channel == value).all():
            alpha = " (alpha, if it is RGBA)" if (at, len(image)) == (3, 4) else ""
            where = f"pixel of channel {at}{alpha}" if len(image) > 1 else "pixel"
            raise NoContrast(f"{name}: every {where} has the value {value:g}")


def digest(frames: list[LabelledFrame]) -> str:
    """One SHA-256 over names and contents, whatever the order of the frames."""
    lines = sorted(f"{frame.name} {frame.sha256}" for frame in frames)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _by(plane: NDArray[Any]) -> str:
    return f"{plane.shape[0]}x{plane.shape[1]}"
