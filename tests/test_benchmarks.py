"""Benchmarks still run, at sizes that measure nothing; what they compute from runs is right."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import agreement, bare, beyond, frames, limit, page, paper
from benchmarks.record import Run, compare, costs, now, since, spread
from benchmarks.ways import look_at, padded, ways_of
from engine.model.file import open_model
from tests.conftest import make_threshold_model


@pytest.fixture
def options() -> argparse.Namespace:
    return argparse.Namespace(
        frames=2, repeats=1, device="cpu", precisions=["fp32"], shape=(64, 64)
    )


@pytest.fixture
def one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first runtime alone: each way costs seconds."""
    for module in (limit, paper, agreement):
        monkeypatch.setattr(module, "ways_of", lambda *given: ways_of(*given)[:1])


def test_limit_compares_engine_and_bare(
    tmp_path: Path, options: argparse.Namespace, one_way: None
) -> None:
    model = str(make_threshold_model(tmp_path / "t.onnx"))
    run = Run("limit")
    limit.measure(run, tmp_path, model, options, {"fp32": 1.0})
    ratio = run.figures[f"{model}/onnxruntime fp32/engine over bare"]["values"]
    assert len(ratio) == 1 and 0 < ratio[0] < 1


def test_bare_gives_what_a_session_gives(tmp_path: Path) -> None:
    """Every frame goes through the graph once, whatever streams and batches are."""
    model = open_model(str(make_threshold_model(tmp_path / "t.onnx")))
    looks = [look_at(model, frame) for frame in frames.crowded(4, (64, 64))]
    for setting in bare.settings(2):
        given = bare.feeds([padded(one) for one in looks], [one.statistics for one in looks],
                           setting.batch)  # fmt: skip
        assert sum(len(feed["image"]) for feed in given) == 4
        for way in ways_of(str(model.path), only=["fp32"]):
            bare.passing(model.data, way.runtime, "fp32", "cpu", setting, given)()


def test_gflop_counts_multiplications_and_additions() -> None:
    """By hand: a 3x3 convolution, 2 to 4 channels, at stride 2, and a transposed one back."""

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(shape, np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "a"], ["x"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("ConvTranspose", ["x", "b"], ["y"], strides=[2, 2]),
    ]
    image, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (("image", 2), ("y", 1))
    )
    weights = [weight("a", 4, 2, 3, 3), weight("b", 4, 1, 2, 2)]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [y], weights))
    first = 2 * (10 * 20) * 4 * (2 * 9)
    second = 2 * (10 * 20) * 4 * 4
    assert bare.gflop(model, 20, 40) == pytest.approx((first + second) / 1e9)


def test_a_variant_may_leave_out_what_does_not_count() -> None:
    begin = now()
    found = costs({"a": lambda: None, "b": lambda: since(begin)}, 2)
    assert [len(taken) for taken in found.values()] == [2, 2]
    assert found["b"][1].seconds > found["a"][1].seconds


def test_pages_come_from_runs_alone(tmp_path: Path) -> None:
    run = Run("limit", notes={"nuclei": "4 frames"})
    run.add("nuclei/onnxruntime fp32/engine, processor", "core-ms a frame", [100, 200, 300])
    run.write(tmp_path / "limit-2026-01-01.json")
    stages = Run("stages", notes={"left a frame": {"files": 0.5, "bytes": 1e5, "tasks": 0.2}})
    stages.add("raw/all", "core-ms a frame", [20])
    stages.add("lzw/all", "core-ms a frame", [30])
    scheduler = Run("scheduler")
    scheduler.add("blocks of 8 s/scheduler", "ms of a core a task", [2])
    lines = list(page.pivot(run.figures))
    assert lines[-1] == "| nuclei/onnxruntime fp32 | 200 (150 to 250) |"
    paths = [tmp_path / f"{one.benchmark}-2026-01-01.json" for one in (run, stages, scheduler)]
    for one, path in zip((run, stages, scheduler), paths, strict=True):
        one.write(path)
    runs = {one.benchmark: json.loads(p.read_text())
            for one, p in zip((run, stages, scheduler), paths, strict=True)}  # fmt: skip
    text = "\n".join(beyond.page(runs, paths))
    # 1e12 bytes are 649,351 frames, and these 36 core-hours at 200 core-ms.
    assert "| 1 TB | 649,351 | 64,935 |" in text and "| onnxruntime fp32 | 200 | 36 |" in text
    # 2 tasks for a block of 2 s: 1,000 tasks/s of 1,000 cores, twice what 2 ms a task allow.
    assert "| onnxruntime fp32 | 2.0 | 1,000 | 200% | 500 | 16.0 |" in text
    assert "| nuclei/onnxruntime fp32/engine, processor |" in compare(paths[0], paths[0])


def test_agreement_and_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: argparse.Namespace, one_way: None
) -> None:
    model = str(make_threshold_model(tmp_path / "t.onnx"))
    monkeypatch.setattr(paper, "SHAPE", (64, 64))
    run = Run("paper")
    paper.measure(run, tmp_path, model, options)
    assert set(run.figures) == {
        f"{model}/onnxruntime fp32/{kind}" for kind in ("one image", "of a stack")
    }
    monkeypatch.setattr(agreement, "SHAPE", (96, 96))
    agreement.measure(found := Run("agreement"), options)
    assert spread(found.figures["onnxruntime fp32/F1 at 0.9"]["values"])[0] > 0.99
