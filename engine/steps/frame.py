"""One frame's story, from its pixels to what is put: of whole frames and of regions alike.

    read -> statistics -> predict -> label -> measure -> put
    `------- a source -------'      `-- a labelling --'

Where a frame's outputs come from is a source: the network (`engine.steps.network`), or what an
earlier job kept (`engine.steps.kept`). What labels and measures are depends on whether a block
holds whole frames (`engine.steps.whole`) or parts of them (`engine.steps.part`). `segment_planes`
is the story.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from engine.errors import FrameError
from engine.geometry.arrays import LABELS, OBJECTS
from engine.inference.outputs import Outputs
from engine.labels.class_objects import label_class_map
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.frames import ClassSums, FrameSums, Measures, total_intensity
from engine.measure.objects import ObjectColumns, object_sums, objects_of
from engine.model.spec import ModelSpec
from engine.steps.shards import BlockShards
from engine.steps.task import Stopwatch, TaskRun
from engine.store.records import FrameRecord


@dataclass
class Prediction:
    """A frame, or a block's part of it, with what the network gave for it."""

    pixels: NDArray[Any]  # raw, (C, Y, X): the channels that are read
    around: Outputs  # with the margin that labelling needs
    inside: tuple[slice, slice]  # rows and columns of these that are the block's
    sha256: str  # of all pixels read of the frame
    missing_chunks: int  # that the input lacks, and that were read as its fill value
    blank: bool  # whether every channel that the network takes is constant over the whole frame

    @property
    def outputs(self) -> Outputs:
        """Those of the block."""
        return self.around.within(self.inside)


class Source(Protocol):
    """Where the outputs for frames come from. Frames are asked for in their order."""

    def failure(self, t: int, z: int) -> str:
        """Why a frame was set aside before; "" where it was not."""

    def predict(self, t: int, z: int) -> Prediction:
        """The block's part of a frame. FrameError where it cannot be read or computed."""


class Labelling(Protocol):
    """What a block makes of outputs."""

    def label(self, t: int, planes: dict[int, Prediction]) -> None:
        """Label planes of one time point, by z; those that were set aside are not among them."""

    def measure(self, t: int, z: int, plane: Prediction | None) -> Measures:
        """Columns of the frames table for a plane, None: it was set aside; {}: they come later.

        Called after `label`, for each plane of the time point in order.
        """


def segment_planes(
    run: TaskRun,
    t: int,
    planes: Iterable[int],
    source: Source,
    labelling: Labelling,
    kept: BlockShards,
) -> list[FrameRecord]:
    """Planes of one time point that are labelled together, from their pixels to their records.

    Labels and what is kept besides them go to `labelling` and `kept`. A plane that cannot be read
    or computed, at the second try too, is set aside: its record says why, its labels stay 0.
    """
    records: dict[int, FrameRecord] = {}
    predictions: dict[int, Prediction] = {}
    for z in planes:
        try:
            if reason := source.failure(t, z):
                raise FrameError(reason)
            plane = run.tried(t, z, partial(source.predict, t, z))
        except FrameError as error:
            records[z] = FrameRecord(t=t, z=z, status="failed", reason=str(error))
            continue
        predictions[z] = plane
        records[z] = FrameRecord(
            t=t, z=z, status="ok",
            sha256=plane.sha256, missing_chunks=plane.missing_chunks, blank=plane.blank,
        )  # fmt: skip
        kept.put_kept(t, z, plane.pixels, plane.outputs)
    labelling.label(t, predictions)
    for z, record in records.items():
        measures = labelling.measure(t, z, predictions.get(z))
        records[z] = record.model_copy(update={"measures": measures})
    return list(records.values())


# -- label, measure --------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentedFrame:
    """What a whole frame gives: its label images, measures, and its objects' columns."""

    images: dict[str, NDArray[Any]]  # (Y, X), by kind: labels, and objects beside a class map
    measures: Measures
    objects: ObjectColumns | None  # None where there are no objects


def label_whole(
    pixels: Mapping[int, NDArray[Any]],
    number: int,
    outputs: Outputs,
    spec: ModelSpec,
    postprocessing: Postprocessing,
    pixel_area_um2: float | None,
    watch: Stopwatch,
) -> SegmentedFrame:
    """Label images and measures of a whole frame, from what the network gave for it.

    `pixels` are raw, (Y, X), by the number of their channel; the frame's own intensities are those
    of channel `number`.
    """
    channel = pixels[number]
    images: dict[str, NDArray[Any]] = {}
    measures: Measures = {}
    objects = classes = None
    if postprocessing.gives_classes:
        with watch.stage("labels"):
            classes = images[LABELS] = outputs.class_map(postprocessing.threshold)
        with watch.stage("measure"):
            counted = ClassSums(len(spec.classes))
            counted.add(classes, outputs.each_class(len(spec.classes)), channel)
            measures = counted.row(spec.class_names)
    if postprocessing.gives_instances:
        with watch.stage("labels"):
            if classes is not None:
                chosen = [spec.class_names.index(name) for name in postprocessing.objects]
                labels = images[OBJECTS] = label_class_map(classes, chosen, postprocessing)
            else:
                mask, core = outputs.masks(postprocessing)
                labels = images[LABELS] = label_instances(mask, postprocessing, core)
        with watch.stage("measure"):
            sums = object_sums(labels, pixels, outputs.certainty(), classes)
            total = FrameSums(channel.size, total_intensity(channel), number)
            total.add(sums)
            measures = total.row(pixel_area_um2) | measures
            objects = objects_of(sums)
    return SegmentedFrame(images, measures, objects)
