"""NVIDIA's driver, asked through its C interface: no library of Python's is needed for that."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtimes.base import DeviceMemory

VISIBLE = "CUDA_VISIBLE_DEVICES"  # the environment's variable that names a process's devices
PORTABLE = 1  # locked for all contexts of the process


@cache
def driver() -> ctypes.CDLL | None:
    """The driver; None where there is none, or no device that it could drive."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return None if library.cuInit(0) else library


def visible_devices() -> tuple[str, ...]:
    """What to set `VISIBLE` to in another process for it to see one device, for each of ours."""
    cuda, count = driver(), ctypes.c_int()
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    # CUDA numbers them in the order in which they are named, up to the first that is not there.
    given = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return tuple((given or list(map(str, range(count.value))))[: count.value])


def device_memory(index: int) -> DeviceMemory | None:
    """Which device CUDA counts as `index` in this process, and what is free of its memory.

    What CUDA itself takes of it for this process is not free: it is there while this is asked.
    None where the driver does not tell.
    """
    uuid = (ctypes.c_ubyte * 16)()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context(index) as (cuda, device):
        if (
            cuda is None
            or cuda.cuDeviceGetUuid(ctypes.byref(uuid), device)
            or cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        ):
            return None
    return DeviceMemory(bytes(uuid).hex(), free.value)


def device_name(index: int) -> str:
    """What the driver calls a device; "" where it does not tell."""
    name = ctypes.create_string_buffer(256)
    with _context(index) as (cuda, device):
        if cuda is None or cuda.cuDeviceGetName(name, ctypes.c_int(256), device):
            return ""
    return name.value.decode("ascii", "replace")


def locked(shape: tuple[int, ...], dtype: np.dtype[Any], index: int) -> NDArray[Any]:
    """An array in memory whose pages are locked for a device; in any where there is none to lock.

    Freed with the array. A session holds the device's context, and with it the memory, until then.
    """
    size, place = math.prod(shape) * dtype.itemsize, ctypes.c_void_p()
    with _context(index) as (cuda, _):
        if cuda is None or cuda.cuMemHostAlloc(
            ctypes.byref(place), ctypes.c_size_t(size), ctypes.c_uint(PORTABLE)
        ):
            return np.empty(shape, dtype)
    memory = (ctypes.c_ubyte * size).from_address(place.value or 0)
    weakref.finalize(memory, _free, index, place)
    array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
    return array


def _free(index: int, place: ctypes.c_void_p) -> None:
    with _context(index) as (cuda, _):
        if cuda is not None:
            cuda.cuMemFreeHost(place)


@contextmanager
def _context(index: int) -> Iterator[tuple[Any, ctypes.c_int]]:
    """The driver and a device whose primary context is the thread's; None where that fails."""
    cuda, device = driver(), ctypes.c_int()
    context, old = ctypes.c_void_p(), ctypes.c_void_p()
    if (
        cuda is None
        or cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    ):
        yield None, device
        return
    try:
        if cuda.cuCtxPushCurrent_v2(context):
            yield None, device
            return
        try:
            yield cuda, device
        finally:
            cuda.cuCtxPopCurrent_v2(ctypes.byref(old))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)
