"""What a job needs of the place that it writes to: whole objects by key, and leases.

A key is a POSIX path relative to the root, such as `embryo.zarr/labels/nuclei/0/c/0/0/0/0`. An
object is put whole or not at all, and is durable when `put` returns; nothing is changed in place.
The local disk is `engine.store.local_store`; an object store, whose put is as atomic, is the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol


class ObjectStore(Protocol):
    """Objects by key. Calls from several threads and processes at once are allowed.

    OutputError where something cannot be written; FileNotFoundError or OSError where it cannot be
    read.
    """

    def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        """Write an object: all of it or nothing, and durable when this returns.

        What need not outlive the machine need not be `durable`, and is cheaper.
        """

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """A local file to fill with an object of any size; it is put to `key` afterwards."""

    def get(self, key: str) -> bytes:
        """The object at `key`."""

    def open(self, key: str) -> BinaryIO:
        """The object at `key` as a seekable file, for those that are not read at once."""

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key`."""

    def holds(self, prefix: str) -> bool:
        """Whether there is anything at a key, or below it."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of all objects below `prefix`, in no order; bounded memory however many."""

    def children(self, prefix: str) -> Iterator[str]:
        """Names right below `prefix`, of objects and of what holds some, in no order."""

    def delete(self, key: str, *, durable: bool = True) -> None:
        """Remove an object, if it is there; durable when this returns, see `put`."""

    def delete_all(self, prefix: str) -> None:
        """Remove every object below `prefix`."""

    def stamp(self, key: str) -> tuple[int, ...]:
        """Numbers that change whenever the object does; cheaper than reading it."""

    def lease(self, name: str, *, shared: bool = False) -> AbstractContextManager[bool]:
        """Whether a lease could be taken; it ends with the process, however that ends."""

    def where(self, key: str = "") -> str:
        """An object, or the root, as a message to the user names it."""


def get_checked(store: ObjectStore, key: str, sha256: str | None) -> bytes:
    """An object whose checksum is on record; ValueError where it is another, OSError where gone."""
    data = store.get(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its SHA-256 differs")
    return data


def digest_of(store: ObjectStore, key: str) -> str:
    """SHA-256 of an object of any size."""
    with store.open(key) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
