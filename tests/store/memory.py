"""Objects in memory: a store without paths, for which the engine must need none."""

from __future__ import annotations

import io
import itertools
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


@dataclass(eq=False)
class Memory:
    """What several stores share, as stores on a disk do."""

    objects: dict[str, bytes] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # -1: not shared
    count: itertools.count[int] = field(default_factory=itertools.count)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Objects below a root. See `engine.store.object_store.ObjectStore`."""

    memory: Memory
    root: str = "memory"
    leases: str = "leases"

    def where(self, key: str = "") -> str:
        return f"{self.root}/{key}".rstrip("/")

    def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        memory, place = self.memory, self.where(key)
        with memory.lock:
            memory.objects[place], memory.stamps[place] = bytes(data), next(memory.count)

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "object"
            yield file
            self.put(key, file.read_bytes())

    def get(self, key: str) -> bytes:
        try:
            return self.memory.objects[self.where(key)]
        except KeyError:
            raise FileNotFoundError(key) from None

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.get(key))

    def exists(self, key: str) -> bool:
        return self.where(key) in self.memory.objects

    def holds(self, prefix: str) -> bool:
        return self.exists(prefix) or any(True for _ in self.list(prefix))

    def list(self, prefix: str) -> Iterator[str]:
        with self.memory.lock:
            places = [*self.memory.objects]
        below = f"{self.where(prefix)}/"
        return (p.removeprefix(f"{self.root}/") for p in places if p.startswith(below))

    def children(self, prefix: str) -> Iterator[str]:
        rest = (key.removeprefix(f"{prefix}/") for key in self.list(prefix))
        return iter({name.partition("/")[0] for name in rest})

    def delete(self, key: str, *, durable: bool = True) -> None:
        with self.memory.lock:
            self.memory.objects.pop(self.where(key), None)

    def delete_all(self, prefix: str) -> None:
        for key in self.list(prefix):
            self.delete(key)

    def stamp(self, key: str) -> tuple[int, ...]:
        self.get(key)
        return (self.memory.stamps[self.where(key)],)

    @contextmanager
    def lease(self, name: str, *, shared: bool = False) -> Iterator[bool]:
        held, place = self.memory.leases, f"{self.leases}/{name}"
        with self.memory.lock:
            is_free = held[place] >= 0 if shared else held[place] == 0
            if is_free:
                held[place] += 1 if shared else -1
        try:
            yield is_free
        finally:
            with self.memory.lock:
                if is_free:
                    held[place] -= 1 if shared else -1
