"""The ways in which a model can be run on this machine, and the two networks that are timed.

A way is a runtime with a precision. int8 is a file of its own, made here for the occasion: it is
calibrated on synthetic frames, and no gate judges its labels, so that it can be timed where
`stackseg export` would refuse it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import frames as of
from engine.geometry.tiling import FrameTiling, round_up
from engine.inference.agreement import Look
from engine.inference.tiles import pad_to
from engine.job.tuned import candidates
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile, find_model, open_model
from engine.model.spec import LoweredSpec
from engine.model.statistics import frame_statistics
from engine.runtimes.base import Target
from engine.runtimes.registry import resolve

CACHE = Path(".bench")  # files that are made once; git ignores it
NETWORKS = ("nuclei", "ronneberger")
CALIBRATION = 4  # frames


@dataclass(frozen=True)
class Way:
    """A model by a runtime in a precision."""

    runtime: str
    precision: str
    device: str
    model: str  # path of the file

    @property
    def name(self) -> str:
        """As "openvino bf16"."""
        return f"{self.runtime} {self.precision}"

    @property
    def job_precision(self) -> str:
        """What a job is asked for: a file in int8 is run as it is."""
        return "fp32" if self.precision == "int8" else self.precision

    @property
    def target(self) -> Target:
        """Resolved."""
        return resolve(Target(self.runtime, self.device, self.job_precision))  # type: ignore[arg-type]


def ways_of(network: str, device: str = "cpu", only: Sequence[str] = ()) -> list[Way]:
    """All ways to run "nuclei", "ronneberger" or a model's file here; `only` names precisions."""
    model = str(papers_network() if network == "ronneberger" else find_model(network))
    found = [Way(one.runtime, one.precision, one.device, model) for one in candidates(device)]
    if device == "cpu" and (not only or "int8" in only):
        file = str(in_int8(open_model(model)))
        runtimes = dict.fromkeys(way.runtime for way in found)
        found += [Way(runtime, "int8", device, file) for runtime in runtimes]
    return [way for way in found if not only or way.precision in only]


def papers_network() -> Path:
    """The network of Ronneberger et al. 2015, 64 to 1024 channels, with random weights."""
    path = CACHE / "ronneberger.onnx"
    if not path.exists():
        import torch

        from export.onnx import export_run
        from train.checkpoint import Checkpoint, save_checkpoint
        from train.networks import build_network
        from train.presets import PRESETS
        from train.settings import TrainSettings

        given = {**PRESETS["ronneberger"], "instances": "components", "patch": 64}
        settings = TrainSettings(data="none", layout="pairs", **given)
        args = settings.network(1, settings.n_outputs)
        torch.manual_seed(0)
        weights = build_network(args).state_dict()
        with tempfile.TemporaryDirectory() as run:
            save_checkpoint(
                Path(run) / "best.pt", Checkpoint(args, weights, settings, 0, 0, best_score=0.0)
            )
            path.parent.mkdir(exist_ok=True)
            export_run(Path(run), path, description="Random weights: for timing alone.")
    return path


def in_int8(model: ModelFile) -> Path:
    """A model's file in int8, all of its convolutions, whatever becomes of its labels."""
    from export.embed import embed
    from export.inside import named
    from export.quantise import Quantiser, quantiser

    path = CACHE / f"{model.spec.name}-{model.sha256[:12]}-int8.onnx"
    if path.exists():
        return path
    looks = [look_at(model, frame) for frame in of.crowded(CALIBRATION, (256, 256))]
    with tempfile.TemporaryDirectory() as folder:
        graph = Quantiser(named(model), looks, Path(folder))([])
    lowered = LoweredSpec(
        precision="int8", source=model.sha256, converter=quantiser(), stacks=("synthetic",),
        seed=0, calibrated_by=CALIBRATION, judged_by=1,
    )  # fmt: skip
    embed(graph, model.spec.model_copy(update={"lowered": lowered}))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(graph.SerializeToString())
    return path


def look_at(model: ModelFile, frame: NDArray[np.uint16]) -> Look:
    """A frame as a job by the model's own settings sees it, in one piece."""
    spec, (height, width) = model.spec, frame.shape
    how = Postprocessing(spec.threshold, spec.min_area, instances=spec.instances)
    if (cores := spec.cores) is not None:
        how = Postprocessing(
            spec.threshold, spec.min_area, instances=spec.instances,
            core_threshold=cores.threshold, growth=cores.growth, pinhole=cores.pinhole,
            unreached=cores.unreached,
        )  # fmt: skip
    tiling = FrameTiling(height, width, spec.stride, 0, None)
    return Look(frame[None], frame_statistics(frame[None], spec.normalisation), tiling, how)


def padded(look: Look) -> NDArray[np.uint16]:
    """A frame (1, C, H, W) as it goes into the network."""
    height, width = (round_up(n, look.tiling.stride) for n in look.pixels.shape[1:])
    return np.ascontiguousarray(pad_to(look.pixels, (height, width)))[None]
