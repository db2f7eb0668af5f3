"""Stacks kept as equal units: the pages of a TIFF, the files of a folder.

    source array   lead dimensions | dimensions inside a unit
    TIFF, T C Y X          T    C  | Y X         one page per (t, c)
    folder of RGB files    T       | Y X C       one file per t

Unit n is the n-th in C order of the lead dimensions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.stacks.base import AxesMap, Stack, StackInfo
from engine.stacks.guard import reading

MAX_PLANE_BYTES = 1 << 42  # 4 TiB: beyond any microscope, and within what damaged headers claim


def frame_name(info: StackInfo, t: int, z: int) -> str:
    """The frame as people call it: "frame t=3", with z where the stack has one."""
    return f"frame t={t}, z={z}" if "Z" in info.axes else f"frame t={t}"


def check_frame(info: StackInfo, t: int, z: int, channels: Sequence[int]) -> None:
    """FrameError where the stack has no such frame or channel."""
    wanted = [("T", t), ("Z", z), *(("C", c) for c in channels)]
    for axis, at in wanted:
        if not 0 <= at < info.size(axis):
            raise FrameError(
                f"{info.path}: has no {axis.lower()}={at}, its size along {axis} is "
                f"{info.size(axis)}"
            )


class UnitStack(Stack):
    """Reads frames out of units; subclasses read one unit."""

    def __init__(self, info: StackInfo, source: str, shape: Sequence[int], n_lead: int) -> None:
        self.info = info
        self._map = AxesMap(source)
        self._lead = tuple(shape[:n_lead])
        self._unit_shape = tuple(shape[n_lead:])

    @abstractmethod
    def _unit(self, n: int) -> NDArray[Any]:
        """Unit `n`, of shape `_unit_shape`; may raise anything."""

    def read(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        """One (t, z) frame, see `Stack.read`."""
        t, z, channels = int(t), int(z), [int(c) for c in channels]
        check_frame(self.info, t, z, channels)
        with reading(self.info.path, frame_name(self.info, t, z)):
            return self._frame(t, z, channels)

    def _frame(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        index = self._map.index(t, z)
        n_lead = len(self._lead)
        wanted: list[Sequence[int]] = []  # units along each lead dimension
        for axis, size, at in zip(self._map.source[:n_lead], self._lead, index, strict=False):
            if isinstance(at, int):
                wanted.append([at])
            else:
                wanted.append(list(channels) if axis == "C" else range(size))
        units = [self._unit(self._number(at)) for at in product(*wanted)]
        sliced = [len(w) for w, at in zip(wanted, index, strict=False) if isinstance(at, slice)]
        block = units[0] if len(units) == 1 else np.stack(units)
        block = block.reshape(*sliced, *self._unit_shape)
        plane = block[(*[slice(None)] * len(sliced), *index[n_lead:])]
        if "C" in self._map.source[:n_lead]:
            channels = range(len(channels))  # only those wanted were read
        return self._map.to_frame(plane, channels, self.info.dtype)

    def _number(self, at: Sequence[int]) -> int:
        n = 0
        for i, size in zip(at, self._lead, strict=True):
            n = n * size + i
        return n


def split_lead(shape: Sequence[int], unit_size: int) -> int | None:
    """How many leading dimensions of `shape` count units of `unit_size` elements; None: no cut."""
    for n_lead in range(len(shape) + 1):
        if math.prod(shape[n_lead:]) == unit_size:
            return n_lead
    return None
