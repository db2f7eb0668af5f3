"""The step `stitch`: which local labels of a stitch group are one object, their ids and measures.

Two passes over the parts, row of blocks by row of blocks, so that memory follows from a row and
from the faces, not from the stitch group. The first finds what touches across faces and adds up the
measures of those objects; the second gives final ids and writes the tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.layout import StitchGroup
from engine.labels.stitching import (
    FinalIds,
    Joined,
    contacts,
    forward_offsets,
    join,
    labels_at,
    of_one_class,
)
from engine.measure.frames import ClassSums, FrameSums, Measures
from engine.measure.hulls import RowEnds, convex_areas, merged_rows
from engine.measure.objects import ObjectSums, merged, no_sums, objects_of
from engine.plan.plan import StackPlan
from engine.steps.base import IsMine, all_mine
from engine.steps.part import pending_groups
from engine.steps.part_store import Part, PartStore
from engine.steps.task import Outcome, TaskRun
from engine.store.committed import (
    objects_key,
    record_key,
    stitch_key,
    stitch_record,
    unfinished,
)
from engine.store.folder import JobFolder
from engine.store.records import FrameRecord, StitchRecord
from engine.store.tables import ObjectsWriter

Rows = dict[int, Measures]  # of the frames table, by number of the frame in the layout


@dataclass(frozen=True)
class _Parts:
    """The parts of a stitch group by block, and what is known of its frames."""

    store: PartStore
    parts: dict[int, Part]
    start: dict[int, int]  # ids of a block are unique in the stitch group from here on
    counts: dict[int, int]  # labels of a block that take part
    n_local: dict[int, int]  # all labels of a block
    frames: dict[int, FrameRecord]  # by number of the frame in the layout

    def ids(self, block: int) -> NDArray[np.int64]:
        """Ids of a block's labels, unique in the stitch group."""
        return self.start[block] + np.arange(1, self.counts[block] + 1, dtype=np.int64)


class Stitch:
    """Joins the parts of each stitch group."""

    name = "stitch"
    reads_input = False

    def pending(
        self, stack: StackPlan, folder: JobFolder, is_mine: IsMine = all_mine
    ) -> Iterator[int]:
        """Stitch groups without a record, and those whose ids a block still needs."""
        if stack.layout.is_stitched:
            yield from pending_groups(stack, folder, unfinished(folder, stack))

    def carry_out(self, run: TaskRun) -> Outcome:
        """Do a stitch group."""
        plan, folder = run.plan, run.folder
        group = plan.layout.stitch_group(run.task.index)
        objects = objects_key(plan.name, group.index)
        run.check_identity()
        with run.watch.stage("labels"), folder.own.writing(objects) as staged:
            with ObjectsWriter(staged, plan.objects_of) as table:
                parts = _gather(run, group)
                rows, count = _stitch(run, group, parts, table) if plan.instances else ({}, 0)
                classes = _class_rows(run, group, parts) if plan.class_map else {}
                frames = _measured(run, group, parts, rows, classes)
            with staged.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        run.check_identity()
        if stitch_record(folder, plan.name, group) is not None:  # another worker was faster
            return run.outcome()
        for block in group.blocks:
            # Their labels bear the ids of an earlier stitching, if any.
            folder.own.delete(record_key(plan.name, block))
        record = StitchRecord(
            stitch_group=group.index, objects=count, objects_sha256=digest, frames=tuple(frames)
        )
        run.commit(stitch_key(plan.name, group.index), record)
        failed = tuple((f.t, f.z, f.reason or "") for f in frames if f.failed)
        return run.outcome(0.0, failed, count)


def _gather(run: TaskRun, group: StitchGroup) -> _Parts:
    """All parts of a stitch group; those of frames that were set aside have no labels."""
    layout = run.plan.layout
    store = PartStore(run.folder, run.plan)
    parts: dict[int, Part] = {}
    counts: dict[int, int] = {}
    n_local: dict[int, int] = {}
    frames: dict[int, FrameRecord] = {}
    for block in group.blocks:
        record, parts[block] = store.checked(block)
        counts[block] = n_local[block] = record.count
        for frame in record.frames:
            number = layout.frame_index(frame.t, frame.z)
            if number not in frames or frame.failed:  # one failed region fails the frame
                frames[number] = frame
    if layout.is_cut:
        # A region of a frame that was set aside: its labels are 0, and touch nothing.
        for block in group.blocks:
            one = layout.block(block)
            if frames[layout.frame_index(one.t[0], one.z[0])].failed:
                counts[block] = 0
    start, total = {}, 0
    for block in group.blocks:
        start[block] = total
        total += counts[block]
    return _Parts(store, parts, start, counts, n_local, frames)


def _stitch(
    run: TaskRun, group: StitchGroup, parts: _Parts, table: ObjectsWriter
) -> tuple[Rows, int]:
    """Join the objects of a stitch group; what they say of each frame, and how many there are."""
    assert run.plan.instances is not None
    dtype = run.plan.instances.dtype
    pairs = [_contacts(run, group, parts)]
    if run.plan.postprocessing.instances == "cores" and run.plan.layout.is_cut:
        pairs.append(_anchored(run, group, parts))
    joined = join(np.concatenate(pairs))
    spanning = _Spanning(joined, group, parts, run.plan.summed)
    kept = run.plan.postprocessing.keep(spanning.area, spanning.border)
    final = FinalIds(joined, spanning.first, kept)
    sums = _frame_sums(run, group, parts)
    for number, row in enumerate(group.rows):
        found = []
        for block, ids in _final_ids(run, parts, final, row):
            # Looked up by local id; 0 is the background.
            new = np.r_[0, ids].astype(dtype)
            run.check_identity()
            parts.store.put_ids(block, new)
            if parts.counts[block]:
                found.append(_alone(parts, block, joined, ids))
        found.append(spanning.pieces_of(number, final))
        pieces = {name: np.concatenate([one[name] for one in found]) for name in found[-1]}
        _write_row(run, pieces, sums, table)
    area = run.plan.pixel_area_um2
    return {number: one.row(area) for number, one in sums.items()}, final.total


def _alone(parts: _Parts, block: int, joined: Joined, ids: NDArray[np.int64]) -> ObjectSums:
    """Pieces of a block's objects that lie in no other block, under their final `ids`, (n,).

    Without those of objects that are dropped, whose id is 0.
    """
    pieces = parts.parts[block].pieces()
    local = pieces["label"].astype(np.int64)
    is_alone = joined.group_of(parts.start[block] + local) < 0
    label = ids[local - 1]
    kept = is_alone & (label > 0)
    return {name: values[kept] for name, values in {**pieces, "label": label}.items()}


def _contacts(run: TaskRun, group: StitchGroup, parts: _Parts) -> NDArray[np.int64]:
    """Pairs of ids of one class that touch across faces, (n, 2)."""
    layout = run.plan.layout
    blocks = set(group.blocks)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for block in group.blocks:
        t, z, y, x = layout.position(block)
        for offset in forward_offsets(connect_z=layout.connect_z):
            place = (t, z + offset[0], y + offset[1], x + offset[2])
            inside = all(0 <= at < size for at, size in zip(place, layout.grid, strict=True))
            other = layout.number(place) if inside else -1
            if other in blocks and parts.counts[block] and parts.counts[other]:
                a, b = (_Planes(parts.parts[one], "face") for one in (block, other))
                local = contacts(a, b, offset, connect_z=layout.connect_z)
                of_a, of_b = (parts.parts[one]["class"] for one in (block, other))
                local = of_one_class(local, of_a, of_b)
                pairs.append(local + np.array([parts.start[block], parts.start[other]]))
    return np.concatenate(pairs)


def _anchored(run: TaskRun, group: StitchGroup, parts: _Parts) -> NDArray[np.int64]:
    """Pairs of ids, (n, 2): of what grew into a block, and of the block where its core lies."""
    layout = run.plan.layout
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for block in (b for b in group.blocks if parts.counts[b]):
        foreign, anchors = (parts.parts[block][name] for name in ("foreign", "anchor"))
        grid, local = np.divmod(anchors, layout.block_size)
        owner = np.ravel_multi_index(tuple(grid.T), layout.grid)
        for other in (int(o) for o in np.unique(owner) if parts.counts[int(o)]):
            own = owner == other
            found = labels_at(_Planes(parts.parts[other], "strip"), local[own])
            # 0 where two blocks differ in a probability that is the threshold's to the last digit.
            local_ids = np.stack([foreign[own], found], axis=1)[found > 0]
            pairs.append(local_ids + np.array([parts.start[block], parts.start[other]]))
    return np.concatenate(pairs)


class _Planes(Mapping[str, NDArray[np.uint32]]):
    """The faces or strips of a part, each read when it is looked at."""

    def __init__(self, part: Part, kind: str) -> None:
        self._part, self._kind = part, kind

    def __getitem__(self, name: str) -> NDArray[np.uint32]:
        return self._part[f"{self._kind}_{name}"]

    def __iter__(self) -> Iterator[str]:
        return iter(("y0", "y1", "x0", "x1", "z0", "z1"))

    def __len__(self) -> int:
        return 6


class _Spanning:
    """The objects that span blocks: where they begin, how large they are, and their measures."""

    def __init__(
        self, joined: Joined, group: StitchGroup, parts: _Parts, channels: tuple[int, ...]
    ) -> None:
        n = joined.n_groups
        self.first = np.full(n, np.iinfo(np.int64).max)
        self.area = np.zeros(n, dtype=np.int64)
        self.border = np.zeros(n, dtype=bool)  # whether it touches the frame's
        gathered: list[ObjectSums] = []
        ends: list[RowEnds] = []
        for number, row in enumerate(group.rows):
            for block in row:
                if n and parts.counts[block]:
                    self._add_ids(joined, parts, block)
                    gathered.append(self._pieces(joined, parts, block, number))
                    ends.append(self._ends(joined, parts, block))
        self._sums: ObjectSums = {**no_sums(channels), "frame": np.zeros(0, np.int64)}
        self._rows: NDArray[Any] = np.zeros(0, np.int64)
        if gathered:
            self._sums, self._rows = self._merged(gathered, n)
            self._sums["convex_px"] = convex_areas(merged_rows(ends))
            order = np.argsort(self._rows, kind="stable")
            self._rows = self._rows[order]
            self._sums = {name: values[order] for name, values in self._sums.items()}

    def _add_ids(self, joined: Joined, parts: _Parts, block: int) -> None:
        """Add first pixels, areas and border of a block's labels to those of their objects."""
        part = parts.parts[block]
        group = joined.group_of(parts.ids(block))
        spans = group >= 0
        np.minimum.at(self.first, group[spans], part["first"][spans])
        np.add.at(self.area, group[spans], part["area"][spans])
        np.logical_or.at(self.border, group[spans], part["border"][spans])

    def _pieces(self, joined: Joined, parts: _Parts, block: int, row: int) -> ObjectSums:
        """A block's pieces of objects that span blocks, labelled by group; and `row`, its row."""
        pieces = parts.parts[block].pieces()
        group = joined.group_of(parts.start[block] + pieces["label"].astype(np.int64))
        spans = group >= 0
        kept = {name: values[spans] for name, values in pieces.items()}
        return {**kept, "label": group[spans], "row": np.full(int(spans.sum()), row)}

    @staticmethod
    def _ends(joined: Joined, parts: _Parts, block: int) -> RowEnds:
        """Ends of the rows of objects that span blocks, numbered by group and frame."""
        rows = parts.parts[block].rows()
        group = joined.group_of(parts.start[block] + rows["label"].astype(np.int64))
        key = rows["frame"].astype(np.int64) * joined.n_groups + group
        whole = RowEnds(key, rows["y"], rows["left"], rows["right"])
        return whole.of(group >= 0)

    @staticmethod
    def _merged(gathered: list[ObjectSums], n: int) -> tuple[ObjectSums, NDArray[Any]]:
        """One piece for each object and plane; and the first row of blocks that holds it."""
        pieces = {k: np.concatenate([g[k] for g in gathered]) for k in gathered[0]}
        key = pieces["frame"] * n + pieces["label"]
        whole = merged({**pieces, "label": key})
        order = np.argsort(key, kind="stable")
        first = order[np.searchsorted(key[order], whole["label"])]  # rows come in order
        whole["frame"], whole["label"] = whole["label"] // n, whole["label"] % n
        return whole, pieces["row"][first]

    def pieces_of(self, row: int, final: FinalIds) -> ObjectSums:
        """Pieces that are told with a row of blocks, under their final ids; without the dropped."""
        start, stop = np.searchsorted(self._rows, (row, row + 1))
        found = {name: values[start:stop] for name, values in self._sums.items()}
        label = final.of_groups(found["label"])
        return {k: v[label > 0] for k, v in {**found, "label": label}.items()}


def _final_ids(
    run: TaskRun, parts: _Parts, final: FinalIds, row: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Final ids of a row of blocks, given to all of them at once."""
    live = [block for block in row if parts.counts[block]]
    columns = {
        name: np.concatenate([parts.parts[block][name] for block in live])
        if live
        else np.zeros(0, np.int64)
        for name in ("first", "area", "border", "scope")
    }
    ids = np.concatenate([np.zeros(0, np.int64), *(parts.ids(block) for block in live)])
    kept = run.plan.postprocessing.keep(columns["area"], columns["border"].astype(bool))
    given = final.row(ids, columns["first"], kept, columns["scope"])
    at = 0
    for block in row:
        # A failed frame's labels all become 0, however many there were.
        count = parts.counts[block]
        yield block, given[at : at + count] if count else np.zeros(parts.n_local[block], np.int64)
        at += count


def _frame_sums(run: TaskRun, group: StitchGroup, parts: _Parts) -> dict[int, FrameSums]:
    """Sums of each frame, by its number in the layout: its intensity, and no objects yet."""
    layout = run.plan.layout
    pixels = layout.sizes[2] * layout.sizes[3]
    sums = {number: FrameSums(pixels, 0.0, run.plan.channels[0]) for number in parts.frames}
    for number in group.blocks:
        block = layout.block(number)
        shares = zip(block.frames, parts.parts[number]["intensity"], strict=True)
        for (t, z), intensity in shares:
            sums[layout.frame_index(t, z)].intensity += float(intensity)
    return sums


def _write_row(
    run: TaskRun, pieces: ObjectSums, sums: dict[int, FrameSums], table: ObjectsWriter
) -> None:
    """Write a row of blocks' pieces to the tables, in order of frame and label."""
    layout = run.plan.layout
    order = np.lexsort((pieces["label"], pieces["frame"]))
    ordered = {name: values[order] for name, values in pieces.items()}
    frames, starts = np.unique(ordered["frame"], return_index=True)
    for frame, start, stop in zip(frames, starts, np.r_[starts[1:], len(order)], strict=False):
        one = {name: values[start:stop] for name, values in ordered.items()}
        sums[int(frame)].add(one)
        t, z = divmod(int(frame), layout.sizes[1])
        table.add(t + layout.t0, z + layout.z0, objects_of(one))


def _measured(
    run: TaskRun, group: StitchGroup, parts: _Parts, objects: Rows, classes: Rows
) -> list[FrameRecord]:
    """Records of the group's frames, with what objects and classes say of them."""
    records = []
    for t, z in group.frames:
        number = run.plan.layout.frame_index(t, z)
        record = parts.frames[number]
        if not record.failed:
            measures = {**objects.get(number, {}), **classes.get(number, {})}
            record = record.model_copy(update={"measures": measures})
        records.append(record)
    return records


def _class_rows(run: TaskRun, group: StitchGroup, parts: _Parts) -> Rows:
    """What a class map says of each frame."""
    layout, names = run.plan.layout, run.plan.class_names
    totals = {number: ClassSums(len(names)) for number in parts.frames}
    for number in group.blocks:
        part = parts.parts[number]
        arrays = [part[f"class_{name}"] for name in ("counts", "intensities", "certainty")]
        frames = zip(layout.block(number).frames, *arrays, strict=True)
        for (t, z), counts, intensities, certainty in frames:
            one = ClassSums(len(names))
            one.counts, one.intensities, one.certainty = counts, intensities, float(certainty)
            totals[layout.frame_index(t, z)].merge(one)
    return {number: one.row(names) for number, one in totals.items() if one.counts.any()}
