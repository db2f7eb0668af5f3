"""One frame's story, from its pixels to what is put: of whole frames and of regions alike.

    read -> statistics -> predict -> label -> measure -> put
    `------- a source -------'      `-- a labelling --'

Where probabilities come from is a source: the network, below, or what an earlier job kept
(`engine.steps.kept`). What labels and measures are depends on whether a block holds whole frames
(`engine.steps.whole`) or parts of them (`engine.steps.part`). `segment_planes` is the story.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, JobStopped, OutOfMemory
from engine.geometry.arrays import LABELS, OBJECTS
from engine.geometry.layout import Block
from engine.geometry.tiling import FrameTiling, Region
from engine.inference.tiles import predict_region
from engine.labels.class_objects import label_class_map
from engine.labels.classes import class_map, each_class, masks
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.frames import ClassSums, FrameSums, Measures, total_intensity
from engine.measure.objects import ObjectColumns, object_sums, objects_of
from engine.model.spec import ModelSpec
from engine.model.statistics import frame_statistics, is_blank
from engine.steps.missing import check_frame
from engine.steps.shards import BlockShards
from engine.steps.task import Stopwatch, TaskRun, check_present
from engine.steps.worker import halve_tile, session_for, tiling_of
from engine.store.records import FrameRecord, SurveyRecord


@dataclass
class Prediction:
    """A frame, or a block's part of it, with its probabilities."""

    pixels: NDArray[Any]  # raw, (C, Y, X): the channels that are read
    around: NDArray[np.float32]  # probabilities (K, Y, X), with the margin that labelling needs
    inside: tuple[slice, slice]  # rows and columns of these that are the block's
    sha256: str  # of all pixels read of the frame
    missing_chunks: int  # that the input lacks, and that were read as its fill value
    blank: bool  # whether every channel that the network takes is constant over the whole frame

    @property
    def probability(self) -> NDArray[np.float32]:
        """Those of the block, (K, Y, X): a view."""
        return self.around[:, *self.inside]


class Source(Protocol):
    """Where the probabilities of frames come from."""

    def failure(self, t: int, z: int) -> str:
        """Why a frame was set aside before; "" where it was not."""

    def predict(self, t: int, z: int) -> Prediction:
        """The block's part of a frame. FrameError where it cannot be read or computed."""


class Labelling(Protocol):
    """What a block makes of probabilities."""

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
        kept.put_kept(t, z, plane.pixels, plane.probability)
    labelling.label(t, predictions)
    for z, record in records.items():
        measures = labelling.measure(t, z, predictions.get(z))
        records[z] = record.model_copy(update={"measures": measures})
    return list(records.values())


# -- read, statistics, predict ---------------------------------------------------------------------


class Network:
    """Probabilities by reading the input and running the network on it."""

    def __init__(
        self,
        run: TaskRun,
        block: Block,
        survey: Callable[[int, int], SurveyRecord] | None = None,
    ) -> None:
        """`survey` gives the statistics of cut frames, of which a block holds less than all."""
        self._run, self._block, self._survey = run, block, survey

    def failure(self, t: int, z: int) -> str:
        """See `Source`."""
        if self._survey is None:
            return ""
        frame = self._survey(t, z).frame
        return frame.reason or "was set aside" if frame.failed else ""

    def predict(self, t: int, z: int) -> Prediction:
        """See `Source`. Tiles become smaller where memory runs out."""
        run = self._run
        context, plan = run.task.context, run.plan
        tiling: FrameTiling | None = tiling_of(context, plan)
        while tiling is not None:
            try:
                return self._predict(t, z, tiling)
            except (OutOfMemory, MemoryError) as error:
                reason = error
                tiling = halve_tile(context, plan, tiling)
                run.tile = max(tiling.tile_shape) if tiling else 0
        raise JobStopped(
            f"{plan.name} t={t} z={z}: out of memory ({reason}); give fewer --workers or a "
            "smaller --tile, and run the same command again"
        ) from reason

    def _predict(self, t: int, z: int, tiling: FrameTiling) -> Prediction:
        run, plan, block = self._run, self._run.plan, self._block
        region = tiling.region(*plan.layout.around(block, plan.postprocessing.margin))
        pixels, missing = self._read(t, z, region)
        taken = plan.model_input(pixels)
        if self._survey is None:
            digest = hashlib.sha256(pixels.data).hexdigest()
            with run.watch.stage("statistics"):
                statistics = frame_statistics(taken, run.model.spec.normalisation)
        else:
            survey = self._survey(t, z)
            statistics = np.array(survey.statistics, dtype=np.float32)
            digest, missing = survey.frame.sha256 or "", survey.frame.missing_chunks or 0
        blank = is_blank(statistics)
        if blank:  # nothing is there, whatever the network would make of it
            probability = background(run.model.spec, (region.y.size, region.x.size))
        else:
            session = session_for(run.task.context, plan.info.dtype)
            with run.watch.stage("network"):
                probability = predict_region(taken, statistics, region, session, run.pulse.beat)
                if not np.isfinite(probability).all():
                    raise FrameError("the network gave probabilities that are not finite")
        read = (block.y.as_slice(region.read_y.start), block.x.as_slice(region.read_x.start))
        inside = (block.y.as_slice(region.y.start), block.x.as_slice(region.x.start))
        return Prediction(pixels[:, *read], probability, inside, digest, missing, blank)

    def _read(self, t: int, z: int, region: Region) -> tuple[NDArray[Any], int]:
        """Raw pixels (C, Y, X) of the region with its halo, and how many chunks it lacks."""
        run, plan = self._run, self._run.plan
        rows, columns = region.read_y.as_slice(), region.read_x.as_slice()
        with run.watch.stage("read"):
            stack = run.stack
            if self._survey is None:
                pixels = stack.read(t, z, plan.channels_read)
            else:
                pixels = stack.read_window(t, z, plan.channels_read, rows, columns)
            missing = stack.missing_chunks(t, z, plan.channels_read, rows, columns)
            if missing and self._survey is None:  # cut frames were looked at when surveyed
                check_frame(stack, plan, t, z)
        expected = (len(plan.channels_read), region.read_y.size, region.read_x.size)
        if pixels.shape != expected:
            raise FrameError(f"has shape {pixels.shape}, and the stack's frames {expected}")
        if missing:  # or is all of it gone, which reads the same?
            with run.pulse.opening():
                check_present(plan)
        return pixels, missing


def background(spec: ModelSpec, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Probabilities (K, Y, X) of nothing but background, as a blank frame has them."""
    probability = np.zeros((spec.n_outputs, *shape), dtype=np.float32)
    if not spec.is_binary:  # of one foreground class, and of its cores, there is no such output
        probability[0] = 1
    return probability


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
    probability: NDArray[np.float32],
    spec: ModelSpec,
    postprocessing: Postprocessing,
    pixel_area_um2: float | None,
    watch: Stopwatch,
) -> SegmentedFrame:
    """Label images and measures of a whole frame, from its probabilities (K, Y, X).

    `pixels` are raw, (Y, X), by the number of their channel; the frame's own intensities are those
    of channel `number`.
    """
    channel, certainty = pixels[number], probability[0]
    images: dict[str, NDArray[Any]] = {}
    measures: Measures = {}
    objects = classes = None
    if postprocessing.gives_classes:
        probability = probability[: spec.n_class_outputs]
        with watch.stage("labels"):
            classes = images[LABELS] = class_map(probability, postprocessing.threshold)
        with watch.stage("measure"):
            counted = ClassSums(len(spec.classes))
            counted.add(classes, each_class(probability), channel)
            measures = counted.row(spec.class_names)
    if postprocessing.gives_instances:
        with watch.stage("labels"):
            if classes is not None:
                chosen = [spec.class_names.index(name) for name in postprocessing.objects]
                labels = images[OBJECTS] = label_class_map(classes, chosen, postprocessing)
                certainty = probability.max(axis=0)  # that of each pixel's class
            else:
                mask, core = masks(probability, postprocessing)
                labels = images[LABELS] = label_instances(mask, postprocessing, core)
        with watch.stage("measure"):
            sums = object_sums(labels, pixels, certainty, classes)
            total = FrameSums(channel.size, total_intensity(channel), number)
            total.add(sums)
            measures = total.row(pixel_area_um2) | measures
            objects = objects_of(sums)
    return SegmentedFrame(images, measures, objects)
