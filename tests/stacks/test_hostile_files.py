"""Hostile and mutated files, each in a child process with limits of time and memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import imagecodecs
import pytest
import tifffile

from benchmarks import odd_files
from tests.stacks import hostile
from tests.stacks.frames import ramp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")

# Odd, but decodable: tifffile finds an image in them, and so do we.
READ = {
    "plain.tif", "big.tif", "count-zero.tif", "count-huge.tif", "count-short.tif", "rows-zero.tif",
    "rows-huge.tif", "samples-zero.tif", "no-counts.tif", "overlaps-header.tif", "tag-of-4-gb.tif",
    "tag-of-4-gb-longs.tif", "big-counts-max.tif", "big-tag.tif", "sub-loop.tif",
    "sub-a-million.tif", "many-strips.tif", "jpeg2000.tif", "ome-entity.tif",
    "ome-entity-file.tif", "ome-deep.tif", "ome-first.tif", "ome-negative.tif", "ome-zero.tif",
    "ome-images.tif", "shaped-negative.tif",
}  # fmt: skip


def test_hostile_files_are_read_or_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    rows = odd_files.survey(hostile.write_all(tmp_path))
    assert not [row for row in rows if row["result"] not in odd_files.GOOD]
    # Which of the decodable ones tifffile decodes changes with its version: none may be refused.
    refused = {Path(row["path"]).name for row in rows if row["result"] == "refused"}
    assert not refused & {"plain.tif", "big.tif", "many-strips.tif", "jpeg2000.tif"}
    assert len(READ & refused) < 5
    assert len(rows) == len(hostile.FILES)


def seeds(folder: Path) -> list[bytes]:
    """Small files of every kind that is read."""
    pixels, color = ramp((3, 16, 20)), ramp((16, 20, 3), "uint8")
    made = []
    for i, options in enumerate(
        (
            {},
            {"compression": "lzw"},
            {"compression": "zlib", "tile": (16, 16)},
            {"bigtiff": True, "compression": "packbits", "byteorder": ">"},
            {"ome": True, "metadata": {"axes": "CYX"}},
            {"imagej": True},
            {"compression": "zstd", "predictor": True},
        )
    ):
        tifffile.imwrite(folder / f"{i}", pixels, photometric="minisblack", **options)
        made.append((folder / f"{i}").read_bytes())
    for compression in ("jpeg", "jpeg2000", "png"):
        tifffile.imwrite(folder / compression, color, photometric="rgb", compression=compression)
        made.append((folder / compression).read_bytes())
    coded = [imagecodecs.png_encode(color), imagecodecs.jpeg_encode(color)]
    return made + [bytes(data) for data in coded]


def mutants(folder: Path, n: int, seed: int) -> list[Path]:
    (folder / "seeds").mkdir(parents=True)
    paths = []
    for i, data in enumerate(hostile.mutations(seeds(folder / "seeds"), n, seed)):
        paths.append(folder / f"{i}.bin")
        paths[-1].write_bytes(data)
    return paths


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    rows = odd_files.survey(mutants(tmp_path, 250, seed=1))
    assert not [row for row in rows if row["result"] not in odd_files.GOOD]
