"""Real frames in four containers give the same labels four times over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from engine.job.job import run_job
from engine.results.score.metrics import Score, score
from tests.engine import jobs

pytestmark = pytest.mark.realdata


def test_identical_labels_four_times_over(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "hela/01"
    n = 6  # frames; all 92 take minutes
    frames = np.stack([tifffile.imread(folder / f"t{t:03d}.tif") for t in range(n)])
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, frames.shape, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", frames, compression="lzw")
    rgb = np.stack([noise, frames, noise[::-1]], axis=-1)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    write_ome_zarr(tmp_path / "image.zarr", frames)
    inputs: list[tuple[Path, dict[str, Any]]] = [
        (folder, {"frames": (0, n)}),
        (tmp_path / "pages.tif", {}),
        (tmp_path / "rgb.tif", {"channel": "1"}),
        (tmp_path / "image.zarr", {}),
    ]
    found = []
    for i, (path, options) in enumerate(inputs):
        output = tmp_path / f"out{i}"
        summary = run_job(jobs.settings(path, Path("nuclei"), output, **options))
        assert summary.exit_status == 0
        (store,) = output.glob("*.zarr")
        found.append(zarr.open_array(store / "labels/nuclei/0", mode="r")[...])
    assert found[0].shape == frames.shape and 20 < found[0][0].max() < 200  # type: ignore
    truths = [tifffile.imread(realdata / f"hela/01_ST/SEG/man_seg{t:03d}.tif") for t in (0, 4)]
    pooled = sum(
        (score(found[0][t], truth, 25) for t, truth in zip((0, 4), truths, strict=True)),
        start=Score(),
    )
    assert pooled.iou >= 0.8  # the bundled model's floor
    for other in found[1:]:
        assert np.array_equal(other, found[0])


def write_ome_zarr(path: Path, frames: np.ndarray) -> None:
    group = zarr.create_group(path)
    group.create_array("0", data=frames, chunks=(1, 256, 256))
    axes = [{"name": "t", "type": "time"}, *({"name": a, "type": "space"} for a in "yx")]
    transform = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": transform}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }
