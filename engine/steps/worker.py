"""What a process keeps while it does the blocks of a job: the model, its sessions, open stacks.

Blocks run in whatever process Dask chose; none of them pays for these twice.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from engine import __version__
from engine.errors import JobStopped, StackError
from engine.geometry.tiling import FrameTiling, round_up
from engine.model.file import ModelFile, model_without_graph, open_model
from engine.model.graph.decision import Decision
from engine.model.spec import ModelSpec
from engine.plan.plan import StackPlan
from engine.runtimes.base import SESSIONS, Session, Shape, Target
from engine.runtimes.registry import open_session, runtime_of
from engine.stacks.base import Stack
from engine.steps.hangs import Timeout, within
from engine.steps.limited import LimitedStack
from engine.store.folder import JobFolder

OPEN_STACKS = 32  # kept open by a process; each may hold a file handle
log = logging.getLogger("stackseg")

Value = TypeVar("Value")


@dataclass(frozen=True)
class JobContext:
    """What every block of a job needs to know. Plain data: travels to any worker."""

    version: str
    output: str
    identity_sha256: str  # of the folder's identity: a block of another job commits nothing
    stop: str  # name of the file that asks for a stop
    model_path: str
    model_sha256: str
    target: Target  # resolved
    build: str  # of the runtime
    engines: tuple[str, ...]  # see `engine.runtimes.base.Runtime.engine`; (): not known yet
    threads: int
    in_flight: int  # blocks at once in a process, as planned for its memory
    stores: str = ""  # folder of the Zarr stores, where that is not `output`
    spec: ModelSpec | None = None  # of a relabelling, which has no model
    timeout: Timeout = "auto"  # see `engine.steps.hangs.limit_of`
    is_shared: bool = False  # other runs do blocks of the job as well, and one of them the rest


class _Cache(Generic[Value]):
    """A small cache shared by the threads of a process: the least recently used goes first.

    Whoever makes a value holds up those who want the same one, and nobody else: making one may
    never end.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # A value, once it is made, and the lock of whoever makes it.
        self._entries: OrderedDict[Any, tuple[threading.Lock, list[Value]]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value of `key`, made now if it is not there."""
        with self._lock:
            making, values = self._entries.setdefault(key, (threading.Lock(), []))
            self._entries.move_to_end(key)
            if len(self._entries) > self._limit:
                self._entries.popitem(last=False)  # a thread may still use it: not closed here
        with making:
            if not values:
                values.append(make())
            return values[0]

    def forget(self, key: Any) -> None:
        """Have whoever wants it next make it again; it is not closed, nor waited for."""
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> list[Value]:
        """Let go of all; returns them."""
        with self._lock:
            values = [value for _, made in self._entries.values() for value in made]
            self._entries.clear()
        return values


_models: _Cache[ModelFile] = _Cache(2)
_sessions: _Cache[Session] = _Cache(SESSIONS)
_stacks: _Cache[Stack] = _Cache(OPEN_STACKS)
_in_flight: _Cache[threading.Semaphore] = _Cache(2)
_smaller_tiles: dict[tuple[str, str], int] = {}  # by job and stack: what fitted after all


def keep_model(model: ModelFile) -> None:
    """Have the blocks of this process use a model that is open already."""
    _models.get((str(model.path), model.sha256), lambda: model)


def warm_up(context: JobContext, stacks: Iterable[StackPlan]) -> tuple[str, ...]:
    """Make this process's sessions; the engines that they have, most often none.

    ModelError where the runtime refuses the model.
    """
    engines = {session_of(context, plan, plan.tiling).engine for plan in stacks}
    return tuple(sorted(engines - {""}))


def release() -> None:
    """Let go of the sessions and stacks that this process keeps."""
    for stack in _stacks.clear():
        stack.close()
    _sessions.clear()
    _models.clear()
    _smaller_tiles.clear()


def in_flight(context: JobContext) -> threading.Semaphore:
    """Held by each block while it is being done: as many at once as memory was planned for."""
    return _in_flight.get(context.in_flight, lambda: threading.Semaphore(context.in_flight))


def folder_of(context: JobContext) -> JobFolder:
    """The job's folder."""
    return JobFolder(Path(context.output), Path(context.stores) if context.stores else None)


def model_of(context: JobContext) -> ModelFile:
    """The job's model; JobStopped where this worker has another, or another version."""

    if context.spec is not None:
        return model_without_graph(context.model_path, context.model_sha256, context.spec)

    def load() -> ModelFile:
        _check_same(f"stackseg {__version__}", f"stackseg {context.version}")
        model = open_model(context.model_path)
        if model.sha256 != context.model_sha256:
            raise JobStopped(
                f"{context.model_path}: is another file on this worker than where the job began"
            )
        return model

    return _models.get((context.model_path, context.model_sha256), load)


def session_of(context: JobContext, plan: StackPlan, tiling: FrameTiling) -> Session:
    """This process's session for the frames of a stack in tiles; see `session_for`."""
    # Tiles that were made smaller, where memory ran out, are not worth another compilation.
    fixed = plan.fixes_shape and tiling.tile_shape == plan.tiling.tile_shape
    shape = (plan.batch, *tiling.tile_shape) if fixed else None
    return session_for(context, plan.info.dtype, plan.decision, shape)


def session_for(
    context: JobContext,
    dtype: str,
    decision: Decision | None = None,
    shape: Shape | None = None,
) -> Session:
    """This process's session for pixels of a type; JobStopped where its build is another.

    See `engine.runtimes.base.Runtime.session`.
    """
    target, threads = context.target, context.threads
    model = model_of(context)

    def make() -> Session:
        """The session, once it is known to be of the job's build and engine."""
        # Asked only where the network runs: stitching needs no device.
        _check_same(runtime_of(target.runtime).build(target), context.build)
        session = open_session(model, dtype, target, threads, context.in_flight, decision, shape)
        if context.engines and session.engine not in context.engines:
            raise JobStopped(
                f"{target.runtime} has built another engine here than where the job began; an "
                "engine is not portable: run the job on that machine, or start over with --fresh"
            )
        return session

    what = (context.model_sha256, dtype, target, threads, context.in_flight, decision, shape)
    return _sessions.get(what, make)


def _check_same(here: str, there: str) -> None:
    if here != there:
        raise JobStopped(
            f"a worker runs {here}, and the job {there}; install the same versions on every worker"
        )


def stack_of(plan: StackPlan) -> Stack:
    """The open stack, kept by this process; JobStopped where it is gone or has changed."""
    return _stacks.get(_key(plan), lambda: open_unchanged(plan))


def forget_stack(plan: StackPlan) -> None:
    """Have it opened again: a read of it hangs, and may hold what others would wait for."""
    _stacks.forget(_key(plan))


def _key(plan: StackPlan) -> tuple[str, str | None, str, str]:
    return plan.path, plan.axes, plan.info.series, plan.info.identity


def open_unchanged(plan: StackPlan) -> Stack:
    """Open a stack again; JobStopped where it is gone or has changed."""
    from engine.stacks.open import open_stack

    try:
        stack = open_stack(plan.path, plan.axes, plan.info.series or None)
    except StackError as error:
        raise JobStopped(f"{error}; run the same command again once it can be read") from error
    if stack.info.identity != plan.info.identity:
        stack.close()
        raise JobStopped(
            f"{plan.info.path}: has changed since the job began; restore it and run the same "
            "command again, or start over with --fresh"
        )
    return stack


def open_within(timeout: Timeout, plan: StackPlan) -> LimitedStack:
    """See `open_unchanged`; Hung where that, or a use of the stack, does not end in time."""
    return LimitedStack(within(timeout, partial(open_unchanged, plan)), timeout)


def check_unchanged(plan: StackPlan) -> None:
    """JobStopped where the input is no longer what the job began with. Opens it again."""
    open_unchanged(plan).close()


def tiling_of(context: JobContext, plan: StackPlan) -> FrameTiling:
    """The stack's tiling, with smaller tiles where the planned ones found no memory here."""
    side = _smaller_tiles.get((context.identity_sha256, plan.name))
    return replace(plan.tiling, tile=side) if side else plan.tiling


def halve_tile(context: JobContext, plan: StackPlan, failed: FrameTiling) -> FrameTiling | None:
    """A tiling of half the tile, for this process from now on; None where that changes bytes.

    Smaller tiles change no byte as long as they keep their halo.
    """
    model = model_of(context)
    if model.halo is None or failed.halo < model.halo:
        return None
    if runtime_of(context.target.runtime).builds_engines:
        return None  # it would build another engine
    side = round_up(max(failed.tile_shape) // 2, failed.stride)
    if side <= 2 * failed.halo or side >= max(failed.tile_shape):
        return None
    known = _smaller_tiles.get((context.identity_sha256, plan.name), side)
    _smaller_tiles[context.identity_sha256, plan.name] = min(side, known)
    log.warning("%s: out of memory; continuing with tiles of %d px", plan.name, min(side, known))
    return tiling_of(context, plan)
