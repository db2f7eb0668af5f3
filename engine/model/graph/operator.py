"""A node of an ONNX graph with what is known of its inputs, and how it moves along an axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

Constants = Mapping[str, Any]  # values of initializers and Constant nodes, where they matter
Shapes = Mapping[str, tuple[int, ...]]  # of all of them


class NoReach(Exception):
    """Why an operator's reach can't be told from its indices; the text is a clause."""


@dataclass(frozen=True)
class Along:
    """An operator along one axis. `first` and `last` grow with the index, or stay."""

    step: Fraction  # how much coarser the grid of the output is than that of the input
    first: Callable[[int], int]  # first input index that an output index reads
    last: Callable[[int], int]
    length: Callable[[int], int]  # of the output, by that of the input
    mirrors: bool = False  # what lies beyond the input's ends is read from within


def _same(index: int) -> int:
    return index


POINT = Along(Fraction(1), _same, _same, _same)


@dataclass(frozen=True)
class Operator:
    """A node of the main graph, and what is known of its constant inputs."""

    node: onnx.NodeProto
    constants: Constants
    shapes: Shapes
    opset: int

    @property
    def kind(self) -> str:
        """The operator's name."""
        return self.node.op_type

    def input(self, position: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute; text as `str`."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """An attribute with a value for Y and for X."""
        values = self.attribute(name, (default, default))
        if len(values) != 2:
            raise NoReach(f"{self.kind} has {len(values)} {name} and not 2")
        return values[0], values[1]

    def integers(self, position: int, name: str) -> list[int] | None:
        """Integers of an input, or of an attribute in older graphs. None: left out."""
        if not self.input(position):
            given = self.attribute(name, None)
            return None if given is None else [int(v) for v in given]
        value = self.constants.get(self.input(position))
        if value is None:
            raise NoReach(f"{self.kind} computes its {name}")
        return [int(v) for v in np.atleast_1d(value)]
