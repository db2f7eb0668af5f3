"""Fine-tuning for int8: what is simulated is what runs, and what is learnt brings it nearer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from engine.cli import stackseg
from engine.errors import UsageError
from engine.geometry.tiling import FrameTiling
from engine.inference.agreement import Look
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile, open_model
from engine.model.spec import Normalisation
from engine.model.statistics import frame_statistics
from engine.runtimes.registry import REFERENCE, open_session
from engine.synthetic import TimeLapse
from export.finetune import fine_tuned
from export.inside import convolutions, named
from export.lower import attempts
from export.onnx import to_onnx
from export.quantise import LARGEST, Quantiser
from export.simulate import GraphNetwork, weights_of
from tests import networks
from tests.export.networks import trained

UNETS = [
    {"channels": (2, 4), "shuffle": 2, "activation": "relu6", "input_range": (-1.0, 4.0)},
    {"channels": (2, 4), "up": "bilinear"},
]


@pytest.fixture(scope="module")
def looks() -> list[Look]:
    """Four frames of nuclei, 128 px a side."""
    lapse = TimeLapse(shape=(60, 128, 128), seed=2, density=700)
    tiling = FrameTiling(128, 128, 2, 0, None)
    return [
        Look(frame, frame_statistics(frame, Normalisation()), tiling, Postprocessing(0.5, 0))
        for frame in (lapse.frame(t)[0][None] for t in (10, 20, 30, 40))
    ]


def model_of(graph: onnx.ModelProto, folder: Path) -> ModelFile:
    return open_model(str(networks.save(folder / "m.onnx", graph, networks.spec(graph))))


def run(data: bytes, model: ModelFile, look: Look) -> NDArray[np.float32]:
    """Probabilities as the file gives them, without optimisation."""
    file = ModelFile(model.path, model.spec, "", model.field, data)
    session = open_session(file, "uint16", REFERENCE, 1)
    return np.asarray(session.run(look.pixels[None], look.statistics[None]))


def simulated(graph: onnx.ModelProto, like: onnx.ModelProto, look: Look) -> NDArray[np.float32]:
    network = GraphNetwork(graph.graph, weights_of(like.graph), LARGEST)
    image = torch.from_numpy(look.pixels[None].astype(np.float32))
    with torch.no_grad():
        found = torch.sigmoid(network(image, torch.from_numpy(look.statistics[None])))
    return np.asarray(found.numpy())


@pytest.mark.parametrize("options", UNETS, ids=lambda one: "-".join(map(str, one)))
def test_a_graph_in_float32_is_what_onnx_runtime_computes(
    options: dict[str, Any], looks: list[Look], tmp_path: Path
) -> None:
    model = model_of(to_onnx(trained(**options), softmax=False), tmp_path)
    graph = named(model)
    wanted = run(model.data, model, looks[0])
    assert np.abs(simulated(graph, graph, looks[0]) - wanted).max() < 1e-5


@pytest.fixture(scope="module")
def lowered(
    looks: list[Look], tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelFile, Quantiser]:
    folder = tmp_path_factory.mktemp("int8")
    model = model_of(networks.unet((4, 8), positive=False, seed=3), folder)
    return model, Quantiser(named(model), looks[:2], folder)


def test_a_graph_in_int8_is_what_onnx_runtime_computes(
    lowered: tuple[ModelFile, Quantiser], looks: list[Look]
) -> None:
    """But for values at the edge of two roundings, which differ by the order of summation, and for
    biases, which have 32 bits."""
    model, quantise = lowered
    graph = quantise([])
    wanted, float32 = (run(one, model, looks[2]) for one in (graph.SerializeToString(), model.data))
    apart = np.abs(simulated(graph, named(model), looks[2]) - wanted)
    rounding = np.abs(wanted - float32)
    assert rounding.mean() > 1e-4
    assert apart.mean() < 0.2 * rounding.mean() and np.median(apart) < 1e-5


def test_what_is_joined_is_rounded_once_and_logits_are_not(
    lowered: tuple[ModelFile, Quantiser],
) -> None:
    graph = lowered[1]([]).graph
    makers = {output: node for node in graph.node for output in node.output}
    takers = {name: node for node in graph.node for name in node.input}
    joined = [node for node in graph.node if node.op_type == "Concat"]
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    assert joined
    for node in joined:
        whole = takers[node.output[0]]
        for name in node.input:
            for one, other in zip(makers[name].input[1:], whole.input[1:], strict=True):
                assert held[one] == held[other]
    assert makers[graph.output[0].name].input[0] == convolutions(named(lowered[0]))[-1]
    onnx.checker.check_model(onnx.helper.make_model(graph))


def test_what_is_learnt_brings_int8_nearer_to_float32(
    lowered: tuple[ModelFile, Quantiser], looks: list[Look]
) -> None:
    """On a frame that did not teach, by the file that is written."""
    model, quantise = lowered
    own = named(model)
    wanted = run(model.data, model, looks[3])

    def apart() -> float:
        found = run(quantise([]).SerializeToString(), model, looks[3])
        return float(np.abs(found - wanted).mean())

    before = apart()
    learnt = fine_tuned(own, quantise([]), looks[:2], largest=LARGEST, steps=40, seed=0)
    quantise.take(learnt)
    after = apart()
    quantise.take(weights_of(own.graph))
    assert after < 0.7 * before
    assert apart() == before


def test_the_worst_to_round_is_left_first(looks: list[Look], tmp_path: Path) -> None:
    """A convolution with one large weight in each channel, under whose scale the others vanish."""
    graph = networks.unet((4, 8), positive=False, seed=3)
    heavy = [node for node in graph.graph.node if node.op_type == "Conv"][2]
    for one in graph.graph.initializer:
        if one.name == heavy.input[1]:
            weights = np.array(onnx.numpy_helper.to_array(one))
            weights[:, 0, 0, 0] = 20 * np.abs(weights).max()
            one.CopyFrom(onnx.numpy_helper.from_array(weights, one.name))
    model = model_of(graph, tmp_path)
    tried = attempts(model, Quantiser(named(model), looks[:2], tmp_path), looks[:1])
    left = [names for names, _ in tried]
    assert left[0] == [] and left[1] == [heavy.output[0]]
    assert [len(names) for names in left] == [0, 1, 2, 4][: len(left)]
    assert all(2 * len(names) < len(convolutions(graph)) for names in left)


def test_an_operator_that_is_not_known_is_named(looks: list[Look], tmp_path: Path) -> None:
    graph = networks.unet((4,), instance_norm=True)
    with pytest.raises(UsageError, match=r"does not know \(InstanceNormalization\)"):
        GraphNetwork(graph.graph, {}, LARGEST)
    done = CliRunner().invoke(
        stackseg, ["export", "nuclei", "--fine-tune", "9", "--output", str(tmp_path / "x.onnx")]
    )
    assert "--fine-tune: is for --precision int8" in str(done.exception)
