"""Objects as the engine makes them of a network's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.labels.classes import masks
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from train.checkpoint import Checkpoint
from train.settings import TrainSettings

CORE_THRESHOLD = 0.7  # while a network is trained; then it is chosen


def postprocessing_of(settings: TrainSettings) -> Postprocessing:
    """How objects are told apart while nothing has been chosen."""
    return Postprocessing(
        threshold=0.5,
        instances="cores" if settings.instances == "cores" else "components",
        core_threshold=CORE_THRESHOLD,
        growth=settings.growth,
        pinhole=settings.pinhole,
        unreached=settings.unreached,
    )


def chosen_postprocessing(best: Checkpoint) -> Postprocessing:
    """How objects are told apart by what was chosen for a state."""
    return chosen_rules(best.settings, best.chosen)


def chosen_rules(settings: TrainSettings, chosen: Mapping[str, float]) -> Postprocessing:
    """The same, by the names of a checkpoint's `chosen`."""
    rules = replace(
        postprocessing_of(settings),
        threshold=chosen["threshold"],
        min_area=int(chosen["min_area"]),
    )
    core = chosen.get("core_threshold")
    return rules if core is None else replace(rules, core_threshold=core)


def label_objects(
    probability: NDArray[np.float32], postprocessing: Postprocessing
) -> NDArray[np.uint32]:
    """Labels (Y, X) of probabilities (K, Y, X)."""
    mask, core = masks(probability, postprocessing)
    return label_instances(mask, postprocessing, core)
