"""A block of whole frames: read, segment, measure, and commit; one pass does it all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engine.errors import FrameError
from engine.geometry.layout import Block
from engine.measure.frames import FrameRow
from engine.measure.objects import ObjectColumns
from engine.steps.frame import finish_frame
from engine.steps.hangs import Frame
from engine.steps.shards import BlockShards, put_shards
from engine.steps.work import Outcome, Work
from engine.store.committed import block_record, record_place
from engine.store.committed import shards as committed_shards
from engine.store.folder import read_checked
from engine.store.ome_zarr import decode_shard
from engine.store.tables import decode_objects, encode_objects


@dataclass
class _Kept:
    """What an earlier run made of the frames that are not to be done again."""

    shards: dict[str, NDArray[Any]]  # by kind of array
    rows: dict[Frame, FrameRow]
    objects: dict[Frame, ObjectColumns]


def segment_whole(work: Work) -> Outcome:
    """Do a block of whole frames and commit it. Safe to repeat: the same bytes again."""
    plan = work.plan
    block = plan.layout.block(work.task.index)
    shards = BlockShards(plan, block, plan.arrays)
    kept = _earlier(work, block) if work.task.only else None
    rows: list[FrameRow] = []
    parts: list[tuple[int, int, ObjectColumns]] = []
    for t, z in block.frames:
        if kept is not None and (t, z) not in work.task.only:
            shards.take(t, z, kept.shards)
            row, objects = kept.rows[t, z], kept.objects.get((t, z))
        else:
            row, objects = _segment_frame(work, t, z, block, shards)
        rows.append(row)
        if objects is not None:
            parts.append((t, z, objects))
    _commit(work, block, shards, rows, parts)
    return Outcome(
        plan.name, work.task.step, block.index, len(rows),
        tuple((r["t"], r["z"], r["reason"]) for r in rows if r["status"] == "failed"),
        sum(r.get("objects") or 0 for r in rows), work.watch.seconds,
    )  # fmt: skip


def _segment_frame(
    work: Work, t: int, z: int, block: Block, shards: BlockShards
) -> tuple[FrameRow, ObjectColumns | None]:
    row: FrameRow = {"t": t, "z": z}
    try:
        seen = work.see(t, z, block)
    except FrameError as error:
        return {**row, "status": "failed", "reason": str(error)}, None
    done = finish_frame(
        seen.pixels,
        work.plan.channels[0],
        seen.probability,
        work.model.spec,
        work.plan.postprocessing,
        work.plan.pixel_area_um2,
        work.watch,
    )
    shards.put_labels(t, z, done.labels)
    shards.keep(t, z, seen)
    return {**row, "status": "ok", **seen.told, **done.row}, done.objects


def _commit(
    work: Work,
    block: Block,
    shards: BlockShards,
    rows: list[FrameRow],
    parts: list[tuple[int, int, ObjectColumns]],
) -> None:
    """Put data first and the record last: what has a record is whole and on the disk."""
    plan, folder = work.plan, work.folder
    with work.watch.stage("write"):
        encoded = shards.encode()
        objects = encode_objects(plan.objects_of, parts)
        work.check_identity()
        record_path = record_place(folder, plan.name, block.index)
        if work.task.only:
            # The old record speaks of the old shard: an end in between leaves a block to be done.
            folder.remove(record_path)
        checksums = put_shards(folder, plan, block, encoded)
        folder.put(folder.place("objects", plan.name, block.index, ".parquet"), objects)
    work.put_timings()
    record = {
        "block": block.index,
        **checksums,
        "objects_sha256": hashlib.sha256(objects).hexdigest(),
        "frames": rows,
    }
    folder.put_json(record_path, record)


def _earlier(work: Work, block: Block) -> _Kept | None:
    """What is committed of a block; None where it is not whole, so that all of it is done."""
    plan, folder = work.plan, work.folder
    record = block_record(folder, plan, block)
    if record is None:
        return None
    places = committed_shards(folder, plan, block)
    try:
        kept = {
            array.kind: decode_shard(
                array.shape(plan.layout), read_checked(places[array.kind], record[array.checksum])
            )
            for array in plan.arrays
        }
        part = folder.place("objects", plan.name, block.index, ".parquet")
        objects = read_checked(part, record["objects_sha256"])
    except ValueError:
        return None
    rows = {(row["t"], row["z"]): row for row in record["frames"]}
    return _Kept(kept, rows, decode_objects(objects))
