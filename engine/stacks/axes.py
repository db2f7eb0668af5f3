"""Which dimension is which: from metadata, from the user, or not at all.

A source names its dimensions by letters. Those out of TCZYX are known; any other letter says
"some dimension". One unknown dimension before Y and X is time, as in a plain multi-page TIFF;
more than one is ambiguous, and the user decides by --axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from engine.errors import StackError
from engine.stacks.base import CANONICAL, check_axes

UNKNOWN = "?"
MAX_CHANNELS_LAST = 4  # a last dimension of 2 to 4 is taken for channels: RGB, RGBA


def source_axes(
    letters: str,
    shape: Sequence[int],
    path: str,
    given: str | None = None,
    *,
    guess_time: bool = True,
) -> str:
    """Name every dimension of a source array, "_" for those of length 1 that are no axis.

    `letters` has one letter per dimension, of `shape`; letters outside TCZYX are unknown. `given`
    are the user's axes: one for each dimension, or one for each that is longer than 1 (Y and X
    always count). Raises StackError where the axes stay ambiguous, naming those it might have.
    """
    if given is not None:
        return _as_given(letters, shape, path, given)
    _refuse_slivers(letters, shape, path)
    letters = "".join(a if a in CANONICAL else UNKNOWN for a in letters)
    letters = _channels_last(letters, shape)
    letters = _drop_singles(letters, shape)
    unknown = letters.count(UNKNOWN)
    if unknown == 1 and guess_time and "T" not in letters:
        letters = letters.replace(UNKNOWN, "T")
        unknown = 0
    named = [a for a in letters if a not in "_" + UNKNOWN]
    if unknown or len(set(named)) != len(named) or not {"Y", "X"} <= set(named):
        raise StackError(_ambiguous(letters, shape, path))
    return letters


def _as_given(letters: str, shape: Sequence[int], path: str, given: str) -> str:
    """The user's axes, spread over all dimensions or over those that are longer than 1."""
    if len(given) == len(shape):
        return check_axes(given, len(shape), path)
    counted = [n > 1 or a in "YX" for a, n in zip(letters, shape, strict=True)]
    if len(given) != sum(counted):
        check_axes(given, len(shape), path)  # raises: says how many dimensions there are
    names = iter(check_axes(given, sum(counted), path))
    return "".join(next(names) if count else "_" for count in counted)


def _channels_last(letters: str, shape: Sequence[int]) -> str:
    """(..., Y, X, 2 to 4) written without axes looks like rows of 2 to 4 pixels: it is colour."""
    if letters.endswith(UNKNOWN + "YX") and "C" not in letters and _thin(shape):
        return letters[:-3] + "YXC"
    return letters


def _thin(shape: Sequence[int]) -> bool:
    return 2 <= shape[-1] <= MAX_CHANNELS_LAST < min(shape[-3:-1])


def _refuse_slivers(letters: str, shape: Sequence[int], path: str) -> None:
    """Channels last, written page by page and without the shape: where frames end is lost.

    tifffile calls the dimension of separate pages "I".
    """
    if letters.endswith("IYX") and _thin(shape):
        raise StackError(
            f"{path}: has {shape[-3]} pages of {shape[-2]}x{shape[-1]} pixels, probably channels "
            "last without the number of frames; write it with its axes, or give --axes TYX"
        )


def _drop_singles(letters: str, shape: Sequence[int]) -> str:
    """Unknown dimensions of length 1 are no axes; nor is a second mention of a named one."""
    out = ""
    for i, (a, n) in enumerate(zip(letters, shape, strict=True)):
        repeated = letters.count(a) > 1 and a in CANONICAL and a not in "YX"
        others = [shape[j] for j, b in enumerate(letters) if b == a and j != i]
        idle = n == 1 and (a == UNKNOWN or (repeated and (max(others) > 1 or a in out)))
        out += "_" if idle else a
    return out


def _ambiguous(letters: str, shape: Sequence[int], path: str) -> str:
    """The sentence that names what the axes might be."""
    real = [(a, n) for a, n in zip(letters, shape, strict=True) if a != "_"]
    sizes = tuple(n for _, n in real)
    options = [f"--axes {o}" for o in _options("".join(a for a, _ in real), sizes)]
    start = f"{path}: has shape {sizes} and "
    if not options:
        return start + "its metadata name no axes among T, C, Z, Y, X that fit; give --axes"
    choice = options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"
    lacking = "no axes" if set(letters) <= {UNKNOWN, "Y", "X", "_"} else "not all axes"
    return f"{start}{lacking} in its metadata: give {choice}"


def _options(letters: str, sizes: Sequence[int]) -> list[str]:
    """Every way to name the unknown dimensions, in canonical order of the names."""
    known = {a for a in letters if a in CANONICAL}
    repeated = any(letters.count(a) > 1 for a in known)
    free = [a for a in "TCZ" if a not in known]
    n = letters.count(UNKNOWN)
    if repeated or not {"Y", "X"} <= known or not 0 < n <= len(free):
        return []
    out = []
    for names in combinations(free, n):
        fill = iter(names)
        out.append("".join(next(fill) if a == UNKNOWN else a for a in letters))
    return out
