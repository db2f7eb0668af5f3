"""A block of a stitched stack, with final ids: the labels that the job leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.arrays import LABELS
from engine.labels.components import bands
from engine.steps.shards import put_shards
from engine.steps.work import Outcome, Work
from engine.store.committed import record_place
from engine.store.folder import read_checked
from engine.store.ome_zarr import decode_shard, encode_shard, load_array, new_shard, provisional


def finish_block(work: Work) -> Outcome:
    """Turn provisional labels into final ones and commit them. Safe to repeat."""
    plan, folder = work.plan, work.folder
    layout = plan.layout
    block = layout.block(work.task.index)
    with work.watch.stage("read"):
        path = folder.place("work/labels", plan.name, block.index, ".shard")
        part = folder.place("work/parts", plan.name, block.index)
        try:
            told = folder.read_json(part) or {}
            data = read_checked(path, told["labels_sha256"])
            kept = {array.checksum: told[array.checksum] for array in plan.beside}
            labels = decode_shard(provisional(plan.labels).shape(layout), data)
            if plan.postprocessing.gives_instances:
                path = folder.place("work/maps", plan.name, block.index, ".npy")
                final = load_array(path.read_bytes())
        except (OSError, ValueError, LookupError) as error:
            folder.take_back([path] if path.suffix == ".npy" else [path, part], error)
    shard = new_shard(plan.labels.shape(layout))
    with work.watch.stage("labels"):
        if plan.postprocessing.gives_instances:
            for out, band in zip(bands(_rows(shard)), bands(_rows(labels)), strict=True):
                np.take(final, band, out=out)
        else:
            record = folder.stitch_record(
                plan.name, layout.stitch_group(layout.stitch_group_of(block.index))
            )
            good = {
                (r["t"], r["z"]) for r in (record or {}).get("frames", ()) if r["status"] == "ok"
            }
            for t, z in block.frames:
                if (t, z) in good:
                    at = (t - block.t[0], z - block.z[0])
                    shard[at] = labels[at]
    with work.watch.stage("write"):
        encoded = {LABELS: encode_shard(plan.labels.shape(layout), shard)}
        work.check_identity()
        checksums = put_shards(folder, plan, block, encoded)
    work.put_timings()
    record = {"block": block.index, **checksums, **kept}
    folder.put_json(record_place(folder, plan.name, block.index), record)
    return Outcome(plan.name, work.task.step, block.index, seconds=work.watch.seconds)


def _rows(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.reshape(-1, labels.shape[-1])
