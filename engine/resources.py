"""Cores and memory that this process may use, not those of the machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """Where blocks will run."""

    cores: int
    memory_bytes: int
    device: str  # resolved: "cpu" or "cuda:N"
    runtime: str  # runtime, build, provider and precision
    host: str


def local_site(device: str) -> Site:
    """This process; `device` may be "auto"."""
    from engine.runtimes.onnxruntime import resolve_device, runtime_name

    resolved = resolve_device(device)
    return Site(cores(), memory_bytes(), resolved, runtime_name(resolved), socket.gethostname())


def cores() -> int:
    """Cores by affinity and cgroup (Dask reads both), and by SLURM where it is told."""
    from dask.system import cpu_count

    allowed = [max(int(cpu_count()), 1)]
    if (told := _slurm("SLURM_CPUS_PER_TASK")) is not None:
        allowed.append(told)
    return min(allowed)


def memory_bytes() -> int:
    """Bytes by what is free now, cgroup, rlimit and SLURM, whichever is least."""
    import psutil
    from distributed.system import memory_limit

    allowed = [int(memory_limit()), int(psutil.virtual_memory().available)]
    if (node := _slurm("SLURM_MEM_PER_NODE")) is not None:
        allowed.append(node * 2**20)
    elif (core := _slurm("SLURM_MEM_PER_CPU")) is not None:
        allowed.append(core * (_slurm("SLURM_CPUS_PER_TASK") or 1) * 2**20)
    return min(allowed)


def _slurm(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() and int(value) > 0 else None
