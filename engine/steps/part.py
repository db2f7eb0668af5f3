"""A block of a stitched stack: its part of each frame, with provisional labels.

What a part leaves for the stitching: the labels; for each of them the raster position of its
first pixel, its area, and whether it touches the frame's border; its measures, plane by plane; and
the faces of the block. Of labels that touch a face, and so may be parts of larger objects, the ends
of their rows as well, of which the convex hull of the whole is made.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.geometry.layout import Block, LabelLayout
from engine.labels.components import bands, first_pixels, label_areas, label_part
from engine.labels.instances import fill_holes
from engine.labels.stitching import faces_of, facing_neighbours
from engine.measure.frames import ClassSums, total_intensity
from engine.measure.hulls import RowEnds, convex_areas
from engine.measure.objects import ObjectSums, piece_sums
from engine.model.statistics import is_blank
from engine.steps.frame import classify
from engine.steps.shards import BlockShards, put_shards
from engine.steps.work import Outcome, Seen, Work
from engine.store.committed import record_place
from engine.store.ome_zarr import encode_shard, new_shard, provisional


@dataclass
class _Found:
    """What is found in a block, as it is saved: arrays by name."""

    shard: NDArray[Any]  # (T, Z, Y, X), provisional ids from 1 in the block, or classes
    block: Block
    ids: list[dict[str, NDArray[Any]]] = field(default_factory=list)  # first, area, border, scope
    pieces: list[ObjectSums] = field(default_factory=list)  # one for each label and plane
    rows: list[dict[str, NDArray[np.int32]]] = field(default_factory=list)  # of open labels
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
    shape = provisional(plan.labels).shape(plan.layout)
    found = _Found(new_shard(shape), block)
    kept = BlockShards(plan, block, plan.beside)
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
    if work.plan.postprocessing.gives_instances:
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
        told = seen.told
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
        statistics = np.array(row["statistics"], dtype=np.float32)
        told = {key: row[key] for key in ("sha256", "missing_chunks")}
        return statistics, {**told, "blank": is_blank(statistics)}
    except (LookupError, ValueError) as error:
        work.folder.take_back([path], error)


def _add_objects(
    work: Work, block: Block, t: int, seen: dict[int, Seen | None], found: _Found
) -> None:
    layout, postprocessing, base = work.plan.layout, work.plan.postprocessing, found.count
    with work.watch.stage("labels"):
        mask = np.zeros(found.labels.shape[1:], dtype=bool)
        for z, one in seen.items():
            if one is not None:
                plane = one.probability[0] >= postprocessing.threshold
                mask[z - block.z[0]] = fill_holes(plane) if postprocessing.fill_holes else plane
        labels = found.labels[t - block.t[0]]
        count = label_part(mask, labels, connect_z=layout.connect_z)
        del mask
        first = first_pixels(labels, count)
        scope = t - layout.t0 if layout.connect_z else layout.frame_index(t, block.z[0])
        found.ids.append(
            {
                "first": _raster(first, labels.shape, block, layout),
                "area": label_areas(labels, count),
                "border": _at_border(labels, count, block, layout),
                "scope": np.full(count, scope, dtype=np.int64),
            }
        )
        faces = faces_of(labels[None], connect_z=layout.connect_z)
        is_open = np.zeros(count + 1, dtype=bool)
        for name in facing_neighbours(layout.position(block.index), layout.grid, layout.connect_z):
            is_open[faces[name]] = True
        if base:
            for plane in labels:
                for band in bands(plane):
                    np.add(band, np.uint32(base), out=band, where=band > 0)
        found.count += count
    with work.watch.stage("measure"):
        for z, one in seen.items():
            if one is None:
                found.intensity.append(0.0)
                continue
            found.intensity.append(total_intensity(one.pixels[work.plan.channels[0]]))
            pieces, rows = piece_sums(
                labels[z - block.z[0]], one.pixels, one.probability[0],
                origin=(block.y.start, block.x.start), frame_shape=layout.sizes[2:],
            )  # fmt: skip
            frame = layout.frame_index(t, z)
            numbers = np.full(len(pieces["label"]), frame, dtype=np.int64)
            found.pieces.append({**pieces, "convex_px": convex_areas(rows), "frame": numbers})
            _keep_rows(rows.of(is_open[rows.object - base]), frame, found)


def _keep_rows(rows: RowEnds, frame: int, found: _Found) -> None:
    """Keep rows of labels that may go on in another block."""
    found.rows.append(
        {
            "label": rows.object.astype(np.int32),  # of a block: they fit
            "frame": np.full(len(rows), frame, dtype=np.int32),
            "y": rows.y,
            "left": rows.left,
            "right": rows.right,
        }
    )


def _at_border(
    labels: NDArray[np.uint32], count: int, block: Block, layout: LabelLayout
) -> NDArray[np.bool_]:
    """Which labels, (Z, Y, X), touch the border of the frame in any plane, (count,)."""
    touches = np.zeros(count + 1, dtype=bool)
    height, width = layout.sizes[2:]
    sides = (
        (block.y.start == 0, labels[:, 0]),
        (block.y.stop == height, labels[:, -1]),
        (block.x.start == 0, labels[:, :, 0]),
        (block.x.stop == width, labels[:, :, -1]),
    )
    for is_outer, side in sides:
        if is_outer:
            touches[side] = True
    return touches[1:]


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
                classes, each = classify(one.probability, spec, work.plan.postprocessing)
                found.labels[t - block.t[0], z - block.z[0]] = classes
            with work.watch.stage("measure"):
                sums.add(classes, each, one.pixels[work.plan.channels[0]])
        found.classes.append(sums)


def _commit(work: Work, block: Block, found: _Found, kept: BlockShards) -> None:
    plan, folder = work.plan, work.folder
    with work.watch.stage("write"):
        labels = encode_shard(provisional(plan.labels).shape(plan.layout), found.shard)
        part = _encode(found, plan.layout)
        encoded = kept.encode()
        work.check_identity()
        if encoded:
            # A record of the block speaks of shards that are now put anew.
            folder.remove(record_place(folder, plan.name, block.index))
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
        for name in ("first", "area", "border", "scope"):
            arrays[name] = np.concatenate([one[name] for one in found.ids])
        for name in found.pieces[0] if found.pieces else ():
            arrays[f"piece_{name}"] = np.concatenate([one[name] for one in found.pieces])
        for name in found.rows[0] if found.rows else ():
            arrays[f"row_{name}"] = np.concatenate([one[name] for one in found.rows])
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
        return self._all("piece_")

    def rows(self) -> dict[str, NDArray[np.int32]]:
        """Label, frame, y, left and right end of each row of the labels that touch a face."""
        return self._all("row_")

    def _all(self, prefix: str) -> dict[str, NDArray[Any]]:
        with np.load(self._path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(prefix)]
            return {name.removeprefix(prefix): arrays[name] for name in names}
