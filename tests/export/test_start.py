"""Training that starts from an exported model starts with the network that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UsageError
from export.onnx import export_run
from tests.export.networks import settings_of, trained, write_run
from train.networks import build_network
from train.start import check_start, start_from

NETWORKS: dict[str, dict[str, Any]] = {
    "batch normalisation": {},
    "and biases": {"conv_bias": True, "head_kernel": 3},
    "no normalisation": {"norm": "none", "dropout": 0.5},
    "half resolution": {"shuffle": 2},
    "resnet18": {"arch": "unet-resnet18", "channels": (4, 4, 4, 8, 8)},
    "bilinear": {"up": "bilinear"},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_an_exported_model_is_what_training_starts_from(
    options: dict[str, Any], tmp_path: Path
) -> None:
    write_run(tmp_path / "run", **options)
    export_run(tmp_path / "run", tmp_path / "m.onnx")
    settings = settings_of(init=str(tmp_path / "m.onnx"), instances="none", **options)
    check_start(settings)
    args, image = settings.network(1, 1), torch.rand(3, 1, 64, 96)
    torch.manual_seed(1)
    network = build_network(args)
    start_from(network, args, settings, image)
    with torch.inference_mode():
        found, wanted = network.eval()(image), trained(**options)(image)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_network_with_other_options_is_not_started_from(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "m.onnx")
    for options in ({"head_kernel": 3}, {"up": "bilinear"}, {"shuffle": 2}):
        settings = settings_of(init=str(tmp_path / "m.onnx"), instances="none", **options)
        args = settings.network(1, 1)
        with pytest.raises(UsageError, match="its network differs from this run's"):
            start_from(build_network(args), args, settings, torch.rand(1, 1, 16, 16))
        with pytest.raises(UsageError, match="its network differs from this run's"):
            check_start(settings)
