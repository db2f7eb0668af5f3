"""What each part behind the network costs alone, beside what the field has for it.

    python -m benchmarks.parts [--repeats 9] [--frames 16] [--save] [--json FILE]

Core-ms a frame, over frames of 700 x 1100 px with 300 nuclei that are all different: of one frame,
again and again, a processor learns by heart which way each branch goes. Other libraries are
measured where they are installed: connected-components-3d, fastremap, fill-voids, edt, tinybrain
and numba (`pip install` them into an environment of their own, beside stackseg).
"""

from __future__ import annotations

import argparse
import importlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import frames as of
from benchmarks.record import Run, taking_turns
from engine.geometry.arrays import ArrayShape
from engine.geometry.pyramid import halve_image, halve_labels
from engine.labels.classes import masks
from engine.labels.components import label_frame
from engine.labels.cores import find_seeds
from engine.labels.holes import fill_pinholes
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.hulls import convex_areas
from engine.measure.objects import object_sums, piece_sums
from engine.model.file import open_model
from engine.model.spec import Normalisation
from engine.model.statistics import frame_statistics
from engine.runtimes.base import Target
from engine.runtimes.registry import open_session
from engine.stacks.tiff.lzw import decoded
from engine.store import sharding

EIGHT = np.ones((3, 3), np.uint8)
HOW = Postprocessing(0.5, min_area=30, instances="cores", core_threshold=0.7, growth=5, pinhole=6)
Calls = dict[str, Callable[[], Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--json", type=Path, help="where the run is written")
    parser.add_argument("--save", action="store_true", help="write results/runs/parts-DATE.json")
    options = parser.parse_args()
    run = Run("parts")
    frames = [(image, probabilities(image)) for image in of.crowded(options.frames)]
    for group in (
        [labelling(probability) for _, probability in frames],
        [measuring(image, probability) for image, probability in frames],
        [storing(image) for image, _ in frames],
    ):
        calls = {name: in_turn([calls[name] for calls in group]) for name in group[0]}
        for name, seconds in taking_turns(calls, options.repeats, time.process_time).items():
            run.add(name, "core-ms a frame", [1000 * one / len(frames) for one in seconds])
    print(run.table())
    if options.save or options.json:
        run.write(options.json)


def in_turn(calls: list[Callable[[], Any]]) -> Callable[[], None]:
    """All of them, one after the other."""

    def all_of_them() -> None:
        for call in calls:
            call()

    return all_of_them


def probabilities(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What the bundled network gives for a frame, (2, Y, X)."""
    session = open_session(open_model("nuclei"), "uint16", Target("onnxruntime", "cpu"), 1)
    height, width = image.shape
    padded = np.pad(image, ((0, -height % 16), (0, -width % 16)), mode="reflect")[None, None]
    statistics = frame_statistics(image[None], Normalisation())[None]
    return session.run(padded, statistics)[0][:, :height, :width]


def labelling(probability: NDArray[np.float32]) -> Calls:
    """Masks, components, holes, growth."""
    mask, core = masks(probability, HOW)
    assert core is not None
    seeds = find_seeds(mask, core, HOW)
    labels = label_frame(seeds.mask)[0]
    calls: Calls = {
        "thresholds": lambda: masks(probability, HOW),
        "labels by cores": lambda: label_instances(mask, HOW, core),
        "labels by components": lambda: label_instances(mask, Postprocessing(0.5, min_area=30)),
        "seeds, with pinholes and the nearest cores": lambda: find_seeds(mask, core, HOW),
        "growth": lambda: seeds.grow(labels.copy()),
        "pinholes of one mask": lambda: fill_pinholes(mask, HOW.pinhole),
        "components": lambda: label_frame(mask),
        "components, scipy.ndimage": lambda: ndimage.label(mask, EIGHT),
        "holes of any size, scipy": lambda: ndimage.binary_fill_holes(mask),
        "distances, scipy": lambda: ndimage.distance_transform_edt(mask),
    }
    if cc3d := installed("cc3d"):
        calls["components, cc3d"] = lambda: cc3d.connected_components(mask, connectivity=8)
        calls["small objects, cc3d"] = lambda: cc3d.dust(labels, threshold=30, connectivity=8)
    if fill_voids := installed("fill_voids"):
        calls["holes of any size, fill_voids"] = lambda: fill_voids.fill(mask)
    if edt := installed("edt"):
        calls["distances, edt"] = lambda: edt.edt(mask)
    return calls


def measuring(image: NDArray[np.uint16], probability: NDArray[np.float32]) -> Calls:
    """Percentiles, sums, hulls, levels."""
    mask, core = masks(probability, HOW)
    labels = label_instances(mask, HOW, core)
    certainty, pixels = probability[0], {0: image}
    rows = piece_sums(labels, pixels, certainty)[1]
    normalisation = Normalisation()
    calls: Calls = {
        "percentiles": lambda: frame_statistics(image[None], normalisation),
        "histogram, numpy.bincount": lambda: np.bincount(image.reshape(-1), minlength=2**16),
        "percentiles, numpy.partition": lambda: np.partition(image.reshape(-1), (7700, 768460)),
        "sums and hulls of objects": lambda: object_sums(labels, pixels, certainty),
        "sums of objects": lambda: piece_sums(labels, pixels, certainty),
        "convex hulls": lambda: convex_areas(rows),
        "labels halved": lambda: halve_labels(labels),
        "image halved": lambda: halve_image(image),
    }
    if cc3d := installed("cc3d"):
        calls["areas and boxes, cc3d"] = lambda: cc3d.statistics(labels)
    if fastremap := installed("fastremap"):
        calls["areas, fastremap"] = lambda: fastremap.unique(labels, return_counts=True)
        calls["numbering, fastremap"] = lambda: fastremap.renumber(labels)
    if tinybrain := installed("tinybrain"):
        deep, planes = (np.asfortranarray(one.T[..., None]) for one in (labels, image))
        calls["labels halved, tinybrain"] = lambda: tinybrain.downsample_segmentation(
            deep, (2, 2, 1)
        )
        calls["image halved, tinybrain"] = lambda: tinybrain.downsample_with_averaging(
            planes, (2, 2, 1)
        )
    return calls


def storing(image: NDArray[np.uint16]) -> Calls:
    """Pages and shards."""
    labels = np.zeros((1, 1, *image.shape), np.uint32)
    labels[0, 0] = label_frame(image > np.percentile(image, 90))[0]
    shape = ArrayShape("TZYX", labels.shape, "uint32", labels.shape, labels.shape)
    shard = sharding.encode(shape, labels)
    raw = labels.tobytes()
    page = lzw_page(image)
    calls: Calls = {
        "LZW page": lambda: decoded(page),
        "LZW page, tifffile": page.asarray,
        "shard of labels, encoded": lambda: sharding.encode(shape, labels),
        "shard of labels, decoded": lambda: sharding.decode(shape, shard),
        "zstd level 1 alone": lambda: Zstd(level=1).encode(raw),
        "zstd level -1 alone": lambda: Zstd(level=-1).encode(raw),
        "LZ4 alone": lambda: imagecodecs.lz4_encode(raw),
    }
    return calls


def lzw_page(image: NDArray[np.uint16]) -> Any:
    """A page in strips of 3 rows, as libtiff cuts it."""
    file = io.BytesIO()
    tifffile.imwrite(file, image, photometric="minisblack", compression="lzw", rowsperstrip=3)
    file.seek(0)
    return tifffile.TiffFile(file).pages[0]


def installed(name: str) -> Any:
    """A library, or None where it is not here."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


if __name__ == "__main__":
    main()
