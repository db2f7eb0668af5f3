"""A block read again: its record, the checksum of its shard, and what its labels say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import first_line
from engine.geometry.arrays import (
    IMAGE,
    LABELS,
    PROBABILITY,
    ArrayShape,
    ResultArray,
    level_layout,
)
from engine.geometry.layout import Block
from engine.results.verify.pieces import Pieces, pieces_of
from engine.results.verify.problems import Problem
from engine.results.verify.view import Frame, StackView
from engine.store.ome_zarr import decode_shard

WORDS = {LABELS: "labels", PROBABILITY: "probabilities", IMAGE: "pixels"}
_LOST = 2**64 - 1  # in a shard's index: there is no such chunk


@dataclass
class SeenBlock:
    """A block as it lies on disk. A block without a record is not committed."""

    block: Block
    record: dict[str, Any] | None = None  # None where it is missing or damaged
    is_missing: bool = False  # there is no record at all
    planes: dict[Frame, Pieces] | None = None  # None where the labels cannot be read
    problems: list[Problem] = field(default_factory=list)


def see_block(view: StackView, index: int) -> SeenBlock:
    """Read a block. Any thread may do it."""
    block = view.layout.block(index)
    seen = SeenBlock(block)
    path, where = view.record(block), view.of_block(block)

    def tell(kind: str, path: Path, what: str) -> None:
        seen.problems.append(Problem(kind, view.relative(path), what, where, view.name, index))

    if not path.exists():
        seen.is_missing = True
        return seen
    record = view.folder.read_json(path)
    if record is None:
        tell("record", path, "the record cannot be read")
    elif record.get("block") != index:
        tell("record", path, f"the record is that of block {record.get('block')}")
    elif not isinstance(record.get("labels_sha256"), str):
        tell("record", path, "the record tells no checksum of the labels")
    else:
        seen.record = record
    for array in view.arrays[1:]:
        read_shard(view, block, array, 0, seen.record, seen.problems)
    labels = read_shard(view, block, view.labels, 0, seen.record, seen.problems)
    if labels is None:
        return seen
    shard = view.shard(block)
    if beyond := _labels_beyond(labels, block):
        tell("labels", shard, f"{beyond} labels lie outside of the stack")
    seen.planes = {
        (t, z): pieces_of(
            labels[t - block.t[0], z - block.z[0], : block.y.size, : block.x.size],
            (block.y.start, block.x.start),
            view.layout.sizes[3],
            background=not view.gives_instances,
        )
        for t, z in block.frames
    }
    return seen


def read_shard(
    view: StackView,
    block: Block,
    array: ResultArray,
    level: int,
    record: dict[str, Any] | None,
    problems: list[Problem],
) -> NDArray[Any] | None:
    """A shard's values, None where they cannot be read; adds what is wrong to `problems`.

    `record` is the block's, None where that is missing or damaged.
    """
    path, what = view.shard(block, array, level), WORDS[array.kind]
    where = view.of_block(block, level)

    def tell(words: str) -> None:
        problems.append(Problem("shard", view.relative(path), words, where, view.name, block.index))

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        tell(f"the {what} are gone")
        return None
    except OSError as error:
        tell(f"the {what} cannot be read ({error.strerror or error})")
        return None
    if record is not None and hashlib.sha256(data).hexdigest() != record.get(array.checksum):
        tell(f"the {what} are not those of the record: their SHA-256 differs")
    shape = array.shape(level_layout(view.layout, level))
    try:
        values = decode_shard(shape, data)
        if lost := _lost_chunks(shape, data):
            raise ValueError(f"{lost} of its chunks are not there")
    except Exception as error:  # damaged bytes make codecs raise anything
        tell(f"the {what} cannot be decoded ({first_line(error)})")
        return None
    return values


def check_provisional(view: StackView) -> Iterator[Problem]:
    """What an unfinished job keeps until its labels are stitched, against its records."""
    for block in view.layout.blocks():
        path = view.folder.place("work/parts", view.name, block.index)
        record = view.folder.read_json(path)
        if record is None or view.record(block).exists():
            continue
        labels = view.folder.place("work/labels", view.name, block.index, ".shard")
        for kept, name in ((labels, "labels_sha256"), (path.with_suffix(".npz"), "part_sha256")):
            try:
                with kept.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                what = "" if digest == record.get(name) else "is not what the record tells"
            except OSError as error:
                what = f"cannot be read ({error.strerror or error})"
            if what:
                where = view.of_block(block)
                yield Problem("shard", view.relative(kept), what, where, view.name, block.index)


def _lost_chunks(shape: ArrayShape, data: bytes) -> int:
    """Chunks that a shard lacks, and that would be read as zeros; every one is written."""
    count = int(np.prod(shape.shard)) // int(np.prod(shape.chunk))
    index = np.frombuffer(data[-(16 * count + 4) : -4], dtype="<u8")  # CRC-32C behind it
    return int((index.reshape(-1, 2) == _LOST).any(axis=1).sum())


def _labels_beyond(labels: NDArray[Any], block: Block) -> int:
    """Labels in the part of a shard that is outside of the array."""
    shape = (block.t[1] - block.t[0], block.z[1] - block.z[0], block.y.size, block.x.size)
    if labels.shape == shape:
        return 0
    inside = labels[tuple(slice(0, size) for size in shape)]
    return int(np.count_nonzero(labels)) - int(np.count_nonzero(inside))
