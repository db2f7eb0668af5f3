"""NVIDIA's driver, asked through its C interface: no library of Python's is needed for that."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from engine.runtimes.base import DeviceMemory


@cache
def driver() -> ctypes.CDLL | None:
    """The driver; None where there is none, or no device that it could drive."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return None if library.cuInit(0) else library


def device_memory(index: int) -> DeviceMemory | None:
    """Which device CUDA counts as `index` in this process, and what is free of its memory.

    What CUDA itself takes of it for this process is not free: it is there while this is asked.
    None where the driver does not tell.
    """
    cuda = driver()
    if cuda is None:
        return None
    device, context, old = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    uuid = (ctypes.c_ubyte * 16)()
    if (
        cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDeviceGetUuid(ctypes.byref(uuid), device)
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    ):
        return None
    try:
        if cuda.cuCtxPushCurrent_v2(context):
            return None
        status = cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        cuda.cuCtxPopCurrent_v2(ctypes.byref(old))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)
    return None if status else DeviceMemory(bytes(uuid).hex(), free.value)
