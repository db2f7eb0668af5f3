"""Imports that overlap with work outside of Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module


@contextmanager
def importing(name: str) -> Iterator[None]:
    """Import a module in a thread of its own while what is inside runs in C++.

    It has ended when the block ends: Python cannot go down in the middle of an import.
    """

    def body() -> None:
        with suppress(ImportError):  # whoever needs it says so
            import_module(name)

    thread = threading.Thread(target=body, name="stackseg-import")
    thread.start()
    try:
        yield
    finally:
        thread.join()
