"""What a DICOM file is, before a pixel is read, and whether its pixels fit into it."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from engine.errors import StackError, StacksegError
from engine.stacks.dicom.fragments import Frame, frames_of
from engine.stacks.dicom.library import INSTALL, Damaged, pydicom
from engine.stacks.dicom.padding import Padding, padding_of
from engine.stacks.dicom.planes import Plane, first_number, numbers, planes_of
from engine.stacks.guard import brief, opening

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PREAMBLE = 128  # bytes before "DICM"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MAX_INFLATED = 1 << 30  # bytes of a deflated file, which is in memory as a whole while it is read
_EXPANSION = 20_000  # bytes of pixels that a byte of a compressed stream can turn into, at most
_MAX_LUT = 1 << 20  # bytes of a table of colours or values
_PIXELS = {
    0x7FE00010: "PixelData",
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
}
_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_DEPTHS = {"PixelData": (1, 8, 16, 32, 64), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
_GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_LUTS = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
# All that is parsed of a file. There is no element of patient, study or equipment in it; what
# `--keep-identifiers` keeps is read by `identifiers.py`.
_ELEMENTS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "InstanceNumber", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "PixelRepresentation", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices",
    "SliceThickness", "GridFrameOffsetVector", "TemporalPositionIdentifier", "TriggerTime",
    "AcquisitionNumber", "FrameTime", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_LUTS,
]  # fmt: skip


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a file are stored; the names are those of DICOM."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    allocated: int  # bits
    stored: int  # bits
    signed: int  # 0 or 1
    keyword: str  # the element that holds them
    vr: str  # its type

    @property
    def frame_bytes(self) -> float:
        """Of a frame that is not compressed."""
        n = self.rows * self.columns * self.samples
        return n * self.allocated / 8 * (2 / 3 if self.photometric == "YBR_FULL_422" else 1)

    @property
    def dtype(self) -> str:
        """Of the values as they are decoded, before they are rescaled."""
        if self.keyword != "PixelData":
            return f"float{self.allocated}"
        return f"{'int' if self.signed else 'uint'}{max(self.allocated, 8)}"

    @property
    def range(self) -> tuple[int, int]:
        """The least and the largest value that the stored bits can hold."""
        return (
            (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1)
            if self.signed
            else (0, 2**self.stored - 1)
        )

    @property
    def min_is_white(self) -> bool:
        """Whether the smallest value is shown as white, and there is a largest to invert from."""
        return self.photometric == "MONOCHROME1" and self.keyword == "PixelData"


@dataclass(frozen=True)
class DicomFile:
    """One file. Its UIDs and its description choose a series, and are never shown."""

    path: str
    syntax: str  # transfer syntax
    format: PixelFormat
    planes: tuple[Plane, ...]  # one for each frame
    offset: int  # of the pixels in the file, or in what it inflates to
    frames: tuple[Frame, ...]  # of compressed pixels; empty where they are not
    inflated: int  # bytes that a deflated file inflates to; 0: it is not deflated
    tables: Dataset  # lookup tables of colours and values, if any
    modality: str  # "CT"
    uid: str  # of the instance
    series_uid: str
    series_number: int | None
    description: str
    slice_spacing: float | None  # SpacingBetweenSlices, mm
    slice_thickness: float | None  # SliceThickness, mm
    frame_time: float | None  # ms
    padding: Padding | None = None  # stored values that are no image
    problem: str = ""  # the rest of a sentence on pixels that are not all there: "is truncated"

    @property
    def encoded_bytes(self) -> int:
        """The largest number of bytes that are read for a frame."""
        if self.inflated:
            return self.inflated
        if self.frames:
            return max(sum(length for _, length in frame) for frame in self.frames)
        return math.ceil(self.format.frame_bytes)


class NoPixels(StackError):
    """A DICOM object that is no image."""


class _Bounded:
    """A file whose reads never ask for more than is left, whatever its headers claim."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def read(self, n: int = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if n < 0 else min(n, left))

    def close(self) -> None:
        self._file.close()


def is_dicom(head: bytes) -> bool:
    """Whether a file with these first 132 bytes or more is DICOM."""
    return head[PREAMBLE : PREAMBLE + 4] == b"DICM"


def read_header(path: str) -> DicomFile:
    """What the file at `path` is; StackError, one sentence, where it is no image that can be read.

    Pixels that are truncated are a `problem` of the file, so that a series costs one slice only.
    """
    pydicom()
    with opening(path):
        size = Path(path).stat().st_size
        with Path(path).open("rb") as raw:
            try:
                file, header, syntax, inflated = _parsed(raw, size, path)
                return _image(file, inflated or size, header, syntax, inflated, path)
            except Damaged as error:
                raise StackError(f"{path}: {error}") from error
            except (StacksegError, OSError, MemoryError):
                raise
            except Exception as error:
                raise StackError(f"{path}: its header is damaged; copy it again") from error


def inflate(path: str, limit: int) -> bytes:
    """The data set of a deflated file; Damaged where it is damaged, or larger than `limit`."""
    data = Path(path).read_bytes()
    # The group length, the first element after "DICM", says where the meta information ends.
    start = PREAMBLE + 16 + int.from_bytes(data[PREAMBLE + 12 : PREAMBLE + 16], "little")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = stream.decompress(data[start:], limit)
    except zlib.error as error:
        raise Damaged("is deflated, and damaged; copy it again") from error
    if not stream.eof:
        raise Damaged("is deflated, and truncated or far too large; write it again uncompressed")
    return out


def _parsed(file: BinaryIO, size: int, path: str) -> tuple[BinaryIO, Dataset, str, int]:
    """The file at its pixels, its elements before them, its transfer syntax, inflated bytes."""
    from pydicom.filereader import dcmread, read_dataset, read_file_meta_info

    head = file.read(PREAMBLE + 512)
    file.seek(0)
    if (
        _DEFLATED.encode() in head
        and read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED
    ):
        data = BytesIO(inflate(path, _MAX_INFLATED))
        n_bytes = data.getbuffer().nbytes
        tags = [pydicom().tag.Tag(keyword) for keyword in _ELEMENTS]
        header = read_dataset(
            data, False, True, stop_when=lambda tag, vr, length: tag in _PIXELS, specific_tags=tags
        )
        return data, header, _DEFLATED, n_bytes
    bounded = cast(BinaryIO, _Bounded(file, size))
    header = dcmread(bounded, stop_before_pixels=True, specific_tags=list(_ELEMENTS))
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise StackError(
            f"{path}: does not say how it is encoded (it has no transfer syntax); write it again"
        )
    return bounded, header, str(syntax), 0


def _image(
    file: BinaryIO, size: int, header: Dataset, syntax: str, inflated: int, path: str
) -> DicomFile:
    if not pydicom().uid.UID(syntax).is_transfer_syntax:
        raise Damaged("has an unknown transfer syntax; convert it")
    keyword, vr, length, offset = _pixel_element(file, header, syntax, path)
    form = _pixel_format(header, keyword, vr)
    n_frames = _number_of_frames(header)
    compressed = pydicom().uid.UID(syntax).is_encapsulated
    _check_decoder(syntax)
    frames: tuple[Frame, ...] = ()
    problem = ""
    try:
        if compressed:
            end = size if length == _UNDEFINED else min(offset + length, size)
            frames = frames_of(file, end, n_frames)
            _check_expansion(form, frames)
        else:
            _check_length(form, n_frames, length, size - offset)
    except Damaged as error:
        if n_frames > 1 or "truncated" not in str(error):
            raise
        problem = str(error)
    number = first_number(header.get("SeriesNumber"))
    return DicomFile(
        path=path,
        syntax=syntax,
        format=form,
        planes=planes_of(header, n_frames),
        offset=offset,
        frames=frames,
        inflated=inflated,
        tables=_tables(header, syntax),
        modality=_word(header, "Modality"),
        uid=_text(header, "SOPInstanceUID"),
        series_uid=_text(header, "SeriesInstanceUID"),
        series_number=None if number is None else int(number),
        description=_text(header, "SeriesDescription"),
        slice_spacing=first_number(header.get("SpacingBetweenSlices")),
        slice_thickness=first_number(header.get("SliceThickness")),
        frame_time=first_number(header.get("FrameTime")),
        padding=_padding(header, form),
        problem=problem,
    )


def _padding(header: Dataset, form: PixelFormat) -> Padding | None:
    """Of grey images of whole numbers, which alone have it."""
    if form.photometric not in _GREY or form.keyword != "PixelData" or form.allocated == 1:
        return None
    return padding_of(header, form.stored, bool(form.signed))


_UNDEFINED = 0xFFFFFFFF


def _pixel_element(
    file: BinaryIO, header: Dataset, syntax: str, path: str
) -> tuple[str, str, int, int]:
    """Keyword, type and length of the element with the pixels, and where its value begins."""
    uid = pydicom().uid.UID(syntax)
    order: Literal["little", "big"] = "little" if uid.is_little_endian else "big"
    head = file.read(12)
    group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
    keyword = _PIXELS.get(group << 16 | element)
    if keyword is None or len(head) < 12:
        raise NoPixels(f"{path}: holds no pixels: {_kind(header)}; give images")
    # As it was written, whatever the transfer syntax says: lengths are even, these letters odd.
    if head[4:6] not in _VRS:
        file.seek(-4, 1)
        return keyword, "OW", int.from_bytes(head[4:8], order), file.tell()
    vr = head[4:6].decode("latin-1")
    return keyword, vr, int.from_bytes(head[8:12], order), file.tell()


def _kind(header: Dataset) -> str:
    """What a file without pixels is, by its class, such as RT Plan Storage."""
    meta = getattr(header, "file_meta", {})
    uid = str(meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "")
    name = pydicom().uid.UID(uid).name if uid else ""
    return f"its class is {name}" if name and name != uid else "it is no image, or has lost its end"


def _number_of_frames(header: Dataset) -> int:
    value = header.get("NumberOfFrames")
    if value in (None, "", 0):
        return 1
    n = first_number(value)
    if n is None or n < 1 or not n.is_integer():
        raise Damaged("has a damaged number of frames; write it again")
    return int(n)


def _pixel_format(header: Dataset, keyword: str, vr: str) -> PixelFormat:
    def whole(name: str, low: int, high: int, default: int | None = None) -> int:
        value = header.get(name, default)
        n = first_number(value)
        if n is None or not n.is_integer() or not low <= n <= high:
            what = "does not say" if value is None else "has no valid number as"
            raise Damaged(f"{what} its {name}; it is damaged, write it again")
        return int(n)

    allocated = whole("BitsAllocated", 1, 64)
    samples = whole("SamplesPerPixel", 1, 4, 1)
    photometric = _text(header, "PhotometricInterpretation").upper() or "MONOCHROME2"
    if allocated not in _DEPTHS[keyword]:
        raise Damaged(f"has {allocated} bits a value, which nothing here reads; convert it")
    known = {1: (*_GREY, PALETTE), 3: _COLOURS}.get(samples, ())
    if photometric not in known:
        kind = _word(header, "PhotometricInterpretation") or "unknown"
        raise Damaged(
            f"its pixels are {kind} of {samples} samples, which are not intensities; "
            "convert it to grey or to red, green and blue"
        )
    return PixelFormat(
        rows=whole("Rows", 1, 65_535),
        columns=whole("Columns", 1, 65_535),
        samples=samples,
        photometric=photometric,
        planar=whole("PlanarConfiguration", 0, 1, 0),
        allocated=allocated,
        stored=whole("BitsStored", 1, allocated, allocated),
        signed=whole("PixelRepresentation", 0, 1, 0),
        keyword=keyword,
        vr=vr,
    )


def _check_decoder(syntax: str) -> None:
    """Damaged where nothing that is installed decodes the transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = pydicom().uid.UID(syntax).name
        raise Damaged(
            f"its pixels are compressed as {brief(name, 60)}, which nothing here decodes; convert "
            "it, for example with `gdcmconv --raw`"
        ) from None
    if decoder.is_encapsulated and "pylibjpeg" not in decoder.available_plugins:
        raise Damaged(f"its pixels are compressed, which needs pylibjpeg: {INSTALL}")


def _check_length(form: PixelFormat, n_frames: int, length: int, left: int) -> None:
    """Damaged where plain pixels are fewer than `n_frames` of them take, or a frame more."""
    wanted = math.ceil(form.frame_bytes * n_frames)
    found = min(length, left)
    if found < wanted:
        raise Damaged(
            f"is truncated: its pixels take {wanted:,} bytes, and it has {found:,}; copy it again"
        )
    spare = form.frame_bytes / (2 if form.photometric == "YBR_FULL_422" else 1)
    if length >= wanted + spare:
        raise Damaged(
            f"counts {n_frames} {'frame' if n_frames == 1 else 'frames'}, but its pixels are those "
            f"of {length / form.frame_bytes:.3g}; write it again with the right NumberOfFrames"
        )


def _check_expansion(form: PixelFormat, frames: tuple[Frame, ...]) -> None:
    """Damaged where compressed frames are too small for what they should unpack to."""
    least = min(sum(length for _, length in frame) for frame in frames)
    if form.frame_bytes > least * _EXPANSION + (1 << 16):
        raise Damaged(
            f"claims {form.rows} x {form.columns} px, which a frame of {least} bytes cannot hold; "
            "it is damaged, copy it again"
        )


def _tables(header: Dataset, syntax: str) -> Dataset:
    """A data set of its own with the lookup tables; Damaged where they are far too large."""
    out: Dataset = pydicom().dataset.Dataset()
    out.set_original_encoding(False, pydicom().uid.UID(syntax).is_little_endian)
    wanted = ["ModalityLUTSequence"]
    if _text(header, "PhotometricInterpretation").upper() == PALETTE:
        wanted += _LUTS
    for keyword in wanted:
        if keyword not in header:
            continue
        value: Any = header[keyword].value
        data = value if keyword != "ModalityLUTSequence" else value[0].get("LUTData") or b""
        if len(data) > _MAX_LUT:
            raise Damaged("has a lookup table of more than 65,536 values; write it again")
        out[keyword] = header[keyword]
    return out


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()


def _word(header: Dataset, keyword: str) -> str:
    """A defined term, such as "CT"; anything else is left out, since it may name somebody."""
    value = _text(header, keyword)
    return value if re.fullmatch(r"[A-Z][A-Z_]{0,15}", value) else ""


def lut_values(tables: Dataset) -> str:
    """The dtype of what the modality LUT gives: uint8 or uint16; "" where there is none."""
    sequence = tables.get("ModalityLUTSequence")
    if not sequence:
        return ""
    descriptor = numbers(sequence[0].get("LUTDescriptor"), 3)
    if descriptor is None:
        raise Damaged("has a damaged table of values; write it again")
    return str(np.dtype("uint8" if descriptor[2] <= 8 else "uint16"))
