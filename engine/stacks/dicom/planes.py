"""Where one frame lies in the patient and in time, and how its values are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import plural
from engine.stacks.dicom.library import Damaged
from engine.stacks.rescale import Rescale

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Vector = tuple[float, ...]


class Plane(NamedTuple):
    """One frame of a file."""

    frame: int  # in its file, from 0
    position: Vector | None  # of the first pixel in the patient, mm: x, y, z
    orientation: Vector | None  # of rows and of columns, as six direction cosines
    spacing: Vector | None  # mm from row to row, from column to column
    rescale: Rescale
    window: Vector | None  # center and width of the first that it tells, of rescaled values
    times: tuple[float | None, ...]  # one for each of TIMES, which order phases of a position
    number: float | None  # InstanceNumber of the file


TIMES = ("TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber")
TRIGGER = TIMES.index("TriggerTime")


def planes_of(header: Dataset, n_frames: int) -> tuple[Plane, ...]:
    """The planes of a file; Damaged where what its header says of them makes no sense."""
    number = first_number(header.get("InstanceNumber"))
    offsets = numbers(header.get("GridFrameOffsetVector")) or ()
    groups = list(_groups(header, n_frames))
    planes = []
    for frame in range(n_frames):
        of_frame = groups[frame] if groups else {}

        def value(group: str, keyword: str, of_frame: dict[str, Dataset] = of_frame) -> Any:
            item = of_frame.get(group)
            return header.get(keyword) if item is None else item.get(keyword, header.get(keyword))

        position = numbers(value("PlanePositionSequence", "ImagePositionPatient"), 3)
        orientation = numbers(value("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
        if n_frames > 1 and not groups:  # a position of the file is that of its first frame
            position = _shifted(position, orientation, offsets, frame, n_frames)
        planes.append(
            Plane(
                frame=frame,
                position=position,
                orientation=orientation,
                spacing=numbers(value("PixelMeasuresSequence", "PixelSpacing"), 2),
                rescale=_rescale(
                    value("PixelValueTransformationSequence", "RescaleSlope"),
                    value("PixelValueTransformationSequence", "RescaleIntercept"),
                ),
                window=_window(
                    value("FrameVOILUTSequence", "WindowCenter"),
                    value("FrameVOILUTSequence", "WindowWidth"),
                ),
                times=_times(header, of_frame),
                number=number,
            )
        )
    return tuple(planes)


def numbers(value: object, n: int | None = None) -> Vector | None:
    """Finite numbers of an element with several; None where it has not `n` of them."""
    if value is None or isinstance(value, bytes):
        return None
    several = isinstance(value, Sequence) and not isinstance(value, str)
    values: Sequence[Any] = value if several else [value]  # type: ignore[assignment]
    try:
        found = tuple(float(one) for one in values)
    except (TypeError, ValueError):
        return None
    whole = bool(found) and (n is None or len(found) == n) and all(map(math.isfinite, found))
    return found if whole else None


def first_number(value: object) -> float | None:
    """The number of an element with one; None where it is none."""
    found = numbers([value])
    return found[0] if found else None


def _groups(header: Dataset, n_frames: int) -> Iterator[dict[str, Dataset]]:
    """For each frame of an enhanced object, its functional groups by keyword; else nothing."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return
    if len(per_frame) != n_frames:
        raise Damaged(
            f"counts {plural(n_frames, 'frame')}, but describes {len(per_frame)}; write it again"
        )
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    common = _sequences(shared[0])
    for item in per_frame:
        yield common | _sequences(item)


def _sequences(item: Any) -> dict[str, Dataset]:
    """The first item of each sequence, by keyword."""
    return {
        element.keyword: element.value[0]
        for element in item
        if element.VR == "SQ" and element.keyword and element.value
    }


def _shifted(
    position: Vector | None,
    orientation: Vector | None,
    offsets: Vector,
    frame: int,
    n_frames: int,
) -> Vector | None:
    """Where a frame lies by GridFrameOffsetVector; None where the file does not say."""
    if position is None or orientation is None or len(offsets) != n_frames:
        return None
    offset = offsets[frame] - offsets[0]
    return tuple(p + offset * n for p, n in zip(position, normal(orientation), strict=True))


def normal(orientation: Vector) -> Vector:
    """The direction in which slices follow each other: rows x columns, of length 1."""
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    cross = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*cross)
    return tuple(v / length for v in cross) if length > 1e-3 else (0.0, 0.0, 0.0)


def _rescale(slope: object, intercept: object) -> Rescale:
    if slope is None and intercept is None:
        return Rescale()
    a = 1.0 if slope is None else first_number(slope)
    b = 0.0 if intercept is None else first_number(intercept)
    if a is None or b is None or a == 0:
        raise Damaged("has a rescale slope or intercept that is no number, or a slope of 0")
    return Rescale(a, b)


def _window(centers: object, widths: object) -> Vector | None:
    """Center and width of the first window; None where there is none that has a width."""
    center, width = numbers(centers), numbers(widths)
    return (center[0], width[0]) if center and width and width[0] > 0 else None


def _times(header: Dataset, of_frame: dict[str, Dataset]) -> tuple[float | None, ...]:
    content = of_frame.get("FrameContentSequence", header)
    cardiac = of_frame.get("CardiacSynchronizationSequence", header)
    return (
        first_number(
            content.get("TemporalPositionIndex", header.get("TemporalPositionIdentifier"))
        ),
        first_number(cardiac.get("NominalCardiacTriggerDelayTime", header.get("TriggerTime"))),
        first_number(content.get("FrameAcquisitionNumber", header.get("AcquisitionNumber"))),
    )
