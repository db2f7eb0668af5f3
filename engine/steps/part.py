"""A block of a stitched stack: its part of each frame, with local labels.

What a part leaves for the stitching: the labels; for each of them the raster position of its
first pixel, its area, and whether it touches the frame's border; its measures, plane by plane; and
what tells which labels other blocks have as well (`engine.labels.blocks`). Of labels that may be
parts of larger objects the ends of their rows as well, of which the hull of the whole is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.arrays import ResultArray
from engine.geometry.layout import Block, LabelLayout
from engine.labels.blocks import BlockLabels, label_block
from engine.labels.class_objects import label_class_block
from engine.labels.components import areas_and_first_pixels, bands
from engine.labels.stitching import facing_neighbours
from engine.measure.frames import ClassSums, Measures, total_intensity
from engine.measure.hulls import RowEnds, convex_areas
from engine.measure.objects import ObjectSums, piece_sums
from engine.plan.plan import StackPlan
from engine.steps.base import IsMine
from engine.steps.frame import Prediction, Source, segment_planes
from engine.steps.part_store import Arrays, PartStore
from engine.steps.shards import BlockShards, put_shards
from engine.steps.task import Outcome, TaskRun
from engine.store.committed import record_key, shard_keys, stitch_record, unfinished
from engine.store.folder import JobFolder
from engine.store.ome_zarr import encode_shard, new_shard, provisional
from engine.store.records import FrameRecord, PartRecord


def pending_groups(stack: StackPlan, folder: JobFolder, blocks: Iterable[int]) -> list[int]:
    """Stitch groups without a record, and those whose ids one of the unfinished `blocks` needs."""
    layout, parts = stack.layout, PartStore(folder, stack)
    wanted = {
        group.index
        for group in layout.stitch_groups()
        if stitch_record(folder, stack.name, group) is None
    }
    if stack.instances:
        wanted |= {layout.stitch_group_of(block) for block in blocks if not parts.has_ids(block)}
    return sorted(wanted)


def pending_parts(stack: StackPlan, folder: JobFolder, is_mine: IsMine) -> Iterator[int]:
    """Blocks whose local labels are needed and not there."""
    layout, parts = stack.layout, PartStore(folder, stack)
    needed = set(unfinished(folder, stack))
    for index in pending_groups(stack, folder, frozenset(needed)):
        needed.update(layout.stitch_group(index).blocks)
    for index in filter(is_mine, sorted(needed)):
        kept = shard_keys(stack, layout.block(index))
        others = [kept[array.kind] for array in stack.other_arrays]
        if not (parts.has(index) and all(map(folder.results.exists, others))):
            yield index


def segment_part(run: TaskRun, source: Source) -> Outcome:
    """Do a block's part of its frames and commit that."""
    plan, block = run.plan, run.block
    kept = BlockShards(plan, block, plan.other_arrays, run.watch)
    local = LocalLabels(run, block)
    frames: list[FrameRecord] = []
    for t in range(*block.t):
        frames += segment_planes(run, t, range(*block.z), source, local, kept)
    _commit(run, block, local, kept, frames)
    pixels = int(np.prod(plan.layout.sizes[2:]))
    return run.outcome(block.n_frames * block.y.size * block.x.size / pixels)


def _commit(
    run: TaskRun, block: Block, local: LocalLabels, kept: BlockShards, frames: list[FrameRecord]
) -> None:
    plan, folder = run.plan, run.folder
    parts = PartStore(folder, plan)
    encoded = dict(kept.encode())
    with run.watch.stage("write"):
        labels = local.encode_labels()
        part = local.encode()
        run.check_identity()
        if encoded:
            # A record of the block speaks of shards that are now replaced.
            folder.own.delete(record_key(plan.name, block.index))
        checksums = put_shards(folder, plan, block, encoded)
        parts.put(block.index, labels, part)
    record = PartRecord(
        block=block.index,
        labels={kind: hashlib.sha256(data).hexdigest() for kind, data in labels.items()},
        part_sha256=hashlib.sha256(part).hexdigest(),
        shards=checksums,
        count=local.count,
        frames=tuple(frames),
    )
    run.commit(parts.record_key(block.index), record)


@dataclass
class LocalLabels:
    """Labels and measures of a block's part of its frames. See `engine.steps.frame.Labelling`."""

    run: TaskRun
    block: Block
    shards: dict[str, NDArray[Any]] = field(init=False)  # label images, (T, Z, Y, X), by kind
    count: int = 0  # ids so far
    _base: int = 0  # ids of earlier time points
    _is_open: NDArray[np.bool_] = field(init=False)  # of this time point: may go on elsewhere
    _ids: list[Arrays] = field(default_factory=list)  # first, area, border, scope, class
    _shared: list[Arrays] = field(default_factory=list)  # faces, and what is foreign
    _pieces: list[ObjectSums] = field(default_factory=list)  # one for each label and plane
    _rows: list[Arrays] = field(default_factory=list)  # of open labels
    _intensity: list[float] = field(default_factory=list)  # sum over each frame's part
    _classes: list[ClassSums] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan = self.run.plan
        self.shards = {
            array.kind: new_shard(provisional(array).shape(plan.layout))
            for array in plan.label_images
        }

    def _own(self, array: ResultArray, t: int) -> NDArray[Any]:
        """The block's part of a label image at a time point, (Z, Y, X): a view.

        Ids count from 1 in the block.
        """
        block = self.block
        shard: NDArray[Any] = self.shards[array.kind][t - block.t[0]]
        return shard[: block.z[1] - block.z[0], : block.y.size, : block.x.size]

    def label(self, t: int, planes: dict[int, Prediction]) -> None:
        """See `Labelling`. Objects are labelled through all planes where these connect."""
        plan = self.run.plan
        with self.run.watch.stage("labels"):
            if plan.class_map:
                for z, plane in planes.items():
                    classes = plane.outputs.class_map(plan.postprocessing.threshold)
                    self._own(plan.class_map, t)[z - self.block.z[0]] = classes
            if plan.instances:
                self._label_objects(t, planes, self._own(plan.instances, t))

    def _label_objects(
        self, t: int, planes: dict[int, Prediction], labels: NDArray[np.uint32]
    ) -> None:
        block, layout = self.block, self.run.plan.layout
        found = self._found(t, planes, labels)
        areas, first = areas_and_first_pixels(labels, found.count)
        scope = t - layout.t0 if layout.connect_z else layout.frame_index(t, block.z[0])
        self._ids.append(
            {
                "first": _raster(first, labels.shape, block, layout),
                "area": areas,
                "border": _at_border(labels, found.count, block, layout),
                "scope": np.full(found.count, scope, dtype=np.int64),
                "class": self._classes_at(t, first),
            }
        )
        self._is_open = self._open(found)
        self._base = self.count
        if self._base:
            for plane in labels:
                for band in bands(plane):
                    np.add(band, np.uint32(self._base), out=band, where=band > 0)
        self._add_shared(t, found)
        self.count += found.count

    def _found(self, t: int, planes: dict[int, Prediction], out: NDArray[np.uint32]) -> BlockLabels:
        """Labels of one time point's planes, ids from 1, into `out`, (Z, Y, X)."""
        plan, z0, connect_z = self.run.plan, self.block.z[0], self.run.plan.layout.connect_z
        if plan.class_map:
            classes = self._own(plan.class_map, t)
            return label_class_block(classes, plan.object_classes, out, connect_z=connect_z)
        found = {z - z0: plane.around.masks(plan.postprocessing) for z, plane in planes.items()}
        inside = next((plane.inside for plane in planes.values()), None)
        return label_block(found, inside, plan.postprocessing, out, connect_z=connect_z)

    def _classes_at(self, t: int, pixels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Classes of objects by one pixel of each, its place in the block's (Z, Y, X)."""
        class_map = self.run.plan.class_map
        if class_map is None:
            return np.ones(len(pixels), dtype=np.uint8)
        classes = self._own(class_map, t)
        found: NDArray[np.uint8] = classes[np.unravel_index(pixels, classes.shape)]
        return found

    def _open(self, found: BlockLabels) -> NDArray[np.bool_]:
        """Which labels, (count + 1,), other blocks may have as well."""
        layout = self.run.plan.layout
        is_open = np.zeros(found.count + 1, dtype=bool)
        is_open[found.foreign] = True
        place = layout.position(self.block.index)
        for name in facing_neighbours(place, layout.grid, layout.connect_z):
            is_open[found.faces[name]] = True
            if name in found.strips:
                is_open[found.strips[name]] = True
        return is_open

    def _add_shared(self, t: int, found: BlockLabels) -> None:
        """Keep what tells which labels other blocks have as well; ids are the block's by now."""
        block, layout, base = self.block, self.run.plan.layout, np.uint32(self._base)
        origin = (block.z[0] - layout.z0, block.y.start, block.x.start)
        anchors = np.insert(found.anchors + origin, 0, t - layout.t0, axis=1)
        shared: Arrays = {
            f"{kind}_{name}": np.where(plane > 0, plane + base, 0).astype(np.uint32)
            for kind, planes in (("face", found.faces), ("strip", found.strips))
            for name, plane in planes.items()
        }
        if found.strips:
            shared |= {"foreign": found.foreign + self._base, "anchor": anchors}
        self._shared.append(shared)

    def measure(self, t: int, z: int, plane: Prediction | None) -> Measures:
        """See `Labelling`. Measures of whole objects come when these are stitched."""
        plan, at = self.run.plan, z - self.block.z[0]
        with self.run.watch.stage("measure"):
            classes = self._own(plan.class_map, t)[at] if plan.class_map else None
            if classes is not None:
                self._measure_classes(plane, classes)
            if plan.instances:
                self._measure_objects(t, z, plane, self._own(plan.instances, t)[at], classes)
        return {}

    def _measure_objects(
        self, t: int, z: int, plane: Prediction | None,
        labels: NDArray[np.uint32], classes: NDArray[np.uint8] | None,
    ) -> None:  # fmt: skip
        block, plan = self.block, self.run.plan
        if plane is None:
            self._intensity.append(0.0)
            return
        channels = plan.summed_channels(plane.pixels)
        self._intensity.append(total_intensity(channels[plan.channels[0]]))
        pieces, rows = piece_sums(
            labels,
            channels,
            plane.outputs.certainty(),
            classes,
            origin=(block.y.start, block.x.start),
            frame_shape=plan.layout.sizes[2:],
        )
        frame = plan.layout.frame_index(t, z)
        numbers = np.full(len(pieces["label"]), frame, dtype=np.int64)
        self._pieces.append({**pieces, "convex_px": convex_areas(rows), "frame": numbers})
        self._keep_rows(rows.of(self._is_open[rows.object - self._base]), frame)

    def _keep_rows(self, rows: RowEnds, frame: int) -> None:
        """Keep rows of labels that may continue in another block."""
        self._rows.append(
            {
                "label": rows.object.astype(np.int32),  # of a block: they fit
                "frame": np.full(len(rows), frame, dtype=np.int32),
                "y": rows.y,
                "left": rows.left,
                "right": rows.right,
            }
        )

    def _measure_classes(self, plane: Prediction | None, classes: NDArray[np.uint8]) -> None:
        plan, spec = self.run.plan, self.run.model.spec
        sums = ClassSums(len(spec.classes))
        if plane is not None:
            channel = plan.summed_channels(plane.pixels)[plan.channels[0]]
            sums.add(classes, plane.outputs.each_class(len(spec.classes)), channel)
        self._classes.append(sums)

    def encode_labels(self) -> dict[str, bytes]:
        """The label images as they are put, by kind of array."""
        plan = self.run.plan
        return {
            array.kind: encode_shard(provisional(array).shape(plan.layout), self.shards[array.kind])
            for array in plan.label_images
        }

    def encode(self) -> bytes:
        """The part as it is put: arrays by name, see `engine.steps.part_store`."""
        arrays: Arrays = {}
        if self._classes:
            arrays["class_counts"] = np.stack([c.counts for c in self._classes])
            arrays["class_intensities"] = np.stack([c.intensities for c in self._classes])
            arrays["class_certainty"] = np.array([c.certainty for c in self._classes])
        if self.run.plan.instances:
            arrays["intensity"] = np.array(self._intensity)
            arrays |= _joined("", self._ids)
            arrays |= _joined("piece_", self._pieces)
            arrays |= _joined("row_", self._rows)
            arrays |= _joined("", self._shared)
        return PartStore.encode(arrays)


def _joined(prefix: str, columns: list[Arrays]) -> Arrays:
    names = columns[0] if columns else ()
    return {f"{prefix}{name}": np.concatenate([one[name] for one in columns]) for name in names}


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
