"""Opening a TIFF file: its chain of directories, its images, the stacks that it gives."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import StackError
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, read_dtype
from engine.stacks.guard import brief, opening, tifffile_messages
from engine.stacks.images.coded import INKS, is_opaque
from engine.stacks.tiff.calibration import calibration
from engine.stacks.tiff.chain import Chain, check_chain, is_tiff
from engine.stacks.tiff.choice import (
    PAGES,
    check_order,
    check_pages,
    chosen,
    extra_pages,
    missing_planes,
    refuse_promises,
    unread,
)
from engine.stacks.tiff.images import POSITION, WAY_OUT, TiffImage, are_pages, images_of
from engine.stacks.tiff.known import keep, opened_before, stamp_of
from engine.stacks.tiff.ome import (
    companion_xml,
    metadata_file,
    refuse_files_elsewhere,
    xml_of_renamed,
)
from engine.stacks.tiff.page import JPEG, check_page, storage
from engine.stacks.tiff.palette import (
    COLOURS,
    SHADES,
    Palette,
    displayed,
    is_plain,
    palette_of,
)
from engine.stacks.tiff.stack import PageFormat, Pages, TiffStack, says_white, white_of
from engine.stacks.units import split_lead

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_SEPARATED = 5  # PhotometricInterpretation of CMYK
_NO_INTENSITIES = {6: "YCbCr", 8: "L*a*b*", 9: "L*a*b*", 10: "L*a*b*"}  # outside JPEG
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated alpha
_ALPHA_SIDE = 4096  # px of the part of the first frame that must be opaque
# What tifffile logs when it continues with less than the file promises.
_LOST_FRAMES = (
    "metadata invalid or corrupted",
    "invalid shaped series",
    "does not match page shape",
    "circular reference",
    "invalid page offset",
    "corrupted tag list",
    "invalid offset to page",
)
# Writers whose metadata put pages in an order; switched off where pages are read as they are.
_ORDERING = (
    "is_ome",
    "is_shaped",
    "is_imagej",
    "is_mmstack",
    "is_ndtiff",
    "is_lsm",
    "is_scanimage",
)


def open_tiff(
    path: str,
    axes: str | None = None,
    series: str | None = None,
    *,
    multifile: bool = True,
    exact: bool = False,
) -> list[TiffStack]:
    """The stacks of the TIFF file at `path`; StackError where it cannot be read.

    `series` chooses among its images, see `engine.stacks.tiff.choice`. With `multifile` false, OME
    metadata that refer to other files are ignored. With `exact`, values are read as they are
    written: in the dtype of the file, and not inverted where 0 is white.
    """
    what = (path, axes, series, multifile, exact)
    with opening(path), tifffile_messages() as messages:
        stamp = stamp_of(path)
        if (before := opened_before(what, stamp)) is not None:
            return before
        stacks = _opened_stacks(path, axes, series, messages, multifile=multifile, exact=exact)
        keep(what, stamp, stacks)
        return stacks


def _opened_stacks(
    path: str,
    axes: str | None,
    series: str | None,
    messages: Sequence[tuple[int, str]],
    *,
    multifile: bool,
    exact: bool,
) -> list[TiffStack]:
    # A page directory of NDPI has a chain of its own kind.
    chain = Chain() if path.lower().endswith(".ndpi") else check_chain(path)
    flags: dict[str, Any] = {} if multifile else {"is_ome": False}
    if series == PAGES:
        flags = dict.fromkeys(_ORDERING, False)
    try:
        with _opened(path, flags) as tif:
            return _stacks(tif, chain, messages, path, axes, series, exact)
    except RuntimeError:  # a page unlike the others, where tifffile took them to be alike
        with _opened(path, flags | {"is_uniform": False}) as tif:
            return _stacks(tif, chain, messages, path, axes, series, exact)


@contextmanager
def _opened(path: str, flags: dict[str, Any]) -> Iterator[TiffFile]:
    """The file, or the one that holds the metadata of the set that it is of."""
    from tifffile import TiffFile

    where, options = path, dict(flags)
    with _placed(TiffFile(path, **flags), path) as tif:
        if tif.is_ome:
            refuse_files_elsewhere(tif, path)
            master = metadata_file(tif, path)
            if master is not None and _is_tiff(master):
                where = str(master)
            elif xml := companion_xml(master, tif) if master is not None else xml_of_renamed(tif):
                options["omexml"] = xml
        if where == path and options == flags:
            if not are_pages(tif):
                yield tif
                return
            options["is_shaped"] = False
    if where != path:
        check_chain(where)
    with _placed(TiffFile(where, **options), where) as tif:
        if tif.is_ome:
            refuse_files_elsewhere(tif, path)
        yield tif


def _placed(tif: TiffFile, path: str) -> TiffFile:
    """The same file, whose companions lie where its path says: tifffile follows links first."""
    tif.filehandle._dir, tif.filehandle._name = os.path.split(Path(path).absolute())
    return tif


def _is_tiff(file: Path) -> bool:
    with file.open("rb") as stream:
        return is_tiff(stream.read(4))


def _stacks(
    tif: TiffFile,
    chain: Chain,
    messages: Sequence[tuple[int, str]],
    path: str,
    axes: str | None,
    series: str | None,
    exact: bool,
) -> list[TiffStack]:
    try:
        images = images_of(tif, path, chain)
    except ValueError as error:
        if not tif.is_ome:
            raise
        raise StackError(
            f"{path}: its OME metadata make no sense ({brief(error)}); {WAY_OUT}"
        ) from error
    if any(sign in message for _, message in messages for sign in _LOST_FRAMES):
        refuse_promises(tif, chain.offsets, path)
    if tif.is_ome:
        check_order(tif, images, path)
    taken = chosen(images, path, series)
    extra = extra_pages(images, path, chain.offsets)
    sentences, others = unread(images, taken, path, extra)
    stacks: list[TiffStack] = []
    for image in taken:
        check_pages(image, extra, path, chain.offsets)
        stack = _stack(tif, images, image, path, axes, exact)
        number = str(image.number) if series or len(taken) > 1 else ""
        stack.info = replace(
            stack.info,
            series=PAGES if series == PAGES else number,
            series_name=image.name if len(images) > 1 else "",
            unused=(*stack.info.unused, *sentences),
            lacking=missing_planes(image, path),
        )
        stack.others = others
        stacks.append(stack)
    return stacks


def _stack(
    tif: TiffFile,
    images: Sequence[TiffImage],
    image: TiffImage,
    path: str,
    axes: str | None,
    exact: bool,
) -> TiffStack:
    source = source_axes(image.letters, image.shape, path, axes)
    shape, dtype, key = image.shape, image.dtype, image.key
    canonical, sizes = AxesMap(source).canonical(shape)
    channel_names, pixel_size, time_step = calibration(tif, images, image, canonical, sizes)
    info = StackInfo(
        path=path,
        format="OME-TIFF" if image.kind == "ome" else "TIFF",
        axes=canonical,
        shape=sizes,
        dtype=dtype.newbyteorder("=").name if exact else read_dtype(dtype, path),
        channel_names=channel_names,
        pixel_size_um=pixel_size,
        time_step_s=time_step,
        identity=_identity(image.files | {os.path.realpath(path)}),
        min_is_white=not exact and white_of(key) is not None,
        unused=()
        if exact
        else (*_floats_that_are_white(key), *_inks(key), *displayed(key, image.kind)),
    )
    _refuse_colours(key, path)
    palette = None if exact else palette_of(key, image.kind, path)
    page_format = PageFormat(
        shape=key.shape,
        dtype=dtype.newbyteorder(key.parent.byteorder),
        white=white_of(key) if info.min_is_white else None,
        exact=exact,
        transform=image.series.transform,
        palette=palette,
        is_plain=not exact and is_plain(key, image.kind),
    )
    place = _unpacked if palette is None and _is_unpacked(image) else _paged
    placed = place(image, info, source)
    if palette is not None:
        placed = _indexed(placed, palette)
    stack = TiffStack(*placed, page_format, key)
    if _has_alpha(key) and info.size("C") > 1 and _is_opaque(stack):
        stack.info = stack.info.without_alpha()
    return stack


def _is_unpacked(image: TiffImage) -> bool:
    """Whether all pixels lie in one file, one after the other, as they are."""
    series = image.series
    return bool(
        image.n_pixels == math.prod(series.shape)
        and POSITION not in series.axes
        and len(image.layouts) == 1
        and series.dataoffset is not None
        and image.key.is_final
        and series.transform is None
        and image.is_whole
        and image.kind != "ndtiff"
        and len(image.files) == 1
    )


_Placed = tuple[StackInfo, str, tuple[int, ...], int, Pages]  # the first arguments of a TiffStack


def _unpacked(image: TiffImage, info: StackInfo, source: str) -> _Placed:
    """Pages found by their place in the file alone."""
    shape, offset, itemsize = image.shape, image.series.dataoffset, image.dtype.itemsize
    file = next(place.file for place in image.places if place is not None)
    n_lead = min(source.index("Y"), source.index("X"))
    n_bytes = math.prod(shape[n_lead:]) * itemsize
    if offset is None or offset + n_bytes > Path(file).stat().st_size:
        raise StackError(
            f"{info.path}: is truncated, its first frame ends beyond the end of the file; "
            "copy it again"
        )
    info = replace(
        info,
        piece=(1, info.size("X")),
        stored_bytes=itemsize,
        unit_channels=info.size("C") if "C" in source[n_lead:] else 1,
    )
    pages = Pages.unpacked(file, offset, n_bytes, math.prod(shape[:n_lead]))
    return info, source, shape, n_lead, pages


def _paged(image: TiffImage, info: StackInfo, source: str) -> _Placed:
    """Pages found by their directories."""
    key, shape = image.key, image.shape
    n_lead = split_lead(shape, math.prod(key.shape))
    if n_lead is None:
        raise StackError(f"{info.path}: its pages do not add up to shape {shape}; convert it")
    first = image.places[0] if image.places else None
    if first is not None and first.directory == key.offset:
        _refuse_undecodable(key, info.path)
    whole = image.series.transform is not None
    kept = [
        storage(info, source[n_lead:], shape[n_lead:], page, whole=whole) for page in image.layouts
    ]
    most = max(kept, key=lambda one: one.read_bytes(info.size("Y"), info.size("X")))
    if any(one.piece is None for one in kept):
        most = replace(most, piece=None)
    pages = Pages.of(image.places, math.prod(shape[:n_lead]))
    return most, source, shape, n_lead, pages


def _indexed(placed: _Placed, palette: Palette) -> _Placed:
    """The same pages, whose values `palette` turns into shades or into colours."""
    info, source, shape, n_lead, pages = placed
    if palette.read_as in (SHADES, COLOURS):
        info = replace(info, dtype="uint8")
    if palette.read_as != COLOURS:
        return info, source, shape, n_lead, pages
    if "C" in source:
        raise StackError(
            f"{info.path}: has a palette, which makes red, green and blue of each page, and "
            "also an axis C; convert it to red, green and blue, or give --axes without C"
        )
    source = source[:n_lead] + "C" + source[n_lead:]
    shape = (*shape[:n_lead], 3, *shape[n_lead:])
    axes, sizes = AxesMap(source).canonical(shape)
    info = replace(info, axes=axes, shape=sizes, unit_channels=3)
    return info, source, shape, n_lead, pages


def _refuse_undecodable(page: TiffPage, name: str) -> None:
    """StackError where the first page is not whole, or of a kind that nothing here decodes."""
    try:
        check_page(page, page.parent.filehandle.size)
    except ValueError as error:
        raise StackError(f"{name}: its first frame {error}; copy or write it again") from error
    try:
        if not page.is_contiguous:
            page.decode(None, 0)  # decodes nothing, but says what it cannot
    except Exception as error:
        raise StackError(
            f"{name}: its pixels cannot be decoded ({brief(error)}); convert it to plain TIFF"
        ) from error


def _identity(files: frozenset[str]) -> str:
    """Size and time of every file that holds pixels, however their paths are spelt."""
    stats = [(Path(file).name, Path(file).stat()) for file in files]
    return ";".join(
        f"{s.st_size}:{s.st_mtime_ns}" for _, s in sorted(stats, key=lambda one: one[0])
    )


def _floats_that_are_white(page: TiffPage) -> tuple[str, ...]:
    if not says_white(page) or white_of(page) is not None:
        return ()
    return (
        "its tags say that 0 is white, but floating-point types have no largest value to "
        "invert from: the pixels are read as they are",
    )


def _refuse_colours(page: TiffPage, name: str) -> None:
    """StackError where values are no intensities: a model of colours expects red, green, blue."""
    space = _NO_INTENSITIES.get(int(page.photometric))
    if space and page.samplesperpixel > 1 and int(page.compression) not in JPEG:
        raise StackError(
            f"{name}: its colours are stored as {space}, which are not intensities; convert it to "
            "red, green and blue"
        )


def _inks(page: TiffPage) -> tuple[str, ...]:
    if page.photometric != _SEPARATED or page.samplesperpixel < 4:
        return ()
    return (INKS,)


def _has_alpha(page: TiffPage) -> bool:
    return bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA and page.planarconfig == 1


def _is_opaque(stack: Stack) -> bool:
    """Whether the last channel of the first frame, or of the first part of it, is opaque."""
    info = stack.info
    window = (slice(0, min(info.size(a), _ALPHA_SIDE)) for a in "YX")
    try:
        alpha = stack.read_window(0, 0, [info.size("C") - 1], *window)
    except Exception:
        return False  # the frame will say why
    return is_opaque(alpha)
