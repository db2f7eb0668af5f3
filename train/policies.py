"""How training patches are varied: every augmentation with its share of patches, and policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Chance = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]


class AugmentSettings(BaseModel):
    """How training patches are varied. Intensities are in normalised units: 0 is low, 1 is high.

    A range is drawn from evenly in its logarithm. Each `..._chance` is a share of patches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip_chance: Chance = 0.5
    """Mirrored."""
    flip_axis: Literal["x", "either"] = "x"
    """Left and right change places, or in half of those that are mirrored top and bottom."""
    rotate: Annotated[float, Field(gt=0, le=180)] = 180.0
    """Largest angle to either side, degrees; 180 is any."""
    rotate_chance: Chance = 0.5
    """Turned by such an angle."""
    turn_chance: Chance = 0.75
    """Of those not turned by an angle: turned by one, two or three quarters."""
    scale: Range = (0.5, 2.0)
    """Smallest and largest magnification."""
    scale_chance: Chance = 0.6
    elastic: Annotated[float, Field(ge=0)] = 10.0
    """Sigma of the displacements on a 3x3 grid over the patch, px; at most an eighth of the grid's
    spacing is used, so that no patch folds over itself."""
    elastic_chance: Chance = 0.3

    crowd_chance: Chance = 0.3
    """Objects of its own mirror images laid over it, where they fit: more objects that touch. Only
    where the network learns to separate objects."""
    object_gain: Range = (0.1, 1.25)
    """Contrast of single objects against the background: dim ones next to bright ones occur."""
    object_gain_chance: Chance = 0.3
    blur: Positive = 2.0
    """Largest sigma of a Gaussian blur, px."""
    blur_chance: Chance = 0.3
    gamma: Range = (0.6, 1.8)
    """Exponent on positive intensities; above 1 it dims what is dim already."""
    gamma_chance: Chance = 0.6
    gain: Range = (0.6, 1.6)
    """Factor on all intensities."""
    gain_chance: Chance = 0.6
    offset: Annotated[float, Field(ge=0)] = 0.1
    """Largest constant added to or taken from all intensities."""
    offset_chance: Chance = 0.6
    noise: Range = (0.002, 0.06)
    """Smallest and largest sigma of the Gaussian noise."""
    noise_chance: Chance = 0.5

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name in ("scale", "object_gain", "gamma", "gain", "noise"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} goes from {low:g} down to {high:g}; swap the two")
        return self


NOTHING: dict[str, Any] = {
    "flip_chance": 0,
    "rotate_chance": 0,
    "turn_chance": 0,
    "scale_chance": 0,
    "elastic_chance": 0,
    "crowd_chance": 0,
    "object_gain_chance": 0,
    "blur_chance": 0,
    "gamma_chance": 0,
    "gain_chance": 0,
    "offset_chance": 0,
    "noise_chance": 0,
}

POLICIES: Mapping[str, AugmentSettings] = {
    # For a model that must meet other microscopes.
    "strong": AugmentSettings(),
    # For more of the same microscope. Half of the patches keep their scale, half their angle:
    # interpolation smooths the noise that the network will see.
    "light": AugmentSettings(
        rotate_chance=0.5,
        scale=(0.85, 1.2),
        scale_chance=0.5,
        elastic_chance=0.5,
        object_gain_chance=0,
        blur=1.0,
        blur_chance=0.1,
        gamma=(0.85, 1.2),
        gamma_chance=0.5,
        gain=(0.85, 1.2),
        gain_chance=0.5,
        offset=0.03,
        offset_chance=0.5,
        noise=(0.002, 0.02),
        noise_chance=0.3,
    ),
    # For slices of a body, which may lie on its side: left stays left.
    "upright": AugmentSettings(
        flip_chance=0,
        rotate=90.0,
        rotate_chance=0.5,
        turn_chance=0,
        scale=(0.7, 1.4),
        scale_chance=0.7,
        elastic_chance=0.3,
        crowd_chance=0,
        object_gain_chance=0,
        blur=1.0,
        blur_chance=0.15,
        gamma=(0.7, 1.5),
        gamma_chance=0.5,
        gain=(0.8, 1.25),
        gain_chance=0.5,
        offset=0.05,
        offset_chance=0.5,
        noise=(0.002, 0.04),
        noise_chance=0.25,
    ),
    # That of a published study of the heart: a quarter is mirrored, a quarter blurred, a quarter
    # both at once, and a quarter left alone.
    "source": AugmentSettings(
        **(NOTHING | {"flip_chance": 0.5, "flip_axis": "either", "blur_chance": 0.5})
    ),
    # Patches as they lie in their frames.
    "none": AugmentSettings(**NOTHING),
}
