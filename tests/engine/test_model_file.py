"""A model without a valid spec is refused, with a sentence that says what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from engine.errors import ModelError
from engine.graph.pixels import accept_pixels
from engine.model import METADATA_KEY, ModelSpec, parse_spec
from engine.model_file import bundled_models, open_model
from tests import networks


def test_a_good_model_opens(make_model: Any) -> None:
    network = networks.unet((16, 32, 64, 128))
    model = open_model(str(make_model(network, networks.spec(network))))
    assert model.halo == 48 and model.spec.stride == 8 and len(model.sha256) == 64


def test_bundled_models_open() -> None:
    assert "nuclei" in bundled_models()
    for name in bundled_models():
        model = open_model(name)
        assert model.spec.name == name
        assert len(model.data) < 4 * 2**20
        assert set(model.spec.hashes) == {"data", "code", "settings"}
        assert model.path.with_suffix(".md").is_file()  # its card


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stride": None}, r"not valid \(stride: Input should be a valid integer"),
        ({"spec_version": 2}, "spec_version"),
        ({"threshold": 1.5}, "threshold"),
        ({"classes": []}, "classes"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"name": "../evil"}, "name"),
        ({"stride": 1}, "stride 1, but the graph pools by 2"),
        ({"receptive_radius": 3}, "receptive radius of 3 px, but the graph sees 8 px"),
        ({"channels": ["a", "b"]}, "names 2 channels"),
    ],
)
def test_wrong_specs_are_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    network = networks.unet((2, 2))
    content = {**json.loads(networks.spec(network).model_dump_json()), **change}
    helper.set_model_props(network, {METADATA_KEY: json.dumps(content)})
    path = tmp_path / "model.onnx"
    onnx.save(network, path)
    with pytest.raises(ModelError, match=sentence) as error:
        open_model(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_files_that_are_no_models_are_refused(tmp_path: Path, make_model: Any) -> None:
    network = networks.unet((2, 2))
    plain = make_model(network, None, "plain.onnx")
    with pytest.raises(ModelError, match=r"carries no stackseg spec.*stackseg export"):
        open_model(str(plain))
    text = tmp_path / "text.onnx"
    text.write_text("this is not a model\n" * 5)
    with pytest.raises(ModelError, match=r"is not an ONNX file"):
        open_model(str(text))
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(ModelError, match=r"is not an ONNX file"):
        open_model(str(empty))
    with pytest.raises(ModelError, match=r"neither a model file nor a bundled model \(.*nuclei"):
        open_model("no-such-model")
    whole = plain.read_bytes()
    half = tmp_path / "half.onnx"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        open_model(str(half))


def test_external_weights_are_refused(tmp_path: Path) -> None:
    network = networks.unet((2, 2))
    spec = networks.spec(network)
    helper.set_model_props(network, {METADATA_KEY: spec.model_dump_json()})
    weights = network.graph.initializer[-1]
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(network.SerializeToString())
    with pytest.raises(ModelError, match="keeps weights in other files"):
        open_model(str(path))


def test_a_graph_without_the_contracts_names_is_refused(tmp_path: Path) -> None:
    network = networks.unet((2, 2))
    spec = networks.spec(network)
    for value in network.graph.input:
        if value.name == "statistics":
            value.name = "levels"
    for node in network.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "levels" if name == "statistics" else name
    path = networks.save(tmp_path / "model.onnx", network, spec)
    with pytest.raises(ModelError, match="its graph has no statistics"):
        open_model(str(path))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pixels_enter_in_their_own_type(dtype: str) -> None:
    network = networks.unet((2, 2))
    before = [node.op_type for node in network.graph.node]
    accept_pixels(network, dtype)
    onnx.checker.check_model(network)
    kinds = [node.op_type for node in network.graph.node]
    assert kinds == ([] if dtype == "float32" else ["Cast"]) + before


def test_fixed_sizes_are_refused(make_model: Any) -> None:
    network = networks.unet((2, 2))
    network.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 256
    with pytest.raises(ModelError, match="size of its image is fixed"):
        open_model(str(make_model(network, networks.spec(network))))


def test_a_spec_round_trips() -> None:
    spec = networks.spec(networks.unet((2, 2)), scores={"iou": 0.9}, pixel_size_um=0.645)
    assert parse_spec(spec.model_dump_json(), "here") == spec
    assert isinstance(spec, ModelSpec)
