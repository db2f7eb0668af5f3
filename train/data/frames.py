"""Labelled frames in memory, read through the engine so that training sees the same pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError
from engine.model.spec import Normalisation
from engine.model.statistics import frame_statistics, is_blank, normalisable
from engine.stacks.open import open_stack
from engine.truth.ids import numbered_from_one, read_truth


@dataclass(frozen=True)
class FrameSource:
    """A frame and its truth on disk. Frames of one group are never split apart."""

    name: str  # unique in the data set: "01/t003", "images/a.png"
    group: str  # sequence, folder, patient, or the name itself
    image: Path
    labels: Path
    time: int = 0  # frame number within its sequence


@dataclass(frozen=True)
class LabelledFrame:
    """One frame ready to be cut into patches."""

    name: str
    image: NDArray[Any]  # (C, Y, X), raw pixel values in the dtype of the file
    statistics: NDArray[np.float32]  # (C, 2), of the whole frame
    labels: NDArray[np.int32]  # (Y, X), 0 is background, objects are 1, 2, 3, ...
    ignore_border: int = 0  # px at each side that neither teach nor score
    sha256: str = ""  # of image and labels as read

    @property
    def inside(self) -> tuple[slice, slice]:
        """The part of the frame that counts, as an index of its last two axes."""
        b = self.ignore_border
        height, width = self.labels.shape
        return slice(b, height - b), slice(b, width - b)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Where the truth counts, (Y, X)."""
        counted = np.zeros(self.labels.shape, dtype=bool)
        counted[self.inside] = True
        return counted


class NoContrast(StackError):
    """A frame with a channel that has one value only: there is nothing to normalise by."""


def load_frame(
    source: FrameSource, normalisation: Normalisation, ignore_border: int, *, masks: bool = False
) -> LabelledFrame:
    """Read one frame with its truth; StackError where the two do not fit."""
    image = read_image(source.image)
    labels = numbered_from_one(read_truth(source.labels, masks=masks))
    if image.shape[1:] != labels.shape:
        raise StackError(
            f"{source.labels}: the truth is {_by(labels)} px, its image {_by(image[0])} px"
        )
    if 2 * ignore_border >= min(labels.shape):
        raise StackError(
            f"{source.image}: --ignore-border {ignore_border} leaves nothing of {_by(labels)} px"
        )
    return make_frame(source.name, image, labels, normalisation, ignore_border)


def make_frame(
    name: str,
    image: NDArray[Any],
    labels: NDArray[np.int32],
    normalisation: Normalisation,
    ignore_border: int = 0,
) -> LabelledFrame:
    """A labelled frame from arrays: image (C, Y, X), labels (Y, X).

    Raises NoContrast where percentiles of a channel would be one value, StackError where pixels
    are not finite.
    """
    if normalisation.policy == "percentile":
        _require_contrast(name, image)
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    try:
        statistics = frame_statistics(image, normalisation)
        if is_blank(statistics):
            value = statistics[0, 0]
            raise FrameError(f"every pixel has the value {value:g}: there is nothing to segment")
    except FrameError as error:
        raise StackError(f"{name}: {error}; take it out of the training data") from None
    statistics = normalisable(statistics)
    return LabelledFrame(name, image, statistics, labels, ignore_border, digest.hexdigest())


def read_image(path: Path) -> NDArray[Any]:
    """The only frame of an image file as (C, Y, X).

    Grey that is stored as RGB is one channel. (The reader drops an opaque alpha channel.)
    """
    with open_stack(str(path)) as stack:
        info = stack.info
        if info.n_frames != 1:
            raise StackError(f"{path}: holds {info.n_frames} frames; training takes one per file")
        pixels = stack.read(0, 0, range(info.size("C")))
    rgb = len(pixels) in (3, 4)
    if rgb and np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2]):
        return pixels[:1]
    return pixels


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
