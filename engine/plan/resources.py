"""Cores and memory that this process may use, not those of the machine.

Asked are the machine, the process's affinity, its cgroups (v1 and v2, with all that enclose them),
its rlimits, and SLURM's variables, since not every cluster enforces what it has promised; the least
counts.
"""

from __future__ import annotations

import math
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError
from engine.labels.postprocessing import Postprocessing
from engine.plan.footprint import MAPPED, MAPPED_PER_CORE, MB
from engine.runtimes.base import DeviceMemory, Target
from engine.runtimes.registry import resolve, runtime_of

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NO_STEP = 2**32 - 16  # SLURM numbers steps that are none (batch script, interactive) from here on


def _never(dtype: str, postprocessing: Postprocessing) -> bool:
    return False


@dataclass(frozen=True)
class Site:
    """Where blocks will run."""

    cores: int
    memory_bytes: int
    target: Target  # resolved: nothing in it is "auto"
    build: str  # of the runtime: what a job's results depend on, and records
    host: str
    device_memory: DeviceMemory | None = None  # None: there is none, or it does not tell
    compiles: Callable[[str, Postprocessing], bool] = _never  # see `plan.compiling`


def local_site(wanted: Target) -> Site:
    """This process, with what `wanted` turns out to be here."""
    from engine.plan.compiling import compiles  # only a job needs Numba

    target = resolve(wanted)
    runtime = runtime_of(target.runtime)
    build, memory = runtime.build(target), runtime.device_memory(target.device)
    return Site(cores(), memory_bytes(), target, build, socket.gethostname(), memory, compiles)


def parse_memory(text: str) -> int:
    """Bytes of "8GB", "8GiB", "8000MB" or "8g": all units are binary, 1 GB is 2**30 bytes.

    UsageError for anything else; a number without a unit is refused, since it could be either.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:I?B)?|B)\s*", text.upper(), re.ASCII)
    size = int(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if size <= 0:
        raise UsageError(f"memory {text!r} is not understood; give a number and a unit, as in 8GB")
    return size


def size_text(size: int) -> str:
    """A size as `parse_memory` reads it: "512 KB", "3.0 MB", "27 GB"."""
    letter = next((unit for unit in "TGM" if size >= UNITS[unit]), "K")
    value = size / UNITS[letter]
    return f"{value:.{int(value < 10)}f} {letter}B"


def cores() -> int:
    """Cores by affinity, cgroups, and SLURM; at least one."""
    import psutil

    me = psutil.Process()
    has_affinity = hasattr(me, "cpu_affinity")  # not on macOS
    allowed = [len(me.cpu_affinity()) if has_affinity else os.cpu_count() or 1, *_cgroup_cores()]
    if (granted := _slurm_cores()) is not None:
        allowed.append(granted)
    return max(min(allowed), 1)


def memory_bytes() -> int:
    """Bytes that this process may hold in all: what it holds already, and what is left to it.

    What is left follows from what is free on the machine and in every cgroup around the process,
    from its rlimits (address space: less what libraries and threads map without using it), and
    from its share of what SLURM has given to the job on this node.
    """
    import psutil

    own = _own_bytes()
    allowed = [int(psutil.virtual_memory().available) + own]
    allowed += [left + own for left in _cgroup_bytes_left()]
    allowed += _rlimits(own)
    if (granted := _slurm_bytes()) is not None:
        allowed.append(granted)
    return max(min(allowed), 0)


def _own_bytes() -> int:
    """What this process holds and shares with no other."""
    import psutil

    info = psutil.Process().memory_info()
    return int(info.rss) - int(getattr(info, "shared", 0))


# -- cgroups ---------------------------------------------------------------------------------------


def cgroup_folders(controller: str, proc: Path = Path("/proc/self")) -> list[Path]:
    """Folders of the cgroups that this process is in, and of all around them.

    `controller` is "memory" or "cpu". Those of v1 and v2 are both given: a machine may have both,
    and a folder that does not have a controller's files is passed over when they are read.
    """
    try:
        groups = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = [line.split(" - ") for line in (proc / "mountinfo").read_text().splitlines()]
        folders = []
        for mount, kind in mounts:
            root, point = mount.split()[3:5]
            system, _, options = kind.split()[:3]
            for _, names, path in groups:
                old = system == "cgroup" and controller in names.split(",")
                if (old and controller in options.split(",")) or (
                    system == "cgroup2" and not names
                ):
                    folders += _upwards(Path(point), path, root)
    except (OSError, ValueError, IndexError):
        return []  # no Linux, or none that shows its cgroups
    return folders


def _upwards(point: Path, path: str, root: str) -> list[Path]:
    inside = Path(path) == Path(root) or path.startswith(root.rstrip("/") + "/")
    # In a container the path may be the host's; its own group is then what is mounted.
    relative = Path(path).relative_to(root) if inside and ".." not in path else Path()
    leaf = point / relative
    return [leaf, *(p for p in leaf.parents if p.is_relative_to(point))]


def _cgroup_cores() -> Iterator[int]:
    for folder in cgroup_folders("cpu"):
        of_v1 = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        match (_text(folder / "cpu.max") or of_v1).split():
            case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
                yield math.ceil(int(quota) / int(period))


def _cgroup_bytes_left() -> Iterator[int]:
    for folder in cgroup_folders("memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            match _text(folder / limit).split(), _text(folder / usage).split():
                case [most], [used] if most.isdecimal():
                    # The page cache that nobody has used lately is given up when memory is wanted.
                    yield int(most) - int(used) + _entry(folder / "memory.stat", cache)


def _text(path: Path) -> str:
    """What a file of the kernel's says, "" where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _entry(path: Path, name: str) -> int:
    """The number that stands behind a name at the beginning of a line, else 0."""
    found = re.search(rf"^{name}\s+(\d+)", _text(path), re.M)
    return int(found[1]) if found else 0


# -- rlimits ---------------------------------------------------------------------------------------


def _rlimits(own: int) -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    reserve = MAPPED.value + MAPPED_PER_CORE.value * cores()
    for kind, mapped in [(resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")]:
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            # What is left now, or what will be once all libraries and threads are there.
            now = _entry(Path("/proc/self/status"), mapped) * 1024
            yield min(limit - now + own, limit - reserve)
    limit = resource.getrlimit(resource.RLIMIT_RSS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit  # Linux does not enforce it; whoever set it meant it


# -- SLURM -----------------------------------------------------------------------------------------


def _slurm_cores() -> int | None:
    """The task's CPUs within a step (`srun`); in a batch script, the job's on this node.

    SLURM_CPUS_PER_TASK is what one task was to have: a batch script is no task, and a single
    process in it has the node's share of the job. A step inherits the variable even where `srun`
    did not ask for as many (since SLURM 22.05), so that its share of the step counts as well.
    """
    per_task, on_node = _slurm("SLURM_CPUS_PER_TASK"), _slurm("SLURM_CPUS_ON_NODE")
    if not _in_step():
        return on_node or per_task
    share = max(on_node // _tasks_here(), 1) if on_node else None
    return min((n for n in (per_task, share) if n is not None), default=None)


def _slurm_bytes() -> int | None:
    """The share of the job's memory on this node: of one task within a step, else all of it."""
    tasks = _tasks_here() if _in_step() else 1
    if (node := _slurm("SLURM_MEM_PER_NODE")) is not None:
        return node * MB // tasks
    if (core := _slurm("SLURM_MEM_PER_CPU")) is not None:
        return core * (_slurm_cores() or 1) * MB
    return None


def _in_step() -> bool:
    step = _slurm("SLURM_STEP_ID", least=0)
    return step is not None and step < NO_STEP


def _tasks_here() -> int:
    """Tasks of the step on this node, from a list such as "4(x2),1"."""
    counts: list[int] = []
    for part in os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if found := re.fullmatch(r"(\d{1,9})(?:\(x(\d{1,6})\))?", part):
            counts += [int(found[1])] * int(found[2] or 1)
    node = _slurm("SLURM_NODEID", least=0) or 0
    return max(counts[node], 1) if node < len(counts) else 1


def _slurm(name: str, least: int = 1) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and int(value) >= least else None
