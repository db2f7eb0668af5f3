"""What graphs gain by being changed as they are loaded: `python -m benchmarks.graphs`.

    python -m benchmarks.graphs [--network nuclei] [--repeats 9] [--save] [--json FILE]

The network alone, one thread, frames of 700 x 1100 px, in each way that works here:

    as exported         the graph as its file has it
    no copies           concatenations and the last shuffle as `engine.model.graph.faster` has them
    and for one shape   compiled for the shape of the runs, by a runtime that does this for many

All take turns. int8 is timed whatever its labels are. Outputs are compared with those of the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from benchmarks import frames as of
from benchmarks.record import Run, add_options, finish, taking_turns
from benchmarks.ways import Way, look_at, padded, ways_of
from engine.model.file import open_model
from engine.runtimes import base
from engine.runtimes.base import Session
from engine.runtimes.registry import open_session, runtime_of

FRAMES = 4
MANY = 10**6  # runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="nuclei", help="a model's name or file")
    options = add_options(parser, repeats=9).parse_args()
    run = Run("graphs", notes={"network": options.network, "shape": of.SHAPE})
    frames = of.crowded(FRAMES)
    for way in ways_of(options.network):
        measure(run, way, frames, options.repeats)
    finish(run, options)


def measure(run: Run, way: Way, frames: list[of.Frame], repeats: int) -> None:
    """Time and outputs of a way, by sessions that differ in what is done to the graph."""
    model = open_model(way.model)
    looks = [look_at(model, frame) for frame in frames]
    given = [(padded(one), one.statistics[None]) for one in looks]
    dtype, shape = str(given[0][0].dtype), (1, *given[0][0].shape[2:])
    opened = partial(open_session, model, dtype, way.target, 1)
    with as_exported():
        sessions = {"as exported": opened()}
    sessions["no copies"] = opened()
    if runtime_of(way.runtime).prefers_one_shape(model, MANY):
        sessions["and for one shape"] = opened(shape=shape)

    def passing(session: Session) -> Callable[[], object]:
        return lambda: [session.run(*one) for one in given]

    calls = {name: passing(session) for name, session in sessions.items()}
    for name, seconds in taking_turns(calls, repeats).items():
        run.add(f"{way.name}/{name}", "ms a frame", [1000 * one / FRAMES for one in seconds])
    wanted, *others = (np.stack([s.run(*one) for one in given]) for s in sessions.values())
    run.notes[f"{way.name}: outputs differ by at most"] = float(
        max(np.abs(other - wanted).max() for other in others)
    )


@contextmanager
def as_exported() -> Iterator[None]:
    """Sessions that are opened now run the graph that the file holds."""
    own, base.speed_up = base.speed_up, lambda _: None
    try:
        yield
    finally:
        base.speed_up = own


if __name__ == "__main__":
    main()
