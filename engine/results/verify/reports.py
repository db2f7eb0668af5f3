"""`job.json`, `failures.json` and the checksums of all that is written at the end of a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.job.report.files import KEYS
from engine.results.verify.problems import Problem, Problems
from engine.results.verify.view import StackView


@dataclass
class Totals:
    """What the records add up to."""

    frames: int = 0
    failed: int = 0
    objects: int = 0
    missing_chunks: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    pixels: dict[str, Any] = field(default_factory=dict)  # by stack: hash over those of its frames
    classes: list[str] | None = None  # names that rows of class maps have, None where none is seen

    def add(self, stack: str, row: dict[str, Any]) -> None:
        """Count a frame's row."""
        self.frames += 1
        self.missing_chunks += row.get("missing_chunks") or 0
        pixels = self.pixels.setdefault(stack, hashlib.sha256())
        pixels.update(str(row.get("sha256", "failed")).encode())
        if row["status"] == "failed":
            self.failed += 1
            where = {"stack": stack, "t": row["t"], "z": row["z"]}
            self.failures.append({**where, "reason": row["reason"]})
        elif self.classes is None:
            names = [name for name in row if name.startswith("fraction_")]
            self.classes = [name.removeprefix("fraction_") for name in names]


def read_ended(root: Path) -> tuple[dict[str, Any] | None, list[Problem]]:
    """`job.json` of a job that ended, and what is wrong with it; None where it cannot be used."""
    try:
        content = json.loads((root / "job.json").read_bytes())
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, RecursionError) as error:
        return None, [Problem("report", "job.json", f"cannot be read ({error})")]
    if not isinstance(content, dict) or not content.keys() >= KEYS:
        return None, [Problem("report", "job.json", "is not what a job writes at its end")]
    return content, []


def check_ended(
    ended: dict[str, Any], identity: dict[str, Any], views: list[StackView], totals: Totals | None
) -> Iterator[Problem]:
    """`job.json` against identity and records; `totals` is None where records are lost."""
    told: dict[str, Any] = {}
    try:
        resolved = ended["settings"]["resolved"]
        told = {
            "status": (ended["status"], "complete"),
            "the model's SHA-256": (ended["model"]["sha256"], identity["model"]),
            "the runtime": (resolved["runtime"], identity["runtime"]),
            "the stacks": ([one["name"] for one in ended["inputs"]], list(identity["stacks"])),
        }
        inputs = {one["name"]: one for one in ended["inputs"]}
        for view in views:
            shape, halo = inputs[view.name]["labels_shape"], inputs[view.name]["halo"]
            told[f"the shape of {view.name}"] = (shape, list(view.layout.shape))
            postprocessing = identity["stacks"][view.name]["postprocessing"]
            told[f"the rules of {view.name}"] = (
                inputs[view.name]["postprocessing"],
                postprocessing,
            )
            told |= {
                name: (value, postprocessing[name])
                for name, value in resolved.items()
                if name in postprocessing
            }
            told[f"the halo of {view.name}"] = (halo, identity["stacks"][view.name]["halo"])
        if totals is not None:
            for name in ("frames", "failed", "objects", "missing_chunks"):
                told[f"the count of {name}"] = (ended["counts"][name], getattr(totals, name))
            for name, pixels in totals.pixels.items():
                known = inputs[name]["pixels_sha256"]
                told[f"the SHA-256 of the pixels of {name}"] = (known, pixels.hexdigest())
    except (LookupError, TypeError) as error:
        yield Problem("report", "job.json", f"lacks what a job writes at its end ({error})")
    for name, (found, wanted) in told.items():
        if found != wanted:
            what = f"{name} is {found}, and the records tell {wanted}"
            yield Problem("report", "job.json", what)


def check_failures(
    root: Path, ended: dict[str, Any] | None, totals: Totals | None
) -> Iterator[Problem]:
    """`failures.json` against the frames that were set aside, and the inputs that were refused."""
    try:
        content = json.loads((root / "failures.json").read_bytes())
        stacks, frames = content["stacks"], content["frames"]
    except FileNotFoundError:
        yield Problem("report", "failures.json", "is gone")
        return
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield Problem("report", "failures.json", f"cannot be read ({error})")
        return
    if ended is not None and stacks != ended.get("refused", []):
        yield Problem("report", "failures.json", "names other inputs as refused than job.json")
    if totals is None:
        return
    if not isinstance(frames, list):
        yield Problem("report", "failures.json", "does not list the frames that were set aside")
        return
    named = {json.dumps(one, sort_keys=True) for one in frames}
    for one in totals.failures:
        if (line := json.dumps(one, sort_keys=True)) in named:
            named.remove(line)
            continue
        where = f"stack {one['stack']}, t={one['t']}, z={one['z']}"
        what = "the frame was set aside, and is not named with its reason"
        yield Problem("report", "failures.json", what, where, one["stack"])
    for line in sorted(named):
        yield Problem("report", "failures.json", f"names {line}, which was not set aside")
    if not named and len(frames) != len(totals.failures):
        yield Problem("report", "failures.json", "names a frame more than once")


def check_checksums(root: Path, ended: dict[str, Any], problems: Problems) -> Iterator[Problem]:
    """Files written at the end, or before the first block: no byte of them has changed."""
    told = ended.get("files_sha256", {})
    if not isinstance(told, dict):
        yield Problem("report", "job.json", "does not tell the checksums of its files")
        return
    for name, known in told.items():
        if problems.names(name):
            continue  # what is wrong with it has been said
        try:
            with (root / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            yield Problem("report", name, f"cannot be read ({error.strerror or error})")
            continue
        if found != known:
            what = "has changed since the end of the job: its SHA-256 is not that of job.json"
            yield Problem("report", name, what)
