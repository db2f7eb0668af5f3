"""A model without a valid spec is refused, with a sentence that says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.model.file import BUNDLED, bundled_models, open_model
from engine.model.graph.memory import activation_bytes
from engine.model.graph.tensors import accept_pixels
from engine.model.spec import METADATA_KEY, ModelSpec, parse_spec
from tests import networks
from tests.engine import jobs


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
        assert set(model.spec.hashes) >= {"data", "code", "settings"}
        assert model.path.with_suffix(".md").is_file()  # its card


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stride": None}, r"not valid \(stride: Input should be a valid integer"),
        ({"spec_version": 3}, "spec_version"),
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
    with pytest.raises(ModelError, match=r"^my\.onnx: there is no such file"):
        open_model("my.onnx")
    (tmp_path / "run").mkdir()
    with pytest.raises(ModelError, match=r"run: is neither a model file"):
        open_model(str(tmp_path / "run"))
    (tmp_path / "run/best.pt").touch()
    with pytest.raises(ModelError, match=r"run: is a training run; .*`stackseg export .*run --out"):
        open_model(str(tmp_path / "run"))
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


# -- models from strangers (docs/models.md) --------------------------------------------------------


def graph_node(body: list[onnx.NodeProto], output: str) -> onnx.NodeProto:
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(body, "body", [], [value])
    return helper.make_node("If", ["w0"], ["unused"], then_branch=graph, else_branch=graph)


def secret(location: str) -> onnx.TensorProto:
    """A tensor whose values are the first eight bytes of a file."""
    tensor = TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(location: str) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(8, dtype=np.int64), "where")
    return onnx.SparseTensorProto(values=secret(location), indices=indices, dims=[8])


def in_initializer(model: onnx.ModelProto, location: str) -> None:
    model.graph.initializer.append(secret(location))


def in_sparse_initializer(model: onnx.ModelProto, location: str) -> None:
    model.graph.sparse_initializer.append(sparse(location))


def in_constant(model: onnx.ModelProto, location: str) -> None:
    node = helper.make_node("Constant", [], ["unused"], value=secret(location))
    model.graph.node.insert(0, node)


def in_sparse_constant(model: onnx.ModelProto, location: str) -> None:
    node = helper.make_node("Constant", [], ["unused"], sparse_value=sparse(location))
    model.graph.node.insert(0, node)


def in_attribute_list(model: onnx.ModelProto, location: str) -> None:
    attribute = onnx.AttributeProto(name="more", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(secret(location))
    model.graph.node[0].attribute.append(attribute)


def in_subgraph(model: onnx.ModelProto, location: str) -> None:
    constant = helper.make_node("Constant", [], ["inner"], value=secret(location))
    model.graph.node.append(graph_node([constant], "inner"))


def in_subgraph_of_subgraph(model: onnx.ModelProto, location: str) -> None:
    constant = helper.make_node("Constant", [], ["inner"], value=secret(location))
    model.graph.node.append(graph_node([graph_node([constant], "inner")], "unused"))


def in_function(model: onnx.ModelProto, location: str) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=secret(location))
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "F", [], ["y"], [constant], opsets))


def in_training(model: onnx.ModelProto, location: str) -> None:
    info = model.training_info.add()
    info.algorithm.initializer.append(secret(location))


PLACES = [
    in_initializer, in_sparse_initializer, in_constant, in_sparse_constant, in_attribute_list,
    in_subgraph, in_subgraph_of_subgraph, in_function, in_training,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["/etc/hostname", "../secret", "secret"])
def test_no_other_file_is_read(
    tmp_path: Path, place: Callable[[onnx.ModelProto, str], None], location: str
) -> None:
    (tmp_path / "secret").write_text("password")
    network = networks.unet((2, 2))
    spec = networks.spec(network)
    place(network, location)
    path = networks.save(tmp_path / "model.onnx", network, spec)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        open_model(str(path))


@pytest.mark.parametrize(
    ("dims", "raw"),
    [([2**40], b"1234"), ([2**62, 2**62], b"1234"), ([2**40], b""), ([-4], b"1234")],
)
def test_tensors_that_claim_more_than_there_is_are_refused(
    tmp_path: Path, dims: list[int], raw: bytes
) -> None:
    network = networks.unet((2, 2))
    spec = networks.spec(network)
    tensor = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=dims, raw_data=raw)
    network.graph.initializer.append(tensor)
    path = networks.save(tmp_path / "model.onnx", network, spec)
    with pytest.raises(ModelError, match="'huge' claims more values than the file holds"):
        open_model(str(path))


def test_inputs_beside_the_contract_are_refused(tmp_path: Path) -> None:
    network = networks.unet((2, 2))
    spec = networks.spec(network)
    value = helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1])
    network.graph.input.append(value)
    path = networks.save(tmp_path / "model.onnx", network, spec)
    with pytest.raises(ModelError, match="needs an input 'temperature'"):
        open_model(str(path))


def test_weights_may_be_among_the_inputs() -> None:
    """As early exporters wrote them, numbers without an axis included."""
    network = networks.unet((4, 8))
    wanted = activation_bytes(network, 32, 48)
    for one in network.graph.initializer:
        info = helper.make_tensor_value_info(one.name, one.data_type, list(one.dims))
        network.graph.input.append(info)
    assert activation_bytes(network, 32, 48) == wanted


def test_other_element_types_are_refused(tmp_path: Path) -> None:
    network = networks.unet((2, 2))
    spec = networks.spec(network)
    network.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    path = networks.save(tmp_path / "model.onnx", network, spec)
    with pytest.raises(ModelError, match="image is not float32"):
        open_model(str(path))


def test_operators_of_other_domains_are_refused_by_the_runtime(tmp_path: Path) -> None:
    network = networks.unet((2, 2))
    network.graph.node[-1].domain = "own"
    network.opset_import.append(helper.make_opsetid("own", 1))
    path = networks.save(tmp_path / "model.onnx", network, networks.spec(stride=2))
    model = open_model(str(path))
    assert model.halo is None and "own.Sigmoid" in model.field.reason
    with pytest.raises(ModelError, match="ONNX Runtime refuses it"):
        jobs.session(model)


# In a process of its own, for a crash of the parser's C code must not take the tests with it.
FUZZ = """
import random, sys
from pathlib import Path
from engine.errors import ModelError
from engine.model.graph.memory import activation_bytes
from engine.model.file import open_model

source, target, rounds = Path(sys.argv[1]).read_bytes(), sys.argv[2], int(sys.argv[3])
chance, opened = random.Random(7), 0
for round in range(rounds):
    data = bytearray(source)
    if round % 4 == 0:
        del data[chance.randrange(len(data)):]
    elif round % 4 == 1:
        start = chance.randrange(len(data))
        del data[start : start + chance.randrange(1, 64)]
    else:
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    Path(target).write_bytes(data)
    try:
        model = open_model(target)
        activation_bytes(model.parse(), 64, 64)
        opened += 1
    except ModelError as error:
        assert "\\n" not in str(error), str(error)
print(opened)
"""


@pytest.mark.parametrize(("widths", "rounds"), [((2, 2), 1200), ((), 200)])
def test_damaged_files_are_refused_or_open(
    tmp_path: Path, widths: tuple[int, ...], rounds: int
) -> None:
    source = BUNDLED / "nuclei.onnx"
    if widths:  # little but structure, so that most damage is to that
        network = networks.unet(widths)
        source = networks.save(tmp_path / "whole.onnx", network, networks.spec(network))
    command = [sys.executable, "-c", FUZZ, str(source), str(tmp_path / "damaged"), str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < int(done.stdout) < rounds  # damage to weights alone opens
