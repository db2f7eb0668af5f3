"""What the engine asks of a runtime, and what is the same for all of them.

Target     where and how a model is run: with the build, all that decides its probabilities
Runtime    a library that runs ONNX graphs: one file, and one line in `engine.runtimes.registry`
Session    a model that is ready to run on a target
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import JobStopped, ModelError, OutOfMemory, StacksegError, UsageError, first_line
from engine.model.file import ModelFile
from engine.model.graph.decision import PLANES, Decision, decide
from engine.model.graph.faster import Shuffle, speed_up
from engine.model.graph.tensors import accept_pixels, fix_shape
from engine.model.statistics import normalisable

AUTO = "auto"
ALL_DEVICES = "cuda:all"  # every one of this machine, with a process for each
Number = TypeVar("Number", int, float)
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Pixels = NDArray[Any]  # raw, (N, C, H, W) or (C, H, W)
Floats = NDArray[np.float32]
Result = NDArray[Any]  # float32 (N, K, H, W); or uint8 (N, PLANES, H, W), see `Decision`
Compute = Callable[[Pixels, Floats, Result], None]  # pixels, statistics; fills the result
Shape = tuple[int, int, int]  # (N, H, W) of a run

DEVICE_RUNS = 2  # at once on a device: while one computes, pixels of the next one get there
SESSIONS = 4  # that a process keeps; the one that was not used for longest makes room


class Caution(IntEnum):
    """What a runtime may do to a graph; `engine.inference.device_check` finds what is right."""

    OPTIMISED = 0
    UNOPTIMISED = 1  # no node is fused or folded


@dataclass(frozen=True)
class Target:
    """Where and how a model is run. Runtime and device may be "auto" until they are resolved."""

    runtime: str = AUTO  # name in the registry
    device: str = AUTO  # "cpu", or as the runtime names its others: "cuda:0"
    precision: Precision = "fp32"
    caution: Caution = Caution.OPTIMISED

    @property
    def is_on_device(self) -> bool:
        """Whether pixels have to get to a device, and results back."""
        return self.device != "cpu"

    @property
    def changes_graphs(self) -> bool:
        """Whether graphs are made faster (`engine.model.graph.faster`): what devices would gain was
        not measured, and some targets are to run a graph as it is written."""
        return not self.is_on_device and self.caution is Caution.OPTIMISED


@dataclass(frozen=True)
class Needs:
    """Bytes that a model takes of one memory."""

    sessions: int = 0  # weights, in all sessions of a process
    run: int = 0  # added by each run in flight


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model takes of the host's memory, and of the device's if it has its own."""

    host: Needs = Needs()
    device: Needs | None = None


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of a device, as found just now."""

    device: str  # an id that no other device has, on any host
    free: int  # bytes


class Constant(NamedTuple, Generic[Number]):
    """A constant of memory, and where it comes from."""

    value: Number
    unit: str
    meaning: str
    origin: str  # the command that measured it, or why it needs none


class Runtime(ABC):
    """A library that runs ONNX graphs. It has no state that a job could change."""

    name: str  # in the registry, and on record
    title: str  # in sentences
    cautions: tuple[Caution, ...]
    builds_engines: bool = False  # each for one shape of runs, see `engine`
    memory_signs: tuple[str, ...] = ()  # in lower case; in a message, any says that it was memory

    @property
    @abstractmethod
    def precisions(self) -> tuple[Precision, ...]:
        """What this machine computes with it."""

    @abstractmethod
    def resolve_device(self, device: str) -> str:
        """The device that a job records, never "auto"; UsageError where there is none such here."""

    @abstractmethod
    def build(self, target: Target) -> str:
        """Runtime, version, provider, precision, caution: the same build gives the same bytes."""

    @abstractmethod
    def load(self, graph: bytes, target: Target, threads: int, in_flight: int) -> Compute:
        """Make a graph ready, with so many `threads` for each run.

        What comes back is called by many threads, about `in_flight` of them at once.
        """

    @abstractmethod
    def memory(
        self,
        model: ModelFile,
        target: Target,
        shapes: Collection[Shape],
        sessions: int,
        one_shape: bool = False,
    ) -> MemoryNeeds:
        """Predicted needs, in bytes, of so many sessions and of the largest run.

        `shapes` are the (N, H, W) of all batches; with `one_shape` each session is for one alone.
        """

    def is_memory_error(self, error: Exception) -> bool:
        """Whether what `load` or its `Compute` raised means that there was no memory."""
        text = str(error).lower()
        return isinstance(error, MemoryError) or any(sign in text for sign in self.memory_signs)

    def device_memory(self, device: str) -> DeviceMemory | None:
        """What is free on a device; None where it has no memory of its own, or does not tell."""
        return None

    def reason(self, error: Exception) -> str:
        """One line of what `load` or its `Compute` raised, for a sentence."""
        return first_line(error)

    def release_memory(self) -> None:
        """Return to the system what no run in flight holds, where a runtime keeps it."""
        return

    def resolve(self, target: Target) -> Target:
        """The target with the device's name; UsageError where the runtime does not have it."""
        if target.precision not in self.precisions:
            raise UsageError(
                f"precision {target.precision}: {self.title} runs "
                f"{', '.join(self.precisions)} here; use --precision {self.precisions[0]}"
            )
        return replace(target, runtime=self.name, device=self.resolve_device(target.device))

    def prefers_one_shape(self, model: ModelFile, runs: int) -> bool:
        """Whether a session for one shape alone pays for so many runs, and changes no byte."""
        return False

    def engine(self, graph: bytes, target: Target) -> str:
        """Hash of what a loaded graph was built into; "" where graph and build tell it all."""
        return ""

    def session(
        self,
        model: ModelFile,
        dtype: str,
        target: Target,
        threads: int,
        in_flight: int = 1,
        decision: Decision | None = None,
        shape: Shape | None = None,
    ) -> Session:
        """Make a session on a resolved target, for pixels of `dtype`; see `load`.

        With a `decision`, runs give what it says in place of probabilities. `shape` is that of all
        runs; None: any.

        Raises ModelError where the runtime refuses the model, OutOfMemory where it finds no memory.
        """
        try:
            graph, shuffle = _prepared(model, dtype, target, decision, shape)
            compute = self.load(graph, target, threads, in_flight)
        except StacksegError:
            raise
        except Exception as error:  # a runtime's own exceptions share no base class
            if self.is_memory_error(error):
                raise OutOfMemory(
                    f"{model.path}: {self.title} found no memory for the model; free some, or give "
                    "fewer --workers, and run the same command again"
                ) from error
            raise ModelError(
                f"{model.path}: {self.title} refuses it ({self.reason(error)})"
            ) from error
        planes = model.spec.n_outputs if decision is None else PLANES
        engine = self.engine(graph, target)
        return Session(self, compute, planes, decision is not None, engine, shuffle)


def _prepared(
    model: ModelFile, dtype: str, target: Target, decision: Decision | None, shape: Shape | None
) -> tuple[bytes, Shuffle | None]:
    """A model's graph as a session is to run it, and what is to be done with its output."""
    graph = model.parse()
    accept_pixels(graph, dtype)
    if decision is not None:
        decide(graph, decision)
    shuffle = speed_up(graph) if target.changes_graphs else None
    if shape is not None:
        fix_shape(graph, shape, shuffle.factor if shuffle else 1)
    return graph.SerializeToString(), shuffle


@dataclass(frozen=True)
class Session:
    """A model that is ready to run. Calls from several threads at once are allowed."""

    runtime: Runtime
    compute: Compute
    n_outputs: int  # K; PLANES where outputs are decided
    is_decided: bool = False
    engine: str = ""  # see `Runtime.engine`
    shuffle: Shuffle | None = None  # what makes the result of what the graph gives

    @property
    def dtype(self) -> type[Any]:
        """What it gives."""
        return np.uint8 if self.is_decided else np.float32

    def run(self, pixels: Pixels, statistics: Floats, out: Result | None = None) -> Result:
        """Probabilities, float32 (N, K, H, W), of a batch of raw pixels (N, C, H, W).

        Of a session with a decision it is what that says, uint8 (N, PLANES, H, W).

        `statistics` has shape (N, C, 2); a channel whose low equals its high, which is constant,
        is 0 to the network. H and W are multiples of the model's stride. `out`, contiguous and of
        the result's shape, is filled and returned where it is given: runs can share a buffer.

        Raises OutOfMemory, or JobStopped where the runtime fails otherwise.
        """
        divisors = np.stack([normalisable(channels) for channels in statistics])
        n, _, height, width = pixels.shape
        try:
            if out is None:
                out = np.empty((n, self.n_outputs, height, width), dtype=self.dtype)
            if self.shuffle is None:
                self.compute(np.ascontiguousarray(pixels), divisors, out)
            else:
                parts = np.empty(self.shuffle.source(out.shape), dtype=self.dtype)
                self.compute(np.ascontiguousarray(pixels), divisors, parts)
                self.shuffle.apply(parts, out)
        except Exception as error:
            title = self.runtime.title
            if self.runtime.is_memory_error(error):
                # What the failed run had gathered is of no use to smaller ones.
                self.runtime.release_memory()
                raise OutOfMemory(
                    f"{title} found no memory for a tile of {height} x {width} px; give fewer "
                    "--workers or a smaller --tile, and run the same command again to resume"
                ) from error
            # Pixels cannot do this: it is the device or the model, and no frame's fault.
            raise JobStopped(
                f"{title} failed ({self.runtime.reason(error)}); run the same command again to "
                "resume, with --device cpu if it fails once more"
            ) from error
        return out
