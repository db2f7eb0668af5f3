"""Runs on a device, a few at a time, through buffers that stay where they are.

A device reads and writes a process's memory fastest where its pages are locked. To lock them takes
long, so that a run borrows a slot whose buffers are locked already; whoever finds none waits. That
bounds the device's memory, too, however many blocks are in flight.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtimes.base import Compute, Floats, Pixels, Result

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]


class Slots:
    """A `Compute` that runs another one, `count` times at once at the most."""

    def __init__(self, compute: Compute, count: int, allocate: Allocate) -> None:
        """`allocate` gives the memory of a buffer."""
        self.compute = compute
        # The one used last comes first: where one is enough, the others have no buffers.
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(_Slot(allocate))

    def __call__(self, pixels: Pixels, statistics: Floats, out: Result) -> None:
        """Run; see `Compute`."""
        slot = self._free.get()
        try:
            own = slot.buffers(pixels, statistics, out)
            np.copyto(own[0], pixels)
            np.copyto(own[1], statistics)
            self.compute(*own)
            np.copyto(out, own[2])
        finally:
            self._free.put(slot)


class _Slot:
    """Buffers for runs of one shape; they are made again where the next run has another one."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._buffers: list[NDArray[Any]] = []

    def buffers(self, *arrays: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """One for each array, of its shape and type."""
        if _kinds(self._buffers) != _kinds(arrays):
            self._buffers = []  # let go of first
            self._buffers = [self._allocate(one.shape, one.dtype) for one in arrays]
        return self._buffers


def _kinds(arrays: Sequence[NDArray[Any]]) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    return [(one.shape, one.dtype) for one in arrays]
