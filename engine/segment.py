"""One frame's story: statistics, network, labels, measures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.intensity import frame_statistics
from engine.labels.components import components
from engine.measure import (
    FrameRow,
    ObjectColumns,
    measure_classes,
    measure_frame,
    measure_objects,
)
from engine.model import ModelSpec
from engine.predict import predict
from engine.runtimes.base import Runtime
from engine.tiling import FrameTiling


@dataclass
class Stopwatch:
    """Seconds by stage, added up over frames."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside as part of stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Rules:
    """What turns probabilities into labels, as resolved for a job."""

    threshold: float  # of probability; binary models
    min_area: int  # px


@dataclass(frozen=True)
class SegmentedFrame:
    """What one frame gives: labels (Y, X), its row of measures, and its objects' columns."""

    labels: NDArray[Any]
    row: FrameRow
    objects: ObjectColumns | None  # None for class maps


def segment_frame(
    frame: NDArray[Any],
    spec: ModelSpec,
    runtime: Runtime,
    tiling: FrameTiling,
    rules: Rules,
    pixel_area_um2: float | None,
    watch: Stopwatch,
) -> SegmentedFrame:
    """Segment one frame of raw pixels, (C, Y, X). Raises FrameError where it cannot be done."""
    with watch.stage("statistics"):
        statistics = frame_statistics(frame, spec.normalisation)
    with watch.stage("network"):
        probability = predict(frame, statistics, tiling, runtime)
        if not np.isfinite(probability).all():
            raise FrameError("the network gave probabilities that are not finite")
    if spec.gives_instances:
        with watch.stage("labels"):
            labels = components(probability[0] >= rules.threshold, rules.min_area)
        with watch.stage("measure"):
            objects = measure_objects(labels, frame[0], probability[0])
            row = measure_frame(objects, frame[0], pixel_area_um2)
        return SegmentedFrame(labels, row, objects)
    with watch.stage("labels"):
        if spec.is_binary:
            classes = (probability[0] >= rules.threshold).astype(np.uint8)
            probability = np.concatenate([1 - probability, probability])
        else:
            classes = probability.argmax(axis=0).astype(np.uint8)
    with watch.stage("measure"):
        names = tuple(c.name for c in spec.classes)
        row = measure_classes(classes, probability, frame[0], names)
    return SegmentedFrame(classes, row, None)
