"""The network as a source of outputs: frames are read, and go through it one by one or together.

A device is faster with several frames at once. Those are frames of one block, and a frame's place
among them follows from its number in the block alone: what it gives does not depend on other
blocks, nor on what became of the frames beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, JobStopped, OutOfMemory
from engine.geometry.layout import Block
from engine.geometry.tiling import FrameTiling, Region
from engine.inference.outputs import Outputs, nothing
from engine.inference.tiles import predict_regions
from engine.model.statistics import frame_statistics, is_blank
from engine.steps.frame import Prediction
from engine.steps.hangs import Frame
from engine.steps.missing import check_frame
from engine.steps.task import TaskRun, check_present
from engine.steps.worker import halve_tile, session_of, tiling_of
from engine.store.records import SurveyRecord


@dataclass(frozen=True)
class _Read:
    """What of a frame is there before the network runs."""

    pixels: NDArray[Any]  # raw, (C, Y, X): the channels that are read
    taken: NDArray[Any]  # (C, Y, X): those that the network takes
    statistics: NDArray[np.float32]  # (C, 2), of the whole frame
    sha256: str
    missing_chunks: int


class Network:
    """Outputs by reading the input and running the network on it."""

    def __init__(
        self,
        run: TaskRun,
        block: Block,
        survey: Callable[[int, int], SurveyRecord] | None = None,
    ) -> None:
        """`survey` gives the statistics of cut frames, of which a block holds less than all."""
        self._run, self._block, self._survey = run, block, survey
        self._ahead: dict[Frame, Prediction] = {}  # of frames that have not been asked for yet

    def failure(self, t: int, z: int) -> str:
        """See `engine.steps.frame.Source`."""
        if self._survey is None:
            return ""
        frame = self._survey(t, z).frame
        return frame.reason or "was set aside" if frame.failed else ""

    def predict(self, t: int, z: int) -> Prediction:
        """See `engine.steps.frame.Source`. Tiles become smaller where memory runs out."""
        if (t, z) not in self._ahead:
            self._ahead = self._predict((t, z))
        return self._ahead.pop((t, z))

    def _predict(self, first: Frame) -> dict[Frame, Prediction]:
        """A frame, and those that go through the network with it."""
        run = self._run
        context, plan = run.task.context, run.plan
        tiling: FrameTiling | None = tiling_of(context, plan)
        while tiling is not None:
            try:
                return self._predict_together(first, tiling)
            except (OutOfMemory, MemoryError) as error:
                reason = error
                tiling = halve_tile(context, plan, tiling)
                run.tile = max(tiling.tile_shape) if tiling else 0
        raise JobStopped(
            f"{plan.name} t={first[0]} z={first[1]}: out of memory ({reason}); give fewer "
            "--workers or a smaller --tile, and run the same command again"
        ) from reason

    def _predict_together(self, first: Frame, tiling: FrameTiling) -> dict[Frame, Prediction]:
        run, plan, block = self._run, self._run.plan, self._block
        region = tiling.region(*plan.layout.around(block, plan.postprocessing.margin))
        places = self._places(first, tiling)
        found = {first: self._read(*first, region)}
        for frame in self._others(first, places):
            # What cannot be read says so when its turn comes.
            with suppress(FrameError), run.at(*frame):
                found[frame] = self._read(*frame, region)
        outputs = self._outputs(found, places, tiling, region)
        if not outputs[first].is_finite:
            raise FrameError("the network gave probabilities that are not finite")
        read = (block.y.as_slice(region.read_y.start), block.x.as_slice(region.read_x.start))
        inside = (block.y.as_slice(region.y.start), block.x.as_slice(region.x.start))
        return {
            frame: Prediction(
                one.pixels[:, *read], outputs[frame], inside,
                one.sha256, one.missing_chunks, is_blank(one.statistics),
            )
            for frame, one in found.items()
            if outputs[frame].is_finite
        }  # fmt: skip

    def _places(self, frame: Frame, tiling: FrameTiling) -> list[Frame]:
        """All frames of the run that a frame is part of, in their order."""
        count = max(self._run.plan.batch // tiling.n_tiles, 1)
        if self._survey is not None or count == 1:
            return [frame]
        frames = list(self._block.frames)
        start = frames.index(frame) // count * count
        return frames[start : start + count]

    def _others(self, first: Frame, places: list[Frame]) -> list[Frame]:
        """Those behind it that will be asked for."""
        task = self._run.task
        skipped = {(t, z) for t, z, _ in task.skip}
        behind = places[places.index(first) + 1 :]
        return [one for one in behind if one not in skipped and one in (task.only or behind)]

    def _outputs(
        self, found: dict[Frame, _Read], places: list[Frame], tiling: FrameTiling, region: Region
    ) -> dict[Frame, Outputs]:
        """What the network gives for frames, each in its place; blank ones do without it."""
        run, plan = self._run, self._run.plan
        spec, shape = run.model.spec, (region.y.size, region.x.size)
        # In blank frames nothing is there, whatever the network would make of them.
        outputs = {
            frame: nothing(spec, shape, plan.decision)
            for frame, one in found.items()
            if is_blank(one.statistics)
        }
        computed = {frame: one for frame, one in found.items() if frame not in outputs}
        if not computed:
            return outputs
        stand_in = next(iter(computed.values()))
        frames = [computed.get(place, stand_in) for place in places]
        session = session_of(run.task.context, plan, tiling)
        with run.watch.stage("network"):
            results = predict_regions(
                [(one.taken, one.statistics) for one in frames],
                region, session, plan.batch, run.pulse.beat,
            )  # fmt: skip
        for place, result in zip(places, results, strict=True):
            if place in computed:
                outputs[place] = Outputs(result, spec.n_class_outputs)
        return outputs

    def _read(self, t: int, z: int, region: Region) -> _Read:
        """The region of a frame with its halo, and its statistics."""
        run, plan = self._run, self._run.plan
        pixels, missing = self._read_pixels(t, z, region)
        taken = plan.model_input(pixels)
        if self._survey is not None:
            survey = self._survey(t, z)
            statistics = np.array(survey.statistics, dtype=np.float32)
            frame = survey.frame
            return _Read(pixels, taken, statistics, frame.sha256 or "", frame.missing_chunks or 0)
        digest = hashlib.sha256(pixels.data).hexdigest()
        with run.watch.stage("statistics"):
            statistics = frame_statistics(taken, run.model.spec.normalisation)
        return _Read(pixels, taken, statistics, digest, missing)

    def _read_pixels(self, t: int, z: int, region: Region) -> tuple[NDArray[Any], int]:
        """Raw pixels (C, Y, X) of the region with its halo, and how many chunks it lacks."""
        run, plan = self._run, self._run.plan
        rows, columns = region.read_y.as_slice(), region.read_x.as_slice()
        with run.watch.stage("read"):
            stack = run.stack
            if self._survey is None:
                pixels = stack.read(t, z, plan.channels_read)
            else:
                pixels = stack.read_window(t, z, plan.channels_read, rows, columns)
            missing = stack.missing_chunks(t, z, plan.channels_read, rows, columns)
            if missing and self._survey is None:  # cut frames were looked at when surveyed
                check_frame(stack, plan, t, z)
        expected = (len(plan.channels_read), region.read_y.size, region.read_x.size)
        if pixels.shape != expected:
            raise FrameError(f"has shape {pixels.shape}, and the stack's frames {expected}")
        if missing:  # or is all of it gone, which reads the same?
            with run.pulse.opening():
                check_present(plan)
        return pixels, missing
