"""Where voxels lie in the patient, as NIfTI has it: from indices x, y, z to mm.

NIfTI counts mm to the right, to the front and to the head (RAS), DICOM to the left, to the back
and to the head (LPS): the first two axes change their sign.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.results.result import ResultStack
from engine.results.source import open_source
from engine.stacks.base import Stack
from engine.stacks.dicom.stack import DicomStack
from engine.stacks.nifti import affine_of

log = logging.getLogger("stackseg")

Matrix = NDArray[np.float64]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER, ALIGNED = 1, 2  # NIfTI's codes of what a matrix leads to


class Affine(NamedTuple):
    """A matrix, and how much is known of it."""

    matrix: Matrix  # (4, 4)
    code: int


def affine_of_stack(stack: ResultStack) -> Affine:
    """The affine of a result's labels, whose first plane may be a later one of the source.

    That of a NIfTI source as its header has it, of DICOM by position and orientation, else by the
    sizes of pixels. Raises StackError where a source that has one cannot be read again.
    """
    matrix = None
    if stack.axes is None and stack.format.startswith("NIfTI") and stack.origin is not None:
        open_source(stack).close()  # it must be the file that was segmented
        matrix = affine_of(stack.origin.path) @ _from_plane(stack.labels.first[1])
    elif stack.format == "DICOM":
        with open_source(stack) as source:
            matrix = _of_dicom(source, *stack.labels.first)
    if matrix is not None:
        return Affine(matrix, SCANNER)
    if stack.origin is None or stack.format.startswith(("NIfTI", "DICOM")):
        log.warning("%s: its place in the patient is not known, only pixel sizes are", stack.store)
    sizes = stack.labels.pixel_size_um
    return Affine(_of_sizes(sizes) @ _from_plane(stack.labels.first[1]), ALIGNED)


def _of_dicom(source: Stack, t: int, z: int) -> Matrix | None:
    """By the positions of the planes from z on; None where the files tell none."""
    if not isinstance(source, DicomStack):
        return None
    n = source.info.size("Z")
    first, last = source.unit(t, z), source.unit(t, n - 1)
    if first is None or first[1].position is None or first[1].orientation is None:
        return None
    plane = first[1]
    position, orientation = np.array(plane.position), np.array(plane.orientation)
    rows, columns = orientation[:3], orientation[3:]
    down, across = plane.spacing or (1.0, 1.0)
    step = np.cross(rows, columns) * source.info.pixel_size_um.get("Z", 1000) / 1000
    if n - 1 > z and last is not None and last[1].position is not None:
        step = (np.array(last[1].position) - position) / (n - 1 - z)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = rows * across, columns * down, step
    matrix[:3, 3] = position
    return LPS_TO_RAS @ matrix


def _of_sizes(sizes_um: Mapping[str, float]) -> Matrix:
    """Along the axes of the array; what is not known is 1 mm."""
    return np.diag([*(sizes_um.get(axis, 1000.0) / 1000 for axis in "XYZ"), 1.0])


def _from_plane(z: int) -> Matrix:
    matrix = np.eye(4)
    matrix[2, 3] = z
    return matrix
