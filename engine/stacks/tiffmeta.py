"""Channel names, pixel sizes and time step out of OME and ImageJ metadata.

The resolution tags of any other TIFF are left alone: most writers put 72 or 96 dots per inch
there, whatever the microscope saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

Calibration = tuple[tuple[str, ...], dict[str, float], float | None]

UM = {
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "\\u00b5m": 1.0,  # as ImageJ writes it
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "inch": 25_400.0,
    "m": 1e6,
    "meter": 1e6,
}
SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "millisecond": 1e-3,
    "msec": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
}


def calibration(
    tif: TiffFile, series: TiffPageSeries, axes: str, shape: tuple[int, ...]
) -> Calibration:
    """(channel names, pixel size in um by axis, time step in s); what is unknown is left out.

    Metadata that cannot be understood is treated as absent: it must not cost the pixels.
    """
    try:
        if series.kind == "ome":
            found = _ome(tif, series)
        elif tif.is_imagej:
            found = _imagej(tif, series)
        else:
            return (), {}, None
    except Exception:
        return (), {}, None
    names, sizes, step = found
    n_channels = shape[axes.index("C")] if "C" in axes else 1
    return (
        names if len(names) == n_channels and any(names) else (),
        {a: s for a, s in sizes.items() if a in axes and 0 < s < 1e9},
        step if step and "T" in axes and 0 < step < 1e9 else None,
    )


def _ome(tif: TiffFile, series: TiffPageSeries) -> Calibration:
    root = ElementTree.fromstring(tif.ome_metadata or "")
    images = [
        pixels
        for image in root
        if image.tag.endswith("}Image") or image.tag == "Image"
        for pixels in image
        if pixels.tag.endswith("Pixels")
    ]
    kept = [s for s in tif.series if s.kind == "ome"]
    if len(kept) != len(images):
        return (), {}, None  # tifffile skipped some: which is which is not known
    pixels = images[kept.index(series)]
    sizes = {
        axis: float(pixels.attrib[key]) * UM[pixels.get(key + "Unit", "µm").lower()]
        for axis in "ZYX"
        if (key := "PhysicalSize" + axis) in pixels.attrib
    }
    step = None
    if "TimeIncrement" in pixels.attrib:
        step = float(pixels.attrib["TimeIncrement"])
        step *= SECONDS[pixels.get("TimeIncrementUnit", "s").lower()]
    names = tuple(c.get("Name", "") for c in pixels if c.tag.endswith("Channel"))
    return names, sizes, step


def _imagej(tif: TiffFile, series: TiffPageSeries) -> Calibration:
    meta: dict[str, Any] = tif.imagej_metadata or {}
    unit = UM.get(str(meta.get("unit", "")).lower())
    sizes: dict[str, float] = {}
    if unit is not None:
        for axis, tag in (("Y", "YResolution"), ("X", "XResolution")):
            pixels, length = series.keyframe.tags[tag].value
            if pixels:
                sizes[axis] = length / pixels * unit
        if "spacing" in meta:
            sizes["Z"] = abs(float(meta["spacing"])) * unit
    step = float(meta["finterval"]) if meta.get("finterval") else None
    if step is not None:
        step *= SECONDS.get(str(meta.get("tunit", "sec")).strip().lower(), 1.0)
    return (), sizes, step
