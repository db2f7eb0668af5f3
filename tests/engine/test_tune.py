"""`stackseg tune` from the command line, once; and settings that do not work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from engine.cli import stackseg
from engine.commands.tune import _fields
from engine.errors import OutputError, StackError
from engine.job.prepare import prepare_job
from engine.job.tuned import Measured
from engine.runtimes.base import Target
from engine.tune.child import Work, peak_bytes
from engine.tune.run import Setting, sample_looks, tune
from tests.conftest import make_threshold_model
from tests.engine import jobs


@dataclass
class Ran:
    model: Path
    stack: Path
    cache: Path
    output: str
    errors: str
    exit_code: int


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("tune")
    model = make_threshold_model(folder / "threshold.onnx")
    stack = jobs.write_stack(folder / "stack.tif", jobs.blobs((5, 64, 96)))
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        stacks = [str(stack), str(folder / "none.tif")]
        done = CliRunner().invoke(
            stackseg, ["tune", str(model), *stacks, "--sample", "2"], standalone_mode=False
        )
    return Ran(model, stack, folder / "cache", done.stdout, done.stderr, done.return_value)


def test_every_setting_has_a_row(ran: Ran) -> None:
    assert ran.exit_code == 1 and "none.tif: does not exist; check the path" in ran.errors
    header, *rows = ran.output.splitlines()
    assert "F1 at 0.9" in header and "memory MB" in header
    assert {"onnxruntime fp32", "openvino fp32"} <= {" ".join(row.split()[:2]) for row in rows}
    for row in rows:
        assert "agree" in row and "1.0000" in row and "0.0000%" in row
    assert "on 2 frames, " in ran.errors and "--precision fast is --runtime" in ran.errors


def test_figures_are_kept_and_used(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = ran.cache.rglob("*.json")
    kept = json.loads(path.read_bytes())
    assert path.parent == ran.cache / "stackseg/tuned" and kept["version"] == 1
    assert kept["objects"] > 4 and kept["frames"] == 2
    assert all(one["memory_bytes"] > 2**25 for one in kept["measured"])
    assert all(one["frames_per_second"] > 0 for one in kept["measured"])
    fastest = max(kept["measured"], key=lambda one: one["frames_per_second"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(ran.cache))
    done = CliRunner().invoke(
        stackseg,
        ["segment", str(ran.stack), "--model", str(ran.model), "--precision", "fast",
         "--output", str(tmp_path / "out"), "--dry-run"],
    )  # fmt: skip
    assert done.exit_code == 0 and f"; {fastest['build']}\n" in done.stdout


def test_a_setting_that_fails_says_why(ran: Ran, tmp_path: Path) -> None:
    job = prepare_job(jobs.settings(ran.stack, ran.model, tmp_path / "out"))
    work = Work("gone.onnx", Target("onnxruntime", "cpu"), sample_looks(job, 1), 1, 1, False, "")
    with Setting(work, lambda: None) as setting:
        setting.time()
        setting.finish()
    measured = setting.measured([])
    assert "gone.onnx" in measured.reason and not measured.agrees


def test_a_process_that_dies_is_a_setting_that_fails(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tune.run.python", lambda module: ["sh", "-c", "kill -ILL $$"])
    work = Work("", Target("onnxruntime", "cpu"), (), 1, 1, False, "")
    with Setting(work, lambda: None) as setting:
        assert setting.reason == "its process ended with SIGILL"


def test_frames_with_nothing_in_them_are_no_sample(ran: Ran, tmp_path: Path) -> None:
    data = jobs.blobs((4, 64, 96))
    data[1] = 7
    job = prepare_job(
        jobs.settings(jobs.write_stack(tmp_path / "a.tif", data), ran.model, tmp_path / "out")
    )
    looks = sample_looks(job, 4)
    assert len(looks) == 3 and np.array_equal(looks[1].pixels[0], data[2])
    blank = jobs.write_stack(tmp_path / "b.tif", np.zeros((2, 64, 96), np.uint16))
    with pytest.raises(StackError, match=r": 2 frames looked at, .* other frames$"):
        sample_looks(prepare_job(jobs.settings(blank, ran.model, tmp_path / "out")), 8)
    with pytest.raises(StackError, match=r": 1 frame looked at, .* a larger --sample$"):
        sample_looks(prepare_job(jobs.settings(blank, ran.model, tmp_path / "out")), 1)


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_measured(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = jobs.settings(tmp_path / "no.tif", ran.model, tmp_path / "out")
    with pytest.raises(OutputError, match="cache is a file"):
        tune(settings, 1)


def test_the_peak_of_a_process_is_its_own() -> None:
    held = np.ones(2**23)
    assert held.nbytes <= peak_bytes() < 2**36


def test_a_sample_without_objects_says_nothing_of_labels() -> None:
    figures = {"build": "", "runtime": "r", "device": "cpu", "precision": "fp32"}
    rows = [_fields(Measured(**figures, f1=f1)) for f1 in (None, 0.0, 0.989, 0.99)]
    assert [row[-1] for row in rows] == ["no objects", "differ", "differ", "agree"]
