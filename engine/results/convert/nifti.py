"""Labels as NIfTI, plane by plane: X, Y, Z and T in the order of the file, packed by gzip."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import MissingExtra, install_command
from engine.results.convert.affine import ALIGNED, Affine
from engine.results.convert.tiff import tiff_type
from engine.results.result import ResultStack

try:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
except ModuleNotFoundError:
    raise MissingExtra(f"--to nifti needs nibabel: {install_command('nifti')}") from None

_LEVEL = 6  # of gzip
_SHORT = 32_767  # the longest axis that NIfTI-1 counts


def write_volume(path: Path, stack: ResultStack, affine: Affine) -> None:
    """Write all labels of a stack as one `.nii.gz`: uint8 of classes, else 16 or 32 bits of ids."""
    dtype = tiff_type(stack)
    header = _header(stack, affine, np.dtype(dtype))
    # Neither name nor time: the same labels are the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as file:
        header.write_to(file)
        for t, z in stack.labels.numbers:
            for band in stack.labels.bands():
                pixels = stack.labels.read(t, z, band).astype(np.dtype(dtype).newbyteorder("<"))
                file.write(pixels.tobytes())


def _header(stack: ResultStack, affine: Affine, dtype: np.dtype[Any]) -> Any:
    labels = stack.labels
    shape = tuple(labels.size(axis) for axis in "XYZT")
    shape = shape if shape[3] > 1 else shape[:3]
    kind = Nifti1Header if max(shape) <= _SHORT else Nifti2Header
    header = kind(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine.matrix, affine.code)
    header.set_qform(affine.matrix, affine.code)
    if not np.allclose(header.get_qform(), affine.matrix, atol=1e-3):  # sheared: it has no such
        header.set_qform(affine.matrix, 0)
    if len(shape) == 4:
        header["pixdim"][4] = labels.time_step_s or 1
    known = affine.code != ALIGNED or {"X", "Y"} <= labels.pixel_size_um.keys()
    header.set_xyzt_units("mm" if known else "unknown", "sec" if labels.time_step_s else "unknown")
    header["descrip"] = f"labels by {stack.model}".encode()[:79]
    header["vox_offset"] = header.sizeof_hdr + 4
    return header
