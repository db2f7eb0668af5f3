"""Inputs as a plan needs them: what was opened, how it is called, what is said of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import UsageError, printable
from engine.geometry.layout import LabelLayout
from engine.labels.postprocessing import Postprocessing
from engine.stacks.base import StackInfo
from engine.stacks.inputs import distinct_names

SAID = 20  # sentences on what inputs hold and the job does not use


@dataclass(frozen=True)
class Input:
    """A stack that can be segmented."""

    info: StackInfo
    channels: tuple[int, ...]  # of the stack, one per channel of the model
    postprocessing: Postprocessing
    layout: LabelLayout


@dataclass(frozen=True)
class Inputs:
    """What came of opening all inputs."""

    opened: tuple[Input, ...]
    refused: tuple[tuple[str, str], ...]  # inputs that cannot be segmented, and why
    notes: tuple[str, ...]  # sentences on what inputs hold and the job does not use


def names_of(infos: Sequence[StackInfo]) -> list[str]:
    """Names of all stacks: their paths', with the image's number where a path gives several."""
    given = Counter(info.path for info in infos)
    by_path = dict(zip(given, distinct_names(list(given)), strict=True))
    names = [
        printable(
            f"{by_path[info.path]}/{info.series}" if given[info.path] > 1 else by_path[info.path]
        )
        for info in infos
    ]
    repeated = [name for name, n in Counter(map(str.casefold, names)).items() if n > 1]
    if repeated:
        raise UsageError(f"two results would be called {repeated[0]}; give them jobs of their own")
    return names


def few(notes: Sequence[str]) -> list[str]:
    """The first notes on the inputs, and how many there are besides."""
    more = len(notes) - SAID
    rest = [f"and {more} more such sentences; job.json has them all"] if more > 0 else []
    return [*notes[:SAID], *rest]
