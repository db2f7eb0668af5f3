"""The frames of a block or stitch group: labels, rows and objects must tell the same."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.results.verify.parts import PartRows, Rows
from engine.results.verify.pieces import Pieces, merged
from engine.results.verify.problems import Problem
from engine.results.verify.shards import SeenBlock
from engine.results.verify.view import Frame, Group, StackView

_CLOSE = 1e-6  # px; centres are quotients of sums taken in another order


class GroupCheck:
    """Takes the blocks of a group in order, and holds each frame against what is recorded."""

    def __init__(self, view: StackView, group: Group, record: dict[str, Any] | None) -> None:
        self.problems: list[Problem] = []
        self.is_known = True  # rows and objects are as recorded: tables are held against them
        self._view, self._group = view, group
        self._rows = self._checked_rows(record)
        self._row_of = dict(zip(group.frames, self._rows or (), strict=False))
        self._part = self._open_part(record) if self._rows is not None else None
        regions = view.layout.grid[2] * view.layout.grid[3]
        self._left = dict.fromkeys(group.frames, regions)
        self._gathered: dict[Frame, list[Pieces]] = {}
        self._is_whole = True  # no block is missing
        self._count = 0  # ids in the scope so far
        self._taken = 0  # rows of the part
        self._scopes = 0  # ids of all scopes that are complete
        self._scope: int | None = None  # time point that the ids of a connected volume count in
        self._recorded = (record or {}).get("objects")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the group's frames; none where the record is damaged."""
        return self._rows or []

    @property
    def recorded_objects(self) -> int:
        """How many objects the record counts."""
        if isinstance(self._recorded, int):
            return self._recorded
        return sum(row.get("objects") or 0 for row in self.rows)

    def add(self, seen: SeenBlock) -> None:
        """Add a block; frames of which it is the last part are checked."""
        if seen.planes is None:
            self._is_whole = False
            return
        for frame, pieces in seen.planes.items():
            self._gathered.setdefault(frame, []).append(pieces)
            self._left[frame] -= 1
            if not self._left[frame]:
                found = merged(self._gathered.pop(frame))
                if self._rows is not None:
                    self._check(frame, found)

    def close(self) -> None:
        """After the last block: what only the whole group tells."""
        if self._part is not None:
            total = self._part.total
            self._part.close()
            if self._is_whole and self._taken != total:
                self._tell(
                    "objects", self._group.part,
                    f"{total - self._taken} of its {total} objects belong to none of its frames",
                )  # fmt: skip
        ids = self._scopes + self._count
        if self._rows is not None and self._is_whole and self._recorded not in (None, ids):
            self._tell(
                "record", self._group.record,
                f"the record counts {self._recorded} objects, and its labels are {ids}",
            )  # fmt: skip

    # -- the record and the part --------------------------------------------------------------

    def _checked_rows(self, record: dict[str, Any] | None) -> list[dict[str, Any]] | None:
        if record is None:
            self.is_known = False
            return None
        rows = record.get("frames")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            rows = []
        wanted = list(self._group.frames)
        is_right = [(row.get("t"), row.get("z")) for row in rows] == wanted and all(
            row.get("status") == "ok"
            or (row.get("status") == "failed" and isinstance(row.get("reason"), str))
            for row in rows
        )
        counts = [row.get(name) for row in rows for name in ("objects", "missing_chunks")]
        is_right = is_right and all(n is None or isinstance(n, int) for n in counts)
        if not is_right:
            self._tell(
                "record", self._group.record, "the record's rows are not those of its frames"
            )
            self.is_known = False
            return None
        return rows

    def _open_part(self, record: dict[str, Any] | None) -> PartRows | None:
        path = self._group.part
        what = ""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == (record or {}).get("objects_sha256"):
                return PartRows(path, self._view.layout)
            what = "the objects are not those of the record: their SHA-256 differs"
        except FileNotFoundError:
            what = "the objects are gone"
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            what = f"the objects cannot be read ({str(error).partition(chr(10))[0]})"
        self._tell("objects", path, what)
        self.is_known = False
        return None

    def _tell(self, kind: str, path: Path, what: str, where: str = "") -> None:
        view, group = self._view, self._group
        self.problems.append(
            Problem(kind, view.relative(path), what, where or group.where, view.name, group.index)
        )

    # -- frames -------------------------------------------------------------------------------

    def _check(self, frame: Frame, found: Pieces) -> None:
        view = self._view
        row = self._row_of[frame]
        if not view.layout.connect_z or frame[0] != self._scope:
            self._scopes, self._count, self._scope = self._scopes + self._count, 0, frame[0]
        objects = None
        try:
            if self._part is not None:
                objects = self._part.take(*frame)
                self._taken += len(objects["frame"])
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            self._part, self.is_known = None, False
            first = str(error).partition("\n")[0]
            self._tell("objects", self._group.part, f"the objects cannot be read ({first})")
        if row["status"] == "failed":
            differs = self._failed(found, objects)
        elif view.gives_instances:
            differs = self._instances(found, row, objects)
        else:
            differs = self._classes(found, row)
        layout = view.layout
        path = view.store / view.labels.path()
        if not layout.is_cut:
            path = view.shard(layout.block(self._block_of(frame)))
        for what in differs:
            self._tell("labels", path, what, view.of_frame(*frame))

    def _block_of(self, frame: Frame) -> int:
        layout = self._view.layout
        t, z = frame[0] - layout.t0, frame[1] - layout.z0
        return layout.number((t // layout.block_size[0], z // layout.block_size[1], 0, 0))

    def _failed(self, found: Pieces, objects: Rows | None) -> list[str]:
        differs = []
        if (found.label > 0).any():
            differs.append("the frame was set aside, and its labels are not all 0")
        if objects is not None and len(objects["label"]):
            part = self._view.relative(self._group.part)
            differs.append(f"the frame was set aside, and {part} tells objects of it")
        return differs

    def _instances(self, found: Pieces, row: dict[str, Any], objects: Rows | None) -> list[str]:
        differs = self._ids(found)
        if row.get("objects") != len(found.label):
            differs.append(
                f"has {len(found.label)} objects, and its row in the record {row.get('objects')}"
            )
        if objects is not None:
            part = self._view.relative(self._group.part)
            differs += [f"{what}, as {part} tells them" for what in _compared(found, objects)]
        height, width = self._view.layout.sizes[2:]
        told = {"foreground_fraction": float(found.area.sum()) / (height * width)}
        if len(found.area):
            quartiles = np.percentile(found.area, (50, 25, 75))
            values = (found.area.mean(), *quartiles)
            names = ("mean", "median", "q25", "q75")
            told |= {f"area_{n}_px": float(v) for n, v in zip(names, values, strict=True)}
        return differs + _wrong_values(row, told)

    def _ids(self, found: Pieces) -> list[str]:
        """Ids of a scope are 1, 2, 3, ... in raster order of the objects' first pixels."""
        new = found.label > self._count
        label = found.label[new][np.argsort(found.first[new])]
        first = self._count + 1
        expected = np.arange(first, first + len(label))
        if (found.label < 0).any():
            return ["holds ids beyond any count"]
        differs = []
        if self._is_whole and not np.array_equal(label, expected):
            at = int(np.flatnonzero(label != expected)[0])
            differs.append(
                f"its ids do not count up in raster order: {label[at]} stands where "
                f"{expected[at]} should"
            )
        self._count = max(self._count, int(found.label.max(initial=0)))
        return differs

    def _classes(self, found: Pieces, row: dict[str, Any]) -> list[str]:
        pixels = math.prod(self._view.layout.sizes[2:])
        names = [name for name in row if name.startswith("fraction_")]
        if beyond := found.label[found.label >= len(names)].tolist():
            return [f"holds the class {beyond[0]}, and the model has {len(names)} classes"]
        counts = dict(zip(found.label.tolist(), found.area.tolist(), strict=True))
        told = {name: counts.get(value, 0) / pixels for value, name in enumerate(names)}
        told["foreground_fraction"] = (pixels - counts.get(0, 0)) / pixels
        return _wrong_values(row, told)


def _compared(found: Pieces, objects: Rows) -> list[str]:
    """What differs between labels and objects of a frame."""
    label = objects["label"].astype(np.int64)
    if not np.array_equal(label, found.label):
        lost, extra = np.setdiff1d(label, found.label), np.setdiff1d(found.label, label)
        if not len(lost) and not len(extra):
            return ["objects are not in order of their ids"]
        parts = [f"objects {_listed(lost)} are not there"] if len(lost) else []
        parts += [f"there are objects {_listed(extra)} more"] if len(extra) else []
        return [" and ".join(parts)]
    wrong = found.area != objects["area_px"]
    if wrong.any():
        return [f"objects {_listed(label[wrong])} have not the area"]
    y = np.abs(found.sum_y / found.area - objects["centroid_y_px"])
    x = np.abs(found.sum_x / found.area - objects["centroid_x_px"])
    moved = ~(np.maximum(x, y) <= _CLOSE)  # NaN is nowhere
    if moved.any():
        return [f"objects {_listed(label[moved])} are not at the place"]
    return []


def _wrong_values(row: dict[str, Any], told: dict[str, float]) -> list[str]:
    """Values of a row that are not what the labels give."""
    differs = []
    for name, value in told.items():
        known = row.get(name)
        if not isinstance(known, int | float) or not math.isclose(known, value, rel_tol=1e-9):
            differs.append(f"{name} is {value:.6g}, and its row in the record tells {known}")
    return differs


def _listed(labels: NDArray[np.int64]) -> str:
    """Ids in words, the first few."""
    few = ", ".join(map(str, labels[:5].tolist()))
    return few if len(labels) <= 5 else f"{few} and {len(labels) - 5} more"
