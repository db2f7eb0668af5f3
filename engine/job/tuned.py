"""What `stackseg tune` measured, kept for this user: which settings are fast here, and right.

    <cache>/stackseg/tuned/<key>.json

A file for each model, processor and set of builds of the runtimes: the key is a hash of these. An
update of a runtime, another model or another processor thus finds nothing rather than figures of
something else. The number of cores is no part of it: it changes speeds, and hardly their order.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

from engine.errors import UsageError
from engine.inference.agreement import GATE
from engine.job.report import machine
from engine.model.file import ModelFile
from engine.runtimes.base import Precision, Target
from engine.runtimes.cache import cache_folder
from engine.runtimes.registry import RUNTIMES, resolve, runtime_of
from engine.store.files import check_file, whole_file
from engine.store.records import Part, Record, RecordVersionError, Sha256, decode, encode


class Measured(Part):
    """A runtime and precision, as measured on a sample; or why it could not be."""

    runtime: str
    device: str
    precision: Precision
    build: str
    frames_per_second: float = 0.0
    changed: float = 0.0  # share of the pixels that differ from float32, 0..1
    f1: float | None = None  # of labels against float32; None: the sample holds no object
    memory_bytes: int = 0  # peak of a process
    reason: str = ""  # why it does not work; the figures are 0 then

    @property
    def agrees(self) -> bool:
        """Whether its labels are those of float32."""
        return not self.reason and self.f1 is not None and self.f1 >= GATE


class Tuned(Record):
    """What was measured of a model on a machine. Written by `tune`, read by `--precision fast`."""

    model: Sha256
    model_name: str
    processor: str
    builds: tuple[str, ...]
    inputs: tuple[str, ...]
    frames: int  # of the sample
    objects: int  # in them, by the reference
    height: int  # px, of the first frame
    width: int
    workers: int  # frames at a time
    threads: int  # for each
    measured: tuple[Measured, ...]

    @property
    def choices(self) -> tuple[Measured, ...]:
        """Those whose labels agree, the fastest first."""
        right = [one for one in self.measured if one.agrees]
        return tuple(sorted(right, key=lambda one: -one.frames_per_second))


def candidates(device: str = "auto", runtime: str = "auto") -> list[Target]:
    """Every runtime x precision that works here, resolved; UsageError where none has the device."""
    found, reasons = [], []
    for name in RUNTIMES if runtime == "auto" else (runtime,):
        try:
            precisions = runtime_of(name).precisions
            found += [resolve(Target(name, device, precision)) for precision in precisions]
        except UsageError as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    return found


def find(model: ModelFile, device: str) -> Tuned | None:
    """What was measured of a model on this machine; None where nothing is kept that can be read."""
    path = _path(model, candidates(device))
    try:
        return decode(Tuned, path.read_bytes(), str(path))
    except (OSError, RecordVersionError):
        return None


def check_kept(model: ModelFile, targets: list[Target]) -> None:
    """OutputError where what is measured of `targets` could not be kept."""
    check_file(_path(model, targets))


def keep(model: ModelFile, targets: list[Target], tuned: Tuned) -> Path:
    """Keep what was measured of `targets`, in place of what was before; where it is kept.

    OutputError where the cache cannot be written.
    """
    path = _path(model, targets)
    with whole_file(path) as partial:
        partial.write_bytes(encode(tuned))
    return path


def builds_of(targets: list[Target]) -> tuple[str, ...]:
    """What the runtimes are here: their versions and providers, and what they compute in."""
    return tuple(runtime_of(target.runtime).build(target) for target in targets)


def processor() -> str:
    """The processor's name and architecture."""
    return f"{machine().processor} {platform.machine()}"


def _path(model: ModelFile, targets: list[Target]) -> Path:
    what = [model.sha256, processor(), *builds_of(targets)]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    return cache_folder() / "tuned" / f"{key}.json"
