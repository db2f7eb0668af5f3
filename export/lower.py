"""A model in int8 or fp16, let pass by its labels: by every runtime they must agree with float32.

Only what lies between the first convolution and the last is touched: raw pixels reach 65,535, so
that statistics and normalisation stay in float32, and so does the last activation. Frames that
calibrated int8 do not judge it. Where its labels do not agree, the convolutions whose rounding
costs most are left in float32; where that would be half of them, there is no file.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from engine.errors import MissingExtra, ModelError, StackError, UsageError, install_command, plural
from engine.inference.agreement import GATE, SAME, Agreement, Labels, Look, compare_all, label_all
from engine.inference.device_check import real_tile
from engine.job.prepare import prepare_job
from engine.job.tuned import candidates
from engine.model.file import ModelFile, open_model
from engine.model.graph import receptive_field
from engine.model.spec import LoweredSpec, ModelSpec
from engine.model.statistics import normalisable
from engine.plan.resources import cores
from engine.plan.settings import job_settings
from engine.runtimes.base import Floats, Target
from engine.runtimes.registry import REFERENCE, open_session
from engine.store.files import whole_file
from engine.tune.run import sample_looks
from export.embed import embed
from export.half import halved
from export.inside import convolutions, named
from export.quantise import LARGEST, Quantiser, quantiser

log = logging.getLogger("stackseg")

RANKING = 2  # frames by which convolutions are ranked

Attempt = tuple[list[str], onnx.ModelProto]  # convolutions left in float32, and the graph


@dataclass(frozen=True)
class Sampling:
    """The frames by which a model is calibrated and judged."""

    stacks: tuple[str, ...]
    count: int  # of frames, spread over the stacks
    seed: int  # parts those that calibrate from those that judge
    channel: str | None = None  # that feed the model
    fine_tune: int = 0  # steps in which weights learn to be rounded


def lower(
    reference: str,
    precision: str,
    output: Path,
    sampling: Sampling,
    name: str | None = None,
    given: str = "",
) -> ModelSpec:
    """Write a model in "int8" or "fp16"; its spec says how that came about.

    `reference` is an ONNX file in float32, or the name of a bundled model; `given` is what errors
    call it, where the user gave something else. Raises ModelError, and leaves nothing behind, where
    the labels do not agree with float32 (F1 of 0.99 at IoU 0.9).
    """
    model = open_model(reference)
    if model.spec.lowered is not None:
        raise UsageError(f"{model.path}: is in {model.spec.lowered.precision}; give it in fp32")
    if not convolutions(model.parse()):
        raise UsageError(f"{model.path}: has no convolution to compute in {precision}")
    settings = job_settings(
        inputs=sampling.stacks, model=reference, output=output, channel=sampling.channel
    )
    job = prepare_job(settings)
    if refused := job.plan.refused:  # the spec names every stack given
        raise StackError("; ".join(reason for _, reason in refused))
    looks = sample_looks(job, sampling.count)
    calibrating, judging = _parted(looks, sampling.seed) if precision == "int8" else ([], looks)
    wanted = label_all(model, REFERENCE, judging, cores())
    judges = f"{plural(len(judging), 'frame')} that did not calibrate it"
    if compare_all(wanted, wanted, judging).f1 is None:
        raise ModelError(
            f"{given or reference}: in fp32 it finds nothing in {judges}, so that labels in "
            f"{precision} cannot be compared; give other --frames"
        )
    with tempfile.TemporaryDirectory(prefix="stackseg-lower-") as folder:
        tries: Iterator[Attempt] = iter([([], halved(named(model)))])
        if precision == "int8":
            quantise = Quantiser(named(model), calibrating, Path(folder))
            if sampling.fine_tune:
                _fine_tune(model, quantise, calibrating, sampling)
            tries = attempts(model, quantise, calibrating)
        for left, graph in tries:
            spec = _spec(model, precision, sampling, len(calibrating), len(judging), left)
            spec = spec.model_copy(update={"name": name or output.stem})
            found = _agreement(_as_file(graph, spec, output), judging, wanted)
            f1 = round(found.f1 or 0, 4)
            log.info(
                "%s with %s in fp32: F1 of %.4f at IoU %g against fp32",
                precision, plural(len(left), "convolution"), f1, SAME,
            )  # fmt: skip
            if found.f1 is not None and found.f1 >= GATE:
                assert spec.lowered is not None
                lowered = spec.lowered.model_copy(update={"f1": f1})
                return _write(graph, spec.model_copy(update={"lowered": lowered}), output)
    raise ModelError(
        f"{given or reference}: in {precision} its labels have an F1 of {f1:.4f} at IoU {SAME:g} "
        f"against fp32 in {judges}, and {GATE:g} is needed; nothing was written"
    )


def attempts(
    model: ModelFile, quantise: Callable[[Sequence[str]], onnx.ModelProto], looks: Sequence[Look]
) -> Iterator[Attempt]:
    """All convolutions in int8, then fewer, until half of them would be left in float32.

    First to be left are those without whose rounding probabilities of `looks` come nearest to
    float32, each by itself.
    """
    names = convolutions(named(model))
    yield [], quantise([])
    wanted = _probabilities(model, looks)
    apart = {
        name: _apart(_probabilities(_of(model, quantise([name])), looks), wanted) for name in names
    }
    order = sorted(names, key=lambda name: apart[name])
    count = 1
    while 2 * count < len(names):
        left = [name for name in names if name in order[:count]]
        yield left, quantise(left)
        count *= 2


def _probabilities(model: ModelFile, looks: Sequence[Look]) -> list[Floats]:
    """Of the middle of one frame or two, by ONNX Runtime, which is there anyway."""
    session = open_session(model, "float32", Target("onnxruntime", "cpu"), cores())
    tiles = [real_tile(one.pixels, one.tiling.stride) for one in looks[:RANKING]]
    pairs = zip(tiles, looks, strict=False)
    return [
        session.run(tile[None].astype(np.float32), normalisable(one.statistics)[None])
        for tile, one in pairs
    ]


def _apart(found: Sequence[Floats], wanted: Sequence[Floats]) -> float:
    return sum(float(np.abs(a - b).mean()) for a, b in zip(found, wanted, strict=True))


def _of(model: ModelFile, graph: onnx.ModelProto) -> ModelFile:
    return replace(model, data=graph.SerializeToString())


def _fine_tune(
    model: ModelFile, quantise: Quantiser, looks: Sequence[Look], sampling: Sampling
) -> None:
    try:
        from export.finetune import fine_tuned
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra(f"--fine-tune needs PyTorch: {install_command('train')}") from None
    weights = fine_tuned(
        named(model), quantise([]), looks,
        largest=LARGEST, steps=sampling.fine_tune, seed=sampling.seed,
    )  # fmt: skip
    quantise.take(weights)


def _parted(looks: Sequence[Look], seed: int) -> tuple[list[Look], list[Look]]:
    """Frames that calibrate, and those that judge."""
    if len(looks) < 2:
        raise UsageError(
            "--precision int8: one half of the frames calibrates it and the other judges it, and "
            "only one can be read and has something in it; give --frames with two or more, or a "
            "larger --sample"
        )
    order = np.random.default_rng(seed).permutation(len(looks))
    one, other = np.array_split(order, 2)
    return [looks[n] for n in sorted(one)], [looks[n] for n in sorted(other)]


def _spec(
    model: ModelFile, precision: str, sampling: Sampling, used: int, judged: int, left: list[str]
) -> ModelSpec:
    lowered = LoweredSpec.model_validate({
        "precision": precision,
        "source": model.sha256,
        "converter": quantiser() if precision == "int8" else "stackseg",
        "fine_tuned": sampling.fine_tune,
        "stacks": sampling.stacks,
        "seed": sampling.seed,
        "calibrated_by": used,
        "judged_by": judged,
        "left_in_fp32": tuple(left),
    })  # fmt: skip
    return model.spec.model_copy(update={"lowered": lowered})


def _as_file(graph: onnx.ModelProto, spec: ModelSpec, path: Path) -> ModelFile:
    """What would be read of a file that is not written yet."""
    field, wanted = receptive_field(graph), (spec.stride, spec.receptive_radius)
    if field.stride != wanted[0] or (field.radius or 0) > wanted[1]:
        raise ModelError(
            f"{path}: its graph has stride {field.stride} and receptive radius {field.radius}, but "
            f"that in fp32 {wanted[0]} and {wanted[1]}: the conversion is wrong"
        )
    return ModelFile(path, spec, "", field, graph.SerializeToString())


def _agreement(made: ModelFile, looks: Sequence[Look], wanted: Sequence[Labels]) -> Agreement:
    """How labels agree with float32 by the runtime that is here and agrees least."""
    found = [
        compare_all(label_all(made, one, looks, cores()), wanted, looks)
        for one in candidates("cpu")
        if one.precision == "fp32"  # but for what the file has in less
    ]
    return min(found, key=lambda one: one.f1 or 0)


def _write(graph: onnx.ModelProto, spec: ModelSpec, output: Path) -> ModelSpec:
    embed(graph, spec)
    with whole_file(output) as partial:
        partial.write_bytes(graph.SerializeToString())
    return open_model(str(output)).spec
