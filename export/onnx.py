"""Checkpoint -> ONNX file. Nothing is written before ONNX Runtime has agreed with PyTorch."""

from __future__ import annotations

import logging
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim

from engine.errors import ModelError, UsageError
from engine.model.file import ModelFile
from engine.model.graph import ReceptiveField, receptive_field
from engine.model.spec import (
    IMAGE,
    NAME,
    PROBABILITIES,
    STATISTICS,
    ClassSpec,
    CoreSpec,
    CurvePoint,
    ModelSpec,
    Normalisation,
)
from engine.model.statistics import frame_statistics
from engine.plan.resources import cores as n_cores
from engine.runtimes.base import Target
from engine.runtimes.registry import open_session
from engine.store.files import whole_file
from engine.synthetic import TimeLapse
from export.embed import embed
from export.graph import ServedNetwork
from export.shuffle import space_to_depth
from train.checkpoint import Checkpoint, load_checkpoint
from train.networks import Network
from train.networks.base import pad_to_stride
from train.networks.normalise import normalise
from train.objects import CORE_THRESHOLD

OPSET = 18
TOLERANCE = 1e-4  # of probability
# (batch, height, width) of the frames on which the two must agree; the last is odd in one
# dimension only, which is where hand-made padding goes wrong.
CHECKED_SIZES = ((1, 64, 64), (2, 96, 160), (1, 120, 161))
AXES = {0: "batch", 2: "height", 3: "width"}
COLORS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def export_run(
    run: Path,
    output: Path,
    name: str | None = None,
    checkpoint: str = "best",
    description: str = "",
) -> ModelSpec:
    """Write the checkpoint "best" or "last" of a training run as an ONNX file.

    Raises ModelError, and leaves nothing behind, where the run holds no such checkpoint or where
    ONNX Runtime's probabilities differ from PyTorch's by more than TOLERANCE.
    """
    state = load_checkpoint(run / f"{checkpoint}.pt")
    network = state.build()
    model = to_onnx(network, softmax=state.network.n_out > 2)
    spec = make_spec(state, model, network, name or output.stem, description)
    embed(model, spec)
    data = model.SerializeToString()
    check_agreement(data, network, spec)
    with whole_file(output) as partial:
        partial.write_bytes(data)
    return spec


def to_onnx(network: Network, *, softmax: bool) -> onnx.ModelProto:
    """The graph of engine/model/spec.py's contract, dynamic in batch, height and width."""
    served = ServedNetwork(network, softmax=softmax)
    stride, n_in = network.stride, network.n_in
    image = torch.zeros(2, n_in, 4 * stride, 6 * stride)
    statistics = torch.tensor([0.0, 1.0]).expand(2, n_in, 2).contiguous()
    with warnings.catch_warnings(), _Quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served,
            (image, statistics),
            dynamo=True,
            custom_translation_table={torch.ops.aten.pixel_unshuffle.default: space_to_depth},
            opset_version=OPSET,
            input_names=[IMAGE, STATISTICS],
            output_names=[PROBABILITIES],
            dynamic_shapes={
                IMAGE: dict.fromkeys(AXES, Dim.DYNAMIC),
                STATISTICS: {0: Dim.DYNAMIC},
            },
            verbose=False,
        )
    if program is None:
        raise ModelError("PyTorch's exporter returned nothing")
    return _tidied(program.model_proto)


def make_spec(
    state: Checkpoint, model: onnx.ModelProto, network: Network, name: str, description: str = ""
) -> ModelSpec:
    """The spec: stride and radius are read off the graph and must be the architecture's own."""
    field = receptive_field(model)
    if (field.stride, field.radius) != (network.stride, network.receptive_radius):
        raise ModelError(
            f"the graph has stride {field.stride} and receptive radius {field.radius}, but the "
            f"architecture {network.stride} and {network.receptive_radius}: the export is wrong"
        )
    if not re.fullmatch(NAME, name):
        raise UsageError(f"--name {name!r}: use letters, digits, dots, dashes and underscores")
    return ModelSpec(
        name=name,
        description=description,
        channels=_channel_names(state),
        classes=_classes(state),
        normalisation=state.settings.normalisation,
        stride=field.stride,
        receptive_radius=network.receptive_radius,
        threshold=state.chosen.get("threshold", 0.5),
        instances=_instances(state),
        cores=_cores(state),
        min_area=int(state.chosen.get("min_area", 0)),
        trained_on=state.trained_on,
        scores={key: round(value, 4) for key, value in state.scores.items()},
        threshold_curve=tuple(CurvePoint.model_validate(point) for point in state.curve),
        hashes=dict(state.hashes),
        created_with=f"stackseg {_version()}",
    )


def check_agreement(data: bytes, network: Network, spec: ModelSpec) -> float:
    """Largest difference of probability between ONNX Runtime on the CPU and PyTorch.

    `data` is the serialised model. The reference is the network as it was trained, batch
    normalisation apart. Raises ModelError above TOLERANCE.
    """
    field = ReceptiveField(spec.stride, spec.receptive_radius)
    model = ModelFile(Path(spec.name), spec, "", field, data)
    target = Target("onnxruntime", "cpu")
    session = open_session(model, "float32", target, threads=n_cores())
    worst = 0.0
    for size in CHECKED_SIZES:
        image, statistics = _frames(size, network, spec.normalisation)
        found = session.run(image.numpy(), statistics.numpy())
        wanted = _reference(network, image, statistics, spec)
        difference = float(np.abs(found - wanted).max())
        worst = max(worst, difference)
        if not difference <= TOLERANCE:  # also where it is NaN
            raise ModelError(
                f"ONNX Runtime and PyTorch differ by {difference:.2g} in probability on a frame of "
                f"{size[1]}x{size[2]} px, more than {TOLERANCE:g}; nothing was written"
            )
    return worst


def _reference(
    network: Network, image: Tensor, statistics: Tensor, spec: ModelSpec
) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits = network.eval()(normalise(image, statistics))
        found = torch.sigmoid(logits) if spec.is_binary else torch.softmax(logits, dim=1)
    return np.asarray(found.numpy(), dtype=np.float32)


def _frames(
    size: tuple[int, int, int], network: Network, normalisation: Normalisation
) -> tuple[Tensor, Tensor]:
    """Synthetic nuclei (N, C, H, W), padded to the stride, and their statistics (N, C, 2)."""
    batch, height, width = size
    lapse = TimeLapse(shape=(batch * network.n_in, height, width), seed=1, density=2000)
    planes = np.stack([lapse.frame(t)[0] for t in range(lapse.shape[0])])
    frames = planes.reshape(batch, network.n_in, height, width)
    statistics = np.stack([frame_statistics(frame, normalisation) for frame in frames])
    image = torch.from_numpy(frames.astype(np.float32))
    return pad_to_stride(image, network.stride), torch.from_numpy(statistics)


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's stack traces, which contain paths; with named axes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape.dim
        for axis, axis_name in AXES.items():
            if axis < len(shape) and (axis == 0 or value.name != STATISTICS):
                shape[axis].dim_param = axis_name
    model.producer_name, model.producer_version = "stackseg", _version()
    onnx.checker.check_model(model, full_check=True)
    return model


def _channel_names(state: Checkpoint) -> tuple[str, ...]:
    n_in, names = state.network.n_in, state.settings.channel_names
    if names and len(names) != n_in:
        raise ModelError(f"the settings name {len(names)} channels, but the network takes {n_in}")
    if names:
        return names
    return ("intensity",) if n_in == 1 else tuple(f"channel {i + 1}" for i in range(n_in))


def _instances(state: Checkpoint) -> Literal["components", "cores", "none"]:
    """How objects are told apart; classes are not taken apart into objects."""
    if state.settings.classes:
        return "none"
    return "components" if _cores(state) is None else "cores"


def _cores(state: Checkpoint) -> CoreSpec | None:
    if state.network.n_out != 2:
        return None
    settings = state.settings
    return CoreSpec(
        threshold=state.chosen.get("core_threshold", CORE_THRESHOLD),
        depth=settings.core_depth,
        growth=settings.growth,
        unreached=settings.unreached,
        pinhole=settings.pinhole,
    )


def _classes(state: Checkpoint) -> tuple[ClassSpec, ...]:
    if state.settings.classes:
        return tuple(ClassSpec(name=c.name, color=c.color) for c in state.settings.classes)
    names = [state.settings.class_name]
    if state.network.n_out > 2:
        names = [f"class {i}" for i in range(1, state.network.n_out)]
    colors = [COLORS[1 + i % (len(COLORS) - 1)] for i in range(len(names))]
    background = ClassSpec(name="background", color=COLORS[0])
    return (
        background,
        *(ClassSpec(name=n, color=c) for n, c in zip(names, colors, strict=True)),
    )


def _version() -> str:
    try:
        return metadata.version("stackseg")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Quiet:
    """Keeps a logger to errors while the block runs."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *exc: object) -> None:
        self.logger.setLevel(self.level)
