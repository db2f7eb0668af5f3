"""A block of whole frames: read, segment, measure, and commit; one pass does it all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import FrameError
from engine.layout import Block
from engine.measure import FrameRow
from engine.model import ModelSpec
from engine.objects import ObjectColumns
from engine.plan import StackPlan
from engine.segment import finish_frame
from engine.steps.work import Frame, Outcome, Work
from engine.store import decode_shard, encode_shard, label_path, new_shard
from engine.tables import decode_objects, encode_objects


def shard_path(root: Path, plan: StackPlan, spec: ModelSpec, block: Block) -> Path:
    """Where the labels of a block lie in a job's folder."""
    array = root / f"{plan.name}.zarr" / label_path(spec) / "0"
    return array / plan.layout.shard_key(block)


@dataclass
class _Kept:
    """What an earlier run made of the frames that are not to be done again."""

    labels: NDArray[Any]
    rows: dict[Frame, FrameRow]
    objects: dict[Frame, ObjectColumns]


def segment_whole(work: Work) -> Outcome:
    """Do a block of whole frames and commit it. Safe to repeat: the same bytes again."""
    plan = work.plan
    block = plan.layout.block(work.task.index)
    shard = new_shard(plan.layout)
    kept = _earlier(work, block) if work.task.only else None
    rows: list[FrameRow] = []
    parts: list[tuple[int, int, ObjectColumns]] = []
    for t, z in block.frames:
        at = (t - block.t[0], z - block.z[0])
        inside = (*at, slice(0, block.y.size), slice(0, block.x.size))
        if kept is not None and (t, z) not in work.task.only:
            shard[inside] = kept.labels[inside]
            row, objects = kept.rows[t, z], kept.objects.get((t, z))
        else:
            labels, row, objects = _segment_frame(work, t, z, block)
            if labels is not None:
                shard[inside] = labels
        rows.append(row)
        if objects is not None:
            parts.append((t, z, objects))
    _commit(work, block, shard, rows, parts)
    return Outcome(
        plan.name, work.task.step, block.index, len(rows),
        tuple((r["t"], r["z"], r["reason"]) for r in rows if r["status"] == "failed"),
        sum(r.get("objects") or 0 for r in rows), work.watch.seconds,
    )  # fmt: skip


def _segment_frame(
    work: Work, t: int, z: int, block: Block
) -> tuple[NDArray[Any] | None, FrameRow, ObjectColumns | None]:
    row: FrameRow = {"t": t, "z": z}
    try:
        seen = work.see(t, z, block)
    except FrameError as error:
        return None, {**row, "status": "failed", "reason": str(error)}, None
    done = finish_frame(
        seen.pixels,
        work.plan.channels[0],
        seen.probability,
        work.model.spec,
        work.plan.rules,
        work.plan.pixel_area_um2,
        work.watch,
    )
    told = {"status": "ok", "sha256": seen.sha256, "missing_chunks": seen.missing_chunks}
    return done.labels, {**row, **told, **done.row}, done.objects


def _commit(
    work: Work,
    block: Block,
    shard: NDArray[Any],
    rows: list[FrameRow],
    parts: list[tuple[int, int, ObjectColumns]],
) -> None:
    """Put data first and the record last: what has a record is whole and on the disk."""
    plan, folder = work.plan, work.folder
    with work.watch.stage("write"):
        labels = encode_shard(plan.layout, shard)
        objects = encode_objects(plan.objects_of, parts)
        work.check_identity()
        record_path = folder.place("records", plan.name, block.index)
        if work.task.only:
            # The old record speaks of the old shard: an end in between leaves a block to be done.
            folder.remove(record_path)
        folder.put(shard_path(folder.root, plan, work.model.spec, block), labels)
        folder.put(folder.place("objects", plan.name, block.index, ".parquet"), objects)
    work.put_timings()
    record = {
        "block": block.index,
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
        "objects_sha256": hashlib.sha256(objects).hexdigest(),
        "frames": rows,
    }
    folder.put_json(record_path, record)


def _earlier(work: Work, block: Block) -> _Kept | None:
    """What is committed of a block; None where it is not whole, so that all of it is done."""
    plan, folder = work.plan, work.folder
    shard = shard_path(folder.root, plan, work.model.spec, block)
    record = folder.record(plan.name, block, shard)
    if record is None:
        return None
    data = shard.read_bytes()
    objects = folder.place("objects", plan.name, block.index, ".parquet").read_bytes()
    hashes = (hashlib.sha256(data).hexdigest(), hashlib.sha256(objects).hexdigest())
    if hashes != (record["labels_sha256"], record["objects_sha256"]):
        return None
    rows = {(row["t"], row["z"]): row for row in record["frames"]}
    return _Kept(decode_shard(plan.layout, data), rows, decode_objects(objects))
