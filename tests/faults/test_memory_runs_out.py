"""No memory for a whole frame, for real: the job goes on with half the tile."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.model.graph.faster import speed_up
from engine.model.graph.memory import activation_bytes
from engine.runtimes.onnxruntime import ARENA, CHANNEL_GROUP
from tests import networks
from tests.engine import jobs
from tests.faults.harness import Campaign, Job, slow

SIDE = 2000


@pytest.mark.parametrize("kind", ["RLIMIT_AS", slow("RLIMIT_DATA")])
def test_a_frame_that_finds_no_memory_goes_in_tiles(tmp_path: Path, kind: str) -> None:
    network = networks.unet((8, 12), seed=1, positive=False)
    model = networks.save(tmp_path / "m.onnx", network, networks.spec(network, name="threshold"))
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((1, SIDE, SIDE)))
    job = Job((stack,), model, ("--workers", "1"), layout={})
    whole = Campaign(job, tmp_path / "whole")
    whole.complete()
    speed_up(network)
    need = activation_bytes(network, SIDE, SIDE, CHANNEL_GROUP) * ARENA.value
    one = Campaign(job, tmp_path / "out")
    # Too little for the whole, of which runtimes take 0.8 to 1.0, and enough for a quarter of it.
    # Set when the first task begins: a plan that saw the limit would choose tiles by itself.
    limited = one.run(limit={"kind": kind, "extra": int(need * 0.55)})
    assert limited.popen.returncode == 0, limited.err
    assert "out of memory; continuing with tiles of" in limited.err
    assert jobs.contents(one.output) == jobs.contents(whole.output)
    assert 0 < tile(one.output) <= SIDE // 2 + 64  # it was told a tile that is smaller
    assert tile(whole.output) is None


def tile(output: Path) -> int | None:
    """What the one block of frames took."""
    rows = pq.read_table(output / "timings.parquet").to_pylist()
    (found,) = [row["tile"] for row in rows if row["step"] == "segment"]
    return found
