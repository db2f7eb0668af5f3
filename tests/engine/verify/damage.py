"""Jobs to be damaged, and what `verify` says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.geometry import layout
from engine.job.job import run_job
from engine.results.verify.run import verify_job
from engine.results.verify.stack import job_stack
from engine.store.committed import records_hash
from engine.store.folder import REPORT, JobFolder
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs

REGIONS = {"BLOCK_PIXELS": 2000, "REGION": 32, "GRAIN": 8}
BLOCKS = {"BLOCK_PIXELS": 3 * 40 * 50}
TABLES = (
    "frames.parquet", "frames.csv", "objects.parquet", "volumes.parquet", "volumes.csv",
    "timings.parquet", "failures.json",
)  # fmt: skip
KINDS = ("whole", "cut", "volume", "classes")


def class_model(path: Path) -> Path:
    network = networks.unet((4, 4), n_outputs=3, seed=16, positive=False)
    # With these biases at the end the three classes are about as frequent.
    bias = network.graph.initializer[-1]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([-0.069, -0.139, -0.088]), bias.name))
    spec = networks.spec(network, classes=("background", "left", "right"), name="threshold")
    return networks.save(path, network, spec)


def make_job(folder: Path, kind: str) -> Path:
    """A job's output; its inputs and its model are gone, and one frame was set aside."""
    shape = {"whole": (8, 40, 50), "cut": (3, 60, 70), "volume": (2, 5, 48, 50)}
    frames = jobs.blobs(shape.get(kind, (4, 60, 70)), seed=3).astype(np.float32)
    frames.reshape(-1, *frames.shape[-2:])[1, 20, 30] = np.nan
    axes = "TZYX" if kind == "volume" else "TYX"
    stack = jobs.write_stack(folder / "stack.tif", frames, axes=axes)
    make = class_model if kind == "classes" else make_threshold_model
    model = make(folder / "model.onnx")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (BLOCKS if kind == "whole" else REGIONS).items():
            patch.setattr(layout, name, value)
        changes = {"connect": "z"} if kind == "volume" else {}
        done = run_job(jobs.settings(stack, model, folder / "out", workers=1, **changes))
    assert done.frames_failed == 1
    assert (done.objects > 7) == (kind != "classes")
    stack.unlink()
    model.unlink()
    return folder / "out"


def damaged(job: Path, tmp_path: Path) -> Path:
    """A copy of a job, to be damaged."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(job, copy)


def text_of(output: Path) -> str:
    """The problems, one line each; there are some."""
    verdict = verify_job(output)
    assert verdict.exit_status == 1
    lines = [one["text"] for one in verdict.problems.to_list()]
    assert lines and all("\n" not in line for line in lines)
    return "\n".join(lines)


def shards(output: Path) -> list[Path]:
    array = output / "stack.zarr/labels/threshold/0/c"
    return sorted(path for path in array.rglob("*") if path.is_file())


def name(output: Path, path: Path) -> str:
    return path.relative_to(output).as_posix()


def write_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of a Parquet table."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def reseal(output: Path) -> None:
    """Have job.json fit the records as they are now: as if a job had written them so."""
    folder = JobFolder(output)
    identity, report = folder.identity(), folder.report()
    assert identity is not None and report is not None
    stacks = [job_stack(folder, name, stack) for name, stack in identity.stacks.items()]
    report = report.model_copy(update={"records_sha256": records_hash(folder, stacks)})
    folder.put_record(REPORT, report.model_copy(update={"sha256": report.checksum()}))
