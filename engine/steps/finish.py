"""A block of a stitched stack, with final ids: the labels that the job leaves."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import bands
from engine.steps.whole import shard_path
from engine.steps.work import Outcome, Work
from engine.store import decode_shard, encode_shard, load_array, new_shard, provisional_layout


def finish_block(work: Work) -> Outcome:
    """Turn provisional labels into final ones and commit them. Safe to repeat."""
    plan, folder = work.plan, work.folder
    layout = plan.layout
    block = layout.block(work.task.index)
    with work.watch.stage("read"):
        path = folder.place("work/labels", plan.name, block.index, ".shard")
        part = folder.place("work/parts", plan.name, block.index)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != (folder.read_json(part) or {})["labels_sha256"]:
                raise ValueError("its SHA-256 differs")
            provisional = decode_shard(provisional_layout(layout), data)
            if plan.rules.gives_instances:
                path = folder.place("work/maps", plan.name, block.index, ".npy")
                final = load_array(path.read_bytes())
        except (OSError, ValueError, LookupError) as error:
            folder.take_back([path] if path.suffix == ".npy" else [path, part], error)
    shard = new_shard(layout)
    with work.watch.stage("labels"):
        if plan.rules.gives_instances:
            rows = zip(bands(_rows(shard)), bands(_rows(provisional)), strict=True)
            for out, labels in rows:
                np.take(final, labels, out=out)
        else:
            record = folder.canvas_record(plan.name, layout.canvas(layout.canvas_of(block.index)))
            good = {
                (r["t"], r["z"]) for r in (record or {}).get("frames", ()) if r["status"] == "ok"
            }
            for t, z in block.frames:
                if (t, z) in good:
                    at = (t - block.t[0], z - block.z[0])
                    shard[at] = provisional[at]
    with work.watch.stage("write"):
        encoded = encode_shard(layout, shard)
        work.check_identity()
        folder.put(shard_path(folder.root, plan, work.model.spec, block), encoded)
    work.put_timings()
    told = {"block": block.index, "labels_sha256": hashlib.sha256(encoded).hexdigest()}
    folder.put_json(folder.place("records", plan.name, block.index), told)
    return Outcome(plan.name, work.task.step, block.index, seconds=work.watch.seconds)


def _rows(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.reshape(-1, labels.shape[-1])
