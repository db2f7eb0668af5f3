"""What stands behind the constants of memory: `python -m benchmarks.footprint`.

Prints each constant of engine/plan/footprint.py that names this command beside what is measured,
for nuclei as dense as they are planned for, one for every 256 px, and of labels and measures also
for noise, half of whose pixels are foreground: of these how much the process grows, of stitching
the peak of what Python and NumPy allocate (tracemalloc, which does not see Numba). A constant is an
upper bound: it should not be less.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

from engine.geometry.arrays import IMAGE, LABELS, PROBABILITY
from engine.job.attempts import run_task
from engine.job.job import run_job
from engine.labels.components import label_frame
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.labels.stitching import contacts, faces_of
from engine.labels.watershed import split_touching
from engine.measure.hulls import RowEnds, convex_areas, merged_rows
from engine.measure.objects import object_sums
from engine.model.file import open_model
from engine.model.spec import Normalisation
from engine.plan import footprint
from engine.plan.settings import JobSettings
from engine.runtimes import onnxruntime
from engine.runtimes.base import Constant, Target
from engine.runtimes.registry import open_session
from engine.steps.task import Outcome, Task
from engine.synthetic import TimeLapse
from tests import networks

SIDE = 4096  # px; a frame of 16 Mi px is cut into regions
BLOCK = 2048  # px; rows of a region of it
CELL = 16  # px; one object in each


def main() -> None:
    rows: list[tuple[Constant[Any], float]] = [*pixels(), *stitching(), *shares(), session()]
    print("| constant | stands at | measured |\n| --- | --- | --- |")
    for constant, measured in rows:
        print(f"| {constant.meaning}, {constant.unit} | {constant.value:g} | {measured:.3g} |")


def peak(call: Callable[[], Any]) -> int:
    """Most bytes that were allocated at once by `call` and are seen by tracemalloc."""
    tracemalloc.start()
    call()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def growth(call: Callable[[], Any]) -> int:
    """Most bytes by which the process grew while `call` ran, looked at every half millisecond."""
    process, call_ended, most = psutil.Process(), threading.Event(), 0
    call()  # compiled, imported
    ctypes.CDLL(None).malloc_trim(0)
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not call_ended.wait(0.0005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    call_ended.set()
    watcher.join()
    return most - before


def squares(side: int, size: int) -> np.ndarray:
    """A frame of squares of `size` px, one in each cell."""
    inside = np.arange(side) % CELL < size
    return inside[:, None] & inside


def pixels() -> Iterator[tuple[Constant[Any], float]]:
    frame = squares(2048, 13)
    image = np.full((1, *frame.shape), 1000, np.uint16)
    labels = label_frame(frame)[0]
    nuclei, n_nuclei = label_frame(TimeLapse(shape=(60, 2048, 2048), seed=0).frame(45)[1] > 0)
    certainty = frame.astype(np.float32)
    noise = np.random.default_rng(0).random(frame.shape) < 0.5
    specks = label_frame(noise)[0]
    taken = max(
        growth(lambda: object_sums(labels, {0: image[0]}, certainty)),
        growth(lambda: object_sums(specks, {0: image[0]}, certainty)),
        growth(lambda: label_instances(noise, Postprocessing(0.5, min_area=5))) - labels.nbytes,
    )
    yield footprint.MEASURE, taken / frame.size
    taken = growth(lambda: split_touching(nuclei.copy(), n_nuclei, 3, 1))
    yield footprint.WATERSHED, taken / frame.size
    cores = frame & np.roll(squares(2048, 9), (2, 2), (0, 1))
    how = Postprocessing(0.5, instances="cores", growth=3, pinhole=6)
    taken = growth(lambda: label_instances(frame, how, cores))
    yield footprint.CORES, taken / frame.size - 5  # labels and a mask are counted by themselves


class Stitched:
    """A serial loop that remembers what stitching took."""

    def __init__(self) -> None:
        self.peak = 0

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        for task in tasks:
            outcomes: list[Outcome | None] = []
            call = lambda task=task, outcomes=outcomes: outcomes.append(run_task(task))  # noqa: E731
            if task.step == "stitch":
                self.peak = max(self.peak, peak(call))
            else:
                call()
            yield from (outcome for outcome in outcomes if outcome is not None)


def stitching() -> Iterator[tuple[Constant[Any], float]]:
    def taken(n: int, columns: int) -> int:
        with tempfile.TemporaryDirectory() as folder:
            frame = squares(SIDE, 10).astype(np.uint16) * 60_000
            frame[:, columns:] = 0
            stack, model = Path(folder) / "stack.tif", networks.threshold_model()
            tifffile.imwrite(
                stack, np.stack([frame] * n), metadata={"axes": "CYX"}, photometric="minisblack"
            )
            spec = networks.spec(
                model, normalisation=Normalisation(policy="range", low=0, high=65535)
            )
            path = networks.save(Path(folder) / "model.onnx", model, spec)
            loop = Stitched()
            run_job(
                JobSettings(
                    inputs=(str(stack),), model=str(path), output=Path(folder) / "out", channel="0"
                ),
                executor=loop,
            )
            return loop.peak

    # A row of blocks is held at once: what more objects in it add, and what more channels do.
    row = SIDE * BLOCK // CELL**2
    taken(1, 0)  # what is imported and kept by the first one counts for none
    half, whole, more = taken(1, SIDE // 2), taken(1, SIDE), taken(3, SIDE)
    channel = (more - whole) / 2 / row
    yield footprint.PIECE, (whole - half) / (row / 2) - channel
    yield footprint.PIECE_CHANNEL, channel
    n = 4096
    ends = RowEnds(
        np.repeat(np.arange(n), footprint.PIECE_ROWS.value),
        *(np.tile(np.arange(16, dtype=np.int32), n) + shift for shift in (0, 0, 9)),
    )
    yield footprint.ROW, peak(lambda: convex_areas(merged_rows([ends]))) / len(ends)
    labels = label_frame(squares(2048, CELL - 1))[0][None, None]
    one, other = (faces_of(np.roll(labels, n, (2, 3)), connect_z=True) for n in (0, 7))
    face = one["z1"].size
    found = peak(lambda: contacts(one, other, (1, 0, 0), connect_z=True))
    yield footprint.FACE, found / face + 2 * labels.itemsize


def shares() -> Iterator[tuple[Constant[Any], float]]:
    lapse = TimeLapse(shape=(60, 1024, 1024), seed=0)
    names = {LABELS: "labels/nuclei/0", PROBABILITY: "probability/nuclei/0", IMAGE: "0"}
    with tempfile.TemporaryDirectory() as folder:
        stack, output = Path(folder) / "stack.tif", Path(folder) / "out"
        frames = np.stack([lapse.frame(t)[0] for t in range(40, 48)])
        tifffile.imwrite(stack, frames, metadata={"axes": "TYX"}, photometric="minisblack")
        run_job(
            JobSettings(
                inputs=(str(stack),), model="nuclei", output=output, keep="probability",
                with_image=True,
            )
        )  # fmt: skip
        for (kind, name), constant, itemsize in zip(
            names.items(),
            (footprint.LABELS_SHARE, footprint.PROBABILITY_SHARE, footprint.IMAGE_SHARE),
            (4, 1, 2),
            strict=True,
        ):
            found = [p for p in (output / "stack.zarr" / name).rglob("*") if p.is_file()]
            assert found, kind
            size = sum(path.stat().st_size for path in found if path.name != "zarr.json")
            yield constant, size / (frames.size * itemsize)


def session() -> tuple[Constant[Any], float]:
    with tempfile.TemporaryDirectory() as folder:
        network = networks.unet((64, 128, 256, 512, 1024))
        path = networks.save(Path(folder) / "m.onnx", network, networks.spec(network))
        model = open_model(str(path))
        pixels = np.zeros((1, 1, 16, 16), np.uint16)
        before = psutil.Process().memory_info().rss
        one = open_session(model, "uint16", Target("onnxruntime", "cpu"), 1)
        one.run(pixels, np.float32([[[0, 1]]]))
        held = psutil.Process().memory_info().rss - before
    return onnxruntime.SESSION_COPIES, held / len(model.data)


if __name__ == "__main__":
    main()
