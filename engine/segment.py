"""From pixels to classes: the steps that whole frames and regions of frames share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.labels.components import components
from engine.measure import (
    ClassSums,
    FrameRow,
    FrameSums,
    ObjectColumns,
    object_sums,
    objects_of,
    total_intensity,
)
from engine.model import ModelSpec
from engine.predict import predict_region
from engine.runtimes.base import Runtime
from engine.tiling import Region


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


def probabilities(
    pixels: NDArray[Any],
    statistics: NDArray[np.float32],
    region: Region,
    runtime: Runtime,
    watch: Stopwatch,
) -> NDArray[np.float32]:
    """Probabilities of a region, (K, Y, X); FrameError where the network gives none."""
    with watch.stage("network"):
        probability = predict_region(pixels, statistics, region, runtime)
        if not np.isfinite(probability).all():
            raise FrameError("the network gave probabilities that are not finite")
    return probability


def classify(
    probability: NDArray[np.float32], spec: ModelSpec, rules: Rules
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Class map (Y, X), and the probability of every class, background included."""
    if spec.is_binary:
        classes = (probability[0] >= rules.threshold).astype(np.uint8)
        return classes, np.concatenate([1 - probability, probability])
    return probability.argmax(axis=0).astype(np.uint8), probability


def finish_frame(
    channel: NDArray[Any],
    probability: NDArray[np.float32],
    spec: ModelSpec,
    rules: Rules,
    pixel_area_um2: float | None,
    watch: Stopwatch,
) -> SegmentedFrame:
    """Labels and measures of a whole frame: raw pixels (Y, X), probabilities (K, Y, X)."""
    if spec.gives_instances:
        with watch.stage("labels"):
            labels = components(probability[0] >= rules.threshold, rules.min_area)
        with watch.stage("measure"):
            sums = object_sums(labels, channel, probability[0])
            total = FrameSums(channel.size, total_intensity(channel))
            total.add(sums)
        return SegmentedFrame(labels, total.row(pixel_area_um2), objects_of(sums))
    with watch.stage("labels"):
        classes, each = classify(probability, spec, rules)
    with watch.stage("measure"):
        counted = ClassSums(len(spec.classes))
        counted.add(classes, each, channel)
        row = counted.row(tuple(c.name for c in spec.classes))
    return SegmentedFrame(classes, row, None)
