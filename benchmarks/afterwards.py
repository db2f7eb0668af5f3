"""What is done behind the network, and what `relabel` spares: `python -m benchmarks.afterwards`.

    python -m benchmarks.afterwards [--repeats 15] [--save]

Medians of repeats that take turns, on synthetic frames of 700 x 1100 px:

1. Measures of all objects in one pass, beside scikit-image's `regionprops_table` for the same ones.
2. Labels by components and by watershed; halving of labels and image.
3. A whole job, without and with image and probabilities kept; and `relabel` beside it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.measure import regionprops_table

from benchmarks import frames as of
from benchmarks.record import RESULTS, header, medians
from engine.geometry.pyramid import halve_image, halve_labels
from engine.job.job import run_job
from engine.job.relabel import relabel
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.objects import object_sums, objects_of
from engine.plan.settings import JobSettings
from engine.steps.worker import release
from engine.synthetic import TimeLapse

FRAME = 45  # of 60: about 130 nuclei
PROPERTIES = (
    "label", "area", "centroid", "bbox", "eccentricity", "solidity", "intensity_mean",
    "intensity_min", "intensity_max",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    lines = header("Behind the network", "benchmarks.afterwards", "cpu", options.repeats)
    lines += steps(options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        lines += jobs(Path(folder), max(options.repeats // 5, 1))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.save:
        (RESULTS / f"afterwards-{time.strftime('%Y-%m-%d')}.md").write_text(text)


def steps(repeats: int) -> list[str]:
    image, truth = TimeLapse(shape=(60, 700, 1100), seed=0).frame(FRAME)
    probability = (truth > 0).astype(np.float32)
    mask = truth > 0
    labels = label_instances(mask, Postprocessing(0.5))
    pixels = image[None]
    variants: dict[str, Callable[[], object]] = {
        "measures, regionprops_table": lambda: regionprops_table(
            labels.astype(np.int32), image, properties=PROPERTIES
        ),
        "measures, one pass": lambda: objects_of(
            object_sums(labels, dict(enumerate(pixels)), probability)
        ),
        "components": lambda: label_instances(mask, Postprocessing(0.5)),
        "watershed": lambda: label_instances(mask, Postprocessing(0.5, instances="watershed")),
        "labels halved": lambda: halve_labels(labels),
        "image halved": lambda: halve_image(image),
    }
    found = medians(variants, repeats)
    base = found["measures, regionprops_table"]
    told = [f"| {name} | {1000 * s:.1f} | {s / base:.3f} |" for name, s in found.items()]
    count = int(labels.max())
    return [
        f"A frame of 700 x 1100 px with {count} objects:", "",
        "| step | ms | of regionprops_table |", "| --- | --- | --- |", *told, "",
    ]  # fmt: skip


def jobs(folder: Path, repeats: int) -> list[str]:
    lapse = TimeLapse(shape=(20, *of.SHAPE), seed=0)
    stack = of.write(folder / "frames.tif", [lapse.frame(t)[0] for t in range(20)], 20)

    def segment(name: str, **options: object) -> None:
        run_job(JobSettings(inputs=(str(stack),), model="nuclei", output=folder / name, fresh=True,
                            **options))  # fmt: skip
        release()

    segment("source", keep="probability", with_image=True)
    variants: dict[str, Callable[[], object]] = {
        "segment": lambda: segment("plain"),
        "segment --keep probability": lambda: segment("kept", keep="probability"),
        "segment --keep probability --with-image": lambda: segment(
            "all", keep="probability", with_image=True
        ),
        "relabel, components": lambda: relabel(folder / "source", "a", threshold=0.6, fresh=True),
        "relabel, watershed": lambda: relabel(
            folder / "source", "b", instances="watershed", fresh=True
        ),
    }
    found = medians(variants, repeats)
    base = found["segment"]
    sizes = {name: size(folder / name / f"{stack.stem}.zarr") for name in ("plain", "kept", "all")}
    told = [f"| {name} | {s:.2f} | {s / base:.2f} |" for name, s in found.items()]
    return [
        f"A job of 20 frames, start and tables included, medians of {repeats}:", "",
        "| command | s | of segment |", "| --- | --- | --- |", *told, "",
        f"On the disk: labels and levels {sizes['plain']:.2f} MB, with probabilities "
        f"{sizes['kept']:.2f} MB, with the image and its levels {sizes['all']:.2f} MB, of "
        f"{20 * 700 * 1100 * 2 / 2**20:.2f} MB of raw pixels.", "",
    ]  # fmt: skip


def size(folder: Path) -> float:
    """MB of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
