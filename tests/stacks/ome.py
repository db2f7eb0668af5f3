"""OME-TIFF files written by hand, as the format describes them: sets of files, several images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def uuid(file: str) -> str:
    return f"urn:uuid:{abs(hash(file)) % 10**8:08d}-0000-0000-0000-000000000000"


def plane(file: str, ifd: int, **first: int) -> str:
    """A plane of an image: page `ifd` of a file, or of the file itself where `file` is ""."""
    at = " ".join(f'First{axis}="{n}"' for axis, n in first.items())
    name = f'<UUID FileName="{file}">{uuid(file)}</UUID>' if file else ""
    return f'<TiffData {at} IFD="{ifd}" PlaneCount="1">{name}</TiffData>'


def image(
    number: int, shape: Mapping[str, int], planes: Sequence[str], name: str = "", more: str = ""
) -> str:
    """An Image element of uint16 pixels; `shape` by axis, Y and X among them."""
    sizes = " ".join(f'Size{axis}="{shape.get(axis, 1)}"' for axis in "XYZCT")
    channels = "".join(
        f'<Channel ID="Channel:{number}:{c}" SamplesPerPixel="1"/>'
        for c in range(shape.get("C", 1))
    )
    return (
        f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" '
        f'DimensionOrder="XYZCT" Type="uint16" {sizes} {more}>{channels}{"".join(planes)}'
        "</Pixels></Image>"
    )


def document(images: Sequence[str], file: str = "") -> str:
    """OME-XML; with the UUID of `file` where it is one of a set."""
    own = f' UUID="{uuid(file)}"' if file else ""
    return f'{HEAD}<OME xmlns="{NAMESPACE}"{own}>{"".join(images)}</OME>'


def binary_only(metadata_file: str, file: str) -> str:
    """The XML of a file whose metadata are in another."""
    return (
        f'{HEAD}<OME xmlns="{NAMESPACE}" UUID="{uuid(file)}"><BinaryOnly '
        f'MetadataFile="{metadata_file}" UUID="{uuid(metadata_file)}"/></OME>'
    )


def write(path: Path, pages: Sequence[NDArray[np.uint16]], xml: str, **options: Any) -> None:
    """Pages one by one, the XML with the first."""
    with tifffile.TiffWriter(path, ome=False) as writer:
        for i, page in enumerate(pages):
            description = xml.encode() if i == 0 else None
            writer.write(
                page, photometric="minisblack", metadata=None, description=description,
                contiguous=False, **options,
            )  # fmt: skip
