"""`--precision fast`: what was tuned, held against float32 on a job's own frames, on record."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from engine.errors import UsageError
from engine.job import tuned
from engine.job.executors import dask_in_process
from engine.job.fast import prepare_checked, without_fast
from engine.job.job import merge_job, run_job
from engine.job.tuned import Measured, Tuned, candidates, find, keep
from engine.model.file import open_model
from engine.plan.settings import JobSettings
from engine.runtimes.base import Target
from engine.runtimes.cache import cache_folder
from engine.runtimes.registry import RUNTIMES
from engine.store.folder import JobFolder
from tests.engine import jobs
from tests.engine.reference_runtime import ReferenceRuntime

FRAME = (64, 96)


class LossyRuntime(ReferenceRuntime):
    """Its bf16 and fp16 give every probability a little too high."""

    name = "lossy"
    precisions = ("fp32", "bf16", "fp16")
    shift: ClassVar[dict[str, float]] = {}

    def build(self, target: Target) -> str:
        return f"lossy {onnx.__version__} {target.precision}"

    def load(self, graph: bytes, target: Target, *rest: int) -> Any:
        exact, added = super().load(graph, target, *rest), self.shift.get(target.precision)

        def compute(pixels: Any, statistics: Any, out: Any) -> None:
            exact(pixels, statistics, out)
            out += np.float32(added or 0)

        return compute


@pytest.fixture(autouse=True)
def lossy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """By how much the lossy runtime errs; the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "engine.job.tuned.RUNTIMES", {name: RUNTIMES[name] for name in ("onnxruntime",)}
    )
    monkeypatch.setitem(RUNTIMES, "lossy", "tests.engine.test_fast:LossyRuntime")
    monkeypatch.setitem(tuned.RUNTIMES, "lossy", RUNTIMES["lossy"])
    shift: dict[str, float] = {}
    monkeypatch.setattr("tests.engine.test_fast.LossyRuntime.shift", shift)
    return shift


def frames(count: int) -> np.ndarray:
    """Bright squares, and faint ones just below the threshold: to the lossy they are objects."""
    frame = np.zeros(FRAME, np.uint16)
    for n, left in enumerate(range(4, 90, 12)):
        frame[8:16, left : left + 8] = 60_000
        frame[30:38, left : left + 8] = 29_850 if n % 2 else 60_000
    return np.stack([frame] * count)


@pytest.fixture
def job(tmp_path: Path, threshold_model: Path) -> Callable[..., JobSettings]:
    stack = jobs.write_stack(tmp_path / "stack.tif", frames(4))

    def settings(name: str = "out", **changes: Any) -> JobSettings:
        changes = {"precision": "fast", **changes}
        return jobs.settings(stack, threshold_model, tmp_path / name, **changes)

    return settings


def tune(model: Path, *speeds: tuple[str, str, float], f1: float = 1.0) -> Path:
    """Keep these as measured: runtime, precision, frames/s."""
    measured = tuple(
        Measured(runtime=r, device="cpu", precision=p, build="", frames_per_second=s, f1=f1)  # type: ignore[arg-type]
        for r, p, s in speeds
    )
    found = Tuned(
        model="", model_name="", processor="", builds=(), inputs=(), frames=1, objects=1,
        height=1, width=1, workers=1, threads=1, measured=measured,
    )  # fmt: skip
    return keep(open_model(str(model)), candidates(), found)


def reported(output: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((output / "job.json").read_bytes())["settings"]
    return settings


def test_without_a_tuned_setting_one_sentence_says_what_to_run(
    job: Callable[..., JobSettings], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"run `stackseg tune .*threshold.onnx STACK` first"):
        run_job(job())
    with pytest.raises(UsageError, match=r"run `stackseg tune --device cpu .*` first"):
        run_job(job(device="cpu", runtime="onnxruntime"))
    assert not (tmp_path / "out").exists()


def test_the_fastest_whose_labels_agree_is_on_record_and_kept_to(
    job: Callable[..., JobSettings], tmp_path: Path, threshold_model: Path
) -> None:
    tune(threshold_model, ("onnxruntime", "fp32", 1), ("lossy", "bf16", 3), ("lossy", "fp32", 2))
    run_job(job())
    told = reported(tmp_path / "out")
    assert (told["runtime"], told["precision"]) == ("lossy", "bf16")
    assert told["resolved"]["runtime"].endswith("bf16")
    begun = JobFolder(tmp_path / "out").settings()
    assert begun is not None and (begun.runtime, begun.precision) == ("lossy", "bf16")
    before = jobs.contents(tmp_path / "out")
    # Another setting is the fastest now: a job that has begun keeps to its own.
    tune(threshold_model, ("onnxruntime", "fp32", 5), ("lossy", "bf16", 3))
    assert run_job(job()).already_complete
    (tmp_path / "out/job.json").unlink()
    assert run_job(job()).exit_status == 0
    assert jobs.contents(tmp_path / "out") == before
    assert without_fast(job()).precision == "bf16" and without_fast(job("new")).precision == "fp32"
    assert merge_job(JobFolder(tmp_path / "out")).already_complete
    run_job(job(fresh=True))
    assert reported(tmp_path / "out")["runtime"] == "onnxruntime"


def test_where_labels_do_not_agree_the_next_is_taken(
    job: Callable[..., JobSettings],
    threshold_model: Path,
    lossy: dict[str, float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lossy |= {"bf16": 0.5, "fp16": 0.04}  # the device is wrong; the labels are
    tune(threshold_model, ("lossy", "bf16", 4), ("lossy", "fp16", 3), ("onnxruntime", "fp32", 1))
    with caplog.at_level(logging.WARNING, "stackseg"):
        ready = prepare_checked(job())
    assert (ready.settings.runtime, ready.settings.precision) == ("onnxruntime", "fp32")
    first, second = (record.getMessage() for record in caplog.records)
    assert "in bf16 its probabilities" in first and "takes lossy fp16" in first
    assert "lossy fp16: labels have an F1 of 0.857 at IoU 0.9 against fp32" in second
    assert "0.99 is needed; --precision fast takes onnxruntime fp32" in second
    # Of one runtime alone, nothing else is taken.
    tune(threshold_model, ("lossy", "fp16", 3), ("lossy", "fp32", 2), ("onnxruntime", "fp32", 5))
    ready = prepare_checked(job(runtime="lossy"))
    assert (ready.settings.runtime, ready.settings.precision) == ("lossy", "fp32")


def test_workers_of_a_cluster_tell_what_they_were_tuned_to(
    job: Callable[..., JobSettings], threshold_model: Path, lossy: dict[str, float]
) -> None:
    with dask_in_process(1) as cluster:
        with pytest.raises(UsageError, match="run `stackseg tune"):
            prepare_checked(job(), cluster)
        tune(threshold_model, ("lossy", "bf16", 3), ("onnxruntime", "fp32", 2))
        ready = prepare_checked(job(), cluster)
        assert ready.site.target == Target("lossy", "cpu", "bf16")
        lossy["bf16"] = 0.04
        assert prepare_checked(job(), cluster).site.target == Target("onnxruntime", "cpu")


def test_frames_with_nothing_in_them_are_segmented_in_float32(
    job: Callable[..., JobSettings], tmp_path: Path, threshold_model: Path
) -> None:
    jobs.write_stack(tmp_path / "stack.tif", np.zeros((3, *FRAME), np.uint16))
    tune(threshold_model, ("lossy", "bf16", 3), ("lossy", "fp32", 2))
    assert prepare_checked(job()).settings.precision == "fp32"


def test_what_did_not_agree_when_tuned_is_no_choice(
    job: Callable[..., JobSettings], threshold_model: Path
) -> None:
    tune(threshold_model, ("lossy", "bf16", 3), f1=0.98)
    with pytest.raises(UsageError, match="is not known; run `stackseg tune"):
        prepare_checked(job())


def test_a_damaged_or_other_file_counts_as_none(threshold_model: Path) -> None:
    model = open_model(str(threshold_model))
    assert find(model, "auto") is None
    path = tune(threshold_model, ("onnxruntime", "fp32", 1))
    found = find(model, "auto")
    assert found is not None and found.choices[0].runtime == "onnxruntime"
    for content in ("{", json.dumps({"version": 99})):
        path.write_text(content)
        assert find(model, "auto") is None


def test_the_key_is_of_model_processor_and_builds(
    threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(str(threshold_model))
    tune(threshold_model, ("onnxruntime", "fp32", 1))
    with monkeypatch.context() as changed:
        changed.setattr(tuned, "processor", lambda: "another")
        assert find(model, "auto") is None
    with monkeypatch.context() as changed:
        changed.setattr(LossyRuntime, "build", lambda self, target: "a later version")
        assert find(model, "auto") is None
    assert find(open_model("nuclei"), "auto") is None
    assert find(model, "auto") is not None


@pytest.mark.parametrize(("given", "under"), [("relative", ".cache"), ("", ".cache")])
def test_the_cache_is_where_the_system_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, under: str
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / under / "stackseg"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library/Caches/stackseg"
