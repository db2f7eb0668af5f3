"""Models in int8 and fp16: what they compute, what their spec says, and when there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from engine.cli import stackseg
from engine.errors import ModelError, StackError, UsageError
from engine.inference.device_check import TOLERANCES
from engine.job.job import run_job
from engine.model.file import open_model
from engine.model.graph import receptive_field
from engine.model.graph.memory import activation_bytes
from engine.runtimes.base import Target
from engine.runtimes.registry import REFERENCE, open_session
from engine.synthetic import TimeLapse
from engine.tune.run import tune
from export.inside import inside, named
from export.lower import Sampling, lower
from tests import networks
from tests.engine import jobs

OFFSET = 60_000  # of the pixels: in float16 all above 65,504 are infinite


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of nuclei from 60,000 to 65,535, on a 16-bit scale."""
    lapse = TimeLapse(shape=(60, 192, 192), seed=2, density=500)
    data = np.stack([lapse.frame(t)[0] for t in range(10, 58, 8)]).astype(np.float64)
    data = OFFSET + data * (65_535 - OFFSET) / data.max()
    return jobs.write_stack(tmp_path_factory.mktemp("frames") / "f.tif", data.astype(np.uint16))


@pytest.fixture(scope="module")
def made(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model in int8, by the command, and in fp16."""
    folder = tmp_path_factory.mktemp("made")
    paths = {name: folder / f"nuclei-{name}.onnx" for name in ("int8", "fp16")}
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("export.lower.GATE", 0.9)  # of 30 objects in all, one may be another
        done = CliRunner().invoke(
            stackseg,
            ["export", "nuclei", "--precision", "int8", "--frames", str(frames), "--sample", "6",
             "--output", str(paths["int8"])],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    lower("nuclei", "fp16", paths["fp16"], Sampling((str(frames),), 3, 0))
    return paths


def test_the_spec_says_how_it_came_about(made: dict[str, Path], frames: Path) -> None:
    reference = open_model("nuclei")
    spec = open_model(str(made["int8"])).spec
    assert spec.name == "nuclei-int8" and spec.lowered is not None
    assert spec.lowered.precision == "int8" and spec.lowered.source == reference.sha256
    assert spec.lowered.stacks == (str(frames),) and spec.lowered.seed == 0
    assert spec.lowered.calibrated_by == spec.lowered.judged_by == 3
    assert spec.lowered.f1 is not None and 0.9 <= spec.lowered.f1 <= 1
    assert "7-bit weights" in spec.lowered.converter
    half = open_model(str(made["fp16"])).spec.lowered
    assert half is not None and half.calibrated_by == 0 and half.judged_by == 3
    assert open_model(str(made["fp16"])).spec.cores == reference.spec.cores


@pytest.mark.parametrize("name", ["int8", "fp16"])
def test_what_a_pixel_sees_is_the_same(made: dict[str, Path], name: str) -> None:
    reference, model = open_model("nuclei"), open_model(str(made[name]))
    assert model.field == reference.field
    assert len(model.data) < 0.6 * len(reference.data)
    assert activation_bytes(model.parse(), 256, 256) > 0


def test_normalisation_and_the_last_activation_stay_in_float32(made: dict[str, Path]) -> None:
    reference = named(open_model("nuclei"))
    outside = {node.name for node in reference.graph.node} - {n.name for n in inside(reference)}
    for name in ("int8", "fp16"):
        graph = onnx.shape_inference.infer_shapes(open_model(str(made[name])).parse()).graph
        types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
        kept = [node for node in graph.node if node.name in outside]
        assert {node.op_type for node in kept} >= {"Sub", "Div", "Clip", "Sigmoid"}
        for node in kept:
            for output in node.output:
                assert types.get(output, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT
    kinds = {node.op_type for node in graph.node}  # of fp16
    assert "Cast" in kinds
    int8 = {node.op_type for node in open_model(str(made["int8"])).parse().graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= int8


@pytest.mark.parametrize(("name", "most"), [("int8", 0.25), ("fp16", 0.02)])
def test_bright_pixels_are_told_apart(
    made: dict[str, Path], frames: Path, name: str, most: float
) -> None:
    """From 60,000 to 65,535, beyond what float16 has, probabilities are near those of float32."""
    import tifffile

    frame = tifffile.imread(frames)[3][None, None]
    statistics = np.float32([[[frame.min(), np.percentile(frame, 99.8)]]])
    wanted = open_session(open_model("nuclei"), "uint16", REFERENCE, 1).run(frame, statistics)
    model = open_model(str(made[name]))
    own = open_session(model, "uint16", REFERENCE, 1).run(frame, statistics)
    assert 1e-5 < np.abs(own - wanted).max() < most
    for runtime in ("onnxruntime", "openvino"):
        session = open_session(model, "uint16", Target(runtime, "cpu"), 1)
        found = session.run(frame, statistics)
        print(name, runtime, np.abs(found - own).max())
        assert np.abs(found - own).max() < TOLERANCES[name]  # type: ignore[index]


def test_a_job_runs_it_in_its_own_precision_alone(
    made: dict[str, Path], frames: Path, tmp_path: Path
) -> None:
    settings = jobs.settings(frames, made["int8"], tmp_path / "out", frames=(0, 1))
    assert run_job(settings).exit_status == 0
    assert jobs.labels_of(tmp_path / "out", "f", "nuclei-int8").max() > 3
    for precision in ("bf16", "fast"):
        other = {"output": tmp_path / "x", "precision": precision, "runtime": "openvino"}
        changed = settings.model_copy(update=other)
        with pytest.raises(UsageError, match=r"nuclei-int8.onnx is in int8 itself"):
            run_job(changed)
    with pytest.raises(UsageError, match="is in int8 itself and runs in nothing else; tune the mo"):
        tune(settings.model_copy(update={"output": tmp_path / "x"}), 2)
    with pytest.raises(UsageError, match="is in int8; give it in fp32"):
        lower(str(made["int8"]), "int8", tmp_path / "x.onnx", Sampling((str(frames),), 2, 0))


def test_what_does_not_agree_is_not_written(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights of very different size under one scale, with a network of random weights."""
    network = networks.unet((4, 6), positive=False, seed=1)
    model = networks.save(tmp_path / "m.onnx", network, networks.spec(network, threshold=0.5))
    monkeypatch.setattr("export.lower.GATE", 1.01)  # that no labels reach
    with (
        caplog.at_level(logging.INFO, "stackseg"),
        pytest.raises(ModelError, match=r"in int8 its labels have an F1 of .* nothing was written"),
    ):
        lower(str(model), "int8", tmp_path / "int8.onnx", Sampling((str(frames),), 2, 0))
    assert not (tmp_path / "int8.onnx").exists()
    tried = [r.getMessage().partition(":")[0] for r in caplog.records if "in fp32" in r.message]
    assert tried[0] == "int8 with 0 convolutions in fp32" and len(tried) >= 2


def test_a_model_that_finds_nothing_cannot_be_judged(frames: Path, tmp_path: Path) -> None:
    network = networks.unet((4, 6), positive=False, seed=1)
    spec = networks.spec(network, threshold=0.5, min_area=10**6)
    model = networks.save(tmp_path / "m.onnx", network, spec)
    with pytest.raises(ModelError, match=r"^run: in fp32 it finds nothing in 1 frame that did"):
        sampling = Sampling((str(frames),), 2, 0)
        lower(str(model), "int8", tmp_path / "int8.onnx", sampling, given="run")
    assert not (tmp_path / "int8.onnx").exists()


def test_a_stack_that_cannot_be_opened_is_not_left_out(frames: Path, tmp_path: Path) -> None:
    """The spec would say that it took part."""
    stacks = (str(frames), str(tmp_path / "none.tif"))
    with pytest.raises(StackError, match=r"none\.tif: does not exist"):
        lower("nuclei", "fp16", tmp_path / "fp16.onnx", Sampling(stacks, 2, 0))


def test_frames_are_asked_for(tmp_path: Path, threshold_model: Path, frames: Path) -> None:
    def told(*arguments: str) -> str:
        done = CliRunner().invoke(stackseg, ["export", *arguments, "--output", "x.onnx"])
        return str(done.exception)

    assert "needs --frames STACK" in told("nuclei", "--precision", "int8")
    assert "is for --precision int8 and fp16" in told("nuclei", "--frames", str(frames))
    one = ["--frames", str(frames), "--sample", "2", "--precision", "fp16"]
    assert "has no convolution" in told(str(threshold_model), *one)


def test_resizing_in_float16_keeps_its_scales() -> None:
    from export.half import halved

    network = networks.unet((4, 6))
    for node in network.graph.node:
        node.name = node.output[0]
    field = receptive_field(network)
    assert receptive_field(halved(network)) == field
