"""Where training starts: fresh weights, an earlier run, or an exported model.

An exported model holds no batch normalisation: it was folded into the convolutions. Each one is
set up again so that the network gives what the model gives, and can go on learning:

    folded       y = W x + b
    unfolded     y = gamma (W x - mean) / sqrt(var + eps) + beta    gamma = sqrt(var + eps)
                 mean, var: of W x over real patches                beta  = mean + b
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine.errors import ModelError, UsageError
from engine.model.file import ModelFile, find_model, open_model
from train.checkpoint import load_checkpoint
from train.networks import Network, NetworkArgs, build_network
from train.settings import TrainSettings

IN_WORDS = {"n_in": "channels of the images", "n_out": "outputs"}  # of fields of NetworkArgs


def start_from(
    network: Network, args: NetworkArgs, settings: TrainSettings, patches: Tensor
) -> str:
    """Load the weights that `settings.init` names; returns where they are from, in words.

    `patches`, normalised and of shape (N, C, Y, X), are what batch statistics are taken of where
    a model is unfolded. UsageError where the earlier network has another architecture.
    """
    assert settings.init is not None
    if Path(settings.init).is_dir():
        network.load_state_dict(_of_run(args, Path(settings.init)))
        return f"the best weights of {settings.init}"
    model = _model(settings)
    _take(network, _of_model(network, args, model.path), patches)
    return f"the weights of the model {model.spec.name}"


def check_start(settings: TrainSettings) -> None:
    """UsageError where `start_from` would end in one, whatever channels the images have."""
    assert settings.init is not None
    if Path(settings.init).is_dir():
        earlier = Path(settings.init)
        theirs = load_checkpoint(earlier / "best.pt").network
        _of_run(settings.network(theirs.n_in, settings.n_outputs), earlier)
        return
    model = _model(settings)
    args = settings.network(len(model.spec.channels), settings.n_outputs)
    with torch.device("meta"):  # shapes without values
        network = build_network(args)
    _of_model(network, args, model.path)


def source_hashes(settings: TrainSettings) -> dict[str, str]:
    """SHA-256 of the weights that a run starts from or learns from, by setting."""
    hashes = {}
    if settings.init is not None:
        hashes["init"] = start_hash(settings.init)
    if settings.teachers:
        hashes["teachers"] = teachers_hash(settings.teachers)
    return hashes


def teachers_hash(folders: tuple[str, ...]) -> str:
    """SHA-256 of the weights of all of them; "" of none."""
    if not folders:
        return ""
    return hashlib.sha256("".join(map(start_hash, folders)).encode()).hexdigest()


def start_hash(init: str) -> str:
    """SHA-256 of the file whose weights are started from."""
    path = Path(init) / "best.pt" if Path(init).is_dir() else find_model(init)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise ModelError(f"{path}: cannot be read; give the folder of a training run") from None


def _model(settings: TrainSettings) -> ModelFile:
    """The model that is started from; UsageError where it is none that can be."""
    assert settings.init is not None
    if settings.init.endswith(".pt"):
        raise UsageError(f"--init {settings.init}: is a checkpoint; give the folder of its run")
    model = open_model(settings.init)
    if model.spec.normalisation != settings.normalisation:
        raise UsageError(
            f"{settings.init}: was trained on pixels that were normalised in another way "
            f"({model.spec.normalisation}), so its weights are of no use here"
        )
    return model


def _of_run(args: NetworkArgs, earlier: Path) -> dict[str, Tensor]:
    """The best weights of a run; UsageError where its network is another."""
    checkpoint = load_checkpoint(earlier / "best.pt")
    if checkpoint.network != args:
        theirs, ours = checkpoint.network.as_json(), args.as_json()
        words = [
            f"{IN_WORDS.get(name, name)} {theirs[name]}, here {ours[name]}"
            for name in ours
            if theirs[name] != ours[name]
        ]
        raise UsageError(
            f"{earlier}: its network differs from this run's ({'; '.join(words)}); --init needs "
            f"the same network: {earlier / 'settings.json'} has what it was trained with"
        )
    return dict(checkpoint.weights)


def _of_model(network: Network, args: NetworkArgs, path: Path) -> dict[str, Tensor]:
    """The weights of a model by name; UsageError where its network is another."""
    graph = onnx.load(path).graph
    weights = {
        tensor.name.removeprefix("network."): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in graph.initializer
    }
    # The other activation, relu6, is exported as Clip.
    activation = "relu" if any(node.op_type == "Relu" for node in graph.node) else "relu6"
    if activation != args.activation:
        raise UsageError(
            f"{path}: its network has {activation} and this run's {args.activation}; "
            f"give --activation {activation}"
        )
    for name, parameter in _learnt(network).items():
        if name not in weights or weights[name].shape != parameter.shape:
            raise UsageError(
                f"{path}: its network differs from this run's ({name}); give the "
                "--arch, --preset and --channels that it was trained with"
            )
    return weights


def _learnt(network: Network) -> dict[str, nn.Parameter]:
    """Parameters that an exported model has too, by name: all but those of normalisations."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if not isinstance(network.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d)
    }


@torch.no_grad()
def _take(network: Network, weights: Mapping[str, Tensor], patches: Tensor) -> None:
    """Give a network a model's weights, and normalisations that do nothing on `patches`."""
    for name, parameter in _learnt(network).items():
        parameter.copy_(weights[name])
    network.eval()
    hooks = [
        # A bias that the convolution keeps has been copied to it already.
        _unfold(norm, 0 * bias if convolution.bias is not None else bias)
        for name, block in network.named_modules()
        for (at, convolution), (_, norm) in pairwise(block.named_children())
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        for bias in [weights[f"{name}.{at}.bias"]]
    ]
    network(patches)  # from the first to the last, so that each sees what those before it give
    for hook in hooks:
        hook.remove()


def _unfold(norm: nn.BatchNorm2d, bias: Tensor) -> RemovableHandle:
    """Have a normalisation set itself up on what first comes to it."""

    def set_up(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.weight.copy_(torch.sqrt(var + norm.eps))
        norm.bias.copy_(mean + bias)

    return norm.register_forward_pre_hook(set_up)
