"""Names of results: the stack's own, made longer only where two stacks share it.

An input is called what the user calls it: a link keeps its name, whatever it leads to. Stores of
data (git-annex, DVC, Galaxy) give files names that say nothing, and links to them that do.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".ome.tf2", ".ome.tf8", ".ome.btf", ".ome.zarr",
    ".tiff", ".tif", ".tf2", ".tf8", ".btf", ".lsm", ".zarr", ".png", ".jpeg", ".jpg",
)  # fmt: skip

NAME_MAX = 255  # bytes of a name in a folder, on nearly all file systems


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
