"""What the user names: lists of inputs, where they lie, and what their results are called.

A result has the stack's own name, made longer only where two stacks share it. An input is called
what the user calls it: a link keeps its name, whatever it leads to. Stores of data (git-annex, DVC,
Galaxy) give files names that say nothing, and links to them that do.
"""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from engine.errors import UsageError
from engine.stacks.guard import brief

SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".ome.tf2", ".ome.tf8", ".ome.btf", ".ome.zarr",
    ".tiff", ".tif", ".tf2", ".tf8", ".btf", ".lsm", ".zarr", ".png", ".jpeg", ".jpg",
    ".dcm", ".dicom", ".ima", ".nii.gz", ".nii",
)  # fmt: skip

NAME_MAX = 255  # bytes of a name in a folder, on nearly all file systems


def expand_inputs(inputs: Sequence[str]) -> list[str]:
    """Inputs as the user gave them, with every `@list.txt` replaced by what the list names.

    A list has one input per line, in UTF-8, or in UTF-16 with a byte order mark; blank lines and
    lines that start with # are skipped, and relative paths start from the folder of the list.
    Raises UsageError for a list that cannot be read or that is empty.
    """
    out: list[str] = []
    for item in inputs:
        out += _listed(item[1:]) if item.startswith("@") and len(item) > 1 else [item]
    return out


def _listed(name: str) -> list[str]:
    try:
        data = Path(name).read_bytes()
        # Windows' own programs write UTF-16, whose decoder reads the mark and takes it away.
        is_16_bit = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_16_bit else "utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{name}: the list of inputs does not exist; check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: the list of inputs is not text in UTF-8 or UTF-16; save it as UTF-8"
        ) from error
    except OSError as error:
        raise UsageError(f"{name}: the list of inputs cannot be read ({brief(error)})") from error
    lines = [line.strip() for line in text.splitlines()]
    paths = [line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise UsageError(f"{name}: the list of inputs is empty; write one input per line")
    # Unlike Path.expanduser, this leaves the name of an unknown user as it is.
    return [str(Path(name).parent / os.path.expanduser(p)) for p in paths]  # noqa: PTH111


def given_path(path: str) -> str:
    """A path as given, but absolute, and without "." and ".."; links are not followed.

    Where ".." follows a link, so that the path means another place without it, the links before
    the last part are.
    """
    plain = os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links
    if ".." not in Path(path).parts:
        return plain
    try:
        if Path(plain).samefile(path):
            return plain
    except OSError:  # there is no such file: opening it will say so
        pass
    folder, name = os.path.split(path.rstrip(os.sep))
    if name in ("", os.curdir, os.pardir):
        return str(Path(path).resolve())
    return str(Path(folder).resolve() / name)


def places_of(path: str) -> set[Path]:
    """Where an input lies: what its path leads to and, where that is a link, the link itself."""
    folder, name = os.path.split(path)
    return {Path(path).resolve(), Path(folder).resolve() / name}


def distinct_names(paths: Sequence[str]) -> list[str]:
    """One name per path, each the shortest end of its path that no other shares.

    >>> distinct_names(["/data/a/01.tif", "/data/b/01.tif", "/data/b/02.tif"])
    ['a/01', 'b/01', '02']

    Names are relative, with forward slashes, and free of file suffixes, which come back only
    where two files of one folder differ in nothing else.
    """
    full = [Path(given_path(path)) for path in paths]
    whole = [False] * len(full)  # whether the file's suffix is kept
    while True:
        stems = [p if keep else without_suffix(p) for p, keep in zip(full, whole, strict=True)]
        repeated = Counter(stems)
        clashing = [i for i, stem in enumerate(stems) if repeated[stem] > 1 and not whole[i]]
        if not clashing:
            break
        for i in clashing:
            whole[i] = True
    parts = [stem.parts for stem in stems]
    lengths = [1] * len(parts)
    while True:
        names = [str(PurePosixPath(*p[-n:])) for p, n in zip(parts, lengths, strict=True)]
        count = Counter(name.casefold() for name in names)
        clashing = [
            i for i, name in enumerate(names)
            if count[name.casefold()] > 1 and lengths[i] < len(parts[i]) - 1
        ]  # fmt: skip
        if not clashing:
            return names
        for i in clashing:
            lengths[i] += 1


def without_suffix(path: Path) -> Path:
    """The path without the suffix that says a format, `SUFFIXES`."""
    lower = path.name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    return path
