"""One block's story: read its frames, segment each, put the shard, the objects and the record.

Runs in whatever process Dask chose. Sessions and open stacks are kept per process, so that a
block pays for neither.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import __version__
from engine.errors import FrameError, JobStopped, StackError
from engine.layout import Block
from engine.measure import FrameRow, ObjectColumns
from engine.model import ModelSpec
from engine.model_file import ModelFile, open_model
from engine.plan import StackPlan
from engine.records import JobFolder
from engine.runtimes.base import Runtime
from engine.segment import Rules, SegmentedFrame, Stopwatch, segment_frame
from engine.stacks.base import Stack
from engine.store import encode_shard, label_path, new_shard
from engine.tables import encode_objects

ATTEMPTS = 2  # a frame is tried once more before it is set aside
OPEN_STACKS = 32  # kept open by a process; each may hold a file handle


@dataclass(frozen=True)
class JobContext:
    """What every block of a job needs to know. Plain data: travels to any worker."""

    version: str
    output: str
    identity_sha256: str  # of the folder's identity: a block of another job commits nothing
    model_path: str
    model_sha256: str
    device: str  # resolved: "cpu" or "cuda:N"
    runtime: str
    threads: int
    rules: Rules
    in_flight: int  # blocks at once in a process, as planned for its memory


@dataclass(frozen=True)
class BlockTask:
    """One block to be done."""

    context: JobContext
    stack: StackPlan
    block: Block


@dataclass(frozen=True)
class BlockOutcome:
    """What the coordinator hears of a block; everything else is in its record."""

    stack: str
    block: int
    frames: int
    failed: tuple[tuple[int, int, str], ...]  # (t, z, reason)
    objects: int
    seconds: dict[str, float] = field(default_factory=dict)  # by stage


def run_block(task: BlockTask) -> BlockOutcome | None:
    """Do one block and commit it; None where the job has been asked to stop.

    Safe to repeat: the same block gives the same bytes.
    """
    context = task.context
    folder = JobFolder(Path(context.output))
    if folder.stopping():
        return None
    model = _model(context)
    with _in_flight.get(context.in_flight, lambda: threading.Semaphore(context.in_flight)):
        return _do_block(task, folder, model)


def _do_block(task: BlockTask, folder: JobFolder, model: ModelFile) -> BlockOutcome:
    plan, block = task.stack, task.block
    watch = Stopwatch()
    shard = new_shard(plan.layout)
    rows: list[FrameRow] = []
    parts: list[tuple[int, int, ObjectColumns]] = []
    height, width = plan.layout.shape[-2:]
    for t, z in block.frames:
        row: FrameRow = {"t": t, "z": z}
        try:
            result, digest = _try_frame(task, model, t, z, watch)
        except FrameError as error:
            row.update(status="failed", reason=str(error))
        else:
            shard[t - block.t[0], z - block.z[0], :height, :width] = result.labels
            row.update(status="ok", sha256=digest, **result.row)
            if result.objects is not None:
                parts.append((t, z, result.objects))
        rows.append(row)
    _commit(folder, task, model, shard, rows, parts, watch)
    return BlockOutcome(
        plan.name,
        block.index,
        len(rows),
        tuple((r["t"], r["z"], r["reason"]) for r in rows if r["status"] == "failed"),
        sum(r.get("objects") or 0 for r in rows),
        watch.seconds,
    )


def _try_frame(
    task: BlockTask, model: ModelFile, t: int, z: int, watch: Stopwatch
) -> tuple[SegmentedFrame, str]:
    """Read and segment a frame, twice if it must be; also the hash of its pixels."""
    plan, context = task.stack, task.context
    runtime = _runtime(context, plan.info.dtype)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with watch.stage("read"):
                frame = _stack(plan).read(t, z, plan.channels)
            expected = (len(plan.channels), *plan.layout.shape[-2:])
            if frame.shape != expected:
                raise FrameError(f"has shape {frame.shape}, and the stack's frames {expected}")
            result = segment_frame(
                frame, model.spec, runtime, plan.tiling, context.rules, plan.pixel_area_um2, watch
            )
            return result, hashlib.sha256(frame.data).hexdigest()
        except FrameError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _commit(
    folder: JobFolder,
    task: BlockTask,
    model: ModelFile,
    shard: Any,
    rows: list[FrameRow],
    parts: list[tuple[int, int, ObjectColumns]],
    watch: Stopwatch,
) -> None:
    """Put data first and the record last: what has a record is whole and on the disk."""
    plan, block = task.stack, task.block
    if folder.identity_hash() != task.context.identity_sha256:
        raise JobStopped(f"{folder.root}: another job has begun there; this one stops")
    with watch.stage("write"):
        labels = encode_shard(plan.layout, shard)
        folder.put(shard_path(folder.root, plan, model.spec, block), labels)
        objects = encode_objects(plan.name, plan.pixel_area_um2, parts)
        folder.put(folder.objects_path(plan.name, block.index), objects)
    folder.put_json(folder.timings_path(plan.name, block.index), watch.seconds)
    record = {
        "block": block.index,
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
        "objects_sha256": hashlib.sha256(objects).hexdigest(),
        "frames": rows,
    }
    folder.put_json(folder.record_path(plan.name, block.index), record)


def shard_path(root: Path, plan: StackPlan, spec: ModelSpec, block: Block) -> Path:
    """Where the labels of a block lie in a job's folder."""
    array = root / f"{plan.name}.zarr" / label_path(spec) / "0"
    return array / plan.layout.shard_key(block)


class _Kept:
    """A small cache shared by the threads of a process: the least recently used goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        # Held while making: two threads must not build the same session at once.
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                if len(self._values) > self._limit:
                    self._values.popitem(last=False)  # a thread may still use it: not closed here
            self._values.move_to_end(key)
            return self._values[key]

    def clear(self) -> None:
        with self._lock:
            for value in self._values.values():
                if isinstance(value, Stack):
                    value.close()
            self._values.clear()


_models, _runtimes, _stacks = _Kept(2), _Kept(4), _Kept(OPEN_STACKS)
_in_flight = _Kept(2)


def keep_model(model: ModelFile) -> None:
    """Have the blocks of this process use a model that is open already."""
    _models.get((str(model.path), model.sha256), lambda: model)


def warm_up(context: JobContext, dtypes: Iterable[str]) -> None:
    """Make this process's sessions; ModelError where the runtime refuses the model."""
    for dtype in dtypes:
        _runtime(context, dtype)


def release() -> None:
    """Let go of the sessions and stacks that this process keeps."""
    for kept in (_stacks, _runtimes, _models):
        kept.clear()


def _model(context: JobContext) -> ModelFile:
    from engine.runtimes.onnxruntime import runtime_name

    def load() -> ModelFile:
        here = (__version__, runtime_name(context.device))
        if here != (context.version, context.runtime):
            raise JobStopped(
                f"a worker runs stackseg {here[0]} on {here[1]}, and the job {context.version} on "
                f"{context.runtime}; install the same versions on every worker"
            )
        model = open_model(context.model_path)
        if model.sha256 != context.model_sha256:
            raise JobStopped(
                f"{context.model_path}: is another file on this worker than where the job began"
            )
        return model

    found: ModelFile = _models.get((context.model_path, context.model_sha256), load)
    return found


def _runtime(context: JobContext, dtype: str) -> Runtime:
    from engine.runtimes.onnxruntime import OnnxRuntime

    key = (context.model_sha256, dtype, context.device, context.threads)
    model = _model(context)
    make = lambda: OnnxRuntime(model, dtype, context.device, context.threads)  # noqa: E731
    found: Runtime = _runtimes.get(key, make)
    return found


def _stack(plan: StackPlan) -> Stack:
    from engine.stacks.open import open_stack

    def reopen() -> Stack:
        try:
            stack = open_stack(plan.path, plan.axes)
        except StackError as error:
            raise JobStopped(
                f"{error}; once it can be read again, the same command goes on"
            ) from error
        if stack.info.identity != plan.info.identity:
            stack.close()
            raise JobStopped(f"{plan.info.path}: has changed since the job began")
        return stack

    found: Stack = _stacks.get((plan.path, plan.axes, plan.info.identity), reopen)
    return found
