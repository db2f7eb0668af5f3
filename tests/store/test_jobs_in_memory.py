"""A whole job on a store that has no paths: the same objects as on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import JobStopped
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.relabel import relabel
from engine.store import folder as folder_module
from engine.store.folder import PRIVATE, REPORT, JobFolder
from tests.engine import jobs
from tests.engine.jobs import Shuffled
from tests.faults.harness import LAYOUT, three_kinds
from tests.store.memory import Memory, MemoryStore


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Where all jobs put what they make, for the rest of a test."""
    found = Memory()

    def stores_of(root: Path, results: Path) -> tuple[MemoryStore, MemoryStore]:
        leases = str(root / PRIVATE)
        return MemoryStore(found, str(root), leases), MemoryStore(found, str(results), leases)

    monkeypatch.setattr(folder_module, "stores_of", stores_of)
    return found


def test_a_job_needs_no_paths(
    tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, resumed and relabelled: stacks of whole, of cut and of connected frames."""
    for name, value in LAYOUT.items():
        monkeypatch.setattr(name, value)
    job, output = three_kinds(tmp_path), tmp_path / "out"
    settings = jobs.settings(
        list(job.inputs), job.model, output, axes="TZYX", connect="z", keep="probability",
        with_image=True,
    )  # fmt: skip
    with pytest.raises(JobStopped):
        run_job(settings, executor=Shuffled(1, stop_after=2))
    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    assert run_job(settings).already_complete
    assert relabel(output, "higher", threshold=0.6).exit_status == 0
    assert not output.exists()
    in_memory = {
        key.removeprefix(f"{output}/"): data
        for key, data in memory.objects.items()
        if "timings" not in key and not key.endswith((REPORT, "settings.json"))
    }
    reports = [JobFolder(place).report() for place in (output, output / "relabelled/higher")]
    monkeypatch.undo()
    for name, value in LAYOUT.items():
        monkeypatch.setattr(name, value)
    run_job(settings, executor=SerialExecutor())
    relabel(output, "higher", threshold=0.6)
    assert in_memory == jobs.contents(output)
    for report, place in zip(reports, (output, output / "relabelled/higher"), strict=True):
        on_disk = JobFolder(place).report()
        assert report is not None and on_disk is not None
        assert report.counts == on_disk.counts and report.counts.objects
        assert report.records_sha256 == on_disk.records_sha256
