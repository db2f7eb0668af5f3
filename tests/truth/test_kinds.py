"""What counts as truth: every kind of file, and what `train` and `evaluate` both read from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from engine.errors import StackError
from engine.model.spec import Normalisation
from engine.results.score.sources import open_labels
from engine.truth.ids import InPieces, in_pieces, numbered_from_one
from engine.truth.png import read_png
from tests.truth.files import GREY, INDEXED, RGB, colours, png, tiff
from train.data.frames import FrameSource, Reading, load_frame
from train.data.truth import TruthSource

IDS = np.zeros((16, 32), np.uint8)  # three objects, of which two touch
IDS[1:5, 1:6], IDS[5:9, 1:6], IDS[2:10, 9:14] = 1, 2, 3
MASK = IDS > 0
RED, GREEN = (np.dstack([IDS * f for f in fs]) for fs in ((80, 0, 0), (0, 80, 0)))
EQUAL = np.dstack([IDS] * 3)
OPAQUE, CLEAR = np.full(IDS.shape, 255, np.uint8), np.where(MASK, 255, 0).astype(np.uint8)
SCATTERED = np.array([0, 7, 2**24 + 1, 2**24], np.int64)[IDS]  # one number, were it float32
Write = Callable[[Path], object]
Kind = tuple[str, Write, NDArray[Any] | str]


def as_png(numbers: NDArray[Any], **how: Any) -> Write:
    return lambda path: path.with_suffix(".png").write_bytes(png(numbers, **how))


def encoded(pixels: NDArray[Any]) -> Write:
    return lambda path: path.with_suffix(".png").write_bytes(imagecodecs.png_encode(pixels))


def written(name: str, data: bytes) -> Write:
    return lambda path: path.with_name(name).write_bytes(data)


def as_tiff(pixels: NDArray[Any], **options: Any) -> Write:
    return lambda path: tiff(path.with_suffix(".tif"), pixels, **options)


def indexed(depth: int) -> Write:
    return as_png(IDS, depth=depth, colour=INDEXED, palette=colours(2**depth))


MAP = np.zeros((3, 256), np.uint16)
MAP[:, 1:] = np.random.default_rng(0).integers(0, 2**16, (3, 255))
ALPHA = {"photometric": "rgb", "extrasamples": ["unassalpha"]}

KINDS: list[Kind] = [
    # whole numbers, whatever their width
    *((f"TIFF {t}", as_tiff(IDS.astype(t)), IDS)
      for t in ("uint8", "uint16", "int16", "uint32", "int32", "uint64", "int64")),
    ("TIFF int32, ids beyond 2**24", as_tiff(SCATTERED.astype(np.int32)), SCATTERED),
    ("TIFF uint32, ids beyond 2**31",
     as_tiff((SCATTERED + 2**31 * (IDS > 0)).astype(np.uint32)), SCATTERED),
    ("TIFF uint64, ids beyond 2**53",
     as_tiff(SCATTERED.astype(np.uint64) + np.uint64(2**60) * (IDS > 0)), SCATTERED),
    ("TIFF, zlib and tiles", as_tiff(IDS, tile=(16, 16), compression="zlib"), IDS),
    ("TIFF float32 of whole numbers", as_tiff(IDS.astype(np.float32)), IDS),
    ("TIFF float64 beyond 2**24", as_tiff(SCATTERED.astype(np.float64)), SCATTERED),
    ("PNG 16 bit", as_png(IDS.astype(np.uint16) * 300, depth=16), IDS),
    *((f"PNG {depth} bit", as_png(IDS, depth=depth), IDS) for depth in (2, 4, 8)),
    # indices
    *((f"PNG indexed, {depth} bit", indexed(depth), IDS) for depth in (2, 4, 8)),
    ("PNG indexed, transparent background",
     as_png(IDS, depth=8, colour=INDEXED, palette=colours(256), trns=b"\0"), IDS),
    ("PNG indexed, 1 bit", as_png(MASK, depth=1, colour=INDEXED, palette=colours(2)), MASK),
    ("PNG indexed, VOC's border of 255",
     as_png(np.where(IDS == 1, 255, IDS), colour=INDEXED, palette=colours(256)),
     np.where(IDS == 1, 255, IDS)),
    ("PNG grey, a transparent value", as_png(IDS, trns=b"\0\1"), IDS),
    ("TIFF indexed", as_tiff(IDS, photometric="palette", colormap=MAP), IDS),
    # grey that is kept as colour
    ("PNG of three equal samples", as_png(EQUAL, colour=RGB), IDS),
    ("PNG grey, opaque alpha",
     encoded(np.dstack([IDS, OPAQUE])),
     IDS),
    ("PNG of equal samples, opaque alpha",
     encoded(np.dstack([EQUAL, OPAQUE])),
     IDS),
    ("TIFF of three equal samples", as_tiff(EQUAL, photometric="rgb"), IDS),
    ("TIFF of equal samples, opaque alpha", as_tiff(np.dstack([EQUAL, OPAQUE]), **ALPHA), IDS),
    # nothing there
    ("TIFF without an object", as_tiff(IDS * 0), IDS * 0),
    ("TIFF without background", as_tiff(IDS + 1), IDS + 1),
    # one id
    ("TIFF 0 and 255", as_tiff(np.where(MASK, 255, 0).astype(np.uint8)), MASK),
    # refused
    ("TIFF 0 to 1", as_tiff((IDS / 255).astype(np.float32)), "must be whole numbers, not float32"),
    ("TIFF NaN", as_tiff(np.where(MASK, 1, np.nan).astype(np.float32)), "must be whole numbers"),
    ("TIFF infinite", as_tiff(np.where(MASK, np.inf, 0).astype(np.float32)), "whole numbers"),
    ("TIFF float32 beyond 2**24", as_tiff(SCATTERED.astype(np.float32) * 2), "beyond 16777216"),
    ("TIFF negative", as_tiff(-IDS.astype(np.int16)), "must not be negative"),
    ("TIFF negative float", as_tiff(-IDS.astype(np.float32)), "must not be negative"),
    ("TIFF boolean", as_tiff(MASK), "give --masks"),
    ("PNG 1 bit", as_png(MASK, depth=1), "give --masks"),
    ("PNG in colours", as_png(RED + GREEN[:, ::-1], colour=RGB), "is a colour picture"),
    ("TIFF in colours", as_tiff(RED + GREEN[:, ::-1], photometric="rgb"), "is a colour picture"),
    ("PNG, real alpha",
     encoded(np.dstack([EQUAL, CLEAR])),
     "picture"),
    ("PNG grey, real alpha",
     encoded(np.dstack([IDS, CLEAR])),
     "no alpha channel"),
    ("JPEG named PNG",
     written("a.png", imagecodecs.jpeg_encode(IDS)), "is JPEG"),
    ("JPEG", written("a.jpg", imagecodecs.jpeg_encode(IDS)), "is JPEG"),
    ("TIFF, JPEG within", as_tiff(IDS, compression="jpeg"), "is JPEG"),
    ("text named PNG", written("a.png", b"nothing"), "is not a label image"),
    ("half a PNG", written("a.png", png(IDS)[:60]), "cannot be read"),
    ("half a TIFF", written("a.tif", b"II*\0\x08\0\0\0\x05\0\0\1"), "truncated"),
    ("TIFF of two channels",
     as_tiff(np.stack([IDS, IDS]), imagej=True, metadata={"axes": "CYX"}), "has 2 channels"),
]  # fmt: skip


def same_objects(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether both have the same background, and the same pixels in one object."""
    if found.shape != wanted.shape or not np.array_equal(found != 0, wanted != 0):
        return False
    return np.array_equal(numbered_from_one(found), numbered_from_one(wanted))


def readers(folder: Path, write: Write) -> list[Callable[[], NDArray[Any]]]:
    """The truth that `write` writes, as `train` reads it, and as `evaluate` a file and a folder."""
    (folder / "labels").mkdir()
    write(folder / "labels" / "a")
    (file,) = (folder / "labels").iterdir()
    tiff(folder / "a.tif", np.random.default_rng(0).integers(0, 99, IDS.shape, np.uint8))
    source = FrameSource("images/a.tif", "a", folder / "a.tif", TruthSource(file))

    def by_evaluate(path: Path) -> NDArray[Any]:
        opened = open_labels(path)
        return opened.read(opened.numbers[0])

    return [
        lambda: load_frame(source, Reading(Normalisation())).labels,
        lambda: by_evaluate(file),
        lambda: by_evaluate(file.parent),
    ]


@pytest.mark.parametrize(("name", "write", "wanted"), KINDS, ids=[kind[0] for kind in KINDS])
def test_train_and_evaluate_read_the_same(
    name: str, write: Write, wanted: NDArray[Any] | str, tmp_path: Path
) -> None:
    for read in readers(tmp_path, write):
        if isinstance(wanted, str):
            with pytest.raises(StackError) as caught:
                read()
            assert wanted in str(caught.value) and "\n" not in str(caught.value)
            assert str(caught.value).startswith(str(tmp_path / "labels"))
        else:
            assert same_objects(read(), wanted)


def test_training_takes_a_file_for_each_truth(tmp_path: Path) -> None:
    by_train, by_evaluate, _ = readers(tmp_path, as_tiff(np.stack([IDS, IDS])))
    with pytest.raises(StackError, match="holds 2 label images; give a file for each"):
        by_train()
    assert same_objects(by_evaluate(), IDS)


@given(st.data())
def test_a_png_is_read_as_the_numbers_in_it(data: st.DataObject) -> None:
    depth = data.draw(st.sampled_from([1, 2, 4, 8, 16]))
    colour = data.draw(st.sampled_from([GREY] if depth == 16 else [GREY, INDEXED]))
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 20)))
    numbers = data.draw(arrays(np.uint16, shape, elements=st.integers(0, 2**depth - 1)))
    palette = colours(2**depth) if colour == INDEXED else b""
    trns = data.draw(st.sampled_from([b"", b"\0\1"]))
    found, found_palette = read_png(png(numbers, depth, colour, palette, trns))
    assert np.array_equal(found, numbers)
    assert (found.dtype == np.bool_) == ((depth, colour) == (1, GREY))
    assert (found_palette is None) == (colour == GREY)
    assert found_palette is None or found_palette.tobytes() == palette


@given(st.data())
def test_a_damaged_png_is_never_read_as_another(data: st.DataObject) -> None:
    whole = png(IDS, colour=INDEXED, palette=colours(256))
    at = data.draw(st.integers(8, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    for content in (bytes(damaged), whole[:at]):
        try:
            found, _ = read_png(content)
        except Exception:  # which one is for the reader of files to catch
            continue
        assert np.array_equal(found, IDS)


@given(arrays(np.uint64, (4, 5), elements=st.sampled_from([0, 1, 5, 2**24, 2**24 + 1, 2**63])))
def test_numbering_from_one_keeps_objects_apart(ids: NDArray[np.uint64]) -> None:
    found = numbered_from_one(ids)
    assert found.dtype == np.int32 and np.array_equal(found > 0, ids > 0)
    assert sorted(set(found[found > 0])) == list(range(1, len(set(ids[ids > 0])) + 1))
    assert np.array_equal(found[:, :, None, None] == found, ids[:, :, None, None] == ids)


def test_few_ids_in_many_pieces() -> None:
    corner = np.array([[5, 0, 0, 5], [0, 5, 0, 0]])
    assert in_pieces(corner) == InPieces(1, 2), "a corner joins"
    assert in_pieces(corner * 0) is None
    assert in_pieces(np.array([[1, 0, 2]])) is None
    assert in_pieces(np.array([[1, 1]])) is None
    assert in_pieces(np.array([[[1, 0]], [[1, 0]]])) is None, "planes of a volume"
    classes = np.array([[1, 0, 1, 0, 1, 2, 0, 2, 0, 2]])
    assert in_pieces(classes) == InPieces(2, 6)
    assert in_pieces(classes[:, 1:]) is None, "five pieces may be two objects that are cut"
    assert in_pieces(classes * 200) is None, "classes are small numbers"
