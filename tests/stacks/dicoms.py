"""DICOM files as tests write them: a series of slices whose names say nothing of their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATIENT = {  # what must be found in no result
    "PatientName": "Doe^Jacqueline",
    "PatientID": "MRN-7733151",
    "PatientBirthDate": "19520229",
    "StudyDate": "20190417",
    "SeriesDate": "20190418",
    "InstitutionName": "Saint Elsewhere",
    "StudyDescription": "Follow-up of Mrs Doe",
    "SeriesDescription": "Axial for Dr Quincy",
    "AccessionNumber": "ACC998877",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.11111111111",
}
SERIES = "1.2.826.0.1.3680043.8.498.22222222222"
CT = "1.2.840.10008.5.1.4.1.1.2"


def dataset(pixels: NDArray[Any], **elements: Any) -> Any:
    """A CT slice of grey or RGB `pixels`, (Y, X) or (Y, X, 3), with what a scanner says of it."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CT
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.Modality = SERIES, 4, "CT"
    for keyword, value in PATIENT.items():
        setattr(ds, keyword, value)
    rgb = pixels.ndim == 3 and pixels.shape[-1] == 3
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if rgb else pixels.shape[-2:]
    ds.SamplesPerPixel = 3 if rgb else 1
    ds.PhotometricInterpretation = "RGB" if rgb else "MONOCHROME2"
    if rgb:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelSpacing = [0.7, 0.5]
    ds.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, value)
    return ds


def write(path: Path, pixels: NDArray[Any], **elements: Any) -> Path:
    """A file of one slice."""
    dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def at(z: float) -> dict[str, Any]:
    """Elements of an axial slice at `z` mm."""
    return {
        "ImagePositionPatient": [-80.0, -90.0, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }


def volume(n: int, shape: tuple[int, int] = (6, 5), dtype: str = "int16") -> NDArray[Any]:
    """Slices of which every pixel differs, (n, Y, X)."""
    return np.arange(n * shape[0] * shape[1]).reshape(n, *shape).astype(dtype)


def write_series(
    folder: Path,
    pixels: NDArray[Any],
    positions: list[float] | None = None,
    names: list[str] | None = None,
    **elements: Any,
) -> Path:
    """Slices at `positions` in mm (2.5 mm apart), under names in another order."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(pixels)
    positions = positions or [2.5 * i for i in range(n)]
    names = names or [f"IM{(7 * i + 3) % 11:03d}{i}" for i in range(n)]
    for i, (plane, z, name) in enumerate(zip(pixels, positions, names, strict=True)):
        write(folder / name, plane, **({"InstanceNumber": n - i} | at(z) | elements))
    return folder
