"""A stack of DICOM frames: one file, or the files of a series."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, read_dtype
from engine.stacks.dicom.arrange import Arrangement, Unit, arrange, shown
from engine.stacks.dicom.header import PALETTE, DicomFile, lut_values, read_header
from engine.stacks.dicom.identifiers import identifiers_of
from engine.stacks.dicom.library import Damaged
from engine.stacks.dicom.pixels import decode, decoding_bytes
from engine.stacks.dicom.series import chosen, series_of
from engine.stacks.guard import opening
from engine.stacks.rescale import rescaled_dtype
from engine.stacks.units import UnitStack

_SPACING = 1e-3  # relative, that distances of pixels may differ by


def open_dicom(path: str, axes: str | None = None) -> Stack:
    """One DICOM file as a stack; StackError where it cannot be read."""
    with opening(path):
        file = read_header(path)
        if file.problem:
            raise StackError(f"{path}: {file.problem}")
        return _stack([file], path, axes)


def open_series(
    path: str, files: Sequence[Path], axes: str | None = None, series: str | None = None
) -> list[Stack]:
    """The series of a folder's DICOM `files` as stacks: the only one, or those that are chosen."""
    with opening(path):
        every, note = series_of(files, path)
        taken = chosen(every, path, series)
        named = len(every) > 1
        return [
            _stack(images, path, axes, name if named else "", (note,) if note else ())
            for name, images in taken.items()
        ]


def _stack(
    files: Sequence[DicomFile],
    path: str,
    axes: str | None,
    series: str = "",
    notes: tuple[str, ...] = (),
) -> DicomStack:
    form = files[0].format
    where = f"{path}, series {series}" if series else path  # in sentences
    _check_alike(files, where)
    colours = 3 if form.samples == 3 or form.photometric == PALETTE else 1
    units = [(file, plane) for file in files for plane in file.planes]
    given = "".join(a for a in axes or "" if a in "TZ") if axes else None
    arranged = arrange(units, where, given)
    unit_shape = (form.rows, form.columns) + ((colours,) if colours > 1 else ())
    letters = arranged.lead + ("YXC" if colours > 1 else "YX")
    shape = (*arranged.lengths, *unit_shape)
    source = source_axes(letters, shape, where, axes)
    canonical, sizes = AxesMap(source).canonical(shape)
    dtypes = {_values(file) for file in files}
    stored = dtypes.pop() if len(dtypes) == 1 else "float32"
    dtype = _read_dtype(units, stored, where)
    pixel_size = _pixel_size(units, arranged, canonical, where)
    info = StackInfo(
        path=path,
        format="DICOM",
        axes=canonical,
        shape=sizes,
        dtype=dtype,
        pixel_size_um=pixel_size,
        time_step_s=arranged.t_s if "T" in canonical else None,
        unused=(
            *notes,
            *arranged.notes,
            *_slopes(units),
            *_paddings(files),
            *_sizeless(pixel_size, canonical),
        ),
        series=series,
        lacking=arranged.lacking,
        min_is_white=form.min_is_white,
        window=None if form.min_is_white else _window(units),
        identity=_identity(files),
        piece_bytes=max(decoding_bytes(file) for file in files),
        stored_bytes=np.dtype(dtype).itemsize,
        unit_channels=colours,
    )
    stack = DicomStack(info, source, shape, arranged)
    stack.probe()
    return stack


class DicomStack(UnitStack):
    """Reads one frame of a file per unit; nothing stays open."""

    def __init__(
        self, info: StackInfo, source: str, shape: Sequence[int], arranged: Arrangement
    ) -> None:
        super().__init__(info, source, shape, len(arranged.lead))
        self._units = arranged.units

    def unit(self, t: int, z: int) -> Unit | None:
        """The file and the plane of a frame; None where no file has it."""
        return self._units[t * self.info.size("Z") + z]

    def probe(self) -> None:
        """Decode the first frame that is there; StackError where nothing here can."""
        file, plane = next(unit for unit in self._units if unit is not None)
        if not file.problem:
            try:
                decode(file, plane, self.info.dtype)
            except Damaged as error:
                raise StackError(f"{self.info.path}: {error}") from error
            except MemoryError:
                raise
            except Exception as error:
                raise StackError(
                    f"{self.info.path}: its pixels cannot be decoded; copy it again, or convert it"
                ) from error

    def identifiers(self) -> dict[str, str]:
        """See `Stack.identifiers`."""
        files = (unit[0].path for unit in self._units if unit is not None)
        return identifiers_of(files, self.info.path)

    def lacks(self, ts: range, zs: range) -> bool:
        """Whether a slice of these frames is missing, see `Stack.lacks`."""
        n_z = self.info.size("Z")
        return any(self._units[t * n_z + z] is None for t in ts for z in zs)

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        unit = self._units[n]
        if unit is None:
            raise FrameError(self.info.lacking)
        file, plane = unit
        try:
            pixels = decode(file, plane, self.info.dtype)
        except Damaged as error:
            raise Damaged(f"{shown(file)}: {error}") from error
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise Damaged(f"{shown(file)}: its pixels are damaged; copy it again") from error
        if pixels.shape != self._unit_shape:
            raise Damaged(f"{shown(file)} has {pixels.shape} px, not {self._unit_shape}")
        return pixels[part]


def _check_alike(files: Sequence[DicomFile], path: str) -> None:
    """StackError where files differ in what a stack has once."""
    first = files[0].format
    for file in files:
        form = file.format
        for what, theirs, ours in (
            ("px", (form.rows, form.columns), (first.rows, first.columns)),
            ("colours", (form.photometric,), (first.photometric,)),
        ):
            if theirs != ours:
                raise StackError(
                    f"{path}: {shown(file)} has {' x '.join(map(str, theirs))} {what}, but "
                    f"{shown(files[0])} {' x '.join(map(str, ours))}; put them into folders of "
                    "their own"
                )


def _values(file: DicomFile) -> str:
    """The dtype of a file's values before they are rescaled: of its tables, or of its pixels."""
    try:
        values = lut_values(file.tables)
    except Damaged as error:
        raise StackError(f"{file.path}: {error}") from error
    if values:
        return values
    if file.format.photometric == PALETTE:
        descriptor = file.tables.get("RedPaletteColorLookupTableDescriptor") or (0, 0, 8)
        return "uint8" if descriptor[2] <= 8 else "uint16"
    return file.format.dtype


def _read_dtype(units: Sequence[Unit], stored: str, path: str) -> str:
    read = read_dtype(np.dtype(stored), path)
    if units[0][0].tables:  # what a table gives is not rescaled again
        return read
    pairs = {(file.format.range, plane.rescale) for file, plane in units}
    return rescaled_dtype(read, [span for span, _ in pairs], [line for _, line in pairs])


def _slopes(units: Sequence[Unit]) -> tuple[str, ...]:
    """A note where slices have scales of their own."""
    n = len({plane.rescale for _, plane in units})
    if n == 1:
        return ()
    return (f"its frames have {n} different rescale slopes or intercepts; each is read by its own",)


def _paddings(files: Sequence[DicomFile]) -> tuple[str, ...]:
    """A note where files declare values that are no image."""
    found = sorted({str(file.padding) for file in files if file.padding is not None})
    if not found:
        return ()
    return (
        f"has the padding value {', '.join(found)}: such pixels are read as the darkest other one "
        "of their frame, unless that has many both darker and brighter",
    )


def _sizeless(pixel_size: Mapping[str, float], axes: str) -> tuple[str, ...]:
    """A note on slices whose volume cannot be told in ml."""
    if "Z" not in axes or {"Z", "Y", "X"} <= set(pixel_size):
        return ()
    lacking = "distance of its slices" if "Y" in pixel_size else "size of its pixels (PixelSpacing)"
    return (f"tells no {lacking}, so volume_ml stays empty",)


def _window(units: Sequence[Unit]) -> tuple[float, float] | None:
    """Center and width that all frames have; None where they differ, or have none."""
    found = {plane.window for _, plane in units}
    one = found.pop() if len(found) == 1 else None
    return (one[0], one[1]) if one else None


def _pixel_size(
    units: Sequence[Unit], arranged: Arrangement, axes: str, path: str
) -> dict[str, float]:
    """By axis, in um; StackError where frames differ."""
    first = units[0][1].spacing
    for file, plane in units:
        a, b = first or (), plane.spacing or ()
        if len(a) != len(b) or any(
            abs(p - q) > _SPACING * abs(p) for p, q in zip(a, b, strict=True)
        ):
            raise StackError(
                f"{path}: the pixels of {shown(file)} have another size than those of "
                f"{shown(units[0][0])}; put them into folders of their own"
            )
    sizes: dict[str, float | None] = dict(zip("YX", first or (), strict=False))
    # Slices that do not follow each other along Z are as deep as they are thick.
    sizes["Z"] = arranged.z_mm if "Z" in axes else units[0][0].slice_thickness
    return {a: 1000 * mm for a in "ZYX" if (mm := sizes.get(a)) and mm > 0}


def _identity(files: Sequence[DicomFile]) -> str:
    """Changes when a file does: sizes and times of all; their names are not in it as they are."""
    digest = hashlib.sha256()
    for path in sorted(Path(file.path) for file in files):
        stat = path.stat()
        line = f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:32]
