"""The frames of a run: found, split and read as the settings say, plus synthetic ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StackError, UsageError, plural
from engine.stacks.guard import some
from engine.truth.ids import in_pieces
from train.data.frames import FrameSource, LabelledFrame, NoContrast, Reading, digest, load_frame
from train.data.layouts import find_color_masks, find_ctc, find_pairs, images_inside, truth_folders
from train.data.splits import Split, split_frames
from train.data.synthetic import synthetic_frames
from train.data.truth import TruthSource
from train.settings import TrainSettings


@dataclass(frozen=True)
class Part:
    """The frames of one part of the split that could be used."""

    frames: list[LabelledFrame]
    left_out: dict[str, str]  # names of frames without contrast -> why, in words

    @property
    def remarks(self) -> list[str]:
        """A sentence on each frame that is left out."""
        return [f"{why}; left out" for why in self.left_out.values()]


@dataclass(frozen=True)
class TrainingData:
    """Frames that teach and frames that choose. The test part is scored after all is chosen."""

    train: list[LabelledFrame]
    val: list[LabelledFrame]
    n_synthetic: tuple[int, int]  # of train and val, the last ones of each
    split: Split
    left_out: tuple[str, ...] = ()  # names of frames of `split` that no part uses
    remarks: tuple[str, ...] = ()  # what a user has to know before training starts
    images: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by name, of all parts

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
        """The split of files, those left out, the numbers of synthetic frames, and images' hashes,
        by which a later run knows what this one has seen.
        """
        train, val = self.n_synthetic
        split = self.split.as_json() | {"synthetic": {"train": train, "val": val}}
        for part in ("train", "val", "test"):
            used = [name for name in split[part]["frames"] if name in self.images]
            split[part]["sha256"] = [self.images[name] for name in used]
        return split | ({"left_out": list(self.left_out)} if self.left_out else {})

    def described(self, settings: TrainSettings) -> str:
        """What the network learns from, in words."""
        made, read = self.n_synthetic[0], len(self.train) - self.n_synthetic[0]
        words = f"{read} frames of {Path(settings.data).resolve().name}"
        return words + (f" and {made} synthetic frames of nuclei" if made else "")


def load_data(settings: TrainSettings) -> TrainingData:
    """Find, split and read the frames that `settings` name.

    The test part is read as well, to find out before training whether it can be.
    """
    split = split_frames(
        find_frames(settings), settings.val_fraction, settings.test_fraction, settings.test_every
    )
    train, val = load_part(split.train, settings), load_part(split.val, settings)
    test = load_part(split.test, settings)
    n_made = settings.synthetic
    n_val = -(-n_made // 4)
    made = synthetic_frames(n_made + n_val, settings.seed, settings.normalisation)
    data = TrainingData(
        train=train.frames + made[:n_made],
        val=val.frames + made[n_made:],
        n_synthetic=(n_made, n_val),
        split=split,
        images={f.name: f.image_sha256 for f in (*train.frames, *val.frames, *test.frames)},
        left_out=(*train.left_out, *val.left_out, *test.left_out),
        remarks=(
            *train.remarks,
            *val.remarks,
            *test.remarks,
            *_hint([] if settings.palette else [*train.frames, *val.frames, *test.frames]),
            *_remarks_on_sources(split, [*train.frames, *val.frames, *test.frames], settings),
        ),
    )
    _check_part("training", data.train, train, settings)
    _check_part("validation", data.val, val, settings)
    _check_channels([*data.train, *data.val, *test.frames])
    return data


def find_frames(settings: TrainSettings) -> list[FrameSource]:
    """All frames with truth of the data folder, whatever part they will be in."""
    root = Path(settings.data)
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder")
    if settings.layout == "ctc":
        return find_ctc(root, settings.frames, settings.sequences, settings.truth)
    if settings.layout == "color-masks":
        return find_color_masks(root, settings.group)
    return find_pairs(root, settings.group)


def load_part(sources: Sequence[FrameSource], settings: TrainSettings) -> Part:
    """Read the frames of one part of the split; those without contrast are left out."""
    part = Part([], {})
    how = Reading(**{one.name: getattr(settings, one.name) for one in fields(Reading)})
    for source in sources:
        try:
            part.frames.append(load_frame(source, how))
        except NoContrast as error:
            part.left_out[source.name] = str(error)
    return part


def _check_part(
    name: str, frames: Sequence[LabelledFrame], read: Part, settings: TrainSettings
) -> None:
    """StackError where there is nothing to learn from, or nothing to choose by."""
    if not frames:
        first = next(iter(read.left_out.values()))
        raise StackError(
            f"{settings.data}: no image of the {name} part can be used ({first}); remove channels "
            "without contrast from the images, or give others"
        )
    if not any(frame.labels[frame.counted].any() for frame in frames):
        margin = (
            f" inside --ignore-border {settings.ignore_border}" if settings.ignore_border else ""
        )
        raise StackError(
            f"{settings.data}: the truth of the {name} part has no object{margin} in any of its "
            f"{len(frames)} frames (the first is {frames[0].name}); give truth with objects"
        )


def _hint(frames: Sequence[LabelledFrame]) -> list[str]:
    """A hint on the first frame whose truth looks like masks or classes; StackError of an image."""
    hints = []
    for frame in frames:
        if (apart := in_pieces(frame.labels)) is not None:
            hint = apart.hint(f"the truth of {frame.name}" if apart.is_image else frame.name)
            if apart.is_image:
                raise StackError(hint)
            hints.append(hint)
    return hints[:1]


def _remarks_on_sources(
    split: Split, frames: Sequence[LabelledFrame], settings: TrainSettings
) -> list[str]:
    """What is left out of images and truth, and what could not be known of it."""
    remarks = []
    partly = [frame for frame in frames if frame.known is not None]
    if partly:
        share = np.mean([1 - frame.known.mean() for frame in partly if frame.known is not None])
        remarks.append(
            f"{len(partly)} of {len(frames)} frames have pixels of unknown truth, {share:.0%} on "
            f"average (the first is {partly[0].name}); these neither teach nor score"
        )
    elif settings.ignore_label is not None:
        remarks.append(f"--ignore-label {settings.ignore_label}: no truth has a pixel of it")
    sources = (*split.train, *split.val, *split.test)
    for source in sources:
        truth = source.truth
        if settings.layout == "ctc" and _is_gold_unmarked(truth):
            remarks.append(
                f"{truth.file}: no tracking truth (TRA) tells how many cells the frame has, so "
                "all of them are taken to be drawn"
            )
            break
    if settings.layout == "pairs":
        tops = {source.truth.file.parent.parent for source in sources}
        both = [folders for top in sorted(tops) if len(folders := truth_folders(top)) > 1]
        remarks += [_remark_on_two(*both[0])] if both else []
    if settings.layout != "ctc":
        folders = sorted({source.image.parent for source in sources})
        remarks += [
            _remark_on_inside(one, found) for one in folders if (found := images_inside(one))
        ]
    return remarks


def _remark_on_two(taken: Path, other: Path) -> str:
    """That a folder has two kinds of truth, and which of them is read."""
    return (
        f"{taken.parent}: has {taken.name}/ and {other.name}/, and the truth is taken from "
        f"{taken.name}/; to learn from {other.name}/, move {taken.name}/ away"
    )


def _remark_on_inside(folder: Path, images: Sequence[Path]) -> str:
    """That folders inside one of images hold images too, which are not read."""
    where = sorted({f"{image.parent.relative_to(folder)}/" for image in images})
    are = "is" if len(images) == 1 else "are"
    return (
        f"{folder}: {plural(len(images), 'image')} in folders inside it ({some(where)}) {are} not "
        "read; to learn from them, move them and their truth to the others"
    )


def _is_gold_unmarked(truth: TruthSource) -> bool:
    """Whether it is gold truth of which nothing tells how many cells it leaves out."""
    is_gold = truth.file.parent.parent.name.endswith("_GT")
    return is_gold and truth.markers is None and truth.cells is None


def _check_channels(frames: Sequence[LabelledFrame]) -> None:
    expected = len(frames[0].image)
    for frame in frames:
        if len(frame.image) != expected:
            raise StackError(
                f"{frame.name} has {len(frame.image)} channels, but {frames[0].name} {expected}; "
                "all frames need the same channels; choose them with --channel"
            )
