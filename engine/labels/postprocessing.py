"""What makes labels of probabilities, as resolved for a stack. All of it in px."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED_HEIGHT = 1.0  # px; what a seed rises above the pass to the next higher one
CONNECTS = ("components", "cores")  # the methods whose objects may go on from plane to plane


@dataclass(frozen=True)
class Postprocessing:
    """What turns probabilities into labels, as resolved for a stack. All of it in px."""

    threshold: float  # of probability; binary models
    min_area: int = 0  # px; smaller objects are dropped
    max_area: int = 0  # px; larger objects are dropped, 0: however large they are
    instances: str = "components"  # "watershed", "cores"; "none": there are no objects
    fill_holes: bool = False  # background that an object encloses becomes foreground
    clear_border: bool = False  # objects that touch the frame's border are dropped
    min_distance: float = 0.0  # px between the seeds of a watershed
    seed_height: float = SEED_HEIGHT  # px; of a watershed's seeds
    core_threshold: float = 0.0  # of the probability of cores; by cores
    growth: int = 0  # px; how far a core grows at the most
    pinhole: int = 0  # px; holes that fit into such a box are filled; by cores
    unreached: str = "drop"  # or "keep": foreground beyond the growth of any core
    objects: tuple[str, ...] = ()  # classes whose components are objects, beside a class map

    @property
    def margin(self) -> int:
        """How many px beyond a pixel may decide what it becomes, but for components."""
        return self.growth + self.pinhole

    @property
    def gives_instances(self) -> bool:
        """Whether there are objects; else there is a class map alone."""
        return self.instances != "none"

    @property
    def gives_classes(self) -> bool:
        """Whether there is a class map; `objects` lie beside it."""
        return not self.gives_instances or bool(self.objects)

    @property
    def drops(self) -> bool:
        """Whether objects may be dropped for their area or place."""
        return bool(self.min_area or self.max_area or self.clear_border)

    def keep(self, area: NDArray[Any], touches_border: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which objects stay, by their area in px and whether they touch the frame's border."""
        kept = area >= self.min_area
        if self.max_area:
            kept &= area <= self.max_area
        if self.clear_border:
            kept &= ~touches_border
        return kept
