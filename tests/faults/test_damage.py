"""Five of 200 frames damaged in five ways: each costs itself, and can be mended."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.faults.harness import Campaign, Job, assert_nothing_left

N = 200
LAYOUT = {"engine.geometry.layout.BLOCK_PIXELS": 20 * 40 * 48}  # ten blocks
DAMAGED = {17: "truncated", 42: "other shape", 99: "NaN", 100: "infinite", 180: "garbage"}


def damage(path: Path, how: str) -> None:
    good = tifffile.imread(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "other shape":
        tifffile.imwrite(path, good[:, :-5])
    elif how == "NaN":
        good[3, 4] = np.nan
        tifffile.imwrite(path, good)
    elif how == "infinite":
        tifffile.imwrite(path, np.full_like(good, np.inf))
    else:
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The same 200 files, twice: good ones, and with five of them damaged."""
    good, bad = tmp_path / "good/frames", tmp_path / "bad/frames"
    good.mkdir(parents=True)
    for t, frame in enumerate(jobs.blobs((N, 40, 48)).astype(np.float32)):
        tifffile.imwrite(good / f"f{t}.tif", frame)
    shutil.copytree(good, bad)
    for t, how in DAMAGED.items():
        damage(bad / f"f{t}.tif", how)
    return good, bad


def made(output: Path) -> dict[str, bytes]:
    """Labels, measures, records and tables: all but what names the input's files."""
    found = jobs.contents(output)
    found.pop(".stackseg/identity.json")
    return found


def test_five_of_two_hundred_cost_themselves_and_are_mended(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    good, bad = folders
    model = make_threshold_model(tmp_path / "model.onnx")
    whole = Campaign(Job((good,), model, layout=LAYOUT), tmp_path / "whole")
    whole.complete()
    one = Campaign(Job((bad,), model, layout=LAYOUT), tmp_path / "out")
    first = one.run()
    assert first.popen.returncode == 1
    assert f"5 of {N} frames were set aside" in first.err

    failed = json.loads((one.output / "failures.json").read_bytes())["frames"]
    assert {f["t"] for f in failed} == DAMAGED.keys()
    assert all(f["reason"] for f in failed)
    found, wanted = labels_of(one.output, "frames"), labels_of(whole.output, "frames")
    others = [t for t in range(N) if t not in DAMAGED]
    assert len(others) == 195
    assert np.array_equal(found[others], wanted[others]) and wanted.any(axis=(1, 2)).all()
    assert not found[list(DAMAGED)].any()
    with (one.output / "frames.csv").open() as file:
        status = {int(row["t"]): row["status"] for row in csv.DictReader(file)}
    assert {t for t, s in status.items() if s == "failed"} == DAMAGED.keys()
    assert len(status) == N and set(status.values()) == {"ok", "failed"}
    assert one.run().popen.returncode == 1  # a script that looks at the status is told again

    # Another file has changed as well: it is named, and nothing is touched.
    kept = (bad / "f60.tif").read_bytes()
    stamp = (bad / "f60.tif").stat()
    before = jobs.contents(one.output)
    tifffile.imwrite(bad / "f60.tif", tifffile.imread(bad / "f61.tif"))
    refused = one.run("--retry-failed")
    assert refused.popen.returncode == 2
    assert "frame t=60 z=0 has changed" in refused.err.splitlines()[-1]
    assert jobs.contents(one.output) == before
    (bad / "f60.tif").write_bytes(kept)
    os.utime(bad / "f60.tif", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    for t in DAMAGED:
        shutil.copyfile(good / f"f{t}.tif", bad / f"f{t}.tif")
    assert (
        "the files of the input have changed" in one.run().err
    )  # without the option, another input is refused
    one.log.unlink()
    mended = one.start("--retry-failed")  # records of these frames' blocks are written anew
    assert mended.wait() == 0, mended.err
    read = {int(t) for _, stack, t, _ in one.noted("read") if stack == "frames"}
    assert read == DAMAGED.keys()
    assert made(one.output) == made(whole.output)
    assert_nothing_left(one.output)
