"""The frames of a block or stitch group: its labels, its objects and its record must agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import first_line
from engine.geometry.arrays import ResultArray
from engine.geometry.layout import Block
from engine.results.verify.areas import Areas, LabelAreas, joined, object_areas
from engine.results.verify.blocks import GONE, BlockCheck, read_record
from engine.results.verify.problems import Problem
from engine.results.verify.stack import Group, JobStack
from engine.store.committed import objects_key, record_key, shard_keys, stitch_key, store_of
from engine.store.records import BlockRecord, FrameRecord, StitchRecord

GroupRecord = BlockRecord | StitchRecord


@dataclass
class GroupCheck:
    """What was found of a group."""

    frames: tuple[FrameRecord, ...] = ()  # none where its record is absent or damaged
    objects: int = 0  # on record
    problems: list[Problem] = field(default_factory=list)


def check_group(
    stack: JobStack, group: Group, blocks: Sequence[BlockCheck], *, is_complete: bool
) -> GroupCheck:
    """Hold a group's labels against its objects and its record. `blocks` are all of its blocks."""
    check = GroupCheck()
    where = stack.place_of(group)
    key, record, damage = group_record(stack, group)

    def add(kind: str, path: str, damage: str, place: str = where) -> None:
        check.problems.append(stack.problem(kind, path, damage, place, group.index))

    if record is None:
        if not isinstance(group, Block) and (is_complete or damage != GONE):
            add("record", key, damage)  # that of a block has been read with its shards
        return check
    if [(one.t, one.z) for one in record.frames or ()] != list(group.frames):
        add("record", key, "the record's frames are not those of its blocks")
        return check
    check.frames = record.frames or ()
    check.objects = record.n_objects
    objects = _objects(stack, group, record)
    if isinstance(objects, str):
        add("objects", objects_key(stack.name, group.index), objects)
        return check
    if not all(block.areas for block in blocks):  # labels are damaged, or not all there yet
        return check
    counts = {}  # of objects, by place: on record, and in the labels
    if isinstance(record, StitchRecord):
        counts[where] = (record.objects, 0)
    for array in stack.label_images:
        found = joined([block.areas[array.kind] for block in blocks])
        if isinstance(record, StitchRecord) and array.gives_instances:
            times = found.frame // stack.layout.sizes[1]  # ids start again with each
            n_objects = np.unique([times, found.label], axis=1).shape[1]
            counts[where] = (record.objects, n_objects)
        for frame in check.frames:
            place = stack.span((frame.t, frame.t + 1), (frame.z, frame.z + 1))
            labels = found.of(stack.layout.frame_index(frame.t, frame.z))
            counts[place] = (frame.objects, len(labels[0]) if array.gives_instances else 0)
            for damage in _difference(labels, _recorded(stack, array, frame, objects)):
                add("labels", _labels_path(stack, array, frame), damage, place)
    for place, (known, there) in counts.items():
        if known != there:
            add("record", key, f"the record counts {known} objects, and the labels {there}", place)
    return check


def group_record(stack: JobStack, group: Group) -> tuple[str, GroupRecord | None, str]:
    """Key of the record with a group's frames; that record, or None and what is wrong with it."""
    if isinstance(group, Block):
        key = record_key(stack.name, group.index)
        return key, *read_record(stack.folder, BlockRecord, key, group.index)
    key = stitch_key(stack.name, group.index)
    return key, *read_record(stack.folder, StitchRecord, key, group.index)


def _objects(stack: JobStack, group: Group, record: GroupRecord) -> Areas | str:
    """A group's part of the objects table, or what is wrong with it."""
    key = objects_key(stack.name, group.index)
    try:
        return object_areas(stack.folder, key, record.objects_sha256, stack.layout)
    except FileNotFoundError:
        return "the objects are gone"
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"the objects are damaged ({first_line(error)})"


def _labels_path(stack: JobStack, array: ResultArray, frame: FrameRecord) -> str:
    """The shard with a frame's labels; of a cut frame, which has several, the array."""
    layout = stack.layout
    if layout.is_cut:
        return stack.folder.name_of(f"{store_of(stack.name)}/{array.path()}")
    t, z = frame.t - layout.t0, frame.z - layout.z0
    number = layout.number((t // layout.block_size[0], z // layout.block_size[1], 0, 0))
    return stack.folder.name_of(shard_keys(stack, layout.block(number))[array.kind])


def _recorded(
    stack: JobStack, array: ResultArray, frame: FrameRecord, objects: Areas
) -> LabelAreas:
    """What is on record of a frame's labels. One that was set aside has no objects, nor classes."""
    if array.gives_instances:
        return objects.of(stack.layout.frame_index(frame.t, frame.z))
    fractions = [v or 0 for k, v in frame.measures.items() if k.startswith("fraction_")] or [1]
    area = np.rint(np.array(fractions) * math.prod(stack.layout.sizes[2:])).astype(np.int64)
    label = np.flatnonzero(area)
    return label, area[label]


def _difference(found: LabelAreas, recorded: LabelAreas) -> Iterator[str]:
    (label, area), (known, known_area) = found, recorded
    if len(lost := np.setdiff1d(known, label)):
        yield f"labels {_listed(lost)} are on record, and are not there"
    if len(extra := np.setdiff1d(label, known)):
        yield f"labels {_listed(extra)} are there, and not on record"
    if np.array_equal(label, known) and (differs := area != known_area).any():
        yield f"labels {_listed(label[differs])} have another area than on record"


def _listed(labels: NDArray[np.int64]) -> str:
    """Ids in words, the first few."""
    few = ", ".join(map(str, labels[:5].tolist()))
    return few if len(labels) <= 5 else f"{few} and {len(labels) - 5} more"
