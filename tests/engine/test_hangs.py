"""Limits on silence, caches that hold nobody up, and what is looked at once for all inputs."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import hangs
from engine.errors import OutputError
from engine.hangs import Abandoned, Hung, Pulse, limit_of, watched
from engine.plan import check_apart
from engine.records import JobFolder
from engine.worker import _Kept


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


def test_the_limit_follows_the_longest_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangs, "_longest", 0.0)
    assert limit_of("auto") == 600 and limit_of("none") is None and limit_of(2) == 2
    hangs.took(100.0)
    hangs.took(1.0)
    assert limit_of("auto") == 2000


def test_a_value_that_is_never_made_holds_up_nobody_else() -> None:
    kept, gate = _Kept(3), threading.Event()
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
    from engine import records

    read: list[Any] = []
    digest = records.hashlib.file_digest
    monkeypatch.setattr(
        records.hashlib, "file_digest", lambda *a: read.append(a) or digest(*a)
    )  # fmt: skip
    folder = JobFolder(tmp_path)
    folder.private.mkdir()
    assert folder.identity_hash() == ""
    found = []
    for content in ("a", "b", "a"):  # of one size
        folder.put_json(folder.identity_path, content)
        found += [JobFolder(tmp_path).identity_hash() for _ in range(5)]
    assert len(read) == 3
    assert found[0] != found[5] and found == [found[0]] * 5 + [found[5]] * 5 + [found[0]] * 5
    folder.identity_path.unlink()
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
