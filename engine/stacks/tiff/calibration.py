"""Channel names, pixel sizes and time step out of OME, ImageJ and Micro-Manager metadata.

The resolution tags of any other TIFF are left alone: most writers put 72 or 96 dots per inch
there, whatever the microscope saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.stacks.lengths import micrometres, seconds
from engine.stacks.tiff.images import TiffImage
from engine.stacks.tiff.ome import pixels_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from tifffile import TiffFile

Calibration = tuple[tuple[str, ...], dict[str, float], float | None]
Found = tuple[tuple[str, ...], dict[str, float | None], float | None]


def calibration(
    tif: TiffFile, images: Sequence[TiffImage], image: TiffImage, axes: str, shape: tuple[int, ...]
) -> Calibration:
    """(channel names, pixel size in um by axis, time step in s); what is unknown is left out.

    `images` are all those of the file. A value that cannot be understood costs itself, and neither
    the others nor the pixels.
    """
    try:
        if tif.ome_metadata and image.kind in ("ome", "mmstack", "ndtiff", "generic"):
            names, sizes, step = _ome(tif.ome_metadata, images, image)
        elif image.kind in ("mmstack", "ndtiff"):
            names, sizes, step = _micromanager(tif)
        elif image.kind == "imagej":
            names, sizes, step = _imagej(tif, image)
        else:
            return (), {}, None
    except Exception:
        return (), {}, None
    n_channels = shape[axes.index("C")] if "C" in axes else 1
    return (
        names if len(names) == n_channels and any(names) else (),
        {a: size for a, size in sizes.items() if a in axes and size is not None},
        step if "T" in axes else None,
    )


def _ome(xml: str, images: Sequence[TiffImage], image: TiffImage) -> Found:
    """What the Pixels element of an image says; nothing where it is unclear which one that is."""
    every = _described(xml)
    if len(images) == len(every):  # one image for each element, in order
        return every[image.number][1]
    named = [found for name, found in every if image.name and name == image.name]
    candidates = named if len(named) == 1 else [found for _, found in every]
    alike = candidates and all(one == candidates[0] for one in candidates)
    return candidates[0] if alike else ((), {}, None)


@lru_cache(maxsize=1)  # asked for each of the images of a file, of which there may be thousands
def _described(xml: str) -> tuple[tuple[str, Found], ...]:
    """Name and calibration of every image in OME-XML."""
    return tuple((name, _of_pixels(pixels)) for name, pixels in pixels_of(xml))


def _of_pixels(pixels: Element) -> Found:
    sizes = {
        axis: micrometres(
            pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        )
        for axis in "ZYX"
    }
    step = seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return tuple(c.get("Name", "") for c in pixels.findall("{*}Channel")), sizes, step


def _micromanager(tif: TiffFile) -> Found:
    summary: dict[str, Any] = (tif.micromanager_metadata or {}).get("Summary", {})
    names = summary.get("ChNames") or ()
    side = micrometres(summary.get("PixelSize_um"), "um")
    sizes = {"Z": micrometres(summary.get("z-step_um"), "um"), "Y": side, "X": side}
    step = seconds(summary.get("Interval_ms"), "ms")
    return tuple(str(name) for name in names) if isinstance(names, list) else (), sizes, step


def _imagej(tif: TiffFile, image: TiffImage) -> Found:
    meta: dict[str, Any] = tif.imagej_metadata or {}
    unit = meta.get("unit")
    sizes: dict[str, float | None] = {}
    for axis, tag in (("Y", "YResolution"), ("X", "XResolution")):
        value = image.key.tags.valueof(tag)
        if isinstance(value, tuple) and len(value) == 2 and value[0]:
            sizes[axis] = micrometres(value[1] / value[0], meta.get(f"{axis.lower()}unit", unit))
    spacing = meta.get("spacing")
    if isinstance(spacing, int | float):
        sizes["Z"] = micrometres(abs(spacing), meta.get("zunit", unit))
    interval = meta.get("finterval")
    step = seconds(interval, str(meta.get("tunit", "sec"))) if interval else None
    return (), sizes, step
