"""The runtimes that there are, by name. Each is imported when it is first asked for."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from functools import cache

from engine.errors import UsageError
from engine.model.file import ModelFile
from engine.model.graph.decision import Decision
from engine.runtimes.base import AUTO, Caution, Runtime, Session, Shape, Target

# The first is what "auto" means.
RUNTIMES = {
    "onnxruntime": "engine.runtimes.onnxruntime:OnnxRuntime",
    "openvino": "engine.runtimes.openvino:OpenVino",
    "tensorrt": "engine.runtimes.tensorrt:TensorRt",
}

# Whose probabilities are right by definition: those of all others are held against them.
REFERENCE = Target("onnxruntime", "cpu", "fp32", Caution.UNOPTIMISED)


@cache
def runtime_of(name: str) -> Runtime:
    """The runtime of that name; UsageError where there is none."""
    if name not in RUNTIMES:
        raise UsageError(f"runtime {name}: is not known; use {', '.join(RUNTIMES)}")
    try:
        found: Runtime = pkgutil.resolve_name(RUNTIMES[name])()
    except ModuleNotFoundError as error:  # there are no wheels of it for some processors
        if error.name != name:
            raise
        raise UsageError(
            f"runtime {name}: is not installed; use --runtime {REFERENCE.runtime}, or "
            f"`pip install {name}`"
        ) from error
    return found


def resolve(target: Target) -> Target:
    """The target as a job records it, without "auto"; UsageError where it can't be had here."""
    name = next(iter(RUNTIMES)) if target.runtime == AUTO else target.runtime
    return runtime_of(name).resolve(replace(target, runtime=name))


def open_session(
    model: ModelFile,
    dtype: str,
    target: Target,
    threads: int,
    in_flight: int = 1,
    decision: Decision | None = None,
    shape: Shape | None = None,
) -> Session:
    """See `Runtime.session`."""
    return runtime_of(target.runtime).session(
        model, dtype, target, threads, in_flight, decision, shape
    )
