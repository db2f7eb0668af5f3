"""Open and read every path on stdin under limits; JSON lines. Run by `benchmarks.odd_files`.

A file has two lines: what our reader made of it, before its own library is asked, and the verdict.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import imagecodecs  # mapped before the limit is set
import numpy as np
import tifffile
import zarr
from tifffile.tifffile import apply_colormap

from engine.errors import FrameError, StackError
from engine.stacks.base import CANONICAL
from engine.stacks.guard import tifffile_messages
from engine.stacks.open import open_stacks

SECONDS = 10
MEMORY = 1_000_000_000

Named = tuple[str, Any]  # axes, array


def read(path: str, axes: str | None = None) -> tuple[dict[str, Any], Any]:
    """What is known of the (first) stack, and all its frames (T, Z, C, Y, X); checks a window."""
    with open_stacks(path, axes)[0] as stack:
        info = stack.info
        channels = range(info.size("C"))
        frame = stack.read(0, 0, channels)  # before there is an array for all of them
        frames = np.empty((info.size("T"), info.size("Z"), *frame.shape), frame.dtype)
        for t, z in np.ndindex(frames.shape[:2]):
            frames[t, z] = stack.read(t, z, channels)
        t, z, _, height, width = (n - 1 for n in frames.shape)
        rows, columns = slice(height // 3, height // 2 + 1), slice(width // 3, width // 2 + 1)
        window = stack.read_window(t, z, channels, rows, columns)
        same = np.array_equal(
            window, frames[t, z, :, rows, columns], equal_nan=frames.dtype.kind == "f"
        )
        known = {"axes": info.axes, "shape": info.shape, "dtype": info.dtype, "window": same}
    return known, frames


def by_library(path: str) -> Named | None:
    """Axes and pixels, as the format's own library has them; None where there are none."""
    found = _by_library(path)
    return found if found is not None and found[1].size else None


def _by_library(path: str) -> Named | None:
    with warnings.catch_warnings(), tifffile_messages():
        warnings.simplefilter("ignore")
        try:
            if Path(path).is_dir():
                return _zarr(Path(path))
            if path.lower().endswith((".png", ".jpg", ".jpeg")):
                pixels = imagecodecs.imread(path)
                return "YXC"[: pixels.ndim], pixels
            with tifffile.TiffFile(path) as tif:
                series = max(tif.series, key=lambda s: s.size)
                return series.axes, bright(series.asarray(maxworkers=1), series.keyframe)
        except Exception:
            return None


def _zarr(path: Path) -> Named | None:
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        names = node.metadata.dimension_names if node.metadata.zarr_format == 3 else None
        letters = "".join(n or "?" for n in names or []).upper()
        return letters or "?" * (node.ndim - 2) + "YX", node[...]
    attributes = dict(node.attrs)
    image: Any = attributes.get("ome", attributes)
    if "multiscales" not in image:
        inside = [c for c in sorted(path.iterdir()) if (c / ".zarray").is_file()]
        inside += [c for c in sorted(path.iterdir()) if (c / ".zattrs").is_file()]
        images = [c for c in inside if "multiscales" in (c / ".zattrs").read_text()]
        return _zarr(next(c for c in [*images, *inside]))
    scale = image["multiscales"][0]
    names = [a["name"] if isinstance(a, dict) else a for a in scale.get("axes") or "tczyx"]
    array = zarr.open_array(str(path / str(scale["datasets"][0]["path"])), mode="r")
    return "".join(names).upper(), array[...]


def equal(frames: Any, found: Named, given: str | None) -> bool:
    """Are these the same pixels?"""
    axes, pixels = found
    if given is not None and len(given) == pixels.ndim:
        axes = given
    axes = axes.replace("S", "C").replace("I", "T").replace("Q", "T").replace("?", "T")
    sizes = dict(zip(axes, pixels.shape, strict=True))
    order = [axes.index(a) for a in CANONICAL if a in axes]
    if len(order) != pixels.ndim:
        return np.array_equal(np.squeeze(pixels), np.squeeze(frames))
    expected = pixels.transpose(order).reshape([sizes.get(a, 1) for a in CANONICAL])
    expected = expected.transpose(0, 2, 1, 3, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        return expected.shape == frames.shape and np.array_equal(
            expected.astype(frames.dtype), frames, equal_nan=frames.dtype.kind == "f"
        )


def bright(pixels: Any, page: Any) -> Any:
    """Integers of a page in which 0 is white, counted from black instead."""
    if page.photometric != 0 or 262 not in page.tags or pixels.dtype.kind not in "bui":
        return pixels
    if pixels.dtype.kind in "bi":
        return ~pixels
    return (2**page.bitspersample - 1 - pixels.astype(np.int64)).astype(pixels.dtype)


def page_by_page(path: str) -> Any:
    """All pages of a TIFF in its order, each read as its own directory says; None on failure."""
    try:
        with tifffile_messages(), tifffile.TiffFile(path) as tif:
            pages = [tif.pages[i].aspage() for i in range(len(tif.pages))]
            return np.stack([bright(page.asarray(), page) for page in pages])
    except Exception:
        return None


def in_colour(path: str) -> Named | None:
    """The first page of a TIFF as its palette shows it, by its library; None without a palette."""
    try:
        with tifffile_messages(), tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            if page.photometric != 3:
                return None
            indices = page.asarray()
            indices = indices.view(np.uint8) if indices.dtype == bool else indices
            return "YXS", apply_colormap(indices, page.colormap) >> 8
    except Exception:
        return None


def verdict(path: str, seconds: float, base: int) -> None:
    given = frames = None
    row: dict[str, Any] = {"path": path}
    start = time.perf_counter()
    try:
        known, frames = read(path)
        row |= {"result": "read, and nothing to compare with", **known}
    except (StackError, FrameError) as error:
        sentence = str(error)
        bad = not sentence.isprintable() or not sentence.startswith(path)
        row |= {
            "result": "BAD SENTENCE" if bad else "refused",
            "error": f"{type(error).__name__}: {sentence}",
        }
    except Exception as error:
        row |= {"result": "ESCAPED", "error": f"{type(error).__name__}: {error}"}
    row["seconds"] = round(time.perf_counter() - start, 2)
    row["peak_mb"] = round(max(_status("VmHWM") - base, 0) / 1e6)
    signal.alarm(0)
    say({**row, "final": False})
    signal.alarm(int(seconds))
    found = by_library(path)
    if frames is None and row["result"] == "refused" and found is not None:
        row["note"] = f"its library reads {found[1].dtype} {found[0][:9]} {found[1].shape[:9]}"
        offered = re.findall(r"--axes ([TCZYX]+)", row["error"])
        if offered:
            given = offered[0]
            try:
                _, frames = read(path, given)
                row["result"] = "equal with --axes"
            except (StackError, FrameError) as error:
                row["note"] += f"; with {given}: {error}"
    elif found is not None and frames is not None:
        row["result"] = "equal"
        if frames.shape[:3] == (1, 1, 3):
            found = in_colour(path) or found
    if found is not None and frames is not None and not equal(frames, found, given):
        pages = page_by_page(path)
        same = pages is not None and pages.size == frames.size
        if same and np.array_equal(pages.ravel(), frames.ravel()):
            row["note"] = "page by page: its library takes all pages to be packed like the first"
        else:
            row |= {"result": "DIFFERENT", "source": found[0]}
    if row.get("window") is False:
        row["result"] = "DIFFERENT WINDOW"
    say(row)


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row, default=str), flush=True)


def _status(field: str) -> int:
    """Bytes, out of /proc/self/status."""
    found = re.search(field + r":\s+([0-9]+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    for line in sys.stdin:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        signal.alarm(SECONDS)  # kills: nothing can swallow it
        verdict(line.rstrip("\n"), SECONDS, _status("VmRSS"))
        signal.alarm(0)


if __name__ == "__main__":
    main()
