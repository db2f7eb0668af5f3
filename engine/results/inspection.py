"""What a model, a stack or a result is, as plain data and as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import StackError, printable
from engine.model.file import bundled_models, open_model
from engine.stacks.base import Stack
from engine.store.folder import IDENTITY, JobFolder
from engine.store.reports import ReportedInput

DETAILS = ("threshold_curve", "hashes", "files")  # that are too long to be read


def describe(target: str, axes: str | None = None, series: str | None = None) -> dict[str, Any]:
    """What users need to know of `target`; StackError or ModelError where it cannot be opened."""
    if not target:
        raise StackError("nothing to inspect; give a model, a stack or a result")
    path = Path(target)
    if JobFolder(path).own.exists(IDENTITY):
        return {"result": str(path), **_result(path)}
    if path.suffix.lower() == ".onnx" or (target in bundled_models() and not path.exists()):
        return {"model": target, **_model(target)}
    if (path / "last.pt").is_file():
        raise StackError(
            f"{target}: is a training run; `stackseg compare {target}` shows its scores, and "
            f"`stackseg export {target} --output model.onnx` makes a model of it"
        )
    if not path.exists():
        known = ", ".join(bundled_models()) or "none"
        raise StackError(f"{target}: no such file, folder or bundled model ({known})")
    from engine.stacks.open import open_stacks

    stacks = [_stack(stack) for stack in open_stacks(target, axes, series)]
    return stacks[0] if len(stacks) == 1 else {"path": target, "stacks": stacks}


def _stack(stack: Stack) -> dict[str, Any]:
    with stack:
        info = stack.info
        return {
            "stack": info.path,
            "format": info.format,
            "series": info.series,
            "series_name": info.series_name,
            "axes": info.axes,
            "shape": dict(zip(info.axes, info.shape, strict=True)),
            "dtype": info.dtype,
            "channel_names": info.channel_names,
            "pixel_size_um": info.pixel_size_um,
            "time_step_s": info.time_step_s,
            "window": info.window and dict(zip(("center", "width"), info.window, strict=True)),
            "min_is_white": info.min_is_white,
            "unused": [*info.unused, *stack.companions()],
            "lacking": info.lacking,
            "files": _files(info.path) if info.format == "images" else [],
        }


def _files(path: str) -> list[str]:
    """The names of the images of a folder in the order of the frames."""
    from engine.stacks.images.files import list_images

    return [printable(file.name) for file in list_images(path)] if Path(path).is_dir() else []


def lines(content: dict[str, Any], indent: str = "") -> Iterator[str]:
    """`content` as aligned lines; nested values are indented. What is empty is omitted."""
    shown = {k: v for k, v in content.items() if v or (v == 0 and v is not False)}
    width = max((len(key) for key in shown), default=0) + 2
    for key, value in shown.items():
        if key in DETAILS:
            ends = (
                f"{value[0]} to {value[-1]}; " if isinstance(value, list) and key == "files" else ""
            )
            yield f"{indent}{key:<{width}}{ends}see --json"
        elif isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
            yield f"{indent}{key}"
            yield from lines(value, indent + "  ")
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield f"{indent}{key}"
            yield from (f"{indent}  {_plain(item)}" for item in value)
        else:
            yield f"{indent}{key:<{width}}{_plain(value)}"


def _model(reference: str) -> dict[str, Any]:
    model = open_model(reference)
    spec = model.spec.model_dump(mode="json")
    return {
        "file": str(model.path),
        "bytes": len(model.data),
        "sha256": model.sha256,
        "halo": model.halo if model.halo is not None else f"none: {model.field.reason}",
        **spec,
    }


def _result(path: Path) -> dict[str, Any]:
    folder = JobFolder(path)
    identity, report = folder.identity(), folder.report()
    if identity is None:
        raise StackError(f"{path}: its job is gone")
    if report is None:
        layouts = {name: stack.layout for name, stack in identity.stacks.items()}
        return {
            "status": "not complete: the same command resumes it",
            "blocks_committed": {
                name: f"{len(folder.numbers('records', name))} of {layout.n_blocks}"
                for name, layout in layouts.items()
            },
            "frames": {name: layout.n_frames for name, layout in layouts.items()},
            "settings": identity.model_dump(exclude={"version", "stacks"}, exclude_none=True),
        }
    return {
        "status": report.status,
        "counts": report.counts.model_dump() | {"inputs refused": len(report.refused)},
        "model": report.model.spec.name,
        "label_images": list(identity.label_images),
        **report.settings.resolved.model_dump(exclude_none=True),
        "frames_per_second": round(report.frames_per_second, 2),
        "seconds_by_stage": {k: round(v, 2) for k, v in report.seconds_by_stage.items()},
        "machine": report.machine.model_dump(),
        "stacks": [_input(one) for one in report.inputs],
    }


def _input(one: ReportedInput) -> dict[str, Any]:
    found = one.model_dump(
        mode="json",
        include={"name", "axes", "shape", "path", "window", "identifiers", "volumes_ml"},
    )
    return {key: value for key, value in found.items() if value not in ({}, None)}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        of_lengths = all(isinstance(v, int) for v in value)
        return (" x " if of_lengths else ", ").join(str(v) for v in value)
    return "yes" if value is True else str(value)
