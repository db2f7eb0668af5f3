"""Every network from its checkpoint to labels on disk: what PyTorch finds, the engine finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner

from engine.cli import stackseg
from engine.model.file import open_model
from engine.model.statistics import frame_statistics
from engine.synthetic import TimeLapse
from export.onnx import export_run
from tests.engine import jobs
from tests.export.networks import trained, write_run
from tests.faults.harness import slow
from train.networks.normalise import normalise
from train.presets import PRESETS

SMALL: dict[str, dict[str, Any]] = {
    "one level": {"channels": (4,)},
    "like the notebook's": {"channels": (4, 8, 16), "conv_bias": True, "head_kernel": 3},
    "like the paper's": {"channels": (4, 8, 16), "norm": "none", "dropout": 0.5},
    "half resolution": {"channels": (4, 8), "shuffle": 2},
    "quarter": {"channels": (8, 16), "shuffle": 4, "norm": "none"},
    "resnet18": {"arch": "unet-resnet18", "channels": (4, 4, 4, 8, 8)},
    "bilinear": {"channels": (4, 8, 16), "up": "bilinear"},
}
FULL: dict[str, dict[str, Any]] = {
    **{name: dict(options) for name, options in PRESETS.items()},
    "unet-resnet18": {"arch": "unet-resnet18", "channels": (16, 32, 64, 128, 256)},
    "nuclei at half resolution": {"channels": (16, 32, 64, 128), "shuffle": 2},
}


@pytest.mark.parametrize("options", [*SMALL.values(), *map(slow, FULL.values())],
                         ids=[*SMALL, *FULL])  # fmt: skip
def test_a_network_segments_as_it_does_in_pytorch(options: dict[str, Any], tmp_path: Path) -> None:
    """Whole frames and tiles, of odd height and even width; but for pixels at the threshold."""
    write_run(tmp_path / "run", **options)
    spec = export_run(tmp_path / "run", tmp_path / "m.onnx")  # equal to 1e-4, or it raises
    assert spec.receptive_radius is not None
    side = 2 * -(-spec.receptive_radius // spec.stride) * spec.stride + 64
    frames = TimeLapse(shape=(2, 133, side + 90), seed=3, density=2000)  # several tiles wide
    stack = np.stack([frames.frame(t)[0] for t in range(2)])
    jobs.write_stack(tmp_path / "stack.tif", stack)

    statistics = np.stack([frame_statistics(frame[None], spec.normalisation) for frame in stack])
    image = torch.from_numpy(stack[:, None].astype(np.float32))
    with torch.inference_mode():
        logits = trained(**options)(normalise(image, torch.from_numpy(statistics)))
    probability = torch.sigmoid(logits)[:, 0].numpy()
    threshold = round(float(np.quantile(probability, 0.6)), 4)
    clear = np.abs(probability - threshold) > 1e-5
    assert clear.mean() > 0.5

    for tile in ("auto", str(side)):
        output = tmp_path / tile
        arguments = ["segment", str(tmp_path / "stack.tif"), "--model", str(tmp_path / "m.onnx")]
        arguments += ["--output", str(output), "--threshold", str(threshold), "--min-area", "0"]
        arguments += ["--tile", tile, "--device", "cpu", "--workers", "1"]
        result = CliRunner().invoke(stackseg, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        labels = zarr.open_array(output / "stack.zarr/labels/m/0", mode="r")[...]
        assert np.array_equal((labels > 0)[clear], (probability >= threshold)[clear])
    assert open_model(str(tmp_path / "m.onnx")).spec.stride == trained(**options).stride
