"""Faults for the processes of a test: Python imports this file where its folder is on PYTHONPATH.

The product knows nothing of it. The variable STACKSEG_FAULTS tells what is to go wrong, as JSON:

    layout  {"engine.geometry.layout.BLOCK_PIXELS": 2000}   so that small stacks have blocks
    kill    {"point": "write", "nth": 2, "token": FILE, "role": "main"}
            SIGKILL when this process comes to a point the nth time. The token is made first: it
            exists once for all processes, so that the one kill is not repeated by the next run.
    die     {"t": 5, "signal": 11}   reading frame t ends any process, as a crashing decoder does
    slow    {"seconds": 1.0}         every read of a frame takes this long
    wait    FILE                     the first read in a task waits until FILE is there
    hang    {"t": 5, "stack": "b", "while": FILE, "role": "child"}   in a task, reading frame t of
            stacks with that name ends only once FILE is gone; "role" and "stack" may be left out.
            Without "t" it is the opening of such a stack that does not end.
    limit   {"kind": "RLIMIT_AS", "extra": BYTES}   set when the first task begins
    version "9.9"                    engine.__version__
    model   FILE                     what is opened in place of whatever model is asked for
    log     FILE                     a line for each task begun, frame read and object put

Points are named in `tests/faults/points.py`. A name below that engine no longer has is an error
in the process, and so in the test.

No process imports pandas, which pyarrow takes along where it is there: a tenth of a small job.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAULTS: dict[str, Any] = json.loads(os.environ.get("STACKSEG_FAULTS") or "{}")
ROLE = "child" if any("engine.job.isolation" in text for text in sys.orig_argv) else "main"
TABLES = ("frames.parquet", "frames.csv", "objects.parquet", "timings.parquet")

# .task: this thread is at one; .level: which makes a level; .kind: of the object it is putting
_here = threading.local()
_lock = threading.Lock()
_reached: dict[str, int] = {}


# -- what goes wrong -------------------------------------------------------------------------------


def reached(point: str) -> None:
    """Die here, if that is what was asked."""
    if due(point):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # until the signal is there


def due(point: str) -> bool:
    kill = FAULTS.get("kill")
    if not kill or kill["point"] != point or kill.get("role", ROLE) != ROLE:
        return False
    with _lock:
        _reached[point] = _reached.get(point, 0) + 1
        if _reached[point] != kill["nth"]:
            return False
        try:
            os.close(os.open(kill["token"], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
    return True


def note(*words: Any) -> None:
    if "log" in FAULTS:
        line = " ".join(map(str, (ROLE, os.getpid(), *words))) + "\n"
        handle = os.open(FAULTS["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, line.encode())
        os.close(handle)


def kind_of(path: Path) -> str:
    """What an object is to its job: "data" of a task, its "record", "table", "end", "start"."""
    parts = path.parts
    if path.name == "job.json" and ".stackseg" not in parts:
        return "end"
    if path.name in TABLES and ".stackseg" not in parts:
        return "table"
    if ".stackseg" in parts and path.suffix == ".json":
        inside = parts[parts.index(".stackseg") + 1 :]
        if inside[0] in ("records", "stitched", "levels") or inside[:2] == ("work", "survey"):
            return "record"
        if inside[:2] == ("work", "parts"):
            return "record"
    return "data" if getattr(_here, "task", False) else "start"


def is_of_a_level(path: Path) -> bool:
    """Whether an object is a shard, and not of level 0."""
    parts = path.parts
    return "c" in parts and parts[len(parts) - 1 - parts[::-1].index("c") - 1] != "0"


def is_map(path: Path) -> bool:
    return "work" in path.parts and "maps" in path.parts


# -- where it does ---------------------------------------------------------------------------------


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def patch_constants(module: Any) -> None:
    for path, value in FAULTS.get("layout", {}).items():
        owner, _, name = path.rpartition(".")
        if owner == module.__name__:
            getattr(module, name)  # that it is there
            setattr(module, name, value)


def patch_engine(module: Any) -> None:
    if "version" in FAULTS:
        module.__version__ = FAULTS["version"]


def patch_model_file(module: Any) -> None:
    if "model" in FAULTS:
        wrap(module, "open_model", lambda opens: lambda path: opens(FAULTS["model"]))


def patch_tasks(module: Any) -> None:
    def make(carry_out: Any) -> Any:
        def at_task(task: Any, *rest: Any, **named: Any) -> Any:
            note("begin", task.step, task.stack.name, task.index)
            set_limit()
            _here.task, _here.level = True, task.step.startswith(module.PREFIX)
            try:
                return carry_out(task, *rest, **named)
            finally:
                _here.task = _here.level = False

        return at_task

    wrap(module, "carry_out", make)


def set_limit() -> None:
    with _lock:
        limit = FAULTS.pop("limit", None)
    if limit:
        import resource

        entry = {"RLIMIT_AS": "VmSize:", "RLIMIT_DATA": "VmData:"}[limit["kind"]]
        lines = Path("/proc/self/status").read_text().splitlines()
        now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))
        most = now + limit["extra"]
        resource.setrlimit(getattr(resource, limit["kind"]), (most, most))


def patch_reader(class_name: str) -> Callable[[Any], None]:
    def patch(module: Any) -> None:
        def make(read: Any) -> Any:
            def at_read(self: Any, t: int, z: int, *rest: Any) -> Any:
                in_task = getattr(_here, "task", False)
                die = FAULTS.get("die")
                if in_task:
                    note("read", Path(self.info.path).stem, t, z)
                if die and t == die["t"] and die.get("stack", "") in self.info.path:
                    os.kill(os.getpid(), die["signal"])
                    time.sleep(60)
                if in_task and "slow" in FAULTS:
                    time.sleep(FAULTS["slow"]["seconds"])
                if in_task and "t" in FAULTS.get("hang", {}) and t == FAULTS["hang"]["t"]:
                    hang(self.info.path)
                if in_task and "wait" in FAULTS:
                    while not Path(FAULTS["wait"]).exists():
                        time.sleep(0.01)
                pixels = read(self, t, z, *rest)
                if in_task:
                    reached("read")
                return pixels

            return at_read

        wrap(getattr(module, class_name), "_read", make)

    return patch


def hang(path: str) -> None:
    told = FAULTS["hang"]
    if told.get("role", ROLE) == ROLE and told.get("stack", "") in Path(path).name:
        note("hangs", Path(path).stem)
        while Path(told["while"]).exists():
            time.sleep(0.01)
        note("goes on", Path(path).stem)


def patch_open(module: Any) -> None:
    def make(opens: Any) -> Any:
        def at_open(path: str, *rest: Any) -> Any:
            if getattr(_here, "task", False) and "t" not in FAULTS.get("hang", {"t": 0}):
                hang(path)
            return opens(path, *rest)

        return at_open

    wrap(module, "open_stack", make)


def patch_runtime(module: Any) -> None:
    def make(run: Any) -> Any:
        def at_run(self: Any, *rest: Any) -> Any:
            found = run(self, *rest)
            if getattr(_here, "task", False):
                reached("infer")
            return found

        return at_run

    wrap(module.Session, "run", make)


def patch_stitch(module: Any) -> None:
    def after(point: str) -> Callable[[Any], Any]:
        def make(function: Any) -> Any:
            def at_point(*rest: Any, **named: Any) -> Any:
                found = function(*rest, **named)
                reached(point)
                return found

            return at_point

        return make

    for name in ("_gather", "_contacts"):
        wrap(module, name, after("stitch-1"))
    wrap(module, "_write_row", after("stitch-2"))


def patch_store(module: Any) -> None:
    store = module.LocalStore

    def make_put(put: Any) -> Any:
        def at_put(self: Any, key: str, data: bytes, *, durable: bool = True) -> None:
            path = self._path(key)
            kind = kind_of(path) if durable else None
            half = {"data": "write", "record": "record-half", "start": "start"}.get(kind or "")
            if half is not None and due(half):
                with self._staged(key) as staged:
                    staged.write_bytes(data[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)
            put(self, key, data, durable=durable)
            if is_map(path):
                reached("stitch-2")
            if kind == "record" and "records" in path.parts:
                reached("committed")
            if kind == "data" and is_of_a_level(path):
                reached("level" if _here.level else "halved")
            if kind is not None:
                note("put", kind, key)

        return at_put

    def make_staged(staged: Any) -> Any:
        @contextlib.contextmanager
        def at_staged(self: Any, key: str, *, durable: bool = True) -> Any:
            kind = kind_of(self._path(key)) if durable else None
            if kind == "record":
                reached("record")
            if kind == "end":
                reached("tables")
            _here.kind = kind
            try:
                with staged(self, key, durable=durable) as place:
                    yield place
            finally:
                _here.kind = None

        return at_staged

    def make_flush_file(flush: Any) -> Any:
        def at_flush(path: Path) -> None:
            kind = getattr(_here, "kind", None)
            if kind == "table" and due("tables-half"):
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            flush(path)
            if kind == "data":
                reached("staged")
            _here.flushed = kind

        return at_flush

    def make_flush_folder(flush: Any) -> Any:
        def at_flush(path: Path) -> None:
            if getattr(_here, "flushed", None) == "data":
                reached("renamed")
            _here.flushed = None
            flush(path)

        return at_flush

    wrap(store, "put", make_put)
    wrap(store, "_staged", make_staged)
    wrap(module, "_flush_file", make_flush_file)
    wrap(module, "_flush_folder", make_flush_folder)


def patch_folder(module: Any) -> None:
    def make_forget_work(forget: Any) -> Any:
        def at_forget(self: Any) -> None:
            keys = sorted(self.own.list(f"{module.PRIVATE}/work"))
            if keys and due("work"):
                for key in keys[: len(keys) // 2]:
                    self.own.delete(key)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            forget(self)

        return at_forget

    wrap(module.JobFolder, "forget_work", make_forget_work)


PATCHES: dict[str, Callable[[Any], None]] = {
    "engine": patch_engine,
    "engine.geometry.layout": patch_constants,
    "engine.geometry.arrays": patch_constants,
    "engine.model.file": patch_model_file,
    "engine.steps.registry": patch_tasks,
    "engine.store.folder": patch_folder,
    "engine.store.local_store": patch_store,
    "engine.steps.stitch": patch_stitch,
    "engine.stacks.open": patch_open,
    "engine.stacks.units": patch_reader("UnitStack"),
    "engine.stacks.zarr.stack": patch_reader("_ZarrStack"),
    "engine.runtimes.base": patch_runtime,
}


class Finder:
    """Patches a module of the engine once it was executed, before anybody imports from it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left out of the tests of faults")
        patch = PATCHES.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if patch else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def chain() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    others = [p for p in sys.path if Path(p or ".").resolve() != HERE.resolve()]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


if FAULTS:
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
chain()
