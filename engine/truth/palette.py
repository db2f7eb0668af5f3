"""Palettes: which colours of a mask are which classes. Files in YAML or JSON, two by name."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from engine.errors import UsageError

FOLDER = Path(__file__).parent / "palettes"
EXAMPLE = '{"classes": [{"name": "background", "color": "#000000"}, {"name": ..., "color": ...}]}'


def _hex(value: Any) -> Any:
    """`[255, 0, 0]` as "#ff0000"; all else as it is."""
    if isinstance(value, list | tuple) and len(value) == 3:
        if all(isinstance(v, int) and 0 <= v <= 255 for v in value):
            return "#" + bytes(value).hex()
        raise ValueError(f"{list(value)} is not a colour: red, green and blue are 0 to 255")
    return value.lower() if isinstance(value, str) else value


Color = Annotated[str, BeforeValidator(_hex), Field(pattern=r"^#[0-9a-f]{6}$")]


class PaletteClass(BaseModel):
    """One class: its name and its colours in masks, of which the first is that of pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    colors: Annotated[tuple[Color, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _one_color(cls, value: Any) -> Any:
        if isinstance(value, dict) and "color" in value and "colors" not in value:
            others = {name: v for name, v in value.items() if name != "color"}
            return others | {"colors": [value["color"]]}
        return value

    @property
    def color(self) -> str:
        """The colour of pictures and viewers, "#rrggbb"."""
        return self.colors[0]

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The same as red, green and blue, 0..255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


class Palette(BaseModel):
    """The classes of a data set in the order of their numbers; background is the first, 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[tuple[PaletteClass, ...], Field(min_length=2, max_length=256)]
    tolerance: Annotated[float, Field(ge=0, le=442)] = 0.0
    """How far a pixel's colour may be from that of a class, as the distance in red, green and blue
    (0..255 each). The nearest class is taken. JPEG masks need about 60, and 230 where their colours
    have half the resolution; 0 allows no difference."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = Counter(one.name for one in self.classes)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two classes are named {twice[0]!r}; names must differ")
        for one, other in combinations(self.classes, 2):
            if shared := set(one.colors) & set(other.colors):
                raise ValueError(f"{one.name} and {other.name} are both {min(shared)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names by class number."""
        return tuple(one.name for one in self.classes)

    @property
    def table(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Every colour (N, 3) uint8, and the number of its class (N,)."""
        pairs = [(c, at) for at, one in enumerate(self.classes) for c in one.colors]
        colors = np.array([list(bytes.fromhex(c[1:])) for c, _ in pairs], np.uint8)
        return colors, np.array([at for _, at in pairs], np.int32)

    def __str__(self) -> str:
        return ", ".join(f"{one.name} {'/'.join(one.colors)}" for one in self.classes)


def read_palette(source: str) -> Palette:
    """The palette in a YAML or JSON file, or the one of that name; UsageError where it is none."""
    path = Path(source)
    shipped = sorted(p.stem for p in FOLDER.glob("*.yaml"))
    if not path.is_file():
        if source not in shipped:
            raise UsageError(
                f"--palette {source}: is neither a file nor one of {', '.join(shipped)}"
            )
        path = FOLDER / f"{source}.yaml"
    import yaml  # reads JSON as well

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--palette {source}: is not YAML or JSON ({reason})") from None
    if not isinstance(values, dict):
        raise UsageError(f"--palette {source}: has no list of classes; write {EXAMPLE}")
    try:
        return Palette.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        at = f"{where}: " if where else ""
        words = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"--palette {source}: {at}{words}") from None
