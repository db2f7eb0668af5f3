"""The images of a TIFF file, whoever wrote them: which pages are theirs, in which order.

tifffile groups pages into series. What a series is depends on the writer: a time-lapse, one of
several scenes, all positions of a stage in one array, a single call of `imwrite`. Here each becomes
an image of its own whose dimensions are those of a stack:

    written as                               becomes
    an OME-TIFF of three Image elements      three images
    Micro-Manager, axes T position Z C       an image for each position
    pages of equal shape, one by one         one image, a page for each frame
    equal arrays appended, (Z, Y, X) each    one image with one dimension more
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.errors import StackError
from engine.stacks.tiff.chain import Chain
from engine.stacks.units import split_lead

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

    Page = TiffPage | TiffFrame

MASK = "mask"  # kind of an image of transparency masks
WAY_OUT = "write it again, or give --series pages to read every page as a frame"
POSITION = "R"  # tifffile's letter for positions of the stage
_SAVED_CHANNELS = re.compile(  # of ScanImage 2015 and later, 4 and 5, 3
    r"(?:hChannels\.channelSave|\.SI\d?\.channelsSave)\s*=\s*(?P<list>\[[^\]]*\]|\d+)"
    r"|state\.acq\.numberOfChannelsSave=(?P<count>\d+)"
)
_MAX_DIMENSIONS = 32
_MAX_ODD_SHARE = 5  # at most one page in five may differ and still count as a bad frame


class Place(NamedTuple):
    """Where a page lies: its directory, or its pixels where they are unpacked."""

    file: str
    directory: int  # offset in bytes; 0: only the pixels are known
    pixels: int  # offset in bytes; 0: the directory says where


@dataclass(frozen=True)
class TiffImage:
    """One image of a file."""

    number: int  # in the file, from 0
    name: str  # as the metadata call it, or ""
    kind: str  # as tifffile calls its writer: "ome", "imagej", "mmstack", "shaped", ...
    letters: str  # of all dimensions, "?" for those of length 1 that may be no axes
    shape: tuple[int, ...]
    key: TiffPage  # the page that all others should be like
    places: tuple[Place | None, ...]  # of each page, in order; None where a page is absent
    series: TiffPageSeries  # that it came from
    indices: frozenset[int]  # of its pages in the file's chain of directories
    layouts: tuple[TiffPage, ...]  # pages that are stored in different ways, one of each

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in the file, in native byte order."""
        return np.dtype(self.key.dtype)

    @cached_property
    def files(self) -> frozenset[str]:
        """Real paths of all files with its pages."""
        named = {place.file for place in self.places if place is not None}
        return frozenset(map(os.path.realpath, named))

    @property
    def n_pixels(self) -> int:
        """Values in the whole image."""
        return math.prod(self.shape)

    @property
    def n_planes(self) -> int:
        """Pages that it should have."""
        return _n_planes(self.shape, self.key)

    @property
    def n_found(self) -> int:
        """Pages that it has."""
        return sum(place is not None for place in self.places)

    @property
    def is_whole(self) -> bool:
        """Whether every page is there."""
        return self.n_found >= self.n_planes

    @property
    def alike(self) -> tuple[Any, ...]:
        """Equal for images that could be scenes or positions of one another."""
        sizes = dict(zip(self.letters, self.shape, strict=True))
        return (*(sizes.get(a, 1) for a in "CYX"), self.dtype)

    def described(self) -> str:
        """Number, name, shape and type, for a sentence."""
        name = f" ({self.name})" if self.name else ""
        sizes = " x ".join(str(n) for n in self.shape if n > 1) or "1"
        return f"{self.number}{name}: {sizes} {self.dtype}"


def images_of(tif: TiffFile, path: str, chain: Chain) -> list[TiffImage]:
    """Every image of a file that has pixels of numbers; subordinate levels left out.

    `tif` is the file at `path`, or that with its metadata; `chain` is that of the file at `path`.
    """
    numbers = {at: i for i, at in enumerate(chain.offsets)}
    here, real = os.path.realpath(path), cache(os.path.realpath)  # of perhaps a million pages

    def number_of(page: Page) -> int | None:
        number = numbers.get(page.offset)
        return number if number is not None and real(_file_of(page)) == here else None

    usable = [s for s in tif.series if s.dtype is not None and _is_shape(s.shape)]
    if not usable:
        return []
    kind = usable[0].kind
    if kind in ("generic", "uniform"):
        images = list(_by_pages(usable, chain.masks))
    else:
        images = [image for series in usable for image in _of_series(tif, series, number_of)]
    if kind == "shaped":
        images = _appended(images)
    return [replace(image, number=i) for i, image in enumerate(images)]


def are_pages(tif: TiffFile) -> bool:
    """Whether several arrays were written one by one, each a page or a row of pages.

    Their shapes give no order but that of the pages: they are frames. So are the pages of a file
    whose description another program wrote, with a "shape" of another meaning.
    """
    if not tif.is_shaped:
        return False
    if not _says_shape(tif):
        return True
    if len(tif.series) < 2 or tif.series[0].kind != "shaped":
        return False
    for series in tif.series:
        key = series.keyframe
        lead = series.shape[: max(len(series.shape) - len(key.shape), 0)]
        letters = series.axes[: len(lead)]
        named = any(n > 1 and a in "CZ" for a, n in zip(letters, lead, strict=True))
        if named or sum(n > 1 for n in lead) > 1 or key.subifds:
            return False
    return any(math.prod(s.shape) == math.prod(s.keyframe.shape) for s in tif.series)


def _says_shape(tif: TiffFile) -> bool:
    """False where tifffile takes a description for its own whose "shape" is another's."""
    description = tif.pages.first.shaped_description
    if not description or description[0] != "{":
        return True
    try:
        shape = json.loads(description).get("shape")
    except (ValueError, AttributeError):  # it is damaged, and may be tifffile's: refused later
        return True
    return isinstance(shape, list) and all(type(n) is int for n in shape)


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Could an image have this shape? Damaged tags hold fractions and negative numbers."""
    return 2 <= len(shape) <= _MAX_DIMENSIONS and all(type(n) is int and n > 0 for n in shape)


# -- series that say their own order ---------------------------------------------------------


def _of_series(
    tif: TiffFile, series: TiffPageSeries, number_of: Callable[[Page], int | None]
) -> Iterator[TiffImage]:
    """The image of a series, or one for each of its positions.

    `number_of` gives the number of a page in the file's chain of directories, if it is there.
    """
    letters, shape = series_axes(tif, series)
    key = series.keyframe
    if series.kind == "scanimage" and letters[0] == "I":
        letters, shape = _channels_in_turn(tif, letters, shape)
    pages = _pages_of(series)
    whole = TiffImage(
        number=0,
        name=series.name or "",
        kind=series.kind,
        letters=letters,
        shape=shape,
        key=key,
        places=tuple(_places(tif, series, pages, shape)),
        series=series,
        indices=_indices(pages, _n_planes(shape, key), number_of),
        layouts=(key,),
    )
    if POSITION not in letters:
        yield whole
        return
    n_lead = split_lead(shape, math.prod(key.shape)) or 0
    axis = letters.index(POSITION)
    if len(whole.places) != math.prod(shape[:n_lead]):
        return
    lead = np.empty(len(whole.places), object)
    lead[:] = whole.places
    for i, places in enumerate(np.moveaxis(lead.reshape(shape[:n_lead]), axis, 0)):
        if any(place is not None for place in places.flat):
            yield replace(
                whole,
                name=_position_name(tif, i),
                letters=letters[:axis] + letters[axis + 1 :],
                shape=shape[:axis] + shape[axis + 1 :],
                places=tuple(places.flat),
            )


def _channels_in_turn(
    tif: TiffFile, letters: str, shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    """Axes of a ScanImage file whose channels only its tags name, page by page.

    Channels follow one another within a frame. StackError where they do not add up to frames.
    """
    page = tif.pages.first
    match = _SAVED_CHANNELS.search(f"{page.software}\n{page.description}")
    if match is None:
        return letters, shape
    count = int(match["count"]) if match["count"] else len(re.findall(r"\d+", match["list"]))
    if count < 2:
        return letters, shape
    if shape[0] % count:
        raise StackError(
            f"{tif.filehandle.path}: its ScanImage metadata count {count} channels to a frame, and "
            f"the file has {shape[0]} pages; {WAY_OUT}"
        )
    return "TC" + letters[1:], (shape[0] // count, count, *shape[1:])


def _position_name(tif: TiffFile, number: int) -> str:
    """What Micro-Manager calls a position, or ""."""
    try:
        positions = (tif.micromanager_metadata or {})["Summary"]["StagePositions"]
        return str(positions[number]["Label"])
    except (LookupError, TypeError):
        return ""


def _places(
    tif: TiffFile, series: TiffPageSeries, pages: Sequence[Page | None], shape: Sequence[int]
) -> Iterator[Place | None]:
    """Where each page of a series lies, as far as the file has them.

    A series whose pixels lie one after the other may list its first page alone.
    """
    key = series.keyframe
    expected = _n_planes(shape, key)
    if len(pages) == 1 < expected and pages[0] is not None and series.dataoffset is not None:
        file, start = _file_of(pages[0]), series.dataoffset
        whole = max(key.parent.filehandle.size - start, 0) // key.nbytes  # the rest is cut off
        for i in range(min(expected, whole)):
            yield Place(file, 0, start + i * key.nbytes)
        return
    virtual = series.kind == "ndtiff"  # its index says where pixels lie, not directories
    for page in pages[:expected]:
        if page is None:
            yield None
        elif page.offset:
            yield Place(_file_of(page), page.offset, 0)
        elif virtual and page.dataoffsets and page.dataoffsets[0]:
            yield Place(_file_of(page), 0, page.dataoffsets[0])
        else:
            yield None


def _indices(
    pages: Sequence[Page | None], count: int, number_of: Callable[[Page], int | None]
) -> frozenset[int]:
    """Which directories of the file's chain are those of `count` pages."""
    numbers = [number_of(page) for page in pages[:count] if page is not None]
    found = [number for number in numbers if number is not None]
    if len(pages) == 1 and found:  # it stands for those that follow
        return frozenset(range(found[0], found[0] + count))
    return frozenset(found)


def _n_planes(shape: Sequence[int], key: TiffPage) -> int:
    """Pages of an image of `shape` whose pages are like `key`."""
    return max(math.prod(shape) // math.prod(key.shape), 1)


def _pages_of(series: TiffPageSeries) -> list[Page | None]:
    """The pages of a series, as far as the file has them."""
    pages: list[Page | None] = []
    for i in range(len(series)):
        try:
            pages.append(series[i])
        except IndexError:  # its metadata count more than there are
            break
    return pages


def _file_of(page: Page) -> str:
    return str(page.parent.filehandle.path)


def _appended(images: list[TiffImage]) -> list[TiffImage]:
    """Equal arrays, written one after the other, are one array with a dimension more."""
    out: list[TiffImage] = []
    for _, group in groupby(images, key=lambda i: (i.letters, i.shape, i.dtype, i.name)):
        members = list(group)
        first = members[0]
        if len(members) > 1 and not first.key.subifds:
            first = replace(
                first,
                letters="I" + first.letters,
                shape=(len(members), *first.shape),
                places=tuple(place for member in members for place in member.places),
                indices=frozenset[int]().union(*(m.indices for m in members)),
                layouts=tuple(m.key for m in members),
            )
            out.append(first)
        else:
            out += members
    return out


# -- pages that say no order but their own ---------------------------------------------------


def _by_pages(series: Sequence[TiffPageSeries], masks: Container[int]) -> Iterator[TiffImage]:
    """Images out of pages: those of one shape and type are frames, however each is stored.

    Transparency masks, whose directories lie at `masks`, are images of their own. A few pages of
    another shape between the others are bad frames: without them, all later ones would shift.
    """
    groups: dict[_Alike, list[TiffPageSeries]] = {}
    pages_of: dict[_Alike, list[Page]] = {}
    for one in series:
        key = one.keyframe
        apart = id(one) if not isinstance(key.index, int) or key.is_reduced else 0
        listed = [page for page in _pages_of(one) if page is not None]
        for is_mask in (False, True):
            pages = [page for page in listed if (page.offset in masks) == is_mask]
            alike = _Alike(is_mask, key.shape, key.axes, np.dtype(one.dtype), apart)
            if pages:
                groups.setdefault(alike, []).append(one)
                pages_of.setdefault(alike, []).extend(pages)
    for pages in pages_of.values():
        pages.sort(key=_order)
    main = max(pages_of, key=lambda a: (not a.is_mask, len(pages_of[a]) * math.prod(a.shape)))
    others = [p for a, pages in pages_of.items() if a != main and not a.is_mask for p in pages]
    odd = _bad_frames(pages_of[main], others)
    taken = {id(page) for page in odd}
    for alike, group in groups.items():
        pages = [page for page in pages_of[alike] if id(page) not in taken]
        if alike == main:
            pages = sorted([*pages, *odd], key=_order)
        if not pages:
            continue
        key = group[0].keyframe
        letters, shape = key.axes, tuple(key.shape)
        if len(pages) > 1:
            letters, shape = "I" + letters, (len(pages), *shape)
        letters, shape = _one_sample_axis(letters, shape)
        yield TiffImage(
            number=0,
            name="mask" if alike.is_mask else (group[0].name or "") if len(series) > 1 else "",
            kind=MASK if alike.is_mask else "generic",
            letters=_without_singles(letters, shape),
            shape=shape,
            key=key,
            places=tuple(Place(_file_of(page), page.offset, 0) for page in pages),
            series=group[0],
            indices=frozenset(p.index for p in pages if isinstance(p.index, int)),
            layouts=tuple(s.keyframe for s in group),
        )


class _Alike(NamedTuple):
    """What pages of one image have in common."""

    is_mask: bool
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    apart: int  # not 0: the series that is an image by itself


def _order(page: Page) -> tuple[int, ...]:
    """Place of a page among those of its file, those of its sub-directories included."""
    return (page.index,) if isinstance(page.index, int) else tuple(page.index)


def _bad_frames(main: Sequence[Page], others: Sequence[Page]) -> list[Page]:
    """Pages of another shape between those of the main image, where they are few."""
    at = [page.index for page in main if isinstance(page.index, int)]
    if len(main) < 2 or len(at) != len(main):
        return []
    between = [p for p in others if isinstance(p.index, int) and at[0] < p.index < at[-1]]
    few = len(between) * _MAX_ODD_SHARE <= len(main)
    thumbnails = any(p.keyframe is not None and p.keyframe.is_reduced for p in between)
    return between if few and not thumbnails else []


# -- axes ------------------------------------------------------------------------------------


def series_axes(tif: TiffFile, series: TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Letters and shape of all dimensions; "?" for those of length 1 that may be no axes."""
    letters, shape = _unsqueezed(tif, series)
    if series.kind != "shaped":  # every other format lists all its axes, used or not
        letters = _without_singles(letters, shape)
    return _one_sample_axis(letters, shape)


def _without_singles(letters: str, shape: Sequence[int]) -> str:
    """Letters of dimensions, "?" for those of length 1 but Y, X and samples."""
    return "".join(a if n > 1 or a in "YXS" else "?" for a, n in zip(letters, shape, strict=True))


def _unsqueezed(tif: TiffFile, series: TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Letters and shape of a series of `tif.series`, those of length 1 included.

    Until 2026.5 a series of tifffile has two shapes, since then a file has two lists of series.
    """
    whole: Any = series
    if hasattr(whole, "get_axes"):
        return whole.get_axes(squeeze=False), whole.get_shape(squeeze=False)
    every: Any = tif.series
    whole = every(squeeze=False)[every.index(series)]
    return whole.axes, whole.shape


def _one_sample_axis(letters: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Samples are channels; where the file has channels as well, one of the two must be 1."""
    if "S" not in letters:
        return letters, shape
    at = letters.index("S")
    if shape[at] == 1:
        return letters[:at] + letters[at + 1 :], shape[:at] + shape[at + 1 :]
    if "C" in letters and shape[letters.index("C")] == 1:
        letters = letters.replace("C", "?")
    return letters.replace("S", "C"), shape
