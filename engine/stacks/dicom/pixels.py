"""One frame out of a DICOM file: decoded, in colours, on its scale, and growing with brightness."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine.stacks.dicom.fragments import STREAM_END, STREAM_STARTS, TAIL, read_frame
from engine.stacks.dicom.header import PALETTE, DicomFile, PixelFormat, inflate
from engine.stacks.dicom.library import Damaged
from engine.stacks.dicom.padding import FILLING_BYTES
from engine.stacks.dicom.planes import Plane
from engine.stacks.rescale import BAND_BYTES, rescaled

_MARKERS = 10_000  # before the header of a JPEG's frame, at most
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # of JPEG, and of JPEG-LS
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers without content
_RLE = "1.2.840.10008.1.2.5"
# As measured with frames of 1 to 4 Mi px; `tests/stacks/test_dicom_memory.py` holds them.
DECODER_BYTES = 8  # a value: JPEG and JPEG 2000 are decoded into integers of 32 bits
RLE_BYTES = 2  # a value
YBR_BYTES = 30  # a pixel: it becomes RGB in floats
PALETTE_BYTES = 12  # a pixel


def decode(file: DicomFile, plane: Plane, dtype: str) -> NDArray[Any]:
    """Pixels of a frame, (Y, X) or (Y, X, 3), in `dtype`.

    Values are those of the modality (in CT: Hounsfield units). Raises Damaged where they cannot be
    decoded; what the decoders raise gets through.
    """
    if file.problem:
        raise Damaged(file.problem)
    pixels = _decoded(file, plane.frame)
    form = file.format
    if file.padding is not None:
        pixels = file.padding.filled(pixels, form.min_is_white)
    if file.tables.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        values = apply_modality_lut(pixels, file.tables)
        if form.min_is_white:
            values = np.iinfo(values.dtype).max - values
        return values.astype(dtype, copy=False)
    if form.photometric == PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        return apply_color_lut(pixels, file.tables).astype(dtype, copy=False)
    if not plane.rescale.changes_nothing and np.dtype(dtype).kind == "i":
        _check_range(pixels, form)
    return rescaled(_upright(pixels, form), plane.rescale, dtype)


def decoding_bytes(file: DicomFile) -> int:
    """What decoding a frame takes besides the pixels that are decoded, whatever comes of them."""
    form = file.format
    n_pixels = form.rows * form.columns
    n_values = n_pixels * form.samples
    value = max(form.allocated // 8, 1)
    if file.frames:  # the stream, its encapsulated copy, and what the decoder makes of that
        inner = RLE_BYTES if file.syntax == _RLE else DECODER_BYTES
        decoding = 3 * file.encoded_bytes + n_values * (value + inner)
    else:
        decoding = file.encoded_bytes * (3 if file.inflated else 1) + n_values * value
    colours = YBR_BYTES if form.photometric.startswith("YBR_FULL") else 0
    if form.photometric == PALETTE:
        colours = PALETTE_BYTES
    scaled = any(not plane.rescale.changes_nothing for plane in file.planes)
    filling = n_pixels * FILLING_BYTES if file.padding is not None else 0
    return max(decoding, n_pixels * colours) + filling + BAND_BYTES * scaled


def _check_range(pixels: NDArray[Any], form: PixelFormat) -> None:
    """Damaged where values are beyond the bits that the dtype of the stack was chosen for."""
    low, high = form.range
    if pixels.min() < low or pixels.max() > high:
        raise Damaged(f"has values of more than its {form.stored} bits; write it again")


def _upright(pixels: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Stored values that grow with brightness: of MONOCHROME1, mirrored in their range."""
    if not form.min_is_white:
        return pixels
    low, high = form.range
    out: NDArray[Any] = np.subtract(pixels.dtype.type(high + low), pixels, dtype=pixels.dtype)
    return out


def _decoded(file: DicomFile, n: int) -> NDArray[Any]:
    from pydicom.pixels.decoders.base import get_decoder

    form, decoder = file.format, get_decoder(file.syntax)
    options = _options(file)
    if file.inflated:
        data = BytesIO(inflate(file.path, file.inflated))
        data.seek(file.offset)
        pixels, _ = decoder.as_array(data, index=n, **options)
        return _native(pixels)
    with Path(file.path).open("rb") as stream:
        if not file.frames:
            if form.allocated == 1:
                return _bits(stream, file, n)
            stream.seek(file.offset)
            pixels, _ = decoder.as_array(stream, index=n, **options)
            return _native(pixels)
        encoded = read_frame(stream, file.frames[n])
    from pydicom.encaps import encapsulate

    _check_stream(encoded, form)
    options["number_of_frames"] = 1
    # One decoder for all machines: another may give other pixels, or accept what is damaged.
    pixels, _ = decoder.as_array(
        encapsulate([encoded]), index=0, decoding_plugin="pylibjpeg", **options
    )
    return _native(pixels)


def _bits(stream: BinaryIO, file: DicomFile, n: int) -> NDArray[Any]:
    """A frame of one bit a pixel; it need not begin at a whole byte."""
    form = file.format
    n_pixels = form.rows * form.columns
    first = n * n_pixels
    stream.seek(file.offset + first // 8)
    raw = stream.read((first % 8 + n_pixels + 7) // 8)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    return bits[first % 8 :][:n_pixels].reshape(form.rows, form.columns)


def _native(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _options(file: DicomFile) -> dict[str, Any]:
    form = file.format
    return {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.photometric,
        "planar_configuration": form.planar,
        "bits_allocated": form.allocated,
        "bits_stored": form.stored,
        "pixel_representation": form.signed,
        "number_of_frames": len(file.planes),
        "pixel_keyword": form.keyword,
        "pixel_vr": form.vr,
    }


def _check_stream(data: bytes, form: PixelFormat) -> None:
    """Damaged where a compressed stream is not whole, or not of the size that the file says.

    The decoders allocate what the stream claims, and fill what is missing with grey.
    """
    if data[:2] not in STREAM_STARTS and b"\xff\x4f\xff\x51" not in data[:256]:
        return  # RLE, whose decoder goes by the size that the file says
    if STREAM_END not in data[-TAIL:]:
        raise Damaged("its compressed stream has no end; copy it again")
    size = _jpeg2000_size(data) or _jpeg_size(data)
    if size is None:
        raise Damaged("its compressed stream is damaged; copy it again")
    if size != (form.rows, form.columns, form.samples):
        raise Damaged(
            f"its compressed stream has {size[0]} x {size[1]} px of {size[2]} samples, but its "
            f"header says {form.rows} x {form.columns} of {form.samples}; write it again"
        )


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and samples of a JPEG or JPEG-LS stream."""
    at = 2
    for _ in range(_MARKERS):
        if at + 10 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or marker in _NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_HEADERS:
            height, width, samples = struct.unpack(">HHB", data[at + 5 : at + 10])
            return height, width, samples
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _jpeg2000_size(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and samples of a JPEG 2000 stream, which may begin with a JP2 header."""
    at = data.find(b"\xff\x4f\xff\x51", 0, 256)
    if at < 0 or at + 42 > len(data):
        return None
    right, bottom, left, top = struct.unpack(">IIII", data[at + 8 : at + 24])
    samples = int.from_bytes(data[at + 40 : at + 42], "big")
    return bottom - top, right - left, samples
