"""What an earlier job kept of a block, read against its records: what is labelled anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import JobStopped
from engine.geometry.arrays import IMAGE, PROBABILITY, ResultArray
from engine.geometry.layout import Block
from engine.inference.probability import from_8_bit
from engine.plan.plan import StackPlan
from engine.store.committed import record_place
from engine.store.folder import JobFolder, read_checked
from engine.store.ome_zarr import decode_shard


class StoredBlock:
    """Probabilities of a block, its raw pixels where these were kept, and rows of its frames."""

    def __init__(self, plan: StackPlan, block: Block) -> None:
        """Raises JobStopped where anything is not what the earlier job recorded."""
        self._block = block
        folder = JobFolder(Path(plan.source))
        place = record_place(folder, plan.name, block.index)
        record = folder.read_json(place)
        if record is None:
            raise _damaged(place, "is gone or cannot be read")
        self._shards = {
            array.kind: _read(folder, plan, block, record, array)
            for array in plan.kept
            if array.kind in (PROBABILITY, IMAGE)
        }
        rows = record.get("frames")
        if (
            rows is None
        ):  # of cut frames, and of planes that connect, their stitch group has the rows
            stitch_group = plan.layout.stitch_group(plan.layout.stitch_group_of(block.index))
            place = folder.place("stitched", plan.name, stitch_group.index)
            rows = (folder.read_json(place) or {}).get("frames")
        if rows is None:
            raise _damaged(place, "is gone or cannot be read")
        self._rows = {(row["t"], row["z"]): row for row in rows}

    def row(self, t: int, z: int) -> dict[str, Any]:
        """What is on record of a frame."""
        row: dict[str, Any] = self._rows[t, z]
        return row

    def failure(self, t: int, z: int) -> str:
        """Why a frame was set aside; "" where it was not."""
        row = self.row(t, z)
        return str(row["reason"]) if row["status"] == "failed" else ""

    def probability(self, t: int, z: int) -> NDArray[np.float32]:
        """Probabilities of the block's part of a frame, (K, Y, X)."""
        found = from_8_bit(self._part(PROBABILITY, t, z))
        return found if found.ndim == 3 else found[None]

    def pixels(self, t: int, z: int) -> NDArray[Any] | None:
        """Raw pixels of the block's part of a frame, (C, Y, X); None where they were not kept."""
        if IMAGE not in self._shards:
            return None
        found = self._part(IMAGE, t, z)
        return found if found.ndim == 3 else found[None]

    def _part(self, kind: str, t: int, z: int) -> NDArray[Any]:
        block, shard = self._block, self._shards[kind]
        plane: NDArray[Any] = shard[t - block.t[0]]
        plane = plane[:, z - block.z[0]] if shard.ndim == 5 else plane[z - block.z[0]]
        return plane[..., : block.y.size, : block.x.size]


def _read(
    folder: JobFolder, plan: StackPlan, block: Block, record: dict[str, Any], array: ResultArray
) -> NDArray[Any]:
    path = folder.store(plan.name) / array.key(plan.layout, block)
    try:
        return decode_shard(
            array.shape(plan.layout), read_checked(path, record.get(array.checksum))
        )
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise _damaged(path, "is not what was recorded") from error


def _damaged(path: Path, what: str) -> JobStopped:
    return JobStopped(
        f"{path}: {what}; remove it if it is there, have it made again by the `stackseg segment` "
        "that made this result, and run the same command again"
    )
