"""Convolutions and batch normalisations of a Keras file, in the order of its layers.

Three kinds of HDF5 are read, none of which needs Keras:

    model.h5            /model_weights/LAYER/..., with the attributes `layer_names`, `weight_names`
    model.weights.h5    /layers/CLASS_N/vars/0, 1, ...      (or as above, of old versions)
    model.keras         a zip with config.json and model.weights.h5
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import MissingExtra, UsageError, install_command

EPSILON = 1e-3  # Keras' default, added to variances
CONVOLUTION, NORM = "Conv2D", "BatchNormalization"
GROUPS = ("layers", "_layer_checkpoint_dependencies")
Array = NDArray[np.float32]


@dataclass(frozen=True)
class NormValues:
    """A batch normalisation of C channels, each (C,)."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float = EPSILON


@dataclass(frozen=True)
class ConvValues:
    """A convolution, and the batch normalisation that follows it."""

    kernel: Array  # (out, in, height, width)
    bias: Array | None  # (out,)
    norm: NormValues | None = None


def read_keras(path: Path) -> list[ConvValues]:
    """The 3x3 convolutions of a model in order; UsageError where the file holds none."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise MissingExtra(
            f"{path}: reading Keras files needs h5py: {install_command('keras')}"
        ) from None
    try:
        config: Mapping[str, Any] = {}
        source: Any = path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
                source = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(source, "r") as file:
            found = _joined(_layers(file, config))
    except FileNotFoundError:
        raise UsageError(f"--transfer {path}: there is no such file") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"--transfer {path}: is not a model of Keras ({reason[0]})") from None
    if not found:
        raise UsageError(f"--transfer {path}: holds no 3x3 convolution of a model of Keras")
    return found


def _joined(layers: Iterator[ConvValues | NormValues]) -> list[ConvValues]:
    """A normalisation belongs to the convolution before it."""
    found: list[ConvValues] = []
    for layer in layers:
        if isinstance(layer, ConvValues):
            found.append(layer)
        elif found and found[-1].norm is None:
            found[-1] = replace(found[-1], norm=layer)
    return found


def _layers(file: Any, config: Mapping[str, Any]) -> Iterator[ConvValues | NormValues]:
    top = file.get("model_weights", file)
    if "layer_names" in top.attrs:
        described = json.loads(_text(file.attrs.get("model_config", "{}")))
        epsilons = {name: one for _, name, one in _described(described)}
        for name in map(_text, top.attrs["layer_names"]):
            values = _legacy(top[name])
            if "transpose" not in name:
                yield from _layer(values, epsilons.get(name, EPSILON))
        return
    group = next((file[name] for name in GROUPS if name in file), None)
    if group is None:
        return
    for name, epsilon in _in_order(group, config):
        if name in group and "vars" in group[name]:
            variables = group[name]["vars"]
            yield from _layer(_numbered([variables[key][()] for key in sorted(variables)]), epsilon)


def _in_order(group: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names of convolutions and normalisations with an epsilon: by the model's description, or
    without one in turns, each kind by its numbers."""
    seen: Counter[str] = Counter()
    described = list(_described(config))
    for kind, _, epsilon in described:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower().replace("conv2_d", "conv2d")
        if kind in (CONVOLUTION, NORM):
            yield (f"{snake}_{seen[kind]}" if seen[kind] else snake), epsilon
        seen[kind] += 1
    if not described:
        for at in range(len(group)):
            for kind in ("conv2d", "batch_normalization"):
                yield (f"{kind}_{at}" if at else kind), EPSILON


def _described(config: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Class, name and epsilon of each layer of a model's description."""
    layers = config.get("config", {})
    for layer in layers.get("layers", ()) if isinstance(layers, dict) else layers:
        values = layer.get("config", {})
        name = layer.get("name") or values.get("name", "")
        yield layer["class_name"], name, float(values.get("epsilon", EPSILON))


def _legacy(group: Any) -> dict[str, Array]:
    """Values of a layer by name: "dense/kernel:0" is kernel."""
    names = [_text(name) for name in group.attrs.get("weight_names", ())]
    return {name.rpartition("/")[2].partition(":")[0]: group[name][()] for name in names}


def _numbered(values: Sequence[Array]) -> dict[str, Array]:
    """Values of a layer by name, of their order."""
    if values and values[0].ndim == 4:
        return dict(zip(("kernel", "bias"), values, strict=False))
    if len(values) == 4:
        return dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), values, strict=True))
    return {}


def _layer(values: Mapping[str, Array], epsilon: float) -> Iterator[ConvValues | NormValues]:
    kernel = values.get("kernel")
    if kernel is not None and kernel.shape[:2] == (3, 3) and kernel.ndim == 4:
        yield ConvValues(kernel.transpose(3, 2, 0, 1), values.get("bias"))  # from HWIO
    elif "moving_mean" in values:
        mean, variance = values["moving_mean"], values["moving_variance"]
        gamma = values.get("gamma", np.ones_like(mean))
        beta = values.get("beta", np.zeros_like(mean))
        yield NormValues(gamma, beta, mean, variance, epsilon)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
