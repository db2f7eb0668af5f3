"""Names of results: the stack's own, made longer only where two stacks share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".ome.tf2", ".ome.tf8", ".ome.btf", ".ome.zarr",
    ".tiff", ".tif", ".tf2", ".tf8", ".btf", ".lsm", ".zarr", ".png", ".jpeg", ".jpg",
)  # fmt: skip


def distinct_names(paths: Sequence[str]) -> list[str]:
    """One name per path, each the shortest end of its path that no other shares.

    >>> distinct_names(["/data/a/01.tif", "/data/b/01.tif", "/data/b/02.tif"])
    ['a/01', 'b/01', '02']

    Names are relative, with forward slashes, and free of file suffixes, which come back only
    where two files of one folder differ in nothing else.
    """
    full = [Path(path).resolve() for path in paths]
    whole = [False] * len(full)  # whether the file's suffix is kept
    while True:
        stems = [p if keep else _without_suffix(p) for p, keep in zip(full, whole, strict=True)]
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


def _without_suffix(path: Path) -> Path:
    lower = path.name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return path.with_name(path.name[: -len(suffix)])
    return path
