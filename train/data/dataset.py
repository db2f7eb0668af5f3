"""From settings to the frames of a run: found, split, read, and joined by synthetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import StackError, UsageError
from train.data.frames import FrameSource, LabelledFrame, digest, load_frame
from train.data.layouts import find_ctc, find_pairs
from train.data.splits import Split, split_frames
from train.data.synthetic import synthetic_frames
from train.settings import TrainSettings


@dataclass(frozen=True)
class TrainingData:
    """Frames that teach and frames that choose. The test part is read after all is chosen."""

    train: list[LabelledFrame]
    val: list[LabelledFrame]
    n_synthetic: tuple[int, int]  # of train and val, the last ones of each
    split: Split

    @property
    def n_channels(self) -> int:
        """Channels of every frame."""
        return len(self.train[0].image)

    @property
    def sha256(self) -> str:
        """Of the names and contents of all frames that teach or choose."""
        return digest([*self.train, *self.val])

    @property
    def is_synthetic(self) -> list[bool]:
        """For each training frame whether it is synthetic."""
        made = self.n_synthetic[0]
        return [False] * (len(self.train) - made) + [True] * made

    def split_as_json(self) -> dict[str, Any]:
        """The split of files, and the numbers of synthetic frames."""
        train, val = self.n_synthetic
        return self.split.as_json() | {"synthetic": {"train": train, "val": val}}

    def described(self, settings: TrainSettings) -> str:
        """What the network learns from, in words."""
        made, read = self.n_synthetic[0], len(self.train) - self.n_synthetic[0]
        words = f"{read} frames of {Path(settings.data).resolve().name}"
        return words + (f" and {made} synthetic frames of nuclei" if made else "")


def load_data(settings: TrainSettings) -> TrainingData:
    """Find, split and read the frames that `settings` name."""
    split = split_frames(find_frames(settings), settings.val_fraction, settings.test_fraction)
    train, val = load_part(split.train, settings), load_part(split.val, settings)
    n_made = settings.synthetic
    n_val = -(-n_made // 4)
    made = synthetic_frames(n_made + n_val, settings.seed, settings.normalisation)
    data = TrainingData(train + made[:n_made], val + made[n_made:], (n_made, n_val), split)
    _check_channels([*data.train, *data.val])
    return data


def find_frames(settings: TrainSettings) -> list[FrameSource]:
    """All frames with truth of the data folder, whatever part they will be in."""
    root = Path(settings.data)
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder")
    if settings.layout == "ctc":
        return find_ctc(root, settings.frames)
    return find_pairs(root, settings.group)


def load_part(sources: Sequence[FrameSource], settings: TrainSettings) -> list[LabelledFrame]:
    """Read the frames of one part of the split."""
    return [load_frame(s, settings.normalisation, settings.ignore_border) for s in sources]


def _check_channels(frames: Sequence[LabelledFrame]) -> None:
    expected = len(frames[0].image)
    for frame in frames:
        if len(frame.image) != expected:
            raise StackError(
                f"{frame.name} has {len(frame.image)} channels, but {frames[0].name} {expected}; "
                "all frames need the same channels"
            )
