"""Labels of blocks, stitched, equal labelling the whole: SciPy is the oracle."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from engine.geometry import layout as layout_module
from engine.geometry.tiling import Window
from engine.labels.blocks import label_block
from engine.labels.class_objects import label_class_block, label_class_map
from engine.labels.components import areas_and_first_pixels
from engine.labels.postprocessing import Postprocessing
from engine.labels.stitching import (
    FinalIds,
    contacts,
    forward_offsets,
    join,
    labels_at,
    of_one_class,
)
from tests.engine.cores import plain_objects

COMPONENTS = Postprocessing(0.5)
Cuts = tuple[list[int], list[int], list[int]]  # edges of the blocks along Z, Y, X


def whole_labels(mask: NDArray[np.bool_], connect_z: bool, min_area: int = 0) -> NDArray[Any]:
    """What SciPy makes of the whole, (Z, Y, X); ids in raster order of what is large enough."""
    if connect_z:
        return renumbered(ndimage.label(mask, np.ones((3, 3, 3)))[0], min_area)
    planes = [ndimage.label(plane, np.ones((3, 3)))[0] for plane in mask]
    return np.stack([renumbered(plane, min_area) for plane in planes])


def renumbered(labels: NDArray[Any], min_area: int) -> NDArray[Any]:
    ids, first, area = np.unique(labels, return_index=True, return_counts=True)
    good = (ids > 0) & (area >= min_area)
    new = np.zeros(len(ids), int)
    new[np.flatnonzero(good)[np.argsort(first[good])]] = np.arange(1, good.sum() + 1)
    return new[np.searchsorted(ids, labels)]


Place = tuple[int, int, int]
Blocks = dict[Place, dict[str, Any]]


def stitched_labels(
    mask: NDArray[np.bool_], cuts: Cuts, connect_z: bool, min_area: int = 0,
    core: NDArray[np.bool_] | None = None, how: Postprocessing = COMPONENTS,
    chosen: tuple[int, ...] = (),
) -> NDArray[Any]:  # fmt: skip
    """Label block by block, then stitch, as the steps of a job do; all of it in memory.

    With `chosen` classes, `mask` is a class map.
    """
    grid = [list(itertools.pairwise(edges)) for edges in cuts]
    blocks: Blocks = {}
    start = 0
    for place in itertools.product(*(range(len(axis)) for axis in grid)):
        at = tuple(grid[axis][number] for axis, number in enumerate(place))
        blocks[place] = labelled_block(mask, core, at, start, how, chosen, connect_z=connect_z)
        start += blocks[place]["count"]
    return given_final_ids(mask, blocks, pairs_of(blocks, connect_z), min_area, connect_z)


def labelled_block(
    mask: NDArray[np.bool_], core: NDArray[np.bool_] | None, at: tuple[Any, ...], start: int,
    how: Postprocessing, chosen: tuple[int, ...], *, connect_z: bool,
) -> dict[str, Any]:  # fmt: skip
    """What is kept of the block at (z, y, x), ranges of each, whose ids follow `start`."""
    z, y, x = at
    depth, height, width = mask.shape
    rows, columns = (
        Window(*ends).around(how.margin, size) for ends, size in ((y, height), (x, width))
    )
    planes: dict[int, Any] = {
        n - z[0]: tuple(
            None if m is None else m[n, rows.as_slice(), columns.as_slice()] for m in (mask, core)
        )
        for n in range(*z)
    }
    inside = (Window(*y).as_slice(rows.start), Window(*x).as_slice(columns.start))
    labels = np.zeros((z[1] - z[0], y[1] - y[0], x[1] - x[0]), np.uint32)
    own = mask[z[0] : z[1], y[0] : y[1], x[0] : x[1]]
    if chosen:
        made = label_class_block(own, chosen, labels, connect_z=connect_z)
    else:
        made = label_block(planes, inside, how, labels, connect_z=connect_z)
    count = made.count
    areas, first = areas_and_first_pixels(labels, count)
    local = np.unravel_index(first, labels.shape)
    places = (local[0] + z[0], local[1] + y[0], local[2] + x[0])
    return {
        "at": at, "labels": labels, "count": count, "start": start,
        "faces": made.faces, "strips": made.strips,
        "foreign": made.foreign, "anchors": made.anchors + np.array([z[0], y[0], x[0]]),
        "first": np.ravel_multi_index(places, (depth, height, width)),
        "area": areas,
        "class": own[local].astype(np.uint8) if chosen else np.ones(count, np.uint8),
        "scope": np.zeros(count, int) if connect_z else places[0],
    }  # fmt: skip


def pairs_of(blocks: Blocks, connect_z: bool) -> NDArray[np.int64]:
    """Ids of blocks that are of one object: those that touch at faces, and anchors."""
    pairs = [np.zeros((0, 2), np.int64)]
    for place, block in blocks.items():
        for offset in forward_offsets(connect_z=connect_z):
            other = blocks.get(tuple(np.add(place, offset).tolist()))  # type: ignore[arg-type]
            if other is not None:
                found = contacts(block["faces"], other["faces"], offset, connect_z=connect_z)
                found = of_one_class(found, block["class"], other["class"])
                pairs.append(found + np.array([block["start"], other["start"]]))
    for block in blocks.values():
        for label, anchor in zip(block["foreign"], block["anchors"], strict=True):
            other = next(
                b for b in blocks.values()
                if all(s <= at < e for at, (s, e) in zip(anchor, b["at"], strict=True))
            )  # fmt: skip
            local = np.array(
                [[0, *(at - s for at, (s, _) in zip(anchor, other["at"], strict=True))]]
            )
            found = labels_at(other["strips"], local)[0]
            assert found  # wherever an anchor lies, a strip has it
            pairs.append(np.array([[block["start"] + label, other["start"] + found]]))
    return np.concatenate(pairs)


def given_final_ids(
    mask: NDArray[np.bool_], blocks: Blocks, pairs: NDArray[np.int64], min_area: int,
    connect_z: bool,
) -> NDArray[Any]:  # fmt: skip
    """The whole, with the ids that objects end up with."""
    joined = join(pairs)
    first = np.full(joined.n_groups, mask.size)
    area = np.zeros(joined.n_groups, int)
    for block in blocks.values():
        ids = block["start"] + np.arange(1, block["count"] + 1)
        group = joined.group_of(ids)
        np.minimum.at(first, group[group >= 0], block["first"][group >= 0])
        np.add.at(area, group[group >= 0], block["area"][group >= 0])
    final = FinalIds(joined, first, area >= min_area)
    out = np.zeros(mask.shape, int)
    by_row = itertools.groupby(blocks.values(), lambda b: b["at"][: 1 if connect_z else 2])
    for _, row in by_row:
        members = list(row)
        ids = np.concatenate([b["start"] + np.arange(1, b["count"] + 1) for b in members])
        columns = [np.concatenate([b[k] for b in members]) for k in ("first", "area", "scope")]
        first_of, area_of, scope_of = columns
        given_ids = final.row(ids, first_of, area_of >= min_area, scope_of)
        at = 0
        for b in members:
            new = np.r_[0, given_ids[at : at + b["count"]]]
            at += b["count"]
            z, y, x = b["at"]
            out[z[0] : z[1], y[0] : y[1], x[0] : x[1]] = new[b["labels"]]
    return out


def cuts_of(draw: st.DrawFn, size: int, most: int) -> list[int]:
    inner = draw(st.lists(st.integers(1, max(size - 1, 1)), max_size=most)) if size > 1 else []
    return [0, *sorted({c for c in inner if 0 < c < size}), size]


@st.composite
def masks(draw: st.DrawFn) -> tuple[NDArray[np.bool_], Cuts, bool]:
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random(shape) < draw(st.sampled_from([0.05, 0.25, 0.4, 0.5, 0.8, 1.0]))
    connect_z = draw(st.booleans())
    planes = cuts_of(draw, shape[0], 3) if connect_z else list(range(shape[0] + 1))
    return mask, (planes, cuts_of(draw, shape[1], 5), cuts_of(draw, shape[2], 5)), connect_z


@st.composite
def cores(draw: st.DrawFn) -> tuple[NDArray[np.bool_], Postprocessing]:
    """A seed of cores and how they grow."""
    how = Postprocessing(
        0.5, instances="cores", core_threshold=0.5, growth=draw(st.integers(1, 5)),
        pinhole=draw(st.integers(0, 6)), unreached=draw(st.sampled_from(["keep", "drop"])),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.02, 0.1, 0.3, 0.6]))
    return rng.random((6, 24, 24)) < share, how


@settings(max_examples=100)
@given(masks(), cores(), st.integers(0, 12))
def test_any_cut_of_objects_by_cores_equals_the_whole(
    case: tuple[NDArray[np.bool_], Cuts, bool],
    grown: tuple[NDArray[np.bool_], Postprocessing],
    min_area: int,
) -> None:
    mask, cuts, connect_z = case
    depth, height, width = mask.shape
    core, how = grown[0][:depth, :height, :width], grown[1]
    whole = plain_objects(mask, core, how, connect_z=connect_z)
    wanted = (
        renumbered(whole, min_area)
        if connect_z
        else np.stack([renumbered(plane, min_area) for plane in whole])
    )
    assert np.array_equal(stitched_labels(mask, cuts, connect_z, min_area, core, how), wanted)


@pytest.mark.parametrize(("growth", "pinhole"), [(1, 0), (5, 0), (3, 4), (1, 6)])
def test_what_lies_a_whole_margin_away_counts(growth: int, pinhole: int) -> None:
    """A core of one pixel, as far as growth reaches, in a pinhole of the foreground."""
    mask, core = np.ones((1, 20, 40), bool), np.zeros((1, 20, 40), bool)
    left = 20 + growth - 1
    mask[0, 8 : 8 + pinhole, left : left + pinhole] = False
    core[0, 10, left] = True
    how = Postprocessing(0.5, instances="cores", core_threshold=0.5, growth=growth, pinhole=pinhole)
    wanted = plain_objects(mask, core, how)
    assert wanted[0, 10, 19] == 1 and not wanted[0, :, :19].any()
    cuts = ([0, 1], [0, 20], [0, 20, 40])
    assert np.array_equal(stitched_labels(mask, cuts, False, 0, core, how), wanted)


@settings(max_examples=300)
@given(masks(), st.integers(0, 12))
def test_any_cut_equals_the_whole(
    case: tuple[NDArray[np.bool_], Cuts, bool], min_area: int
) -> None:
    mask, cuts, connect_z = case
    found = stitched_labels(mask, cuts, connect_z, min_area)
    assert np.array_equal(found, whole_labels(mask, connect_z, min_area))


def plain_class_objects(
    classes: NDArray[Any], chosen: tuple[int, ...], connect_z: bool = False, min_area: int = 0
) -> NDArray[Any]:
    """What SciPy makes of a class map, (Z, Y, X), class by class on the whole."""
    labels, count = np.zeros(classes.shape, int), 0
    for number in chosen:
        found = whole_labels(classes == number, connect_z)
        if not connect_z:  # ids begin again in each plane
            found = np.where(
                found > 0, found + np.cumsum([0, *found.max((1, 2))[:-1]])[:, None, None], 0
            )
        labels[found > 0] = found[found > 0] + count
        count += int(found.max(initial=0))
    if connect_z:
        return renumbered(labels, min_area)
    return np.stack([renumbered(plane, min_area) for plane in labels])


@settings(max_examples=60)
@given(
    masks(),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1,), (1, 2), (1, 3), (1, 2, 3)]),
    st.integers(0, 6),
)
def test_any_cut_of_objects_of_classes_equals_the_whole(
    case: tuple[NDArray[np.bool_], Cuts, bool], seed: int, chosen: tuple[int, ...], min_area: int
) -> None:
    mask, cuts, connect_z = case
    classes = np.where(mask, np.random.default_rng(seed).integers(0, 4, mask.shape), 0)
    classes = classes.astype(np.uint8)
    wanted = plain_class_objects(classes, chosen, connect_z, min_area)
    found = stitched_labels(classes, cuts, connect_z, min_area, chosen=chosen)  # type: ignore[arg-type]
    assert np.array_equal(found, wanted)
    if not connect_z:
        how = Postprocessing(0.5, min_area=min_area)
        whole = [label_class_map(plane, chosen, how) for plane in classes]
        assert np.array_equal(whole, wanted)


def spiral(n: int) -> NDArray[np.bool_]:
    """One object that winds inwards, a pixel wide: it crosses every face many times."""
    mask = np.zeros((n, n), bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True

    def free(y: int, x: int) -> bool:
        return 0 <= y < n and 0 <= x < n and not mask[y, x]

    while True:
        ahead, beyond = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        inside = 0 <= beyond[0] < n and 0 <= beyond[1] < n
        if not free(*ahead) or (inside and mask[beyond]):
            dy, dx = dx, -dy
            ahead, beyond = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
            inside = 0 <= beyond[0] < n and 0 <= beyond[1] < n
            if not free(*ahead) or (inside and mask[beyond]):
                return mask
        y, x = ahead
        mask[y, x] = True


def comb(n: int) -> NDArray[np.bool_]:
    """Teeth that only the last row joins."""
    mask = np.zeros((n, n), bool)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def checkerboard(n: int) -> NDArray[np.bool_]:
    """Corners alone hold it together."""
    return (np.indices((n, n)).sum(axis=0) % 2).astype(bool)


def four_corners(n: int) -> NDArray[np.bool_]:
    """Pixels that meet at the corner of four blocks, two by two."""
    mask = np.zeros((n, n), bool)
    mask[n // 2 - 1, n // 2 - 1] = mask[n // 2, n // 2] = True
    return mask


SHAPES = [spiral, comb, checkerboard, four_corners, lambda n: np.ones((n, n), bool)]


@pytest.mark.parametrize("shape", SHAPES, ids=["spiral", "comb", "checks", "corners", "full"])
@pytest.mark.parametrize("side", [1, 3, 16, 31])
def test_shapes_that_are_hard(shape: Any, side: int) -> None:
    mask = shape(32)[None]
    edges = [*range(0, 32, side), 32]
    cuts = ([0, 1], edges, edges)
    assert np.array_equal(stitched_labels(mask, cuts, False), whole_labels(mask, False))


@pytest.mark.parametrize("shape", SHAPES, ids=["spiral", "comb", "checks", "corners", "full"])
def test_shapes_that_are_hard_along_z(shape: Any) -> None:
    side = 16
    mask = np.stack([np.roll(shape(side), i, axis=i % 2) & (i % 3 > 0) for i in range(side)])
    for turned in (mask, mask.transpose(1, 0, 2), mask.transpose(2, 1, 0)):
        cuts = ([0, 4, 5, 16], [0, 7, 16], [0, 3, 9, 16])
        assert np.array_equal(stitched_labels(turned, cuts, True), whole_labels(turned, True))


def test_empty_blocks() -> None:
    mask = np.zeros((1, 30, 30), bool)
    cuts = ([0, 1], [0, 10, 20, 30], [0, 10, 20, 30])
    assert not stitched_labels(mask, cuts, False).any()
    mask[0, 25, 25] = mask[0, 2, 2] = True
    found = stitched_labels(mask, cuts, False)
    assert (found[0, 2, 2], found[0, 25, 25]) == (1, 2)


def test_a_million_objects() -> None:
    mask = np.zeros((1, 2000, 2000), bool)
    mask[:, ::2, ::2] = True
    cuts = ([0, 1], [0, 700, 1301, 2000], [0, 999, 2000])
    found = stitched_labels(mask, cuts, False)
    assert found.max() == 1_000_000
    assert np.array_equal(found, whole_labels(mask, False))


def test_a_count_beyond_the_type_is_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.geometry import layout

    # Types and their limits, a step down: the same decisions at sizes that can be tried.
    monkeypatch.setattr(layout, "LABEL_TYPES", ("uint8", "uint16"))
    for height, width, expected in [(30, 34, "uint8"), (32, 32, "uint16"), (31, 33, "uint16")]:
        made = layout.make_layout("YX", (height, width), instances=True)
        most = np.zeros((height, width), bool)
        most[::2, ::2] = True
        count = ndimage.label(most, np.ones((3, 3)))[1]
        assert layout.max_objects(made.sizes, connect_z=False) == count
        assert made.dtype == expected and count <= np.iinfo(expected).max
    for shape in [(3, 9, 9), (2, 4, 5), (1, 1, 1)]:
        most = np.zeros(shape, bool)
        most[::2, ::2, ::2] = True
        count = ndimage.label(most, np.ones((3, 3, 3)))[1]
        assert layout.max_objects((1, *shape), connect_z=True) == count
    monkeypatch.undo()
    at_limit = layout.make_layout("YX", (2**17, 2**17 - 1), instances=True)
    assert at_limit.dtype == "uint64"  # 2^16 x 2^16 = 2^32 objects, one too many for uint32
    assert layout.make_layout("YX", (2**17 - 2, 2**17), instances=True).dtype == "uint32"


def test_frames_that_are_thin_are_not_cut_into_slivers() -> None:
    for height, width in [(9_000_001, 1), (1, 9_000_001), (100, 200_000), (3000, 3001)]:
        made = layout_module.make_layout("YX", (height, width), instances=True)
        assert made.is_cut and made.n_blocks <= 80
        assert np.prod(made.shard) <= 2 * layout_module.BLOCK_PIXELS
