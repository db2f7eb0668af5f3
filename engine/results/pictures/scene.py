"""Pictures of a result: which frames, how large, between which grey values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.results.pictures.caption import ScaleBar, draw_strip, frame_parts
from engine.results.pictures.image import RawImage
from engine.results.pictures.panels import (
    Picture,
    class_mixture,
    filled,
    grey,
    grey_panel,
    heat,
    outlined,
    side_by_side,
)
from engine.results.pictures.sampling import Shape, draw_labels, draw_probability
from engine.results.planes import Planes
from engine.results.result import ResultStack

Style = Literal["side-by-side", "outlines", "fill", "probability"]

SAMPLE = 16  # frames from which the contrast of a movie is taken
GAMMA = 0.7  # lifts what is dim: the brightness of nuclei of one frame spans decades


@dataclass(frozen=True)
class View:
    """One picture of a movie: a plane, or all planes of a time point, the brightest in front."""

    t: int
    zs: tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """Everything that turns a view into a picture."""

    result: ResultStack
    style: Style
    shape: Shape  # of a panel
    image: RawImage | None
    limits: tuple[float, float]  # black and white
    probability: Planes | None
    bar: ScaleBar | None
    last_t: int  # for which the unit of time is chosen

    def picture(self, view: View) -> Picture:
        """The view with its caption, (Y, X, 3) uint8."""
        notes = []
        labels = _highest(view, lambda z: draw_labels(self.result.labels, view.t, z, self.shape))
        base = np.zeros(self.shape, np.uint8)
        if self.image is not None:
            try:
                base = grey(draw_view(self.image, view, self.shape), *self.limits, GAMMA)
            except FrameError:
                notes.append("the image cannot be read")
        if any((view.t, z) in self.result.failed for z in view.zs):
            notes.append("set aside")
        drawn = side_by_side(self._panels(view, grey_panel(base), labels))
        strip = draw_strip(drawn.shape[1], " · ".join([self.caption(view), *notes]), self.bar)
        return np.concatenate([drawn, strip])

    def caption(self, view: View) -> str:
        """Which frame it is, and when it was."""
        labels, z = self.result.labels, view.zs[0] if len(view.zs) == 1 else "max"
        parts = frame_parts(labels.axes, view.t, z, labels.time_step_s, self.last_t)
        return " · ".join(parts) or self.result.name

    def _panels(self, view: View, base: Picture, labels: NDArray[Any]) -> list[Picture]:
        classes = self.result.classes
        if self.style == "fill":
            return [filled(base, labels, classes)]
        over = outlined(base, labels, classes)
        if self.style == "outlines":
            return [over]
        if self.style == "side-by-side":
            return [base, over]
        probability = self._probability(view, labels)
        return [over, probability] if self.image is not None else [probability]

    def _probability(self, view: View, labels: NDArray[Any]) -> Picture:
        planes = self.probability
        assert planes is not None  # checked when the scene is set up

        def of(c: int) -> NDArray[np.float32]:
            return _highest(view, lambda z: draw_probability(planes, view.t, z, self.shape, c))

        if planes.size("C") < 3:  # of one class, and of its cores after that
            return heat(of(0), labels)
        each = np.stack([of(c) for c in range(planes.size("C"))])
        return class_mixture(each, self.result.classes, labels)


def panels_of(style: Style, has_image: bool) -> int:
    """Number of panels side by side."""
    return 2 if style == "side-by-side" or (style == "probability" and has_image) else 1


def draw_view(image: RawImage, view: View, shape: Shape) -> NDArray[np.float32]:
    """The image of a view; FrameError where it cannot be read."""
    return _highest(view, lambda z: image.draw(view.t, z, shape))


def movie_limits(
    image: RawImage, views: list[View], shape: Shape, percentiles: tuple[float, float]
) -> tuple[float, float]:
    """Black and white for all views, so that brightness does not flicker, out of some of them.

    Percentiles are taken at the size in which frames are drawn. Frames that cannot be read are
    skipped.
    """
    count = min(SAMPLE, len(views))
    values = []
    for n in range(count):
        view = views[(2 * n + 1) * len(views) // (2 * count)]
        try:
            drawn = draw_view(image, view, shape)
        except FrameError:
            continue
        finite = drawn[np.isfinite(drawn)]
        values.append(finite[:: max(finite.size // 2**18, 1)])
    if not sum(v.size for v in values):
        return 0.0, 1.0
    low, high = np.percentile(np.concatenate(values), percentiles)
    return float(low), float(high)


def _highest(view: View, draw: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """The highest value over the planes of a view, one plane after the other."""
    highest = draw(view.zs[0])
    for z in view.zs[1:]:
        highest = np.maximum(highest, draw(z))
    return highest
