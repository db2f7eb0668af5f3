"""Truth whose colours are classes, by a palette."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.results.result import LabelClass
from engine.truth.color_masks import read_classes
from engine.truth.image import LabelImage
from engine.truth.palette import Palette


@dataclass(frozen=True)
class Colours:
    """A palette, and the number that each of its classes has in the result."""

    palette: Palette
    classes: tuple[LabelClass, ...]  # in the order of the palette

    def read(self, file: Path, plane: int | None = None) -> LabelImage:
        """Class numbers of a file's picture, or of number `plane` of several.

        Raises StackError where a colour is that of no class.
        """
        numbers = np.array([one.value for one in self.classes], np.int32)
        return LabelImage(numbers[read_classes(file, self.palette, plane)])


def colours_of(palette: Palette, classes: Sequence[LabelClass]) -> Colours:
    """A palette with the numbers of a result's `classes`, which are those of the same name.

    Where names differ, or the result names none, classes count up from 0 in the palette's order.
    Background is the first of both, whatever it is called.
    """
    named = {one.name: one for one in classes if one.value}
    if named.keys() == set(palette.names[1:]):
        (background,) = (one for one in classes if not one.value)
        return Colours(palette, (background, *(named[name] for name in palette.names[1:])))
    own = (LabelClass(at, one.name, one.rgb) for at, one in enumerate(palette.classes))
    return Colours(palette, tuple(own))
