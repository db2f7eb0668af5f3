"""Parts as they lie in the job's folder until their stack is stitched.

    work/parts/NAME/000012.json   the record (`PartRecord`), put last
    work/parts/NAME/000012.npz    arrays by name, below
    work/labels/NAME/000012.shard local labels, or classes
    work/objects/NAME/000012.shard local labels beside a class map
    work/maps/NAME/000012.npy     final id of each local one, put by the step `stitch`

Arrays of instances: n labels in the block, m pieces (a label in a plane), r rows of pixels,
F frames:

    intensity (F,)                       sum over each frame's part
    first, area, border, scope (n,)      see `engine.labels.stitching`
    class (n,)                           number of the class; objects of two are never joined
    piece_NAME (m,)                      sums, see `engine.measure.objects`, and `frame`
    row_label, row_frame, row_y, row_left, row_right (r,)   of labels that may go on elsewhere
    face_y0, face_y1, face_x0, ...       labels at the faces of the block; by cores, of seeds

and, by cores, where frames are cut, f labels that begin elsewhere, see `engine.labels.blocks`:

    strip_y0, strip_y1, strip_x0, strip_x1   seeds along the edges of the block
    foreign (f,), anchor (f, 4)              these labels; T, Z, Y, X in the stack of a core pixel

and of class maps: class_counts, class_intensities (F, K), class_certainty (F,).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from engine.geometry.arrays import ResultArray
from engine.measure.objects import ObjectSums
from engine.plan.plan import StackPlan
from engine.store.folder import JobFolder, key_of
from engine.store.object_store import digest_of, get_checked
from engine.store.ome_zarr import decode_shard, provisional
from engine.store.records import PartRecord

Arrays = dict[str, NDArray[Any]]
# NumPy parses headers with `ast`, which fails now and then under Python 3.11 where another thread
# parses as well: "AST constructor recursion depth mismatch" (python/cpython#106905).
_parsing = threading.Lock()


class PartStore:
    """The parts of a stack. What is damaged goes, and JobStopped says so."""

    def __init__(self, folder: JobFolder, stack: StackPlan) -> None:
        self._folder, self._stack = folder, stack

    def record_key(self, block: int) -> str:
        """Key of a part's record."""
        return key_of("work/parts", self._stack.name, block)

    def _arrays_key(self, block: int) -> str:
        return key_of("work/parts", self._stack.name, block, ".npz")

    def _labels_key(self, block: int, kind: str) -> str:
        return key_of(f"work/{kind}", self._stack.name, block, ".shard")

    def _ids_key(self, block: int) -> str:
        return key_of("work/maps", self._stack.name, block, ".npy")

    def has(self, block: int) -> bool:
        """Whether all of a part is there; what it holds is checked when it is used."""
        labels = (self._labels_key(block, array.kind) for array in self._stack.label_images)
        keys = (*labels, self._arrays_key(block), self.record_key(block))
        return all(map(self._folder.own.exists, keys))

    def has_ids(self, block: int) -> bool:
        """Whether the final ids of a block's labels are there."""
        return self._folder.own.exists(self._ids_key(block))

    @staticmethod
    def encode(arrays: Arrays) -> bytes:
        """The arrays of a part as one object."""
        out = io.BytesIO()
        np.savez(out, allow_pickle=False, **arrays)
        return out.getvalue()

    def put(self, block: int, labels: Mapping[str, bytes], arrays: bytes) -> None:
        """Put what a part's record speaks of; `labels` by kind of array."""
        for kind, data in labels.items():
            self._folder.own.put(self._labels_key(block, kind), data)
        self._folder.own.put(self._arrays_key(block), arrays)

    def record(self, block: int) -> PartRecord:
        """The record of a part."""
        record = self._folder.record(PartRecord, self.record_key(block))
        if record is None:
            self._discard(block, "its record cannot be read")
        return record

    def checked(self, block: int) -> tuple[PartRecord, Part]:
        """A part whose arrays are those on record."""
        record = self.record(block)
        try:
            if digest_of(self._folder.own, self._arrays_key(block)) != record.part_sha256:
                raise ValueError("its SHA-256 differs")
        except (OSError, ValueError) as error:
            self._discard(block, error)
        return record, Part(self._folder, self._arrays_key(block))

    def labels(self, block: int, record: PartRecord, array: ResultArray) -> NDArray[Any]:
        """A label image as the part has it, (T, Z, Y, X): local labels, or classes."""
        key, layout = self._labels_key(block, array.kind), self._stack.layout
        try:
            data = get_checked(self._folder.own, key, record.labels.get(array.kind))
            return decode_shard(provisional(array).shape(layout), data)
        except (OSError, ValueError) as error:
            self._folder.discard([key, self.record_key(block)], error)

    def put_ids(self, block: int, ids: NDArray[Any]) -> None:
        """Put the final id of each local label, (n + 1,); 0 is the background's."""
        out = io.BytesIO()
        np.save(out, ids, allow_pickle=False)
        self._folder.own.put(self._ids_key(block), out.getvalue())

    def final_ids(self, block: int) -> NDArray[Any]:
        """See `put_ids`."""
        key = self._ids_key(block)
        try:
            data = io.BytesIO(self._folder.own.get(key))
            with _parsing:
                found: NDArray[Any] = np.load(data, allow_pickle=False)
            return found
        except (OSError, ValueError, EOFError) as error:
            self._folder.discard([key], error)

    def _discard(self, block: int, why: object) -> NoReturn:
        self._folder.discard([self.record_key(block), self._arrays_key(block)], why)


class Part:
    """The arrays of a part; each is read when it is asked for."""

    def __init__(self, folder: JobFolder, key: str) -> None:
        self._folder, self._key = folder, key

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One array by its name."""
        return self._read(lambda one: one == name)[name]

    def pieces(self) -> ObjectSums:
        """Measures of each label and plane; "frame" is the frame's number in the layout."""
        return self._all("piece_")

    def rows(self) -> Arrays:
        """Label, frame, y, left and right end of each row of the labels that touch a face."""
        return self._all("row_")

    def _all(self, prefix: str) -> Arrays:
        found = self._read(lambda one: one.startswith(prefix))
        return {name.removeprefix(prefix): array for name, array in found.items()}

    def _read(self, wanted: Any) -> Arrays:
        with (
            _parsing,
            self._folder.own.open(self._key) as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return {name: arrays[name] for name in arrays.files if wanted(name)}
