"""What a job will do, decided before it starts: stacks, blocks, tiles, memory, disk.

A plan is plain data. It can be printed, compared and tested without Dask or a session, and a
serial loop over it gives the same result as any cluster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.errors import UsageError
from engine.geometry.arrays import (
    IMAGE,
    LABELS,
    OBJECTS,
    PROBABILITY,
    ResultArray,
    arrays_of,
    class_map_of,
    instances_of,
)
from engine.geometry.tiling import FrameTiling, round_up
from engine.measure.objects import ObjectsOf
from engine.model.file import ModelFile
from engine.model.graph.decision import MAX_CLASSES, Decision
from engine.model.spec import ModelSpec, label_path, objects_path
from engine.plan.channels import with_channels
from engine.plan.footprint import MB
from engine.plan.inputs import Input, Inputs, first_notes, names_of
from engine.plan.memory import MemoryEstimate, Workload, choose_tiling
from engine.plan.resources import Site
from engine.plan.settings import JobSettings

MUCH_WASTE = 0.75  # share of the network's work from which a tiling is worth a warning


@dataclass(frozen=True)
class StackPlan(Input):
    """One stack's part of a job."""

    name: str  # its result is NAME.zarr
    axes: str | None  # as given by the user, for opening it again
    arrays: tuple[ResultArray, ...]  # of its result, labels first
    tiling: FrameTiling
    class_names: tuple[str, ...]  # of the model, by number
    batch: int = 1  # tiles that go through the network at once
    fixes_shape: bool = False  # sessions are for its shape alone: `engine.plan.memory`
    decision: Decision | None = None  # made in the graph; None: probabilities come back
    missing_is_background: bool = False  # a frame of which no chunk is there is blank, not lost
    source: str = ""  # folder of the job whose kept probabilities are labelled; "": the network's
    kept: tuple[ResultArray, ...] = ()  # the arrays of that job

    @property
    def labels(self) -> ResultArray:
        """The array of its labels: the class map where there is one."""
        return self.arrays[0]

    @property
    def label_images(self) -> tuple[ResultArray, ...]:
        """Its labels, and the objects beside a class map."""
        return tuple(array for array in self.arrays if array.is_labels)

    @property
    def class_map(self) -> ResultArray | None:
        """The array of its class map; None of a binary model."""
        return class_map_of(self.arrays)

    @property
    def instances(self) -> ResultArray | None:
        """The array of instance ids; None where there are no objects."""
        return instances_of(self.arrays)

    @property
    def object_classes(self) -> tuple[int, ...]:
        """Numbers of the classes whose components are objects, beside a class map."""
        return tuple(map(self.class_names.index, self.postprocessing.objects))

    @property
    def other_arrays(self) -> tuple[ResultArray, ...]:
        """What is kept besides label images."""
        return tuple(array for array in self.arrays if not array.is_labels)

    @property
    def reads_input(self) -> bool:
        """Whether the stack itself is read, rather than the image that an earlier job kept."""
        return not any(array.kind == IMAGE for array in self.kept)

    @property
    def waste(self) -> float:
        """Share of the network's work that is halo or padding, 0..1, where frames are tiled."""
        tiling = self.tiling
        if tiling.n_tiles == 1:
            return 0.0
        if not self.layout.is_cut:
            return tiling.waste
        cores = (max(side - 2 * tiling.halo, 1) / side for side in tiling.tile_shape)
        return 1 - math.prod(cores)

    @property
    def objects_of(self) -> ObjectsOf:
        """What the objects table has to know of the stack."""
        return ObjectsOf(self.name, self.class_names, self.pixel_size_um, self.measured)


@dataclass(frozen=True)
class Plan:
    """Every block of a job, and what it needs."""

    stacks: tuple[StackPlan, ...]
    refused: tuple[tuple[str, str], ...]  # inputs that cannot be opened, and why
    workers: int  # blocks in flight
    threads: int  # of the runtime, for each block in flight
    memory: MemoryEstimate
    disk_bytes: int  # predicted size of the labels, see `predicted_disk`
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()  # all sentences on the inputs, of which warnings hold the first

    @property
    def n_frames(self) -> int:
        """Frames of all stacks."""
        return sum(stack.layout.n_frames for stack in self.stacks)

    @property
    def n_blocks(self) -> int:
        """Blocks of all stacks."""
        return sum(stack.layout.n_blocks for stack in self.stacks)


def make_plan(settings: JobSettings, model: ModelFile, inputs: Inputs, site: Site) -> Plan:
    """Decide everything about a job on `inputs`, which have been closed. Touches no file."""
    opened = inputs.opened
    warnings = first_notes(inputs.notes)
    halo = _halo(settings, model, warnings)
    arrays = [_arrays(one, settings, model.spec) for one in opened]
    choice = choose_tiling(
        [
            Workload(
                with_channels(one.info, one.channels_read),
                one.layout,
                one.postprocessing,
                own,
                is_windowed=one.window is not None,
            )
            for one, own in zip(opened, arrays, strict=True)
        ],
        model,
        site,
        tile=_tile(settings, model, halo),
        halo=halo,
        workers=settings.workers,
        limit=settings.memory,
    )
    names = names_of([one.info for one in opened])
    if choice.memory.device is not None and site.device_memory is None:
        warnings.append(
            f"{site.target.device} does not tell how much of its memory is free: the plan does not "
            f"limit the {choice.memory.device_peak / MB:,.0f} MB that the network may take of it"
        )
    stacks = tuple(
        StackPlan(
            **vars(one),
            name=name,
            axes=settings.axes,
            arrays=own,
            tiling=way.tiling,
            batch=way.batch,
            fixes_shape=choice.fixes_shape,
            decision=_decision(one, settings, model.spec, site),
            class_names=model.spec.class_names,
            missing_is_background=settings.missing_chunks == "background",
        )
        for one, name, own, way in zip(opened, names, arrays, choice.ways, strict=True)
    )
    if wasteful := next((stack for stack in stacks if stack.waste > MUCH_WASTE), None):
        way_out = "a larger --tile is faster"
        if choice.preferred_bytes is not None and choice.memory.device is None:
            enough = math.ceil(choice.preferred_bytes / MB)
            pieces = "regions" if wasteful.layout.is_cut else "frames"
            way_out = f"--memory {enough}MB or more takes {pieces} whole, and is faster"
        warnings.append(
            f"{wasteful.name}: {wasteful.waste:.0%} of the network's work is halo and padding; "
            f"{way_out}"
        )
    return Plan(
        stacks, inputs.refused, choice.workers, choice.threads, choice.memory,
        sum(map(predicted_disk, stacks)), tuple(warnings), inputs.notes,
    )  # fmt: skip


def predicted_disk(stack: StackPlan) -> int:
    """Bytes of what a stack leaves, compressed, at the upper end of what nuclei gave.

    Of the raw bytes, labels take 1/40, probabilities 1/8, and images, which are noise, all.
    """
    layout, total = stack.layout, 0
    for array in stack.arrays:
        raw = math.prod(array.shape(layout).shape) * np.dtype(array.dtype).itemsize
        share = {LABELS: 1 / 40, OBJECTS: 1 / 40, PROBABILITY: 1 / 8, IMAGE: 1}[array.kind]
        levels = 4 / 3 if array.levels > 1 else 1
        passes = 2 if array.is_labels and layout.is_stitched else 1  # provisional ones
        total += int(raw * share * levels * passes) + 4096 * (layout.n_blocks + 4) * array.levels
    return total


def _arrays(one: Input, settings: JobSettings, spec: ModelSpec) -> tuple[ResultArray, ...]:
    outputs = spec.n_outputs if spec.n_outputs > 1 else 0
    objects = one.postprocessing.objects
    channels = one.info.size("C") if "C" in one.info.axes else 0
    return arrays_of(
        one.layout,
        label_path(spec),
        objects=(objects_path(spec), len(objects)) if objects else None,
        probability=(f"probability/{spec.name}", outputs) if settings.keep else None,
        image=(one.info.dtype, channels) if settings.with_image else None,
    )


def _decision(one: Input, settings: JobSettings, spec: ModelSpec, site: Site) -> Decision | None:
    """What the graph decides, so that less has to come back from a device."""
    if not site.target.is_on_device or settings.keep or spec.n_class_outputs > MAX_CLASSES:
        return None
    how = one.postprocessing
    by_cores = how.instances == "cores"
    return Decision(spec.n_class_outputs, how.threshold, how.core_threshold if by_cores else None)


def _halo(settings: JobSettings, model: ModelFile, warnings: list[str]) -> int | None:
    needed = model.halo
    if settings.halo is None:
        return needed
    given = round_up(settings.halo, model.spec.stride)
    if needed is None:
        warnings.append(f"--halo {given}: {model.field.reason}, so that no halo makes tiles exact")
    elif given < needed:
        warnings.append(
            f"--halo {given}: below the {needed} px that the network can see; "
            "labels may differ at the edges of tiles"
        )
    return given


def _tile(settings: JobSettings, model: ModelFile, halo: int | None) -> int | None:
    if settings.tile == "auto":
        return None
    if halo is None:
        raise UsageError(
            f"--tile {settings.tile}: {model.path.name} cannot be cut into tiles "
            f"({model.field.reason}); omit --tile to run whole frames"
        )
    tile = round_up(settings.tile, model.spec.stride)
    if tile <= 2 * halo:
        raise UsageError(
            f"--tile {settings.tile}: leaves nothing between two halos of {halo} px; "
            f"use more than {2 * halo}"
        )
    return tile
