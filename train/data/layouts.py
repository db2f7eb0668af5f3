"""Finds frames and their truth in a folder. One function per layout."""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import StackError, UsageError
from train.data.frames import FrameSource

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
TRUTH_FOLDERS = ("labels", "masks")


def find_ctc(root: Path, frames: tuple[int, int] | None = None) -> list[FrameSource]:
    """Frames of a Cell Tracking Challenge data set: `NN/tTTT.tif`, `NN_ST/SEG/man_segTTT.tif`.

    Silver truth (ST) is preferred where a sequence has it: gold truth (GT) often draws only a few
    of a frame's cells, and the rest would be learnt as background. Sorted by sequence and time.
    """
    sequences = sorted(p for p in root.iterdir() if p.is_dir() and re.fullmatch(r"\d+", p.name))
    found = [source for sequence in sequences for source in _ctc_sequence(sequence, frames)]
    if not found:
        raise StackError(
            f"{root}: no frames with truth in the challenge's layout "
            "(01/t000.tif with 01_ST/SEG/man_seg000.tif or 01_GT/SEG/man_seg000.tif)"
        )
    return found


def _ctc_sequence(sequence: Path, frames: tuple[int, int] | None) -> list[FrameSource]:
    images = {_number(p): p for p in sequence.glob("t*.tif")}
    truth = _ctc_truth(sequence)
    wanted = range(*frames) if frames else None
    return [
        FrameSource(f"{sequence.name}/{images[t].stem}", sequence.name, images[t], truth[t], t)
        for t in sorted(images.keys() & truth.keys())
        if wanted is None or t in wanted
    ]


def _ctc_truth(sequence: Path) -> dict[int, Path]:
    for kind in ("ST", "GT"):
        folder = sequence.with_name(f"{sequence.name}_{kind}") / "SEG"
        masks = [p for p in folder.glob("man_seg*.tif") if re.fullmatch(r"man_seg\d+", p.stem)]
        if masks:
            return {_number(p): p for p in masks}
    return {}


def _number(path: Path) -> int:
    digits = re.search(r"(\d+)$", path.stem)
    return int(digits.group(1)) if digits else -1


def find_pairs(root: Path, group: str | None = None) -> list[FrameSource]:
    """Frames of `images/` with the file of the same name in `labels/` (or `masks/`).

    `root` holds the two folders, or sub-folders that each do. A frame's group is what `group`
    matches in its file name (its first bracket, if it has any), else its sub-folder, else itself.
    Sorted by name.
    """
    pattern = _pattern(group)
    tops = [root] if (root / "images").is_dir() else sorted(p for p in root.iterdir() if p.is_dir())
    found = [
        FrameSource(_name(root, image), _group(pattern, root, top, image), image, truth)
        for top in tops
        for image, truth in _pairs_of(top)
    ]
    if not found:
        raise StackError(
            f"{root}: no images/ folder with files of the same name in labels/ or masks/ next to it"
        )
    return found


def _pairs_of(top: Path) -> list[tuple[Path, Path]]:
    folders = [top / name for name in TRUTH_FOLDERS if (top / name).is_dir()]
    if not folders or not (top / "images").is_dir():
        return []
    truth, images = _by_stem(folders[0]), _by_stem(top / "images")
    lost = [p.name for stem, p in images.items() if stem not in truth]
    if lost:
        raise StackError(
            f"{folders[0]}: {len(lost)} images have no truth there; the first is {lost[0]}"
        )
    return [(image, truth[stem]) for stem, image in images.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder, sorted, by name without suffix; StackError where two share one."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if _is_image(p)):
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise StackError(
                f"{folder}: {other.name} and {path.name} differ only in their suffix, so "
                "names do not say which image has which truth; keep one of the two"
            )
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _name(root: Path, image: Path) -> str:
    return image.relative_to(root).as_posix()


def _group(pattern: re.Pattern[str] | None, root: Path, top: Path, image: Path) -> str:
    if pattern is None:
        return _name(root, image) if top == root else top.name
    match = pattern.search(image.name)
    if match is None:
        raise UsageError(f"--group {pattern.pattern!r} matches nothing in {image.name}")
    return match.group(1) if pattern.groups else match.group(0)


def _pattern(group: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise UsageError(f"--group {group!r} is not a regular expression: {error}") from None
