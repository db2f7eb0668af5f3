"""From pixels to classes: the steps that whole frames and regions of frames share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.geometry.tiling import Region
from engine.inference.tiles import predict_region
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.frames import ClassSums, FrameRow, FrameSums, total_intensity
from engine.measure.objects import ObjectColumns, object_sums, objects_of
from engine.model.spec import ModelSpec
from engine.runtimes.base import Runtime


@dataclass
class Stopwatch:
    """Seconds by stage, added up over frames."""

    seconds: dict[str, float] = field(default_factory=dict)
    moved: Callable[[], None] = lambda: None  # called as each stage and each tile begins

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside as part of stage `name`."""
        self.moved()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


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
        probability = predict_region(pixels, statistics, region, runtime, watch.moved)
        if not np.isfinite(probability).all():
            raise FrameError("the network gave probabilities that are not finite")
    return probability


def background(n_outputs: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Probabilities (K, Y, X) of nothing but background, as a blank frame has them."""
    probability = np.zeros((n_outputs, *shape), dtype=np.float32)
    if n_outputs > 1:  # one output is that of the foreground
        probability[0] = 1
    return probability


def classify(
    probability: NDArray[np.float32], spec: ModelSpec, postprocessing: Postprocessing
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Class map (Y, X), and the probability of every class, background included."""
    if spec.is_binary:
        classes = (probability[0] >= postprocessing.threshold).astype(np.uint8)
        return classes, np.concatenate([1 - probability, probability])
    return probability.argmax(axis=0).astype(np.uint8), probability


def finish_frame(
    pixels: NDArray[Any],
    number: int,
    probability: NDArray[np.float32],
    spec: ModelSpec,
    postprocessing: Postprocessing,
    pixel_area_um2: float | None,
    watch: Stopwatch,
) -> SegmentedFrame:
    """Labels and measures of a whole frame: raw pixels (C, Y, X), probabilities (K, Y, X).

    The frame's own intensities are those of channel `number`.
    """
    channel = pixels[number]
    if postprocessing.gives_instances:
        with watch.stage("labels"):
            labels = label_instances(probability[0] >= postprocessing.threshold, postprocessing)
        with watch.stage("measure"):
            sums = object_sums(labels, pixels, probability[0])
            total = FrameSums(channel.size, total_intensity(channel), number)
            total.add(sums)
        return SegmentedFrame(labels, total.row(pixel_area_um2), objects_of(sums))
    with watch.stage("labels"):
        classes, each = classify(probability, spec, postprocessing)
    with watch.stage("measure"):
        counted = ClassSums(len(spec.classes))
        counted.add(classes, each, channel)
        row = counted.row(tuple(c.name for c in spec.classes))
    return SegmentedFrame(classes, row, None)
