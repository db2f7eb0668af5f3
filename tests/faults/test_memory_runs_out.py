"""No memory for a whole frame, for real: the job goes on with half the tile."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.graph.memory import activation_bytes
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
    need = activation_bytes(network, SIDE, SIDE)
    one = Campaign(job, tmp_path / "out")
    # Set when the first task begins: a plan that saw the limit would choose tiles by itself.
    limited = one.run(limit={"kind": kind, "extra": int(need * 0.8)})
    assert limited.popen.returncode == 0, limited.err
    assert "out of memory; going on with tiles of" in limited.err
    assert jobs.contents(one.output) == jobs.contents(whole.output)
    tiles = [row["tile"] for row in pq.read_table(one.output / "timings.parquet").to_pylist()]
    assert 0 < tiles[0] <= SIDE // 2 + 64  # the first was told a tile that is smaller
    assert pq.read_table(whole.output / "timings.parquet")["tile"].to_pylist() == [None]
