"""Measures every runtime x precision that works here on a sample of a job's frames.

Each setting runs in a process of its own, which is started once and takes turns with the others:
what else the machine does falls on all of them. Timed is the network alone, with as many frames at
a time as a job would have; reading, labelling and writing are the same whatever the setting.
"""

from __future__ import annotations

import pickle
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StackError, UsageError, plural
from engine.geometry.spread import spread
from engine.inference.agreement import Labels, Look, compare_all
from engine.job.isolation import how_it_ended, python
from engine.job.preflight import frames_of, look_at
from engine.job.prepare import Prepared, prepare_job
from engine.job.tuned import Measured, Tuned, builds_of, candidates, check_kept, processor
from engine.model.file import ModelFile, open_model
from engine.model.statistics import is_blank
from engine.plan.memory import fixes_shape
from engine.plan.settings import JobSettings
from engine.runtimes.base import Shape, Target
from engine.runtimes.registry import REFERENCE, runtime_of
from engine.steps.hangs import Hung
from engine.tune.child import TIMED, Work

ROUNDS = 5  # in which all settings are timed once


@dataclass(frozen=True)
class Tuning:
    """What was measured, and of what."""

    model: ModelFile
    targets: list[Target]
    tuned: Tuned
    refused: tuple[str, ...]  # a sentence for each stack that cannot be opened


class Failed(Exception):
    """Why a setting does not work here."""


def tune(
    settings: JobSettings, count: int, progress: Callable[[int, int], None] | None = None
) -> Tuning:
    """Measure the settings that a job could have on `count` frames spread over its stacks.

    `settings` name the device, or "auto". Raises what preparing a job does, OutputError where the
    figures could not be kept, and StackError where none of the frames chosen can be read and has
    something in it.
    """
    targets = candidates(settings.device)
    if (lowered := (model := open_model(settings.model)).spec.lowered) is not None:
        raise UsageError(
            f"{model.path}: is in {lowered.precision} itself and runs in nothing else; tune the "
            "model in fp32"
        )
    check_kept(model, targets)
    job = prepare_job(settings.model_copy(update={"runtime": "auto", "precision": "fp32"}))
    looks = sample_looks(job, count)
    total = 2 + len(targets) * (ROUNDS + 2)
    done = iter(range(1, total + 1))

    def advance() -> None:
        if progress is not None:
            progress(next(done), total)

    with tempfile.TemporaryDirectory(prefix="stackseg-tune-") as folder, ExitStack() as opened:
        runs = Counter[tuple[str, Shape]]()
        for one in job.plan.stacks:
            kind = one.info.dtype, (1, *one.tiling.tile_shape)
            runs[kind] += one.layout.n_frames * one.tiling.n_tiles

        def start(target: Target, name: str) -> Setting:
            """A process that runs a target; its labels go to the folder of that name."""
            place = Path(folder) / name
            place.mkdir()
            fixed = fixes_shape(runs, runtime_of(target.runtime), job.model)
            work = Work(
                str(job.model.path), target, looks, job.plan.workers, job.plan.threads, fixed,
                str(place),
            )  # fmt: skip
            return opened.enter_context(Setting(work, advance))

        reference = start(REFERENCE, "reference")
        reference.finish()
        if reference.reason:
            raise StackError(f"{job.model.path}: cannot be run as reference ({reference.reason})")
        wanted = reference.labels()
        ways = [start(target, str(n)) for n, target in enumerate(targets)]
        for _ in range(ROUNDS):
            for way in ways:
                way.time()
        for way in ways:
            way.finish()
        measured = tuple(way.measured(wanted) for way in ways)
    refused = tuple(reason for _, reason in job.plan.refused)
    return Tuning(job.model, targets, _tuned(job, targets, looks, wanted, measured), refused)


def sample_looks(job: Prepared, count: int) -> tuple[Look, ...]:
    """`count` frames spread over a job's stacks, less those that are blank or cannot be read."""
    stacks, timeout = job.plan.stacks, job.settings.timeout
    looks: list[Look] = []
    places = list(spread([stack.layout for stack in stacks], count))
    for at, place in places:
        with suppress(Hung):
            looks += [
                look_at(stacks[at], *frame)
                for frame in frames_of(job.model, stacks[at], [place], timeout)
                if not is_blank(frame[1])
            ]
    if not looks:
        n_left = sum(stack.layout.n_frames for stack in stacks) - len(places)
        more = ", or a larger --sample" if n_left else ""
        raise StackError(
            f"{stacks[0].info.path}: {plural(len(places), 'frame')} looked at, of which none can "
            f"be read and has something in it; give other frames{more}"
        )
    return tuple(looks)


class Setting:
    """A process that runs one setting; once that has failed, `reason` says why."""

    def __init__(self, work: Work, advance: Callable[[], None]) -> None:
        self.work, self._advance = work, advance
        self.reason = ""
        self._seconds: list[float] = []
        self._peak = 0
        self._child = subprocess.Popen(
            python("engine.tune.child"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Setting:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            pickle.dump(self.work, self._child.stdin)
        self._ask("")
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def time(self) -> None:
        """Run the timed frames once more."""
        if (seconds := self._ask("pass\n")) is not None:
            self._seconds.append(seconds)

    def finish(self) -> None:
        """Make labels, and end the process."""
        self._peak = self._ask("labels\n") or 0
        self._child.kill()

    def labels(self) -> list[Labels]:
        """The labels of all frames."""
        numbers = range(len(self.work.looks))
        return [np.load(Path(self.work.folder) / f"{number}.npy") for number in numbers]

    def measured(self, wanted: Sequence[Labels]) -> Measured:
        """All that was measured, with labels held against those that are wanted."""
        target = self.work.target
        setting = Measured(
            runtime=target.runtime,
            device=target.device,
            precision=target.precision,
            build=runtime_of(target.runtime).build(target),
            reason=self.reason,
        )
        if self.reason:
            return setting
        found = compare_all(self.labels(), wanted, self.work.looks)
        frames = self.work.workers * min(TIMED, len(self.work.looks))
        figures = {
            "frames_per_second": frames / statistics.median(self._seconds),
            "changed": found.changed_fraction,
            "f1": found.f1,
            "memory_bytes": self._peak,
        }
        return setting.model_copy(update=figures)

    def _ask(self, command: str) -> Any:
        """Have the process do something; its answer, None where the setting has failed."""
        self._advance()
        if self.reason:
            return None
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(command.encode())
            self._child.stdin.flush()
            kind, value = pickle.load(self._child.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            kind, value = "error", f"its process ended with {how_it_ended(self._child.wait())}"
        if kind == "error":
            self.reason = str(value)
            return None
        return value


def _tuned(
    job: Prepared,
    targets: list[Target],
    looks: Sequence[Look],
    wanted: Sequence[Labels],
    measured: tuple[Measured, ...],
) -> Tuned:
    pairs = zip(wanted, looks, strict=True)
    height, width = looks[0].pixels.shape[1:]
    return Tuned(
        model=job.model.sha256,
        model_name=job.model.spec.name,
        processor=processor(),
        builds=builds_of(targets),
        inputs=tuple(stack.path for stack in job.plan.stacks[:100]),
        frames=len(looks),
        objects=sum(int(one.max()) for one, look in pairs if not look.postprocessing.gives_classes),
        height=height,
        width=width,
        workers=job.plan.workers,
        threads=job.plan.threads,
        measured=measured,
    )
