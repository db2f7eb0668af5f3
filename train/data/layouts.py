"""Finds frames and their truth in a folder. One function per layout."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import StackError, UsageError
from engine.stacks.guard import some
from engine.truth.groups import find, first_bracket, not_empty, parse_pattern
from train.data.frames import FrameSource
from train.data.truth import TruthSource
from train.data.volumes import NIFTI, count_planes, groups_by_series, is_series, stem_of
from train.settings import Truth

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".dcm", *NIFTI)
TRUTH_FOLDERS = ("labels", "masks")
START = r"^[^_.]+"  # of a file's name: "patient001" of patient001_frame01_z00.png


def find_ctc(
    root: Path,
    frames: tuple[int, int] | None = None,
    sequences: Sequence[str] | None = None,
    truth: Truth | None = None,
) -> list[FrameSource]:
    """Frames of a Cell Tracking Challenge data set: `NN/tTTT.tif`, `NN_ST/SEG/man_segTTT.tif`.

    Silver truth (ST) is preferred where a sequence has it: gold truth (GT) often draws only a few
    of a frame's cells. With both, gold objects overrule silver ones. Sorted by sequence and time.
    """
    there = sorted(p for p in root.iterdir() if p.is_dir() and re.fullmatch(r"\d+", p.name))
    chosen = [p for p in there if sequences is None or p.name in sequences]
    for name in sequences or ():
        if name not in [p.name for p in there]:
            listed = ", ".join(p.name for p in there) or "none"
            raise UsageError(f"--sequences {name}: {root} has no such sequence; it has {listed}")
    found = [source for sequence in chosen for source in _ctc_sequence(sequence, frames, truth)]
    if not found:
        kind = f"{truth} " if truth in ("silver", "gold") else ""
        if frames and find_ctc(root, None, sequences, truth):
            raise UsageError(
                f"--frames {frames[0]}:{frames[1]}: no frame of {root} with {kind}truth has such a "
                "number"
            )
        raise StackError(
            f"{root}: no frames with {kind}truth in the challenge's layout "
            "(01/t000.tif with 01_ST/SEG/man_seg000.tif or 01_GT/SEG/man_seg000.tif)"
        )
    return found


def _ctc_sequence(
    sequence: Path, frames: tuple[int, int] | None, kind: Truth | None
) -> Iterator[FrameSource]:
    images = _numbered(sequence, "t")
    silver = _numbered(_beside(sequence, "ST") / "SEG", "man_seg")
    gold = _numbered(_beside(sequence, "GT") / "SEG", "man_seg")
    tracking = _beside(sequence, "GT") / "TRA"
    markers, cells = _numbered(tracking, "man_track"), _cells(tracking / "man_track.txt")
    if kind == "gold" or (kind is None and not silver):
        silver = {}
    elif kind != "both":
        gold = {}
    wanted = range(*frames) if frames else images
    for t in sorted(images.keys() & (silver.keys() | gold.keys()) & set(wanted)):
        truth = TruthSource(
            silver.get(t) or gold[t],
            gold=gold.get(t) if t in silver else None,
            markers=markers.get(t),
            cells=None if t in silver or cells is None else cells[t],
        )
        name = f"{sequence.name}/{images[t].stem}"
        yield FrameSource(name, sequence.name, images[t], truth, t)


def _beside(sequence: Path, kind: str) -> Path:
    return sequence.with_name(f"{sequence.name}_{kind}")


def _numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """The files PREFIXnnn.tif (or .TIF, .tiff) of a folder by their numbers."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [p for p in there if p.suffix.lower() in (".tif", ".tiff")]
    matches = [(re.fullmatch(rf"{prefix}(\d+)", p.stem), p) for p in files]
    return {int(match.group(1)): p for match, p in matches if match}


def _cells(tracks: Path) -> Counter[int] | None:
    """How many cells each frame has by the challenge's list of tracks; None where there is none.

    A line has a track's number, its first and its last frame, and its parent.
    """
    if not tracks.is_file():
        return None
    cells: Counter[int] = Counter()
    for line in tracks.read_text().splitlines():
        try:
            _, first, last, _ = map(int, line.split())
        except ValueError:
            raise StackError(
                f"{tracks}: the line {line!r} is not four whole numbers (track, first and last "
                "frame, parent)"
            ) from None
        cells.update(range(first, last + 1))
    return cells


def find_pairs(root: Path, group: str | None = None) -> list[FrameSource]:
    """Frames of `images/` with the file of the same name in `labels/` (or `masks/`).

    `root` holds the two folders, or sub-folders that each do; capitals do not matter. A frame's
    group is what `group` matches in its file name (its first bracket, if it has any), else its
    sub-folder, else its file. An image of several frames (TIFF, DICOM, NIfTI, or a folder of one
    DICOM series) has a truth of as many. Sorted by name.
    """
    found = _pairs(root, parse_pattern(group), TRUTH_FOLDERS)
    if not found:
        raise _nothing_found(root, "files of the same name in labels/ or masks/")
    return found


def find_color_masks(root: Path, group: str | None = None) -> list[FrameSource]:
    """Frames of `images/` with the picture of the same name in `masks/`, as `find_pairs`.

    Without `group`, files of one folder that agree up to the first underscore or dot are of one
    patient and stay together, and so are slices of one DICOM series.
    """
    found = _pairs(root, parse_pattern(group), ("masks",), re.compile(START))
    if not found:
        raise _nothing_found(root, "pictures of the same name in masks/")
    if group is None:
        joined = groups_by_series((one.image, one.group) for one in found)
        found = [replace(one, group=joined.get(one.group, one.group)) for one in found]
    return found


def _pairs(
    root: Path,
    pattern: re.Pattern[str] | None,
    folders: Sequence[str],
    start: re.Pattern[str] | None = None,
) -> list[FrameSource]:
    """Frames with truth in the first of `folders` there is; `start` groups where `root` is flat."""
    return [
        source
        for top in _tops(root)
        for image, truth in _pairs_of(top, folders)
        for source in _frames_of(
            _name(root, image),
            _group(start if pattern is None and top == root else pattern, root, top, image),
            image,
            truth,
        )
    ]


def _tops(root: Path) -> list[Path]:
    """The folders that may hold `images/` and truth."""
    return [root] if _folder(root, "images") else sorted(p for p in root.iterdir() if p.is_dir())


def _nothing_found(root: Path, truth: str) -> StackError:
    """Says what is there instead of images with truth."""
    for top in _tops(root):
        images = _folder(top, "images")
        if images is not None and not _by_stem(images):
            return StackError(
                f"{images}: no images in it, {_contents(images)}; folders in it are not searched"
            )
    above = "; give the folder above" if root.name.lower() == "images" else ""
    found = f"no images/ folder with {truth} next to it, {_contents(root)}"
    return StackError(f"{root}: {found}{above}")


def _frames_of(name: str, group: str, image: Path, truth: Path) -> list[FrameSource]:
    count = count_planes(image, truth)
    if count == 1:
        return [FrameSource(name, group, image, TruthSource(truth))]
    return [
        FrameSource(f"{name}[{t}]", group, image, TruthSource(truth, t), t, t) for t in range(count)
    ]


def _pairs_of(top: Path, names: Sequence[str]) -> list[tuple[Path, Path]]:
    folder, beside = _folder(top, "images"), truth_folders(top, names)
    if folder is None or not beside:
        return []
    truth, images = _by_stem(beside[0]), _by_stem(folder)
    lost = [p.name for stem, p in images.items() if stem not in truth]
    if lost:
        raise StackError(
            f"{beside[0]}: {len(lost)} images have no truth there; the first is {lost[0]} (the "
            "truth of an image has the same name but for the suffix)"
        )
    return [(image, truth[stem]) for stem, image in images.items()]


def truth_folders(top: Path, names: Sequence[str] = TRUTH_FOLDERS) -> list[Path]:
    """The folders of truth in `top`, the one that is read first."""
    return [folder for name in names if (folder := _folder(top, name)) is not None]


def images_inside(folder: Path) -> list[Path]:
    """Images in folders inside `folder`, which are not read; a DICOM series is itself an image."""
    inner = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.is_symlink()]
    return [
        image
        for one in inner
        if not (one.name.startswith(".") or is_series(one))
        for image in (*filter(_is_image, sorted(one.iterdir())), *images_inside(one))
    ]


def _folder(top: Path, name: str) -> Path | None:
    """The sub-folder of a name in lower case, which may be written with capitals."""
    if (top / name).is_dir():
        return top / name
    return next((p for p in sorted(top.iterdir()) if p.name.lower() == name and p.is_dir()), None)


def _contents(folder: Path) -> str:
    """What a folder holds, in words."""
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    names = [name for name in names if not name.startswith(".")]
    return f"but {some(names)}" if names else "nor anything else"


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder, sorted, by name without suffix; StackError where two share one."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if _is_image(p)):
        # macOS writes an umlaut as two characters where other systems write one.
        other = found.setdefault(unicodedata.normalize("NFC", stem_of(path)), path)
        if other is not path:
            raise StackError(
                f"{folder}: {other.name} and {path.name} differ only in their suffix, so "
                "names do not say which image has which truth; keep one of the two"
            )
    return found


def _is_image(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return path.name.lower().endswith(IMAGE_SUFFIXES) or is_series(path)


def _name(root: Path, image: Path) -> str:
    return image.relative_to(root).as_posix()


def _group(pattern: re.Pattern[str] | None, root: Path, top: Path, image: Path) -> str:
    if pattern is None:
        return _name(root, image) if top == root else top.name
    match = find(pattern, image.name)
    return not_empty(first_bracket(match), match)
