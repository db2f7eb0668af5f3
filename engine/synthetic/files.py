"""Synthetic time-lapses as files: one TIFF, or a Cell Tracking Challenge folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.synthetic.timelapse import TimeLapse

# Called after each frame with the number of frames done.
Progress = Callable[[int], None]

CLASSIC_TIFF = 3_900_000_000  # bytes; beyond, a TIFF needs 64-bit offsets


def write_tiff(
    path: Path | str,
    lapse: TimeLapse,
    truth: Path | str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the frames as one TIFF of axes TYX, uint16, holding one frame at a time.

    Parameters
    ----------
    path
        The TIFF to write; a BigTIFF where it would pass 4 GB.
    lapse
        What to write.
    truth
        Where to write the labels, if anywhere: a TIFF of the same axes, uint32, compressed.
    progress
        Called after each frame with the number of frames done.
    """
    size = int(np.prod(lapse.shape, dtype=np.int64))
    with ExitStack() as files:
        images = files.enter_context(tifffile.TiffWriter(path, bigtiff=2 * size > CLASSIC_TIFF))
        labels_to = None
        if truth is not None:
            big = 4 * size > CLASSIC_TIFF
            labels_to = files.enter_context(tifffile.TiffWriter(truth, bigtiff=big))

        def frames() -> Iterator[NDArray[np.uint16]]:
            for t in range(lapse.shape[0]):
                image, labels = lapse.frame(t)
                if labels_to is not None:  # page by page: the first says the shape of all
                    shape = json.dumps({"shape": list(lapse.shape), "axes": "TYX"})
                    labels_to.write(
                        labels, photometric="minisblack", compression="zlib", metadata=None,
                        description=None if t else shape,
                    )  # fmt: skip
                yield image
                if progress is not None:
                    progress(t + 1)

        images.write(
            frames(), shape=lapse.shape, dtype=np.uint16, photometric="minisblack",
            metadata={"axes": "TYX"},
        )  # fmt: skip


def write_ctc(
    folder: Path | str, lapse: TimeLapse, sequence: int = 1, progress: Progress | None = None
) -> None:
    """Write frames and truth in the layout of the Cell Tracking Challenge.

    FOLDER/01/t000.tif, FOLDER/01_GT/SEG/man_seg000.tif, FOLDER/01_GT/TRA/man_track000.tif and
    man_track.txt with its rows "L B E P". Every nucleus is drawn in full in both truths.

    Raises UsageError where ids would not fit the challenge's 16-bit labels.
    """
    tracks = lapse.tracks()
    if tracks[:, 0].max(initial=0) > np.iinfo(np.uint16).max:
        raise UsageError(
            f"a time-lapse of {len(tracks)} nuclei does not fit the 16-bit labels of the Cell "
            "Tracking Challenge; make it shorter or smaller"
        )
    root, digits = Path(folder), max(3, len(str(lapse.shape[0] - 1)))
    images = root / f"{sequence:02d}"
    seg, tra = (root / f"{sequence:02d}_GT" / name for name in ("SEG", "TRA"))
    for each in (images, seg, tra):
        each.mkdir(parents=True, exist_ok=True)
    for t in range(lapse.shape[0]):
        image, labels = lapse.frame(t)
        number = f"{t:0{digits}d}"
        short = labels.astype(np.uint16)
        tifffile.imwrite(images / f"t{number}.tif", image)
        tifffile.imwrite(seg / f"man_seg{number}.tif", short, compression="zlib")
        tifffile.imwrite(tra / f"man_track{number}.tif", short, compression="zlib")
        if progress is not None:
            progress(t + 1)
    np.savetxt(tra / "man_track.txt", tracks, fmt="%d")
