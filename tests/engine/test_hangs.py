"""Limits on silence, caches that hold nobody up, and what is looked at once for all inputs."""

from __future__ import annotations

import io
import json
import pickle
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JobStopped, OutputError
from engine.job import attempts as tasks
from engine.job import inputs, isolation, run
from engine.job.job import job_context
from engine.job.prepare import identity, prepare_job
from engine.model.file import open_model
from engine.steps import hangs
from engine.steps.hangs import Abandoned, Hung, Place, Pulse, limit_of, watched
from engine.steps.limited import LimitedStack
from engine.steps.task import Outcome, Task
from engine.steps.worker import _Cache
from engine.store.destination import check_apart
from engine.store.folder import IDENTITY, JobFolder, key_of
from engine.store.local_store import LocalStore
from engine.store.records import AttemptRecord, Death
from tests.engine import jobs


def test_what_is_abandoned_does_not_commit() -> None:
    pulse = Pulse()
    assert pulse.abandon()
    for sign in (pulse.beat, pulse.commit, lambda: pulse.at((1, 0))):
        with pytest.raises(Abandoned):
            sign()


def test_what_commits_is_not_abandoned() -> None:
    """However long that takes: the wait has no end but its own."""
    pulse, gate = Pulse(), threading.Event()

    def slow() -> int:
        pulse.commit()
        assert not gate.wait(0.3)  # longer than the limit
        return 1

    assert watched(slow, pulse, 0.1) == 1
    assert not pulse.abandon()


def test_a_silence_is_told_with_its_place_and_an_error_is_raised_here() -> None:
    pulse, gate = Pulse(), threading.Event()

    def hang() -> None:
        pulse.at((3, 1))
        gate.wait()

    with pytest.raises(Hung) as found:
        watched(hang, pulse, 0.2)
    assert found.value.place.frame == (3, 1) and hangs.left_behind() == 1
    gate.set()
    for thread in hangs._abandoned:
        thread.join()
    assert hangs.left_behind() == 0
    with pytest.raises(KeyError):
        watched(lambda: {}["x"], Pulse(), 10.0)


def test_the_limit_follows_the_longest_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangs, "_longest", 0.0)
    assert limit_of("auto") == 600 and limit_of("none") is None and limit_of(2) == 2
    for seconds, limit in ((100.0, 2000), (1.0, 2000), (1000.0, 3600)):
        hangs.was_silent(seconds)
        assert limit_of("auto") == limit


def test_a_pulse_knows_its_longest_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 1.0, 5.0, 6.5))
    monkeypatch.setattr(hangs.time, "monotonic", lambda: next(times))
    pulse = Pulse()
    pulse.beat()
    with pulse.opening():
        pass
    assert pulse.longest == 4.0


def test_a_task_that_never_read_teaches_no_limit(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written has no limit, and may take long."""
    monkeypatch.setattr(hangs, "_longest", 0.0)
    monkeypatch.setattr(tasks, "carry_out", lambda task, pulse: silent_for(task, pulse, 200.0))
    task = task_of(tmp_path, threshold_model)
    tasks.run_task(replace(task, step="finish"))
    assert limit_of("auto") == 600
    tasks.run_task(task)
    assert limit_of("auto") == 3600


def silent_for(task: Task, pulse: Pulse, seconds: float) -> Outcome:
    pulse.longest = seconds
    return Outcome(task.stack.name, task.step, task.index, seconds={"write": seconds})


def task_of(folder: Path, model: Path) -> Task:
    """The first block of a job that has begun."""
    stack = jobs.write_stack(folder / "stack.tif", jobs.blobs((3, 30, 32)))
    job = prepare_job(jobs.settings(stack, model, folder / "out", workers=1))
    output = JobFolder(folder / "out")
    (output.root / ".stackseg").mkdir(parents=True)
    output.put_record(IDENTITY, identity(job))
    return Task(job_context(job, output.identity_hash()), job.plan.stacks[0], "segment", 0)


def test_what_fails_as_it_opens_leaves_its_place_without_a_sign_of_life() -> None:
    heard: list[Place] = []
    pulse = Pulse(heard.append)
    pulse.at((1, 2))
    with pytest.raises(KeyError), pulse.opening():
        raise KeyError
    assert pulse.place == Place((1, 2)) and heard[1:] == [Place((1, 2), opening=True)]


@pytest.mark.parametrize("fails", [Hung(Place(), 1.0), OutputError("changed"), None])
def test_a_stack_is_closed_unless_a_use_of_it_hangs(fails: Exception | None) -> None:
    """Whoever reads on hears of another error; closing waits for what the hung one holds."""
    gate, closed = threading.Event(), threading.Event()
    stack: Any = SimpleNamespace(close=closed.set)
    try:
        with suppress(OutputError), LimitedStack(stack, 0.1) as limited:
            assert limited.within(lambda _: 1) == 1
            if isinstance(fails, Hung):
                with pytest.raises(Hung):
                    limited.within(lambda _: gate.wait())
                raise OutputError("reading it again did not end")
            if fails:
                raise fails
    finally:
        gate.set()
    assert closed.is_set() != isinstance(fails, Hung)


class OneWay(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


@pytest.mark.parametrize("sent", [pickle.dumps(("error", OneWay("a", "b"))), b"\x80\x05gibberish"])
def test_what_cannot_be_unpickled_is_the_end(sent: bytes) -> None:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    isolation._listen(io.BytesIO(pickle.dumps(("commits", None)) + sent), heard)
    assert [heard.get(timeout=1), heard.get(timeout=1)] == [("commits", None), ("end", None)]


def test_what_a_child_raises_arrives(tmp_path: Path, threshold_model: Path) -> None:
    task = task_of(tmp_path, threshold_model)
    for error in (OneWay("a", "b"), KeyError("x"), ValueError()):
        sent = pickle.loads(pickle.dumps(isolation.sendable(error, task)))
        assert isinstance(sent, JobStopped) and type(error).__name__ in str(sent)
    kept = (JobStopped("told"), MemoryError("none"))
    assert all(isolation.sendable(error, task) is error for error in kept)
    broken: Any = ((0,),)  # no frame and reason
    with pytest.raises(JobStopped, match=r"^stack: segment 0 failed \(ValueError: not enough"):
        isolation.run_isolated(replace(task, skip=broken), 0, 60.0)


def test_attempts_are_read_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / ".stackseg").mkdir()
    attempt = tasks.Attempt(JobFolder(tmp_path), key_of("attempts/stack", "segment", 1))
    assert attempt.deaths() == []
    deaths = [
        Death(frame=(1, 2), how="SIGSEGV"),
        Death(frame=None, how="late", kind="unopened"),
        Death(frame=(1, 2), how="x", kind="hang"),
    ]
    attempt.put(deaths)
    assert attempt.deaths() == deaths
    whole = json.loads((tmp_path / attempt.key).read_bytes())
    for damaged in ("", "3", "[null]", '{"deaths"', json.dumps(whole | {"deaths": [7]})):
        (tmp_path / attempt.key).write_text(damaged)
        assert attempt.deaths() == []  # what cannot be read counts as none
    attempt.begin()
    assert attempt.folder.record(AttemptRecord, attempt.key) == AttemptRecord()
    attempt.end()
    assert not (tmp_path / attempt.key).exists()


def test_threads_of_the_planning_do_not_count_as_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangs, "_abandoned", [])
    gate = threading.Event()
    with pytest.raises(Hung):
        hangs.within(0.05, gate.wait)
    assert hangs.left_behind() == 1 and hangs.left_behind(hangs.TASK) == 0
    with pytest.raises(Hung):
        watched(gate.wait, Pulse(), 0.05)
    assert hangs.left_behind() == 2 and hangs.left_behind(hangs.TASK) == 1
    gate.set()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs goes on once it is set, at the end at the latest."""
    found = threading.Event()
    yield found
    found.set()


def test_inputs_of_a_folder_that_hangs_cost_two_limits(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    tried: list[str] = []
    opens = inputs.open_stacks

    def opening(path: str, *rest: Any) -> Any:
        tried.append(Path(path).stem)
        if "hangs" in path:
            gate.wait()
        return opens(path, *rest)

    monkeypatch.setattr(inputs, "open_stacks", opening)
    paths = []
    for name in ("a/hangs0", "a/good0", "a/hangs1", "a/hangs2", "a/good1", "b/good2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        paths.append(jobs.write_stack(tmp_path / f"{name}.tif", jobs.blobs((2, 30, 32))))
    job = jobs.settings(paths, threshold_model, tmp_path / "out", timeout=0.2)
    found = inputs.open_inputs(job, open_model(str(threshold_model)))
    assert [Path(one.info.path).stem for one in found.opened] == ["good0", "good2"]
    assert tried == ["hangs0", "good0", "hangs1", "hangs2", "good2"]
    assert [Path(path).stem for path, _ in found.refused] == ["hangs0", "hangs1", "hangs2", "good1"]
    assert found.refused[-1][1].startswith(f"{paths[4]}: was not tried, since 2 inputs of its")


def test_a_stack_whose_chunks_cannot_be_looked_up_is_refused_in_time(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    monkeypatch.setattr(
        inputs, "check_stack", lambda stack: "bad" in stack.info.path and gate.wait()
    )
    paths = [
        jobs.write_stack(tmp_path / f"{name}.tif", jobs.blobs((2, 30, 32)))
        for name in ("bad", "ok")
    ]
    job = jobs.settings(paths, threshold_model, tmp_path / "out", timeout=0.2)
    found = inputs.open_inputs(job, open_model(str(threshold_model)))
    assert len(found.opened) == 1
    ((path, reason),) = found.refused
    assert path == str(paths[0]) and "could not be opened within 0.2 s" in reason


@pytest.mark.parametrize("known", [True, False])
def test_inputs_that_hang_at_the_end_cost_two_limits(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event, known: bool
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        run, "check_unchanged", lambda stack: tried.append(stack.name) or gate.wait()
    )
    stacks = [
        SimpleNamespace(
            name=name, path=f"/gone/{name}", reads_input=True, info=SimpleNamespace(path=name)
        )
        for name in "abcde"
    ]
    job = SimpleNamespace(
        plan=SimpleNamespace(stacks=stacks), settings=SimpleNamespace(timeout=0.1)
    )
    one: Any = SimpleNamespace(job=job, _hung=set("abcd") if not known else set("abcde"))
    if known:
        run.Run._check_inputs(one)
        assert tried == ["a", "b"]
    else:  # it may be another now
        with pytest.raises(JobStopped, match=r"^e: could not be opened"):
            run.Run._check_inputs(one)
        assert tried == ["a", "b", "e"]


def test_a_value_that_is_never_made_holds_up_nobody_else() -> None:
    kept, gate = _Cache(3), threading.Event()
    thread = threading.Thread(target=kept.get, args=("stuck", gate.wait))
    thread.start()
    assert kept.get("other", lambda: 1) == 1
    kept.forget("stuck")
    assert kept.get("stuck", lambda: 2) == 2
    gate.set()
    thread.join()
    assert kept.get("stuck", lambda: 3) == 2  # what came too late is nobody's


def test_an_identity_is_read_once_and_another_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get = LocalStore.get

    def counted(self: LocalStore, key: str) -> bytes:
        data = get(self, key)
        read.append(key)
        return data

    monkeypatch.setattr(LocalStore, "get", counted)
    folder = JobFolder(tmp_path)
    (tmp_path / ".stackseg").mkdir()
    assert folder.identity_hash() == ""
    found = []
    for content in (b"a", b"b", b"a"):  # of one size
        folder.own.put(IDENTITY, content)
        found += [JobFolder(tmp_path).identity_hash() for _ in range(5)]
    assert read == [IDENTITY] * 3
    assert found[0] != found[5] and found == [found[0]] * 5 + [found[5]] * 5 + [found[0]] * 5
    folder.own.delete(IDENTITY)
    assert folder.identity_hash() == ""


NAMES = st.lists(st.sampled_from(["a", "b.zarr", "c"]), min_size=1, max_size=3)


@given(
    inputs=st.lists(
        st.tuples(NAMES, st.sampled_from(["TIFF", "Zarr"])),
        min_size=1,
        max_size=4,
        unique_by=lambda one: tuple(one[0]),
    ),
    output=NAMES,
    names=st.lists(st.sampled_from(["a", "b", "c", "a/b"]), min_size=1, max_size=4),
)
def test_results_are_apart_from_inputs_as_each_pair_is(
    inputs: list[tuple[list[str], str]], output: list[str], names: list[str]
) -> None:
    root = Path("/nowhere")
    paths = [(root.joinpath(*parts), kind) for parts, kind in inputs]
    folder = root.joinpath(*output)

    def clash(result: Path, path: Path, kind: str) -> bool:
        inside = path in result.parents and kind == "Zarr"
        return result == path or result in path.parents or inside

    expected = any(clash(folder / f"{n}.zarr", p, k) for n in names for p, k in paths)
    stacks = [
        SimpleNamespace(name=n, path=str(p), info=SimpleNamespace(path=str(p), format=k))
        for n, (p, k) in zip(names * len(paths), paths * len(names), strict=True)
    ]
    plan: Any = SimpleNamespace(stacks=stacks)
    if expected:
        with pytest.raises(OutputError, match="would be written over the input"):
            check_apart(plan, folder)
    else:
        check_apart(plan, folder)
