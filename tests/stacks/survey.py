"""Open and read every path on stdin under limits; one JSON line each. Run as a subprocess.

The limits are the promise: no file makes the reader hang, or take a gigabyte.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import imagecodecs  # noqa: F401 - mapped before the limit is set
import numpy as np
import tifffile

from engine.errors import FrameError, StackError
from engine.stacks.base import CANONICAL
from engine.stacks.guard import tifffile_messages
from engine.stacks.open import open_stack

SECONDS = 10


def as_imread(path: str) -> Any:
    """What tifffile makes of the image with the most pixels, or None where it fails."""
    with warnings.catch_warnings(), tifffile_messages():
        warnings.simplefilter("ignore")
        try:
            with tifffile.TiffFile(path) as tif:
                series = max(tif.series, key=lambda s: s.size)
                return series.axes, series.asarray(maxworkers=1)
        except Exception:
            return None


def same(path: str) -> dict[str, Any]:
    with open_stack(path) as stack:
        info = stack.info
        frames = np.stack(
            [
                np.stack([stack.read(t, z, range(info.size("C"))) for z in range(info.size("Z"))])
                for t in range(info.size("T"))
            ]
        )  # T Z C Y X
    found = as_imread(path)
    verdict: dict[str, Any] = {"axes": info.axes, "shape": info.shape, "dtype": info.dtype}
    if found is None:
        return verdict | {"result": "opened, tifffile fails"}
    axes, pixels = found
    axes = axes.replace("S", "C").replace("I", "T").replace("Q", "T")
    full = dict(zip(axes, pixels.shape, strict=True))
    order = [axes.index(a) for a in CANONICAL if a in axes]
    shape = [full.get(a, 1) for a in "TCZYX"]
    expected = pixels.transpose(order).reshape(shape).transpose(0, 2, 1, 3, 4)
    equal = expected.shape == frames.shape and np.array_equal(
        expected.astype(info.dtype), frames, equal_nan=frames.dtype.kind == "f"
    )
    return verdict | {"result": "equal" if equal else "DIFFERENT", "source": axes}


def verdict(path: str) -> dict[str, Any]:
    try:
        return same(path)
    except (StackError, FrameError) as error:
        sentence = str(error)
        bad = "\n" in sentence or not sentence.startswith(path)
        could = as_imread(path)
        note = "" if could is None else f"tifffile reads {could[0]} {could[1].shape}"
        return {
            "result": "BAD SENTENCE" if bad else "refused",
            "error": f"{type(error).__name__}: {sentence}",
            "note": note,
        }
    except Exception as error:
        return {"result": "ESCAPED", "error": f"{type(error).__name__}: {error}"}


def main() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        path = line.rstrip("\n")
        print(json.dumps({"path": path, "result": "started"}), flush=True)
        signal.alarm(SECONDS)  # kills: nothing can swallow it
        start = time.perf_counter()
        found = verdict(path)
        signal.alarm(0)
        seconds = round(time.perf_counter() - start, 2)
        print(json.dumps({"path": path, **found, "seconds": seconds}, default=str), flush=True)


if __name__ == "__main__":
    main()
