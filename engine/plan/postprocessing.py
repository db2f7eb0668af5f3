"""How the probabilities of a stack become labels: what the user gave, checked and resolved."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.errors import StackError, UsageError
from engine.labels.postprocessing import SEED_HEIGHT, Postprocessing
from engine.model.spec import ModelSpec
from engine.plan.channels import parse_names
from engine.plan.quantities import area_px, length_px
from engine.plan.settings import JobSettings
from engine.stacks.base import StackInfo

_ONLY_WATERSHED = ("min_distance", "seed_height")
_ONLY_CORES = ("core_threshold", "growth", "pinhole", "unreached")
_ONLY_OBJECTS = (
    "min_area", "max_area", "fill_holes", "clear_border", *_ONLY_WATERSHED, *_ONLY_CORES, "connect",
)  # fmt: skip


def check_postprocessing(settings: JobSettings, spec: ModelSpec) -> None:
    """UsageError where options contradict the model or each other, whatever the stack."""
    if not spec.is_binary and settings.threshold is not None:
        raise UsageError(
            f"--threshold: {spec.name} has several classes, of which the most probable is taken"
        )
    if not spec.is_binary and settings.instances not in (None, "none"):
        raise UsageError(
            f"--instances {settings.instances}: {spec.name} has several classes, and gives a class "
            "map; omit it"
        )
    _check_objects(settings, spec)
    method = method_of(settings, spec)
    if method == "cores" and spec.cores is None:
        raise UsageError(
            f"--instances cores: {spec.name} has no output of cores; use --instances components or "
            "watershed"
        )
    for name in unused_settings(method):
        if getattr(settings, name) not in (None, False, "none"):
            reason = (
                f"{spec.name} gives a class map, which has no objects; choose some with --objects"
                if method == "none" and not spec.is_binary
                else f"{spec.name} gives a class map, which has no objects" if method == "none"
                else f"is for --instances {'cores' if name in _ONLY_CORES else 'watershed'}"
            )  # fmt: skip
            raise UsageError(f"--{name.replace('_', '-')}: {reason}")
    if method == "watershed" and settings.connect != "none":
        raise UsageError(
            "--instances watershed: cuts objects in each plane, and --connect z joins them from "
            "plane to plane, where cuts need not agree; use --instances components or cores"
        )


def _check_objects(settings: JobSettings, spec: ModelSpec) -> None:
    """UsageError where objects of classes are asked for that the model does not have."""
    if settings.objects is None:
        return
    if spec.is_binary:
        raise UsageError(
            f"--objects {settings.objects}: {spec.name} has one class, {spec.class_names[1]}, and "
            "gives its objects already; omit it"
        )
    wanted, known = parse_names(settings.objects), spec.class_names[1:]
    if lacking := [name for name in wanted if name not in known]:
        raise UsageError(
            f"--objects {settings.objects}: {spec.name} has no class {lacking[0]!r}; it has "
            f"{', '.join(known)}"
        )
    if settings.instances == "none":
        raise UsageError(f"--objects {settings.objects}: contradicts --instances none; omit one")
    if settings.fill_holes:
        raise UsageError(
            "--fill-holes: objects of classes are the pixels of their class in the class map; omit "
            "it"
        )


def unused_settings(method: str) -> tuple[str, ...]:
    """Settings that have no meaning where instances are found by `method`."""
    return {
        "none": _ONLY_OBJECTS,
        "components": (*_ONLY_WATERSHED, *_ONLY_CORES),
        "watershed": _ONLY_CORES,
        "cores": _ONLY_WATERSHED,
    }[method]


def method_of(settings: JobSettings, spec: ModelSpec) -> str:
    """How instances are found: as asked for, else as the model has it; "none" where none are."""
    if spec.is_binary:
        return settings.instances or spec.instances
    return "components" if settings.objects else "none"


def resolve_postprocessing(
    settings: JobSettings, spec: ModelSpec, info: StackInfo
) -> Postprocessing:
    """The settings for a stack; StackError where they need a pixel size that it does not have."""
    method = method_of(settings, spec)
    least: float = spec.min_area if method != "none" else 0
    if settings.min_area is not None:
        least = area_px("--min-area", settings.min_area, info)
    postprocessing = Postprocessing(
        threshold=spec.threshold if settings.threshold is None else settings.threshold,
        min_area=math.ceil(least),
        instances=method,
        objects=_objects(settings, spec),
        fill_holes=settings.fill_holes,
        clear_border=settings.clear_border,
    )
    if settings.max_area is not None:
        most = math.floor(area_px("--max-area", settings.max_area, info))
        if most < max(postprocessing.min_area, 1):
            raise UsageError(
                f"{info.path}: --max-area {settings.max_area} is {most} px, and objects have at "
                f"least {max(postprocessing.min_area, 1)} px; give more"
            )
        postprocessing = replace(postprocessing, max_area=most)
    if method == "cores":
        return _with_cores(postprocessing, settings, spec)
    if method != "watershed":
        return postprocessing
    distance: float = spec.min_distance
    if settings.min_distance is not None:
        distance = length_px("--min-distance", settings.min_distance, info)
    height = SEED_HEIGHT if settings.seed_height is None else settings.seed_height
    return replace(postprocessing, min_distance=distance, seed_height=height)


def _objects(settings: JobSettings, spec: ModelSpec) -> tuple[str, ...]:
    """The classes whose objects are asked for, in the model's order."""
    wanted = parse_names(settings.objects) if settings.objects else ()
    return tuple(name for name in spec.class_names if name in wanted)


def _with_cores(
    postprocessing: Postprocessing, settings: JobSettings, spec: ModelSpec
) -> Postprocessing:
    """With what is asked for of cores, else as the model has it."""
    assert spec.cores is not None  # `check_postprocessing` has refused it
    own, given = spec.cores, settings
    return replace(
        postprocessing,
        core_threshold=own.threshold if given.core_threshold is None else given.core_threshold,
        growth=own.growth if given.growth is None else given.growth,
        pinhole=own.pinhole if given.pinhole is None else given.pinhole,
        unreached=given.unreached or own.unreached,
    )


def check_uncut(postprocessing: Postprocessing, info: StackInfo) -> None:
    """StackError for post-processing that cannot be exact where frames are cut into regions."""
    size = f"{info.path}: frames of {info.size('Y')} x {info.size('X')} px are cut into regions, "
    if postprocessing.instances == "watershed":
        raise StackError(
            f"{size}and where a watershed cuts follows from the whole object; use --instances "
            "components or cores"
        )
    if postprocessing.fill_holes:
        raise StackError(f"{size}and a hole may reach into the next region; omit --fill-holes")
