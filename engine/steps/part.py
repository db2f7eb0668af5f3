"""A block of a stitched stack: its part of each frame, with provisional labels.

What a part leaves for the stitching: the labels; for each of them the raster position of its
first pixel and its area; its measures, plane by plane; and the faces of the block.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.arrays import IMAGE, PROBABILITY
from engine.errors import FrameError
from engine.labels.components import bands, first_pixels, label_areas, label_part
from engine.labels.stitch import faces_of
from engine.layout import Block, LabelLayout
from engine.measure import ClassSums, ObjectSums, object_sums, total_intensity
from engine.segment import classify
from engine.steps.shards import BlockShards, own, put_shards
from engine.steps.work import Outcome, Seen, Work
from engine.store import encode_shard, new_shard, provisional


@dataclass
class _Found:
    """What is found in a block, as it is saved: arrays by name."""

    shard: NDArray[Any]  # (T, Z, Y, X), provisional ids from 1 in the block, or classes
    block: Block
    ids: list[dict[str, NDArray[Any]]] = field(default_factory=list)  # first, area, scope
    pieces: list[ObjectSums] = field(default_factory=list)  # one for each label and plane
    frames: list[dict[str, Any]] = field(default_factory=list)  # status by frame
    intensity: list[float] = field(default_factory=list)  # sum over each frame's part
    classes: list[ClassSums] = field(default_factory=list)
    count: int = 0

    @property
    def labels(self) -> NDArray[Any]:
        """The block's part of the shard, (T, Z, Y, X): a view."""
        block = self.block
        return self.shard[
            : block.t[1] - block.t[0], : block.z[1] - block.z[0], : block.y.size, : block.x.size
        ]


def segment_part(work: Work) -> Outcome:
    """Do a block's part of its frames and commit that. Safe to repeat: the same bytes again."""
    plan = work.plan
    block = plan.layout.block(work.task.index)
    shape = provisional(plan.arrays[0]).shape(plan.layout)
    found = _Found(new_shard(shape), block)
    kept = BlockShards(plan, block, own(plan.arrays, IMAGE, PROBABILITY))
    for t in range(*block.t):
        _add_time_point(work, block, t, found, kept)
    _commit(work, block, found, kept)
    share = block.n_frames * block.y.size * block.x.size / np.prod(plan.layout.sizes[2:])
    return Outcome(plan.name, work.task.step, block.index, float(share), seconds=work.watch.seconds)


def _add_time_point(work: Work, block: Block, t: int, found: _Found, kept: BlockShards) -> None:
    seen = {z: _see(work, t, z, block, found) for z in range(*block.z)}
    for z, one in seen.items():
        if one is not None:
            kept.keep(t, z, one)
    if work.model.spec.gives_instances:
        _add_objects(work, block, t, seen, found)
    else:
        _add_classes(work, block, t, seen, found)


def _see(work: Work, t: int, z: int, block: Block, found: _Found) -> Seen | None:
    row: dict[str, Any] = {"t": t, "z": z}
    try:
        statistics = None
        if work.plan.layout.is_cut and not work.plan.source:
            statistics, told = _surveyed(work, t, z)
        seen = work.see(t, z, block, statistics)
    except FrameError as error:
        found.frames.append({**row, "status": "failed", "reason": str(error)})
        return None
    if statistics is None:
        told = {"sha256": seen.sha256, "missing_chunks": seen.missing_chunks}
    found.frames.append({**row, "status": "ok", **told})
    return seen


def _surveyed(work: Work, t: int, z: int) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Statistics of a cut frame; FrameError where it was set aside when it was surveyed."""
    plan = work.plan
    path = work.folder.place("work/survey", plan.name, plan.layout.frame_index(t, z))
    row = work.folder.read_json(path) or {}
    if row.get("status") == "failed":
        raise FrameError(row["reason"])
    try:
        told = {key: row[key] for key in ("sha256", "missing_chunks")}
        return np.array(row["statistics"], dtype=np.float32), told
    except (LookupError, ValueError) as error:
        work.folder.take_back([path], error)


def _add_objects(
    work: Work, block: Block, t: int, seen: dict[int, Seen | None], found: _Found
) -> None:
    layout = work.plan.layout
    with work.watch.stage("labels"):
        mask = np.zeros(found.labels.shape[1:], dtype=bool)
        for z, one in seen.items():
            if one is not None:
                threshold = work.task.context.rules.threshold
                mask[z - block.z[0]] = one.probability[0] >= threshold
        labels = found.labels[t - block.t[0]]
        count = label_part(mask, labels, connect_z=layout.connect_z)
        del mask
        first = first_pixels(labels, count)
        scope = t - layout.t0 if layout.connect_z else layout.frame_index(t, block.z[0])
        found.ids.append(
            {
                "first": _raster(first, labels.shape, block, layout),
                "area": label_areas(labels, count),
                "scope": np.full(count, scope, dtype=np.int64),
            }
        )
        if found.count:
            for plane in labels:
                for band in bands(plane):
                    np.add(band, np.uint32(found.count), out=band, where=band > 0)
        found.count += count
    with work.watch.stage("measure"):
        for z, one in seen.items():
            if one is None:
                found.intensity.append(0.0)
                continue
            channel = one.pixels[work.plan.channels[0]]
            found.intensity.append(total_intensity(channel))
            pieces = object_sums(
                labels[z - block.z[0]], channel, one.probability[0],
                origin=(block.y.start, block.x.start), frame_shape=layout.sizes[2:],
            )  # fmt: skip
            frame = np.full(len(pieces["label"]), layout.frame_index(t, z), dtype=np.int64)
            found.pieces.append({**pieces, "frame": frame})


def _raster(
    first: NDArray[np.int64], shape: tuple[int, ...], block: Block, layout: LabelLayout
) -> NDArray[np.int64]:
    """Raster positions in a block's (Z, Y, X) as those in the whole scope."""
    z, y, x = np.unravel_index(first, shape)
    whole = (layout.sizes[1], *layout.sizes[2:])
    places = (z + block.z[0] - layout.z0, y + block.y.start, x + block.x.start)
    return np.ravel_multi_index(places, whole).astype(np.int64)


def _add_classes(
    work: Work, block: Block, t: int, seen: dict[int, Seen | None], found: _Found
) -> None:
    spec = work.model.spec
    for z, one in seen.items():
        sums = ClassSums(len(spec.classes))
        if one is not None:
            with work.watch.stage("labels"):
                classes, each = classify(one.probability, spec, work.task.context.rules)
                found.labels[t - block.t[0], z - block.z[0]] = classes
            with work.watch.stage("measure"):
                sums.add(classes, each, one.pixels[work.plan.channels[0]])
        found.classes.append(sums)


def _commit(work: Work, block: Block, found: _Found, kept: BlockShards) -> None:
    plan, folder = work.plan, work.folder
    with work.watch.stage("write"):
        labels = encode_shard(provisional(plan.arrays[0]).shape(plan.layout), found.shard)
        part = _encode(found, plan.layout)
        encoded = kept.encode()
        work.check_identity()
        if encoded:
            # A record of the block speaks of shards that are now put anew.
            folder.remove(folder.place("records", plan.name, block.index))
        checksums = put_shards(folder, plan, block, encoded)
        folder.put(folder.place("work/labels", plan.name, block.index, ".shard"), labels)
        folder.put(folder.place("work/parts", plan.name, block.index, ".npz"), part)
    work.put_timings()
    record = {
        "block": block.index,
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
        "part_sha256": hashlib.sha256(part).hexdigest(),
        **checksums,
        "count": found.count,
        "frames": found.frames,
    }
    folder.put_json(folder.place("work/parts", plan.name, block.index), record)


def _encode(found: _Found, layout: LabelLayout) -> bytes:
    arrays: dict[str, NDArray[Any]] = {}
    if found.classes:
        arrays["class_counts"] = np.stack([c.counts for c in found.classes])
        arrays["class_intensities"] = np.stack([c.intensities for c in found.classes])
        arrays["class_certainty"] = np.array([c.certainty for c in found.classes])
    else:
        arrays["intensity"] = np.array(found.intensity)
        for name in ("first", "area", "scope"):
            arrays[name] = np.concatenate([one[name] for one in found.ids])
        for name in found.pieces[0] if found.pieces else ():
            arrays[f"piece_{name}"] = np.concatenate([one[name] for one in found.pieces])
        faces = faces_of(found.labels, connect_z=layout.connect_z)
        arrays |= {f"face_{name}": face for name, face in faces.items()}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


class Part:
    """A part as it was saved; each array is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One array by its name."""
        with np.load(self._path, allow_pickle=False) as arrays:
            found: NDArray[Any] = arrays[name]
            return found

    def pieces(self) -> ObjectSums:
        """Measures of each label and plane; "frame" is the frame's number in the layout."""
        with np.load(self._path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith("piece_")]
            return {name.removeprefix("piece_"): arrays[name] for name in names}
