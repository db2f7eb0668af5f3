"""Labels as DICOM Segmentation objects that refer to the images they come from.

Each time point is an object of its own. Its frames lie where those of the source do, pixel by
pixel, and name them. Patient and study are copied from the source: archives file it by these. A
class is a binary segment with its name and colour. Objects are one segment: a segment for each
would be thousands.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine import __version__
from engine.errors import MissingExtra, StackError, UsageError, first_line, install_command
from engine.results.result import LabelClass, ResultStack
from engine.results.source import open_source
from engine.stacks.dicom.stack import DicomStack

try:
    import highdicom
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr.coding import CodedConcept
    from pydicom import dcmread
    from pydicom.sr.codedict import codes
except ModuleNotFoundError:
    raise MissingExtra(f"--to dicom-seg needs highdicom: {install_command('dicom')}") from None

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

log = logging.getLogger("stackseg")

_SERIES = 1000  # added to the number of the source's series
# SNOMED CT codes of structures; other names get a code of this program's own.
_STRUCTURES = {
    "heart": ("80891009", "Heart"),
    "left ventricle": ("87878005", "Left ventricle"),
    "right ventricle": ("53085002", "Right ventricle"),
    "left atrium": ("82471001", "Left atrium"),
    "right atrium": ("73829009", "Right atrium"),
    "ascending aorta": ("54247002", "Ascending aorta"),
    "descending aorta": ("281130003", "Descending aorta"),
    "pulmonary artery": ("81040000", "Pulmonary artery"),
    "vena cava": ("35532006", "Vena cava"),
    "myocardium": ("74281007", "Myocardium"),
}
# Elements of patient and study that DICOM wants to be there, if empty; highdicom reads them all.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


class Frames:
    """The source images of a stack, and the place of each of its planes among their frames."""

    def __init__(self, stack: ResultStack) -> None:
        with open_source(stack) as source:
            if not isinstance(source, DicomStack):
                raise UsageError(
                    f"{stack.store}: comes from {stack.format}, and DICOM SEG refers to DICOM "
                    "images; use --to nifti or --to tiff"
                )
            self._units = {(t, z): source.unit(t, z) for t, z in stack.labels.numbers}

    def of(self, t: int) -> tuple[list[Dataset], dict[int, int], int]:
        """The images of a time point, the frame of each plane by z, and how many frames there are.

        Headers are read, not pixels. Of a multi-frame image all frames count, whatever is labelled.
        """
        units = {z: unit for (at, z), unit in sorted(self._units.items()) if at == t and unit}
        paths = dict.fromkeys(file.path for file, _ in units.values())
        images = [_header(path) for path in paths]
        if len(images) == 1 and (n := len(next(iter(units.values()))[0].planes)) > 1:
            return images, {z: plane.frame for z, (_, plane) in units.items()}, n
        return images, {z: n for n, z in enumerate(units)}, len(units)


def writers(stack: ResultStack) -> dict[str, Any]:
    """What writes each file, by its name: one for each time point.

    Raises UsageError or StackError where the source is not DICOM, has changed, or is gone.
    """
    frames, ts = Frames(stack), stack.labels.ts
    series = highdicom.UID()
    return {
        f"{stack.file_name}{f'_t{t:04d}' if len(ts) > 1 else ''}.seg.dcm": partial(
            write_segmentation, stack=stack, frames=frames, t=t, series=series
        )
        for t in ts
    }


def write_segmentation(path: Path, stack: ResultStack, frames: Frames, t: int, series: str) -> None:
    """Write the labels of a time point; StackError where the source's headers don't allow it."""
    images, places, n = frames.of(t)
    labels = stack.labels
    pixels = np.zeros((n, labels.size("Y"), labels.size("X")), np.uint8)
    for z, frame in places.items():
        plane = labels.read(t, z)
        pixels[frame] = plane if stack.classes else plane != 0
    if not pixels.any():
        log.warning("%s: none of its pixels is labelled; the segmentation is empty", stack.name)
    try:
        content = _segmentation(images, pixels, stack, series, t)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # what highdicom lacks
        missing = re.search(r"has no attribute '(\w+)'", str(error))
        reason = f"they have no {missing[1]}" if missing else first_line(error)
        raise StackError(
            f"{stack.name}: cannot be written as DICOM SEG, since its images lack what it refers "
            f"to ({reason}); use --to nifti"
        ) from error
    content.save_as(path)


def _header(path: Path | str) -> Dataset:
    """A header, with empty elements where anonymising has removed what may be empty."""
    header = dcmread(path, stop_before_pixels=True)
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    return header


def _segmentation(
    images: Sequence[Dataset], pixels: NDArray[np.uint8], stack: ResultStack, series: str, t: int
) -> Segmentation:
    classes = stack.classes[1:] or (stack.objects,)
    return Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type="BINARY",
        segment_descriptions=[_description(n, c, stack.model) for n, c in enumerate(classes, 1)],
        series_instance_uid=series,
        series_number=int(images[0].get("SeriesNumber") or 0) + _SERIES,
        sop_instance_uid=highdicom.UID(),
        instance_number=t - stack.labels.first[0] + 1,
        manufacturer="stackseg",
        manufacturer_model_name=stack.model,
        software_versions=__version__,
        device_serial_number="none",
        series_description=f"Segmentation by {stack.model}"[:64],
        omit_empty_frames=bool(pixels.any()),  # all of them at once can't be omitted
    )


def _description(number: int, one: LabelClass, model: str) -> SegmentDescription:
    known = _STRUCTURES.get(one.name.lower())
    kind = CodedConcept(known[0], "SCT", known[1]) if known else _own(one.name)
    return SegmentDescription(
        segment_number=number,
        segment_label=one.name[:64],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model[:64],
            family=codes.cid7162.ArtificialIntelligence,
            version=__version__,
        ),
        display_color=CIELabColor.from_rgb(*one.rgb),
    )


def _own(name: str) -> CodedConcept:
    """A code for a name that has none here."""
    value = "".join(c for c in name.upper().replace(" ", "-") if c.isalnum() or c == "-")
    return CodedConcept(value[:16] or "CLASS", "99STACKSEG", name[:64])
