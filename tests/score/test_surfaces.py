"""Surface distances: by hand, against all pairs of surface voxels, and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from engine.errors import UsageError
from engine.results.score.classes import ClassScore, score_classes
from engine.results.score.scale import Scale, given_sizes, scales
from engine.results.score.surfaces import Distances, SurfaceDistances, Volume, plane_distances
from tests.score.test_metrics import draw

SPACING = (2.5, 0.7, 0.5)


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask with a face neighbour that is not in it, one by one."""
    framed = np.pad(mask, 1)
    steps = np.concatenate([np.eye(mask.ndim, dtype=int), -np.eye(mask.ndim, dtype=int)])
    found = [
        at for at in np.argwhere(mask) if not all(framed[tuple(at + 1 + step)] for step in steps)
    ]
    return np.array(found, int).reshape(-1, mask.ndim)


def brute(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[list, list]:
    """Distances between all pairs of surface voxels, the least of each row and of each column."""
    points = [brute_surface(side) * np.array(spacing) for side in (a, b)]
    if not len(points[0]) or not len(points[1]):
        return [], []
    apart = cdist(*points)
    return sorted(apart.min(1)), sorted(apart.min(0))


def spelt(distances: SurfaceDistances) -> tuple[list, list]:
    return tuple(
        list(np.repeat(one.values, one.counts)) for one in (distances.of_result, distances.of_truth)
    )


def assert_same(distances: SurfaceDistances, expected: tuple[list, list]) -> None:
    for ours, theirs in zip(spelt(distances), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    hd = [np.percentile(one, 95) for one in expected if one]
    assert distances.hd95 == pytest.approx(max(hd), abs=1e-8) if hd else np.isnan(distances.hd95)


def masks(shape: tuple[int, ...]):
    side = arrays(np.uint8, shape, elements=st.integers(0, 2), fill=st.just(0))
    return st.tuples(side, side)


@settings(max_examples=60)
@given(masks((6, 7)))
def test_in_planes_equal_to_all_pairs(sides):
    for value in (1, 2):
        found = plane_distances(*sides, value, SPACING[1:])
        assert_same(found, brute(*(side == value for side in sides), SPACING[1:]))


@settings(max_examples=60)
@given(masks((4, 5, 4)))
def test_in_volumes_equal_to_all_pairs(sides):
    volume = Volume(SPACING)
    for z, planes in enumerate(zip(*sides, strict=True), 3):
        volume.add(z, *planes)
    found = volume.distances()
    for value in (1, 2):
        expected = brute(*(side == value for side in sides), SPACING)
        assert_same(found.get(value, SurfaceDistances()), expected)


def test_a_plane_that_is_skipped_is_empty():
    block = np.ones((3, 4, 4), np.uint8)
    volume = Volume(SPACING)
    for z in (0, 1, 3):
        volume.add(z, block[0], block[0])
    with_gap = np.insert(block, 2, 0, axis=0)
    assert_same(volume.distances()[1], brute(with_gap == 1, with_gap == 1, SPACING))


@pytest.mark.parametrize("spacing", [SPACING[1:], SPACING])
def test_equal_to_monai(spacing):
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    shape = (9, 24, 20)[-len(spacing) :]
    grid = np.indices(shape)
    sides = np.array(shape).reshape(-1, *[1] * len(shape))
    for _ in range(4):
        centres = rng.uniform(0.3, 0.7, (2, *sides.shape)) * sides
        a, b = (((grid - centre) ** 2 / (sides / 3) ** 2).sum(0) < 1 for centre in centres)
        expected = monai.compute_hausdorff_distance(
            *(torch.tensor(m[None, None].astype(np.float32)) for m in (a, b)),
            include_background=True, percentile=95, spacing=list(spacing),
        )  # fmt: skip
        scale = Scale("mm", plane=spacing[-2:], depth=spacing[0] if len(spacing) == 3 else None)
        found = score_classes(a.astype(int), b.astype(int), (), 0, scale)
        assert found.hd95(1) == pytest.approx(float(expected), rel=1e-5)


def test_worked_out_by_hand():
    """The one surface lies 1 px from the other, but for a pixel that is 4 px away."""
    ours, theirs = draw("11...1", "11...."), draw(".1....", ".1....")
    found = plane_distances(ours, theirs, 1, (1, 1))
    assert spelt(found) == ([0, 0, 1, 1, 4], [0, 0])
    assert found.hd95 == pytest.approx(np.percentile([0, 0, 1, 1, 4], 95)) == 3.4


def test_distances_are_pooled_before_the_percentile():
    near, far, none = draw("1.."), draw("..1"), draw("...")
    pooled = score_classes(near, far) + score_classes(near, near) + score_classes(none, near)
    assert spelt(pooled.distances[1]) == ([0, 2], [0, 2])
    assert pooled.hd95(1) == pytest.approx(1.9)
    assert pooled.one_sided(1) == 1
    assert np.isnan(score_classes(none, near).hd95(1))
    stacked = [np.stack(sides) for sides in ((near, near, none), (far, near, near))]
    together = score_classes(*stacked)
    assert together.hd95(1) == pooled.hd95(1), "planes whose distance is not known"


@given(st.lists(st.integers(0, 9), max_size=12), st.floats(0, 100))
def test_percentiles_are_numpys(values, percent):
    one, counts = np.unique(values, return_counts=True)
    found = Distances(one.astype(float), counts).percentile(percent)
    if values:
        assert found == pytest.approx(np.percentile(values, percent))
    else:
        assert np.isnan(found)


def test_volumes_in_ml_and_their_errors():
    scale = Scale("mm", "ml", (1.5, 1.5), 10.0, 0.0225)
    score = score_classes(draw("11122"), draw("11..2"), scale=scale)
    volumes = score.volumes(1)
    assert volumes["volume"] == pytest.approx(0.0675)
    assert volumes["truth_volume"] == pytest.approx(0.045)
    assert volumes["volume_error"] == pytest.approx(0.0225)
    assert volumes["volume_error_percent"] == pytest.approx(50)
    less = score_classes(draw("1."), draw("11")).volumes(1)
    assert (less["volume_error_percent"], less["absolute_volume_error_percent"]) == (-50, 50)
    assert less["volume_error"] == -1, "voxels where no size is known"
    spurious = score_classes(draw("1"), draw("."))
    assert np.isnan(spurious.volumes(1)["volume_error_percent"]) and spurious.class_dice(1) == 0
    absent = ClassScore(1)
    assert absent.is_absent(5) and all(np.isnan(v) for v in absent.volumes(5).values())


def test_scales_have_one_unit_for_all():
    heart = {"Z": 10_000.0, "Y": 1500.0, "X": 1500.0}
    one, other = scales([heart, heart | {"X": 1000.0}])
    assert (one.length, one.volume, one.solid) == ("mm", "ml", (10, 1.5, 1.5))
    assert one.voxel == pytest.approx(0.0225) and other.voxel == pytest.approx(0.015)
    flat = scales([heart, {"Y": 1500.0, "X": 1500.0}])
    assert {(s.length, s.volume, s.depth, s.voxel) for s in flat} == {("mm", "voxels", None, 1)}
    assert scales([heart, {}]) == [Scale(), Scale()]
    (cells,) = scales([{"Z": 2.0, "Y": 0.5, "X": 0.5}])
    assert (cells.length, cells.volume, cells.voxel) == ("um", "um^3", 0.5)


def test_spacing_that_is_none_is_refused():
    assert given_sizes("10, 1.5,1.25") == {"Z": 10_000, "Y": 1500, "X": 1250}
    assert given_sizes("1.5,1.5") == {"Y": 1500, "X": 1500}
    for text in ("1", "a,b", "0,1", "1,2,3,4", "nan,1", "inf,1"):
        with pytest.raises(UsageError, match="as Y,X or as Z,Y,X"):
            given_sizes(text)


def test_a_plane_of_another_shape_has_no_neighbours():
    """Its frame was set aside, since its image differed from the others."""
    volume, small, large = Volume(SPACING), np.ones((3, 3), int), np.ones((4, 5), int)
    for z, plane in enumerate((small, large, small)):
        volume.add(z, plane, plane)
    found = volume.distances()[1]
    assert found.hd95 == 0 and found.of_truth.counts.sum() == 9 + 20 + 9, "all are surface"
