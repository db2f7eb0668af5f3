"""Which images of a TIFF file are stacks, and what is said of the rest.

The image with the most pixels is the stack, but for thumbnails and masks. In an OME-TIFF and in
what Micro-Manager writes, images like it are scenes or positions: each is a stack of its own. Of a
set of files that describe each other, a file gives the images whose pixels it holds.

What the metadata count and what the file holds must agree: pages beyond what they count are
refused, and so are frames that lack pages (see `engine.job.inputs`). What is left besides is named.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.errors import StackError
from engine.stacks.guard import brief, some
from engine.stacks.tiff.images import MASK, WAY_OUT, TiffImage
from engine.stacks.tiff.ome import file_names, image_sizes

if TYPE_CHECKING:
    from tifffile import TiffFile

PAGES = "pages"  # as a choice: every page is a frame, whatever the metadata say
ALL = "all"
SEVERAL = ("ome", "mmstack", "ndtiff")  # writers whose equal images are scenes or positions
_SAYS = {"ome": "OME", "imagej": "ImageJ", "mmstack": "Micro-Manager", "shaped": "shape"}


def chosen(images: Sequence[TiffImage], path: str, choice: str | None) -> list[TiffImage]:
    """The images that are stacks, in order; StackError where `choice` fits none.

    `choice` is a number, a name or ALL; None takes the default.
    """
    if not images:
        raise StackError(f"{path}: holds no image that can be decoded; convert it to plain TIFF")
    if choice in (None, PAGES):
        here = os.path.realpath(path)
        own = [image for image in images if here in image.files] or list(images)
        main = max(own, key=lambda image: (not _is_secondary(image), image.n_pixels))
        if main.kind not in SEVERAL:
            return [main]
        return [image for image in own if image.alike == main.alike]
    if choice == ALL:
        return list(images)
    named = [image for image in images if image.name == choice]
    if choice is not None and choice.isdecimal() and int(choice) < len(images):
        return [images[int(choice)]]
    if len(named) == 1:
        return named
    listed = _listed(images)
    if named:
        numbers = ", ".join(str(image.number) for image in named)
        raise StackError(f"{path}: images {numbers} are all called {choice}; choose by number")
    raise StackError(f"{path}: has no image {choice}; it has {listed}")


def unread(
    images: Sequence[TiffImage],
    taken: Sequence[TiffImage],
    path: str,
    extra: Sequence[tuple[int, ...]],
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What none of the stacks `taken` holds: sentences on the file, images of other files.

    `extra` are the shapes of pages that no image has, see `extra_pages`. Of other files that the
    metadata describe, a description of one image each, by real path.
    """
    here = os.path.realpath(path)
    numbers = {image.number for image in taken}
    left = [image for image in images if image.number not in numbers]
    own = [image for image in left if here in image.files]
    sentences = []
    if own:
        sentences.append(
            f"{_count(len(own), 'image')} of the file {'is' if len(own) == 1 else 'are'} not read: "
            f"{_listed(own)}; --series N or --series all reads more"
        )
    if extra:
        shapes = sorted({" x ".join(map(str, shape)) for shape in extra})
        sentences.append(f"{_count(len(extra), 'page')} of {some(shapes)} px belong to no image")
    others = [image for image in left if here not in image.files]
    return tuple(sentences), {file: image.described() for image in others for file in image.files}


def check_pages(
    image: TiffImage, extra: Sequence[tuple[int, ...]], path: str, chain: Sequence[int]
) -> None:
    """StackError where the file has more pages like the image's than its metadata count."""
    if image.kind in ("generic", MASK, "ndtiff"):  # every page is a frame; an index lists them
        return
    expected = image.n_planes
    if more := list(extra).count(image.key.shape):
        found = len({place for place in image.places if place is not None}) + more
        raise _disagree(image.kind, expected, found, path, more)
    pixels = [p.pixels for p in image.places if p is not None and p.pixels]
    if len(pixels) == expected > 1:
        # One directory stands for all; another one between their pixels shows that it does not.
        last = pixels[-1] + image.key.nbytes
        if any(pixels[0] < offset < last for offset in chain):
            raise _disagree(image.kind, expected, len(chain), path)


def refuse_promises(tif: TiffFile, chain: Sequence[int], path: str) -> NoReturn:
    """StackError about metadata with which tifffile could do nothing; with numbers, if any."""
    kind, planes = _promised(tif)
    if planes not in (None, len(chain)) and len(chain) > 1:
        raise _disagree(kind, planes, len(chain), path)
    raise StackError(
        f"{path}: its headers promise more frames than can be found; "
        "the file is truncated or damaged: copy or write it again"
    )


def _promised(tif: TiffFile) -> tuple[str, int | None]:
    """Who wrote the metadata of a file, and how many planes they count, if that can be read."""
    try:
        if tif.is_imagej:
            meta = tif.imagej_metadata or {}
            axes = [int(meta.get(key, 1)) for key in ("frames", "slices", "channels")]
            return "imagej", max(math.prod(axes), int(meta.get("images", 1)))
        shape = json.loads(tif.pages.first.shaped_description or "")["shape"]
        return "shaped", math.prod(shape) // math.prod(tif.pages.first.shape)
    except (ValueError, LookupError, TypeError):
        return "", None


def _disagree(kind: str, planes: int, found: int, path: str, more: int = 0) -> StackError:
    """`more` pages belong to no plane; they are named where the numbers do not show it."""
    extra = (
        f", {more} of which {'belongs' if more == 1 else 'belong'} to no plane"
        if more and found <= planes
        else ""
    )
    return StackError(
        f"{path}: its {_SAYS.get(kind, 'own')} metadata count {_count(planes, 'plane')}, but the "
        f"file has {_count(found, 'page')} of that shape{extra}; {WAY_OUT}"
    )


def check_order(tif: TiffFile, images: Sequence[TiffImage], path: str) -> None:
    """StackError where pages would be read without the order that OME metadata give them.

    tifffile passes over metadata that are damaged, that do not say which page is which plane, or
    that do not fit the pages. One time-lapse of as many pages needs no more than its pages.
    """
    if not images or any(image.kind not in ("generic", MASK) for image in images):
        return
    pages = max(images, key=lambda image: image.n_pixels)
    try:
        sizes = image_sizes(tif.ome_metadata or "")
    except ValueError as error:
        if pages.n_found == 1:
            return
        raise StackError(
            f"{path}: its OME metadata, which give the order of its {pages.n_found} pages, cannot "
            f"be read ({brief(error)}); {WAY_OUT}"
        ) from error
    samples = math.prod(pages.key.shape) // (pages.key.imagelength * pages.key.imagewidth)
    if not sizes or sizes in [[{"T": pages.n_found, "Z": 1, "C": c}] for c in (1, samples)]:
        return
    planes = sum(math.prod(one.values()) for one in sizes)
    if planes != pages.n_found:
        raise _disagree("ome", planes, pages.n_found, path)
    raise StackError(
        f"{path}: its OME metadata count {_count(planes, 'plane')} in "
        f"{_count(len(sizes), 'image')}, but do not say which page is which plane; {WAY_OUT}"
    )


def missing_planes(image: TiffImage, path: str) -> str:
    """The sentence about planes that the metadata count and no file has; "" where none lacks."""
    if image.is_whole:
        return ""
    says = _SAYS.get(image.kind, "own")
    lost = _lost_files(image)
    where = f" ({some(lost)} not found in its folder)" if lost else ""
    return (
        f"{path}: its {says} metadata count {image.n_planes} planes, but it has "
        f"only {image.n_found}{where}; complete it, choose complete frames with --frames, or give "
        "--series pages to read every page as a frame"
    )


def _is_secondary(image: TiffImage) -> bool:
    """Whether an image says of itself that it is a mask, or a smaller copy of another."""
    return image.kind == MASK or image.key.is_reduced


def _lost_files(image: TiffImage) -> list[str]:
    """Files that OME metadata name and that are not there."""
    tif = image.key.parent
    folder = Path(tif.filehandle.dirname)
    names = file_names(tif.ome_metadata or "") if image.kind == "ome" else []
    return sorted(n for n in names if not (folder / n).exists())


def extra_pages(
    images: Sequence[TiffImage], path: str, chain: Sequence[int]
) -> list[tuple[int, ...]]:
    """Shapes of the pages in the file's chain that no image has."""
    if any(image.kind == "ndtiff" for image in images):
        return []
    covered = set[int]().union(*(image.indices for image in images))
    at = {offset: i for i, offset in enumerate(chain)}
    for series in {id(image.series): image.series for image in images}.values():
        for level in series.levels[1:]:
            covered |= {at[p.offset] for p in level.pages if p is not None and p.offset in at}
    return _shapes(path, [offset for i, offset in enumerate(chain) if i not in covered])


def _shapes(path: str, offsets: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the pages whose directories lie at these offsets of a file."""
    from tifffile import TiffFile, TiffPage

    shapes = []
    if offsets:
        with TiffFile(path) as tif:
            for offset in offsets:
                tif.filehandle.seek(offset)
                shapes.append(tuple(TiffPage(tif, index=0).shape))
    return shapes


def _listed(images: Sequence[TiffImage]) -> str:
    return some([image.described() for image in images], "; ")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
