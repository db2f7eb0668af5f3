"""Jobs as processes: started, killed for real, gone on with, and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_threshold_model
from tests.engine import jobs

INJECT = Path(__file__).parent / "inject"
# Frames of more than 2,000 px are cut into regions of about 32 x 32; they have levels.
LAYOUT = {
    "engine.geometry.layout.BLOCK_PIXELS": 2000,
    "engine.geometry.layout.REGION": 32,
    "engine.geometry.layout.GRAIN": 8,
    "engine.geometry.arrays.SMALLEST": 16,
}
KEEP = ("--keep", "probability", "--with-image")
COMMAND = (sys.executable, "-m", "engine")
LONG = 120.0  # s until a process that should have ended hangs
KILLED = -signal.SIGKILL


def slow(*values: Any) -> Any:
    """A parameter, or several at once, that only the slow suite tries."""
    return pytest.param(*values, marks=pytest.mark.slow)


@dataclass(frozen=True)
class Job:
    """What is segmented, as the command's arguments."""

    inputs: tuple[Path, ...]
    model: Path
    options: tuple[str, ...] = ()
    layout: Mapping[str, int] = field(default_factory=lambda: LAYOUT)

    def command(self, output: Path, *options: str) -> list[str]:
        inputs = map(str, self.inputs)
        given = ["--model", str(self.model), "--output", str(output)]
        return [*COMMAND, "segment", *inputs, *given, *self.options, *options]


def three_kinds(folder: Path) -> Job:
    """One job of a stack of whole frames, one that is cut, and one whose planes connect.

    Each keeps probabilities and pixels, and has levels: 4 + 4 + 6 blocks of the first, and 2 of
    the second, of the cut one.
    """
    shapes = {"whole": (8, 1, 30, 32), "cut": (2, 1, 62, 90), "planes": (1, 6, 40, 44)}
    stacks = [
        jobs.write_stack(folder / f"{name}.tif", jobs.blobs(shape, seed=i), axes="TZYX")
        for i, (name, shape) in enumerate(shapes.items())
    ]
    options = ("--axes", "TZYX", "--connect", "z", *KEEP)
    return Job(tuple(stacks), make_threshold_model(folder / "model.onnx"), options)


def environment(faults: Mapping[str, Any]) -> dict[str, str]:
    path = os.pathsep.join(p for p in (str(INJECT), os.environ.get("PYTHONPATH", "")) if p)
    told = {"PYTHONPATH": path, "STACKSEG_FAULTS": json.dumps(faults)}
    return {**os.environ, **told, "OMP_NUM_THREADS": "1"}


class Process:
    """A process in a session of its own, so that what it leaves behind can be seen."""

    def __init__(self, command: list[str], faults: Mapping[str, Any], **more: Any) -> None:
        self.popen = subprocess.Popen(
            command,
            env=environment(faults),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **more,
        )
        self.out = self.err = ""

    def wait(self, seconds: float = LONG) -> int:
        """Its exit status, once it and all that it started have ended."""
        try:
            out, err = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.out, self.err = out.decode(), err.decode()
        until = time.monotonic() + 10
        while alive(self.popen.pid):
            assert time.monotonic() < until, "a process that it started is still there"
            time.sleep(0.01)
        return self.popen.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.communicate()


def alive(session: int) -> bool:
    """Whether any process of a session runs; those that ended and were not waited for do not."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(own) == session and state != "Z":
                return True
    return False


class Campaign:
    """One output folder, and every run that went into it."""

    def __init__(self, job: Job, output: Path) -> None:
        self.job, self.output = job, output
        self.json_log = output.parent / f"{output.name}.events"
        self.log = output.parent / f"{output.name}.log"  # written by the faults themselves
        self.runs = 0
        self.committed: dict[Path, tuple[int, int]] = {}

    def start(self, *options: str, **faults: Any) -> Process:
        """Start or go on with the job."""
        self.runs += 1
        self.committed |= commits(self.output)
        command = self.job.command(self.output, "--json-log", str(self.json_log), *options)
        return Process(command, {"layout": self.job.layout, "log": str(self.log), **faults})

    def run(self, *options: str, **faults: Any) -> Process:
        """One run to its end, whatever that is."""
        process = self.start(*options, **faults)
        process.wait()
        self.check_commits()
        return process

    def complete(self, *options: str, **faults: Any) -> None:
        """Run until the job is complete."""
        process = self.run(*options, **faults)
        assert process.popen.returncode == 0, process.err

    def check_commits(self) -> None:
        """What was committed when a run began is untouched by it."""
        now = commits(self.output)
        for path, stamp in self.committed.items():
            if "work" not in path.parts or path in now:  # work/ goes when the job is complete
                assert now.get(path) == stamp, f"{path} was committed, and done again"

    def events(self) -> list[dict[str, Any]]:
        """Tasks that the coordinator heard of, over all runs."""
        lines = self.json_log.read_text().splitlines() if self.json_log.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if event["event"] == "block"]

    def check_events(self) -> None:
        """No task came to its end twice."""
        done = Counter((e["stack"], e["step"], e["block"]) for e in self.events())
        assert done and max(done.values()) == 1, done.most_common(3)

    def noted(self, what: str) -> list[tuple[str, ...]]:
        """Lines of the faults' own log, such as ("begin", step, stack, index)."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        words = [tuple(line.split()[2:]) for line in lines]
        return [w for w in words if w[0] == what]

    @property
    def blocks(self) -> int:
        """Tasks that the job consists of."""
        return len(set(self.noted("begin")))

    @property
    def redone(self) -> int:
        """Tasks begun more than once: those in flight when a process was killed."""
        return len(self.noted("begin")) - self.blocks


def commits(output: Path) -> dict[Path, tuple[int, int]]:
    """Every record that is whole, with what changes when it is put again."""
    private = output / ".stackseg"
    kinds = ("records", "stitched", "levels", "work/parts", "work/survey")
    found = {}
    for path in (p for kind in kinds for p in (private / kind).rglob("*.json")):
        with contextlib.suppress(ValueError):
            json.loads(path.read_bytes())
            stat = path.stat()
            found[path] = (stat.st_ino, stat.st_mtime_ns)
    return found


def assert_nothing_left(output: Path) -> None:
    """No file that was only on its way."""
    private = output / ".stackseg"
    left = [
        path
        for kind in ("staging", "attempts", "work")
        for path in (private / kind).rglob("*")
        if path.is_file()
    ]
    assert not left and not (private / "work").exists() and not list(private.glob("stop*")), left


def assert_same(output: Path, whole: Path) -> None:
    """The same bytes as an undisturbed run, and nothing beside them."""
    found, wanted = jobs.contents(output), jobs.contents(whole)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert_nothing_left(output)


@contextlib.contextmanager
def cluster(folder: Path, faults: tuple[Mapping[str, Any], ...]) -> Iterator[Cluster]:
    """A scheduler and a worker for each of `faults`; all of them gone at the end."""
    found = Cluster(folder)
    try:
        found.await_scheduler()
        for each in faults:
            found.add(each)
        yield found
    finally:
        found.close()


class Cluster:
    """A Dask scheduler and worker processes without nannies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", {}, "--port", "0")

    def _start(
        self, role: str, faults: Mapping[str, Any], *options: str
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--no-dashboard"]
        command += ["--scheduler-file", str(self.file), "--host", "127.0.0.1", *options]
        with (self.folder / f"{role}.err").open("ab") as log:
            return subprocess.Popen(
                command, env=environment(faults), cwd=self.folder,
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip

    def await_scheduler(self) -> None:
        until = time.monotonic() + LONG
        while True:
            with contextlib.suppress(OSError, ValueError):
                if json.loads(self.file.read_text()):
                    return
            assert self.scheduler.poll() is None and time.monotonic() < until
            time.sleep(0.05)

    def add(self, faults: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Start a worker of one thread."""
        worker = self._start("worker", faults, "--nthreads", "1", "--no-nanny")
        self.workers.append(worker)
        return worker

    def await_workers(self, count: int) -> None:
        """Wait until the scheduler knows exactly so many."""
        from distributed import Client

        with Client(json.loads(self.file.read_text())["address"], set_as_default=False) as client:
            until = time.monotonic() + LONG
            while len(client.scheduler_info(n_workers=-1)["workers"]) != count:
                assert time.monotonic() < until, "a worker did not come, or did not go"
                time.sleep(0.05)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
