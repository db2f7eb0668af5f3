"""Loops over pixels, compiled by Numba: in C's time, and without Python's lock.

    @compiled
    def total(image): ...         a function of NumPy arrays and numbers, in the part of Python
                                  that Numba knows

What is compiled is kept on the disk, beside the source or in the user's cache folder
(`NUMBA_CACHE_DIR` names another), so that a process loads it in milliseconds. The cache watches the
file of a function alone: the compiled functions that it calls stand in the same file. Sums are made
in the order in which they are written, and results do not depend on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The same function, compiled when it is first called with arrays of these dtypes."""
    compiler = numba.njit(nogil=True, cache=True)
    try:
        return cast(Function, compiler(function))
    except RuntimeError:  # there is no folder that can be written
        return cast(Function, numba.njit(nogil=True)(function))
