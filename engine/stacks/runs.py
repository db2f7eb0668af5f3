"""Parts of an array that lies unpacked in a file, read run by run.

    array (rows, columns), part [1:3, 2:4]      . . . . .
    two runs of two values                      . . A A .
                                                . . B B .

Nothing is mapped into memory: where a file ends too early, reading says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.stacks.base import SKIP


class Readable(Protocol):
    """What an open file can do, tifffile's own kind included."""

    def seek(self, offset: int, /) -> int: ...  # noqa: D102
    def readinto(self, buffer: Any, /) -> int | None: ...  # noqa: D102


def read_part(
    file: Readable, offset: int, shape: Sequence[int], dtype: np.dtype[Any], part: Sequence[slice]
) -> NDArray[Any] | None:
    """`array[part]`, for the array of `shape` that starts at `offset`; None: the file ends.

    `part` has a slice with both ends for each dimension. The position of `file` moves.
    """
    inner = _depth(shape, dtype.itemsize, part)
    read = [slice(0, n) for n in shape]
    read[: inner + 1] = part[: inner + 1]
    out = np.empty([s.stop - s.start for s in read], dtype)
    if out.size:
        runs = out.reshape(math.prod(out.shape[:inner]), -1)
        for run, at in zip(runs, _starts(shape, read, inner), strict=True):
            file.seek(offset + at * dtype.itemsize)
            if not _fill(file, run.view(np.uint8).data):
                return None
    return out[tuple(slice(None) if i <= inner else s for i, s in enumerate(part))]


def _depth(shape: Sequence[int], itemsize: int, part: Sequence[slice]) -> int:
    """The innermost dimension along which runs stop short of their neighbours."""
    for i in reversed(range(len(shape))):
        if shape[i] - (part[i].stop - part[i].start) > 0:
            below = math.prod(shape[i + 1 :]) * itemsize
            if (shape[i] - (part[i].stop - part[i].start)) * below > SKIP:
                return i
    return 0


def _starts(shape: Sequence[int], read: Sequence[slice], inner: int) -> Iterator[int]:
    """Where each run starts, in values from the start of the array."""
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    first = read[inner].start * steps[inner] if shape else 0
    for at in product(*(range(s.start, s.stop) for s in read[:inner])):
        yield first + sum(i * step for i, step in zip(at, steps, strict=False))


def _fill(file: Readable, memory: memoryview) -> bool:
    """Read into all of `memory`; False where the file ends before."""
    done = 0
    while done < len(memory):  # one call reads at most 2 GB
        got = file.readinto(memory[done:])
        if not got:
            return False
        done += got
    return True
