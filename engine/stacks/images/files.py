"""A folder of single-frame images in natural order, and one PNG or JPEG by itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError, printable
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, check_axes, read_dtype
from engine.stacks.guard import opening
from engine.stacks.images.coded import INKS, claimed_size, further_frames, is_opaque, read_coded
from engine.stacks.units import UnitStack

if TYPE_CHECKING:
    from engine.stacks.tiff.stack import TiffStack

KINDS = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}


# How the sentence ends that no second try can help: the folder has to be given in another way.
ONE_BY_ONE = "give images that differ one by one, not as a folder"
_LOOKED_AT = 100  # images of a folder whose headers tell a job in advance that sizes differ


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which t2 comes before t10; digits sort before letters."""
    parts = re.split(r"([0-9]+)", name.casefold())
    key = [(0, int(p), p) if i % 2 else (1, 0, p) for i, p in enumerate(parts) if p]
    return [*key, (2, 0, name)]


def list_images(folder: str) -> list[Path]:
    """The images of a folder in natural order, all of one kind; StackError where that fails.

    Where kinds are mixed, the kind with several files is the stack and a single file of another
    kind is ignored; two kinds with several files each are ambiguous.
    """
    kinds: dict[str, list[Path]] = {}
    with opening(folder):
        for entry in Path(folder).iterdir():
            kind = KINDS.get(entry.suffix.lower())
            # A pipe, or a link to nothing, is a frame that cannot be read, not one less.
            if kind and not entry.name.startswith(".") and not entry.is_dir():
                kinds.setdefault(kind, []).append(entry)
    if not kinds:
        raise StackError(
            f"{folder}: is a folder without TIFF, PNG or JPEG images; give a folder of images"
        )
    several = [kind for kind, files in kinds.items() if len(files) > 1]
    if len(kinds) > 1 and len(several) != 1:
        counts = " and ".join(f"{len(f)} {kind}" for kind, f in sorted(kinds.items()))
        raise StackError(f"{folder}: holds {counts} images; put each kind in its own folder")
    chosen = several[0] if several else next(iter(kinds))
    return sorted(kinds[chosen], key=lambda p: natural_key(p.name))


def open_folder(path: str, axes: str | None = None) -> Stack:
    """A folder as a stack: one file per frame along T, or along the first letter of `axes`."""
    with opening(path):
        files = list_images(path)
        first = _probe(files[0])
        shape = (len(files), *first.shape)
        source = _folder_axes(first.letters, shape, path, axes)
        return _stack(path, source, shape, 1, files, first, _folder_identity(files))


def _stack(
    path: str,
    source: str,
    shape: tuple[int, ...],
    n_lead: int,
    files: list[Path],
    first: _First,
    identity: str,
) -> Stack:
    canonical, sizes = AxesMap(source).canonical(shape)
    dtype = np.dtype(first.info.dtype)
    info = StackInfo(
        path=path,
        format="images",
        axes=canonical,
        shape=sizes,
        dtype=read_dtype(dtype, path),
        unused=first.info.unused,
        min_is_white=first.info.min_is_white,
        identity=identity,
        piece=first.info.piece,
        piece_bytes=first.info.piece_bytes,
        stored_bytes=first.info.stored_bytes,
        unit_channels=sizes[canonical.index("C")] if "C" in source[n_lead:] else 1,
    )
    stack = _Images(info, source, shape, n_lead, files, dtype)
    if first.has_opaque_alpha:
        stack.info = info.without_alpha()
    return stack


def _folder_axes(letters: str, shape: tuple[int, ...], path: str, given: str | None) -> str:
    """One letter for the files, then those of a file; the order inside a file is its own."""
    if given is None:
        return "T" + letters
    if len(given) == len(letters) and shape[0] == 1:
        given = "_" + given
    elif len(given) == len(shape):
        check_axes(given, len(shape), path)
    if sorted(given[1:]) != sorted(letters) or len(given) != len(shape):
        raise StackError(
            f"{path}: --axes {given} does not fit a folder whose files have axes {letters}; "
            f"give --axes T{letters} or --axes Z{letters}"
        )
    return given[0] + letters


def open_image(path: str, axes: str | None = None) -> Stack:
    """One PNG or JPEG as a stack of a single frame."""
    with opening(path):
        first = _probe(Path(path))
        source = source_axes(first.letters, first.shape, path, axes)
        stat = Path(path).stat()
        identity = f"{stat.st_size}:{stat.st_mtime_ns}"
        return _stack(path, source, first.shape, 0, [Path(path)], first, identity)


class _First(NamedTuple):
    """The first image of a folder: the others must be like it."""

    letters: str  # axes of the file, in its own order
    shape: tuple[int, ...]  # along `letters`
    info: StackInfo  # its dtype, how it is stored, what is to be known of it
    has_opaque_alpha: bool = False  # as its last channel


def _probe(file: Path) -> _First:
    """What the first image is; StackError where it cannot be read."""
    try:
        if (kind := _kind(file)) != "TIFF":
            return _coded(file, kind)
        with _single(file) as stack:
            info = stack.info
            channels = range(info.size("C"))
            if info.piece is None:
                stack.read(0, 0, channels)
            else:  # a frame may be larger than memory
                height, width = info.piece
                stack.read_window(0, 0, channels, slice(0, height), slice(0, width))
    except FrameError as error:
        raise StackError(str(error)) from error
    letters = "CYX" if "C" in info.axes else "YX"
    return _First(letters, tuple(info.size(a) for a in letters), info)


def _coded(file: Path, kind: str) -> _First:
    """What a PNG or JPEG is."""
    pixels, letters = read_coded(file, kind)
    unused = []
    if more := further_frames(file):
        unused.append(
            f"{file.name} is an animation: its first frame is read, {more} more "
            f"{'is' if more == 1 else 'are'} not; save each frame as a separate file"
        )
    if kind == "JPEG" and pixels.shape[2:] == (4,):
        unused.append(INKS)
    info = StackInfo(
        path=str(file),
        format=kind,
        axes=letters,
        shape=pixels.shape,
        dtype=pixels.dtype.name,
        unused=tuple(unused),
        piece_bytes=file.stat().st_size,
        stored_bytes=pixels.itemsize,
    )
    alpha = letters == "YXC" and pixels.shape[-1] in (2, 4) and is_opaque(pixels[..., -1])
    return _First(letters, pixels.shape, info, alpha)


def _folder_identity(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat() if file.exists() else file.lstat()
        line = f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "backslashreplace"))  # a name need not be UTF-8
    return digest.hexdigest()[:32]


class _Images(UnitStack):
    """Reads one file per unit; nothing stays open."""

    def __init__(
        self,
        info: StackInfo,
        source: str,
        shape: tuple[int, ...],
        n_lead: int,
        files: list[Path],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(info, source, shape, n_lead)
        self._files = files
        self._dtype = dtype
        self._others: tuple[str, ...] | None = None

    def companions(self, given: Container[str] = ()) -> tuple[str, ...]:
        """See `Stack.companions`: here, images of the folder that are not of the first one's size.

        Of a large folder only a hundred are looked at, spread over it.
        """
        if self._others is None:
            self._others = self._unlike()
        return self._others

    def _unlike(self) -> tuple[str, ...]:
        count = len(self._files)
        looked_at = {n * count // _LOOKED_AT for n in range(_LOOKED_AT)}
        first = (self.info.size("Y"), self.info.size("X"))
        sizes = ((self._files[n].name, _size(self._files[n])) for n in sorted(looked_at - {0}))
        unlike = [(name, size) for name, size in sizes if size not in (None, first)]
        if not unlike:
            return ()
        (name, size), n = unlike[0], len(unlike)
        return (
            f"{n:,} of {'its' if len(looked_at) == count else 'the'} {len(looked_at):,} images"
            f"{'' if len(looked_at) == count else ' looked at'} {'has' if n == 1 else 'have'} "
            f"another size than the first, {first[0]}x{first[1]} (such as {printable(name)}, "
            f"{size and 'x'.join(map(str, size))}), and cannot be segmented with it; {ONE_BY_ONE}",
        )

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        if (kind := _kind(self._files[n])) != "TIFF":
            # Of indexed pictures some may happen to have no other colours than greys.
            pixels, _ = read_coded(self._files[n], kind, greys=len(self._unit_shape) == 2)
            self._check_like_first(n, pixels.shape, pixels.dtype)
            return pixels[part]
        with _single(self._files[n]) as stack:
            info, palette = stack.info, stack.palette
            letters = "CYX" if "C" in info.axes else "YX"
            shape = tuple(info.size(a) for a in letters)
            if letters == "YX" and palette is not None and len(self._unit_shape) == 3:
                # A picture in colour that happens to have no other colours than greys.
                self._check_like_first(n, (3, *shape), np.dtype(np.uint8))
                indices = stack.read_window(0, 0, range(1), *part[-2:])[0]
                return palette.coloured(indices, part[0])
            self._check_like_first(n, shape, np.dtype(info.dtype))
            channels = range(info.size("C"))[part[0]] if "C" in letters else range(1)
            pixels = stack.read_window(0, 0, channels, *part[-2:])
        return pixels if "C" in letters else pixels[0]

    def _check_like_first(self, n: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if shape != self._unit_shape or dtype != self._dtype:
            raise FrameError(
                f"{self._files[n]}: is {_describe(shape, dtype)}, "
                f"but the first image is {_describe(self._unit_shape, self._dtype)}; {ONE_BY_ONE}"
            )


def _size(file: Path) -> tuple[int, int] | None:
    """Height and width by the header of an image; None where it cannot be read."""
    try:
        if (kind := _kind(file)) != "TIFF":
            return claimed_size(file, kind)
        with _single(file) as stack:
            return stack.info.size("Y"), stack.info.size("X")
    except (FrameError, StackError, OSError):
        return None


def _describe(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"


def _kind(file: Path) -> str:
    """ "TIFF", "PNG" or "JPEG", by the first bytes; FrameError for anything else."""
    if not file.is_file():
        reason = "broken link" if file.is_symlink() and not file.exists() else "pipe or device"
        raise FrameError(f"{file}: is a {reason}, not a file; put the image in its place")
    with file.open("rb") as stream:
        head = stream.read(8)
    kind = sniff(head)
    if kind is None:
        raise FrameError(f"{file}: {not_an_image(file, head)}")
    return kind


def sniff(head: bytes) -> str | None:
    """ "TIFF", "PNG", "JPEG" or None, from the first 8 bytes of a file; from 1024, also others."""
    from engine.stacks.dicom.header import is_dicom
    from engine.stacks.nifti import is_nifti
    from engine.stacks.tiff.chain import is_tiff

    if is_dicom(head):  # also where what comes before it calls itself a TIFF
        return "DICOM"
    if is_tiff(head):
        return "TIFF"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    return "NIfTI" if is_nifti(head) else None


def not_an_image(file: Path, head: bytes) -> str:
    """The rest of the sentence about a file that starts with none of the known signatures."""
    if not head:
        return "is empty; copy or write it again"
    kind = KINDS.get(file.suffix.lower())
    if kind:
        return f"is named like a {kind} file but holds something else; check where it comes from"
    if file.suffix.lower() in (".dcm", ".dicom"):
        return "is named like a DICOM file but has no DICOM header; write it again with one"
    if head[:2] == b"\x1f\x8b":
        return "is compressed by gzip, and not NIfTI; unpack it"
    return "is not TIFF, PNG, JPEG, DICOM, NIfTI or Zarr; convert it to one of them"


def _single(file: Path) -> TiffStack:
    """A TIFF file of one frame, open; FrameError where it has several."""
    from engine.stacks.tiff.open import open_tiff

    stacks = open_tiff(str(file), multifile=False)
    n, what = len(stacks), "images"
    if n == 1:
        n, what = stacks[0].info.n_frames, "frames"
        if n == 1:
            return stacks[0]
    for stack in stacks:
        stack.close()
    raise FrameError(
        f"{file}: holds {n} {what}, but a folder has one frame per file; give such files one by one"
    )
