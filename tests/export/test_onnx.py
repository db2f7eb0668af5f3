"""Checkpoint -> ONNX: the contract, the golden graph, and the refusal to write what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import export.onnx
from engine.errors import ModelError, OutputError, UsageError
from engine.model.file import open_model
from engine.model.graph import receptive_field
from engine.model.spec import METADATA_KEY, CoreSpec, Normalisation, parse_spec
from export.embed import embed
from export.onnx import CHECKED_SIZES, check_agreement, export_run, make_spec
from tests.export.networks import trained, write_run

GOLDEN = Path(__file__).parent / "golden" / "tiny.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_run(folder / "run")
    export_run(folder / "run", folder / "tiny.onnx", description="A network of two levels.")
    return folder / "tiny.onnx"


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
    return {"name": value.name, "shape": dims, "type": value.type.tensor_type.elem_type}


def _described(model: onnx.ModelProto) -> dict[str, Any]:
    spec = json.loads(model.metadata_props[0].value)
    spec["created_with"] = spec["created_with"].split()[0]
    return {
        "operators": [node.op_type for node in model.graph.node],
        "inputs": [_value(v) for v in model.graph.input],
        "outputs": [_value(v) for v in model.graph.output],
        "spec": spec,
    }


def test_the_graph_is_the_golden_one(tiny: Path) -> None:
    """To renew it after a wanted change: print `_described` as JSON into the golden file."""
    assert _described(onnx.load(tiny)) == json.loads(GOLDEN.read_text())


def test_the_engine_opens_it(tiny: Path) -> None:
    model = open_model(str(tiny))
    assert model.spec.name == "tiny"
    assert (model.spec.stride, model.spec.receptive_radius) == (2, 8)
    assert (model.spec.threshold, model.spec.min_area) == (0.55, 20)


def test_the_file_stands_alone_and_tells_no_paths(tiny: Path) -> None:
    assert [p.name for p in tiny.parent.iterdir() if p.name.startswith("tiny")] == ["tiny.onnx"]
    model = onnx.load(tiny)
    assert model.opset_import[0].version >= 17
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path.cwd()).encode() not in tiny.read_bytes()
    assert not any(i.external_data for i in model.graph.initializer)


@pytest.mark.parametrize(("n_in", "n_out", "channels"), [(1, 1, (2, 4, 8)), (3, 4, (2, 4))])
def test_other_networks_agree_and_know_their_reach(
    n_in: int, n_out: int, channels: tuple[int, ...], tmp_path: Path
) -> None:
    write_run(tmp_path / "run", n_in, n_out, channels=channels)
    spec = export_run(tmp_path / "run", tmp_path / "m.onnx")
    field = receptive_field(onnx.load(tmp_path / "m.onnx"))
    assert (spec.stride, spec.receptive_radius) == (field.stride, field.radius)
    assert len(spec.channels) == n_in
    assert spec.n_outputs == n_out
    assert len(spec.classes) == max(n_out, 2)


def test_a_second_output_is_that_of_cores(tmp_path: Path) -> None:
    write_run(tmp_path / "run", n_out=2, core_depth=1.5, growth=2)
    spec = export_run(tmp_path / "run", tmp_path / "m.onnx")
    assert (spec.spec_version, spec.instances, spec.is_binary, spec.n_outputs) == (
        2,
        "cores",
        True,
        2,
    )
    assert spec.cores == CoreSpec(threshold=0.7, depth=1.5, growth=2, unreached="drop", pinhole=6)


def test_any_batch_and_size_run(tiny: Path) -> None:
    session = onnxruntime.InferenceSession(tiny, providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 2, 2), (3, 10, 46), (5, 64, 32)):
        image = np.full((batch, 1, height, width), 7, np.float32)
        feed = {"image": image, "statistics": np.tile(np.float32([[0, 9]]), (batch, 1, 1))}
        assert session.run(None, feed)[0].shape == (batch, 1, height, width)


def test_the_checked_sizes_are_three_and_one_is_odd_in_one_dimension_only() -> None:
    assert len({size[1:] for size in CHECKED_SIZES}) == 3
    assert sum((height + width) % 2 for _, height, width in CHECKED_SIZES) == 1


def _break_weight(model: onnx.ModelProto, by: float) -> None:
    head = next(i for i in model.graph.initializer if i.name.endswith("head.bias"))
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) + np.float32(by), head.name))


def _break_activation(model: onnx.ModelProto, by: float) -> None:
    del by
    model.graph.node[-1].op_type = "HardSigmoid"


@pytest.mark.parametrize("damage", [_break_weight, _break_activation])
def test_nothing_is_written_where_the_two_disagree(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    whole = export.onnx.to_onnx

    def damaged(network: Any, **options: Any) -> onnx.ModelProto:
        model = whole(network, **options)
        damage(model, 0.01)
        return model

    monkeypatch.setattr(export.onnx, "to_onnx", damaged)
    with pytest.raises(ModelError, match=r"differ by .* nothing was written"):
        export_run(tmp_path / "run", tmp_path / "out" / "m.onnx")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["best.pt", "run"]


def test_a_difference_below_the_tolerance_passes_and_is_measured(tmp_path: Path) -> None:
    state, network = write_run(tmp_path), trained()
    model = export.onnx.to_onnx(network, softmax=False)
    spec = make_spec(state, model, network, "tiny")
    embed(model, spec)
    assert check_agreement(model.SerializeToString(), network, spec) < 1e-5
    _break_weight(model, 1e-4)
    assert 1e-6 < check_agreement(model.SerializeToString(), network, spec) < 1e-4


def test_a_frame_that_is_odd_in_one_dimension_is_what_catches_wrong_padding() -> None:
    """The check pads 120x161 to the stride; a network that swapped the two would fail there."""
    network = trained(channels=(2, 4, 8, 16))
    image, statistics = export.onnx._frames(CHECKED_SIZES[2], network, Normalisation())
    assert image.shape == (1, 1, 120, 168)
    assert statistics.shape == (1, 1, 2)
    assert torch.equal(image[..., 161:], image[..., 153:160].flip(-1))


def test_a_wrong_architecture_s_arithmetic_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    monkeypatch.setattr("train.networks.unet.UNet.receptive_radius", 6)
    with pytest.raises(ModelError, match="radius 8, but the architecture 2 and 6"):
        export_run(tmp_path, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_embedding_again_replaces_the_spec(tiny: Path) -> None:
    model = onnx.load(tiny)
    spec = parse_spec(model.metadata_props[0].value, "tiny")
    embed(model, spec.model_copy(update={"name": "other"}))
    entries = [e for e in model.metadata_props if e.key == METADATA_KEY]
    assert [parse_spec(e.value, "tiny").name for e in entries] == ["other"]


def test_names_and_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(UsageError, match="--name 'a b'"):
        export_run(tmp_path, tmp_path / "m.onnx", name="a b")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be a folder, because .*file is a file"):
        export_run(tmp_path, tmp_path / "file" / "m.onnx")
    with pytest.raises(ModelError, match="no such checkpoint"):
        export_run(tmp_path, tmp_path / "m.onnx", checkpoint="last")
