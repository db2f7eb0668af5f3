"""A stitch group, stitched: which provisional labels are one object, their final ids, and measures.

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
from engine.labels.stitching import FinalIds, Joined, contacts, forward_offsets, join
from engine.measure.frames import ClassSums, FrameRow, FrameSums
from engine.measure.hulls import RowEnds, convex_areas, merged_rows
from engine.measure.objects import ObjectSums, merged, no_sums, objects_of
from engine.steps.part import Part
from engine.steps.work import Outcome, Work
from engine.store.ome_zarr import save_array
from engine.store.tables import ObjectsWriter


@dataclass(frozen=True)
class _Parts:
    """The parts of a stitch group by block, and what is known of its frames."""

    parts: dict[int, Part]
    start: dict[int, int]  # ids of a block are unique in the stitch group from here on
    counts: dict[int, int]  # labels of a block that take part
    frames: dict[int, dict[str, Any]]  # by number of the frame in the layout

    def ids(self, block: int) -> NDArray[np.int64]:
        """Ids of a block's labels, unique in the stitch group."""
        return self.start[block] + np.arange(1, self.counts[block] + 1, dtype=np.int64)


def stitch_blocks(work: Work) -> Outcome:
    """Stitch a stitch group and commit it. Safe to repeat: the same bytes again."""
    plan, folder = work.plan, work.folder
    stitch_group = plan.layout.stitch_group(work.task.index)
    objects_path = folder.place("objects", plan.name, stitch_group.index, ".parquet")
    work.check_identity()
    with work.watch.stage("labels"), folder.staged(objects_path) as staged:
        with ObjectsWriter(staged, plan.objects_of) as table:
            known = _gather(work, stitch_group)
            if plan.postprocessing.gives_instances:
                rows, count = _stitch(work, stitch_group, known, table)
            else:
                rows, count = _add_classes(work, stitch_group, known), 0
        with staged.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    work.check_identity()
    if folder.stitch_record(plan.name, stitch_group) is not None:  # another worker was faster
        return Outcome(plan.name, work.task.step, stitch_group.index, seconds=work.watch.seconds)
    for block in stitch_group.blocks:
        # Their labels bear the ids of an earlier stitching, if any.
        folder.remove(folder.place("records", plan.name, block))
    work.put_timings()
    record = {
        "stitch_group": stitch_group.index,
        "objects": count,
        "objects_sha256": digest,
        "frames": rows,
    }
    folder.put_json(folder.place("stitched", plan.name, stitch_group.index), record)
    failed = tuple((r["t"], r["z"], r["reason"]) for r in rows if r["status"] == "failed")
    return Outcome(
        plan.name, work.task.step, stitch_group.index, 0.0, failed, count, work.watch.seconds
    )


def _gather(work: Work, stitch_group: StitchGroup) -> _Parts:
    plan, folder = work.plan, work.folder
    parts: dict[int, Part] = {}
    counts: dict[int, int] = {}
    frames: dict[int, dict[str, Any]] = {}
    for block in stitch_group.blocks:
        record = _checked(work, block)
        parts[block] = Part(folder.place("work/parts", plan.name, block, ".npz"))
        counts[block] = record["count"]
        for row in record["frames"]:
            number = plan.layout.frame_index(row["t"], row["z"])
            if number not in frames or row["status"] != "ok":  # one failed region fails the frame
                frames[number] = row
    if plan.layout.is_cut:
        # A region of a frame that was set aside: its labels are 0, and touch nothing.
        for block in stitch_group.blocks:
            if frames[_frame_of(work, block)]["status"] == "failed":
                counts[block] = 0
    start, total = {}, 0
    for block in stitch_group.blocks:
        start[block] = total
        total += counts[block]
    return _Parts(parts, start, counts, frames)


def _checked(work: Work, block: int) -> dict[str, Any]:
    """The record of a part that is what it was; one that is damaged is taken back."""
    places = [work.folder.place("work/parts", work.plan.name, block, s) for s in (".json", ".npz")]
    record = work.folder.read_json(places[0]) or {}
    try:
        with places[1].open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest == record["part_sha256"]:
            return record
        why = "its SHA-256 differs"
    except (OSError, LookupError) as error:
        why = str(error)
    work.folder.take_back(places, why)


def _frame_of(work: Work, number: int) -> int:
    block = work.plan.layout.block(number)
    return work.plan.layout.frame_index(block.t[0], block.z[0])


def _stitch(
    work: Work, stitch_group: StitchGroup, known: _Parts, table: ObjectsWriter
) -> tuple[list[FrameRow], int]:
    joined = join(_contacts(work, stitch_group, known))
    spanning = _Spanning(joined, stitch_group, known, len(work.plan.all_channels))
    kept = work.plan.postprocessing.keep(spanning.area, spanning.border)
    final = FinalIds(joined, spanning.first, kept)
    sums = _frame_sums(work, stitch_group, known)
    for number, row in enumerate(stitch_group.rows):
        found = []
        for block, ids in _final_ids(work, known, final, row):
            # Looked up by local id; 0 is the background.
            new = np.r_[0, ids].astype(work.plan.layout.dtype)
            path = work.folder.place("work/maps", work.plan.name, block, ".npy")
            work.check_identity()
            work.folder.put(path, save_array(new))
            pieces = known.parts[block].pieces() if known.counts[block] else {}
            if pieces:
                alone = joined.group_of(known.start[block] + pieces["label"].astype(np.int64)) < 0
                label = ids[pieces["label"].astype(np.int64) - 1]
                keep = alone & (label > 0)
                found.append({k: v[keep] for k, v in {**pieces, "label": label}.items()})
        found.append(spanning.pieces_of(number, final))
        _tell(work, known, {k: np.concatenate([f[k] for f in found]) for k in found[-1]}, sums,
              table)  # fmt: skip
    return _rows(work, stitch_group, known, sums), final.total


def _contacts(work: Work, stitch_group: StitchGroup, known: _Parts) -> NDArray[np.int64]:
    """Pairs of ids that touch across faces, (n, 2)."""
    layout = work.plan.layout
    blocks = set(stitch_group.blocks)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for block in stitch_group.blocks:
        t, z, y, x = layout.position(block)
        for offset in forward_offsets(connect_z=layout.connect_z):
            place = (t, z + offset[0], y + offset[1], x + offset[2])
            inside = all(0 <= at < size for at, size in zip(place, layout.grid, strict=True))
            other = layout.number(place) if inside else -1
            if other in blocks and known.counts[block] and known.counts[other]:
                a, b = _Faces(known.parts[block]), _Faces(known.parts[other])
                local = contacts(a, b, offset, connect_z=layout.connect_z)
                pairs.append(local + np.array([known.start[block], known.start[other]]))
    return np.concatenate(pairs)


class _Faces(Mapping[str, NDArray[np.uint32]]):
    """The faces of a part, each read when it is looked at."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def __getitem__(self, name: str) -> NDArray[np.uint32]:
        return self._part[f"face_{name}"]

    def __iter__(self) -> Iterator[str]:
        return iter(("y0", "y1", "x0", "x1", "z0", "z1"))

    def __len__(self) -> int:
        return 6


class _Spanning:
    """The objects that span blocks: where they begin, how large they are, and their measures."""

    def __init__(
        self, joined: Joined, stitch_group: StitchGroup, known: _Parts, n_channels: int
    ) -> None:
        n = joined.n_groups
        self.first = np.full(n, np.iinfo(np.int64).max)
        self.area = np.zeros(n, dtype=np.int64)
        self.border = np.zeros(n, dtype=bool)  # whether it touches the frame's
        gathered: list[ObjectSums] = []
        ends: list[RowEnds] = []
        for number, row in enumerate(stitch_group.rows):
            for block in row:
                if n and known.counts[block]:
                    self._add_ids(joined, known, block)
                    gathered.append(self._pieces(joined, known, block, number))
                    ends.append(self._ends(joined, known, block))
        self._sums: ObjectSums = {**no_sums(n_channels), "frame": np.zeros(0, np.int64)}
        self._rows: NDArray[Any] = np.zeros(0, np.int64)
        if gathered:
            self._sums, self._rows = self._merged(gathered, n)
            self._sums["convex_px"] = convex_areas(merged_rows(ends))
            order = np.argsort(self._rows, kind="stable")
            self._rows = self._rows[order]
            self._sums = {name: values[order] for name, values in self._sums.items()}

    def _add_ids(self, joined: Joined, known: _Parts, block: int) -> None:
        part = known.parts[block]
        group = joined.group_of(known.ids(block))
        spans = group >= 0
        np.minimum.at(self.first, group[spans], part["first"][spans])
        np.add.at(self.area, group[spans], part["area"][spans])
        np.logical_or.at(self.border, group[spans], part["border"][spans])

    def _pieces(self, joined: Joined, known: _Parts, block: int, row: int) -> ObjectSums:
        pieces = known.parts[block].pieces()
        group = joined.group_of(known.start[block] + pieces["label"].astype(np.int64))
        spans = group >= 0
        kept = {name: values[spans] for name, values in pieces.items()}
        return {**kept, "label": group[spans], "row": np.full(int(spans.sum()), row)}

    @staticmethod
    def _ends(joined: Joined, known: _Parts, block: int) -> RowEnds:
        """Ends of the rows of objects that span blocks, numbered by group and frame."""
        rows = known.parts[block].rows()
        group = joined.group_of(known.start[block] + rows["label"].astype(np.int64))
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
        told = {name: values[start:stop] for name, values in self._sums.items()}
        label = final.of_groups(told["label"])
        return {k: v[label > 0] for k, v in {**told, "label": label}.items()}


def _final_ids(
    work: Work, known: _Parts, final: FinalIds, row: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Final ids of a row of blocks, given to all of them at once."""
    live = [block for block in row if known.counts[block]]
    columns = {
        name: np.concatenate([known.parts[block][name] for block in live])
        if live
        else np.zeros(0, np.int64)
        for name in ("first", "area", "border", "scope")
    }
    ids = np.concatenate([np.zeros(0, np.int64), *(known.ids(block) for block in live)])
    kept = work.plan.postprocessing.keep(columns["area"], columns["border"].astype(bool))
    given = final.row(ids, columns["first"], kept, columns["scope"])
    at = 0
    for block in row:
        # A failed frame's labels all become 0, however many there were.
        count = known.counts[block]
        yield block, given[at : at + count] if count else np.zeros(_labels(work, block), np.int64)
        at += count


def _labels(work: Work, block: int) -> int:
    record = work.folder.read_json(work.folder.place("work/parts", work.plan.name, block))
    return int(record["count"]) if record else 0


def _frame_sums(work: Work, stitch_group: StitchGroup, known: _Parts) -> dict[int, FrameSums]:
    layout = work.plan.layout
    pixels = layout.sizes[2] * layout.sizes[3]
    sums = {number: FrameSums(pixels, 0.0, work.plan.channels[0]) for number in known.frames}
    for number in stitch_group.blocks:
        block = layout.block(number)
        parts = zip(block.frames, known.parts[number]["intensity"], strict=True)
        for (t, z), intensity in parts:
            sums[layout.frame_index(t, z)].intensity += float(intensity)
    return sums


def _tell(
    work: Work, known: _Parts, pieces: ObjectSums, sums: dict[int, FrameSums],
    table: ObjectsWriter,
) -> None:  # fmt: skip
    """Write a row of blocks' pieces to the tables, in order of frame and label."""
    layout = work.plan.layout
    order = np.lexsort((pieces["label"], pieces["frame"]))
    ordered = {name: values[order] for name, values in pieces.items()}
    frames, starts = np.unique(ordered["frame"], return_index=True)
    for frame, start, stop in zip(frames, starts, np.r_[starts[1:], len(order)], strict=False):
        one = {name: values[start:stop] for name, values in ordered.items()}
        sums[int(frame)].add(one)
        t, z = divmod(int(frame), layout.sizes[1])
        table.add(t + layout.t0, z + layout.z0, objects_of(one))


def _rows(
    work: Work, stitch_group: StitchGroup, known: _Parts, sums: dict[int, FrameSums]
) -> list[FrameRow]:
    rows = []
    for t, z in stitch_group.frames:
        number = work.plan.layout.frame_index(t, z)
        row = dict(known.frames[number])
        if row["status"] == "ok":
            row.update(sums[number].row(work.plan.pixel_area_um2))
        rows.append(row)
    return rows


def _add_classes(work: Work, stitch_group: StitchGroup, known: _Parts) -> list[FrameRow]:
    layout = work.plan.layout
    names = tuple(c.name for c in work.model.spec.classes)
    totals = {number: ClassSums(len(names)) for number in known.frames}
    for number in stitch_group.blocks:
        part = known.parts[number]
        arrays = [part[f"class_{name}"] for name in ("counts", "intensities", "certainty")]
        frames = zip(layout.block(number).frames, *arrays, strict=True)
        for (t, z), counts, intensities, certainty in frames:
            one = ClassSums(len(names))
            one.counts, one.intensities, one.certainty = counts, intensities, float(certainty)
            totals[layout.frame_index(t, z)].merge(one)
    rows = []
    for t, z in stitch_group.frames:
        row = dict(known.frames[layout.frame_index(t, z)])
        if row["status"] == "ok":
            row.update(totals[layout.frame_index(t, z)].row(names))
        rows.append(row)
    return rows
