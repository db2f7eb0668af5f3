"""Loops over pixels, compiled by Numba: in C's time, and without Python's lock.

    @compiled
    def total(image): ...         a function of NumPy arrays and numbers, in the part of Python
                                  that Numba knows

What is compiled is kept on the disk, beside the source or in the user's cache folder
(`NUMBA_CACHE_DIR` names another), so that a process loads it in milliseconds. The cache watches the
file of a function alone: the compiled functions that it calls stand in the same file. It only saves
time: where it is cut short or cannot be read or written, the function is compiled again. Sums are
made in the order in which they are written, and results do not depend on the processor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.sigutils import normalize_signature

Function = TypeVar("Function", bound=Callable[..., Any])


class Cache(FunctionCache):
    """Numba's cache of a function, whose failures cost no more than the time to compile it.

    Unpickling a damaged file may raise anything; writing fails where the disk is full.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled for a signature; None where there is nothing that can be read."""
        try:
            loaded = super().load_overload(sig, target_context)
        except Exception:
            with contextlib.suppress(Exception):
                self.flush()  # an index that cannot be read would not take what is compiled now
            return None
        # Two processes that compile for other types at one moment may give their files one name:
        # Numba would then run the code of one on the arrays of the other, wherever items are of one
        # size.
        wanted, _ = normalize_signature(sig)
        return loaded if loaded is None or loaded.signature.args == wanted else None

    def signatures(self, target_context: Any) -> list[tuple[Any, ...]]:
        """What there are compilations for, by this Python, Numba, source and processor."""
        with contextlib.suppress(Exception):
            keys, codegen = self._cache_file._load_index(), target_context.codegen()
            return [key[0] for key in keys if key == self._index_key(key[0], codegen)]
        return []

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature, if that is possible."""
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


def is_kept(function: Callable[..., Any], dtype: str | None = None) -> bool:
    """Whether what was compiled of a function, for arrays of `dtype`, is there to be loaded."""
    dispatcher: Any = function
    cache = getattr(dispatcher, "_cache", None)
    if not isinstance(cache, Cache):
        return False
    wanted = numba.from_dtype(np.dtype(dtype)) if dtype else None
    return any(
        wanted is None or wanted in (getattr(kind, "dtype", None) for kind in signature)
        for signature in cache.signatures(dispatcher.targetctx)
    )


def compiled(function: Function) -> Function:
    """The same function, compiled when it is first called with arrays of these dtypes."""
    dispatcher: Any = numba.njit(nogil=True)(function)
    with contextlib.suppress(RuntimeError):  # there is no folder that can be written
        dispatcher._cache = Cache(function)
    return cast(Function, dispatcher)
