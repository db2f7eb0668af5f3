"""The border between readers and libraries: one sentence out, whatever went wrong inside.

Format libraries raise dozens of exception types on a damaged file, and tifffile often logs a
problem and continues with less. Readers run them inside these context managers, so that only
StackError and FrameError get out, and tifffile's complaints can be examined.
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.errors import FrameError, StackError, StacksegError

_caught = threading.local()
# What a library raises when it takes what a damaged file says for what it should say.
_NONSENSE = (
    ArithmeticError,
    AttributeError,
    AssertionError,
    IndexError,
    RecursionError,
    TypeError,
    UnicodeError,
    struct.error,
)


def brief(value: object, limit: int = 120) -> str:
    """What a foreign exception, or a value out of a file, says, as one short line."""
    text = " ".join(str(value).split()) or type(value).__name__
    text = "".join(c if c.isprintable() else "?" for c in text)  # it may quote the file
    return text if len(text) <= limit else text[: limit - 3] + "..."


def some(texts: Sequence[str], between: str = ", ", limit: int = 5) -> str:
    """The first of several things in a sentence, and how many more there are."""
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return between.join(texts[:limit]) + more


@contextmanager
def opening(path: str) -> Iterator[None]:
    """Turn every failure into a StackError about `path`."""
    try:
        yield
    except StacksegError:
        raise
    except PermissionError as error:
        raise StackError(f"{path}: cannot be read; check its permissions") from error
    except FileNotFoundError as error:
        raise StackError(f"{path}: does not exist; check the path") from error
    except MemoryError as error:
        raise StackError(
            f"{path}: needs more memory than there is; it is damaged, or must be split"
        ) from error
    except _NONSENSE as error:
        raise StackError(
            f"{path}: cannot be opened, its headers are damaged; copy or write it again"
        ) from error
    except Exception as error:
        raise StackError(
            f"{path}: cannot be opened ({brief(error)}); check that the file is complete"
        ) from error


@contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """Turn every failure into a FrameError about `what` of `path`."""
    try:
        yield
    except FrameError:
        raise
    except StacksegError as error:
        raise FrameError(str(error)) from error
    except MemoryError as error:
        raise FrameError(f"{path}: {what} does not fit in memory") from error
    except Exception as error:
        raise FrameError(f"{path}: {what} cannot be read ({brief(error)})") from error


class _ToCaller(logging.Filter):
    """Hands tifffile's messages to the thread that caused them only."""

    def filter(self, record: logging.LogRecord) -> bool:
        messages: list[tuple[int, str]] | None = getattr(_caught, "messages", None)
        if messages is None:
            return True
        if len(messages) < 1000:  # a hostile file may complain without end
            messages.append((record.levelno, record.getMessage()))
        return False


_filter = _ToCaller()


@contextmanager
def tifffile_messages() -> Iterator[list[tuple[int, str]]]:
    """Collect what tifffile logs in this thread: (level, message); nothing reaches the user."""
    logging.getLogger("tifffile").addFilter(_filter)  # adding it twice changes nothing
    before = getattr(_caught, "messages", None)
    messages: list[tuple[int, str]] = []
    _caught.messages = messages
    try:
        yield messages
    finally:
        _caught.messages = before


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep zarr's Python warnings off the terminal; only for the opening of a store.

    `warnings.catch_warnings` is not thread-safe, so nothing that reads frames may use it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
