"""Where patches are cut: image and truth alike, at the points that the transform names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from train.augment import vary_intensity
from train.geometry import GRID, Cut, Geometry, random_geometry
from train.policies import POLICIES, AugmentSettings

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 90)
policies = st.sampled_from(sorted(POLICIES))


def drawn(seed: int, shape: tuple[int, int], size: int, policy: str = "strong") -> Geometry:
    return random_geometry(np.random.default_rng(seed), shape, size, POLICIES[policy])


@given(seeds, st.tuples(sides, sides), st.integers(2, 40), policies)
def test_patches_are_what_scipy_interpolates(
    seed: int, shape: tuple[int, int], size: int, policy: str
) -> None:
    """Also beyond the edges of frames that are smaller than the patch."""
    plane = np.random.default_rng(seed).integers(0, 2**16, shape).astype(np.uint16)
    geometry = drawn(seed, shape, size, policy)
    points, cut = geometry.points(), geometry.on(shape)
    linear = ndimage.map_coordinates(plane.astype(float), points, order=1, mode="reflect")
    assert np.allclose(cut.linear(plane), linear, atol=2**16 * 1e-4)
    labels = plane.astype(np.int32)
    nearest = ndimage.map_coordinates(labels, points, order=0, mode="reflect")
    ties = (np.abs(points % 1 - 0.5) < 1e-4).any(axis=0)
    patch = cut.nearest(labels)
    assert patch.dtype == labels.dtype and cut.linear(plane).dtype == np.float32
    assert np.array_equal(patch[~ties], nearest[~ties])
    assert set(patch.flat) <= set(labels.flat)


@given(seeds, st.tuples(sides, sides), st.integers(2, 40))
def test_the_policy_none_leaves_pixels_as_they_are(
    seed: int, shape: tuple[int, int], size: int
) -> None:
    plane = np.random.default_rng(seed).integers(0, 2**16, shape).astype(np.uint16)
    geometry = drawn(seed, shape, size, "none")
    assert np.array_equal(geometry.matrix, np.eye(2)) and geometry.grid is None
    y, x = geometry.origin.astype(int)
    around = np.pad(plane, 100, mode="symmetric")[y + 100 :, x + 100 :][:size, :size]
    cut = geometry.on(shape)
    assert np.array_equal(cut.nearest(plane), around)
    assert np.array_equal(cut.linear(plane), around)
    if min(shape) >= size:
        assert np.array_equal(plane[y : y + size, x : x + size], around)


@given(seeds, policies)
def test_a_disk_is_found_where_the_transform_puts_it(seed: int, policy: str) -> None:
    """Its centre by the labels, and by the image's brightness, is where the frame's centre is."""
    yy, xx = np.mgrid[:160, :160]
    disk = (yy - 80) ** 2 + (xx - 80) ** 2 <= 10**2
    # Brightness fades at the rim, as through a lens: a hard one is not sampled finely enough where
    # a patch shows it at half its size.
    bright = ndimage.gaussian_filter(disk.astype(np.float32), 1.5)
    geometry = drawn(seed, (160, 160), 96, policy)
    # Moved so that the centre of the patch shows the centre of the disk, and then a little off.
    off = np.random.default_rng(seed).uniform(-4, 4, 2)
    middle = np.full(2, 95 / 2)
    origin = np.full(2, 80.0) - geometry.matrix @ (middle + off)
    straight = replace(geometry, origin=origin, grid=None)
    cut = straight.on((160, 160))
    labels, image = cut.nearest(disk.astype(np.int32)), cut.linear(bright)
    assert np.allclose(ndimage.center_of_mass(labels), middle + off, atol=0.5)
    assert np.allclose(ndimage.center_of_mass(image), middle + off, atol=0.1)
    # Bent, they are still cut at the same points: the image is above a half where the label is.
    bent = replace(geometry, origin=origin).on((160, 160))
    assert np.mean((bent.linear(disk) > 0.5) == (bent.nearest(disk) > 0)) > 0.98


@given(seeds, st.integers(8, 64))
def test_a_patch_is_bent_by_the_vectors_of_its_grid(seed: int, size: int) -> None:
    """At the grid's points by its very vectors; by what a plane of vectors says in between."""
    size = size // 2 * 2 + 1  # so that the middle of the grid is a pixel
    grid = np.random.default_rng(seed).normal(0, 2, (2, GRID, GRID))
    still = Geometry(np.eye(2), np.zeros(2), size)
    moved = replace(still, grid=grid).points() - still.points()
    assert np.allclose(moved[:, :: size // 2, :: size // 2], grid)
    slope = np.stack([np.add.outer([0.0, 1.0, 2.0], [0.0, 3.0, 6.0])] * 2)
    moved = replace(still, grid=slope).points() - still.points()
    steps = np.arange(size) / (size // 2)
    assert np.allclose(moved, np.add.outer(steps, 3 * steps))


@given(seeds, st.sampled_from([16, 32, 192, 256]))
def test_bent_patches_do_not_fold(seed: int, size: int) -> None:
    settings = AugmentSettings(elastic_chance=1, rotate_chance=0, turn_chance=0, flip_chance=0,
                               scale_chance=0)  # fmt: skip
    geometry = random_geometry(np.random.default_rng(seed % 1000), (512, 512), size, settings)
    (down_y, right_y), (down_x, right_x) = (np.gradient(p) for p in geometry.points())
    assert np.median(down_y * right_x - right_y * down_x) > 0.5
    assert (down_y * right_x - right_y * down_x > 0).mean() > 0.99


def test_the_grid_has_the_papers_sigma() -> None:
    settings = AugmentSettings(elastic_chance=1)
    drawings = [random_geometry(np.random.default_rng(i), (512, 512), 192, settings).grid
                for i in range(200)]  # fmt: skip
    assert np.std([grid for grid in drawings if grid is not None]) == pytest.approx(10, rel=0.05)


def test_quarter_turns_and_flips_lose_no_pixel() -> None:
    settings = POLICIES["none"].model_copy(update={"flip_chance": 0.5, "turn_chance": 0.75})
    plane = np.arange(16 * 16, dtype=np.int32).reshape(16, 16)
    symmetries = {np.rot90(p, k).tobytes() for p in (plane, plane.T) for k in range(4)}
    found = set()
    for seed in range(60):
        geometry = random_geometry(np.random.default_rng(seed), (16, 16), 16, settings)
        centred = replace(geometry, origin=7.5 - geometry.matrix @ np.full(2, 7.5))
        found.add(centred.on((16, 16)).nearest(plane).tobytes())
        values = centred.on((16, 16)).linear(plane).astype(np.int32).tobytes()
        assert values in found
    assert found == symmetries


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_magnification_changes_areas_by_its_square(scale: float) -> None:
    settings = AugmentSettings(scale=(scale, scale), scale_chance=1, elastic_chance=0)
    labels = np.zeros((128, 128), np.int32)
    labels[54:74, 54:74] = 1
    geometry = random_geometry(np.random.default_rng(0), (128, 128), 64, settings)
    centred = replace(geometry, origin=63.5 - geometry.matrix @ np.full(2, 31.5))
    patch = centred.on((128, 128)).nearest(labels)
    assert (patch > 0).sum() == pytest.approx(400 * scale**2, rel=0.1)


@pytest.mark.parametrize(("chance", "drawn_by"), [
    ("rotate_chance", lambda g: not np.isin(np.abs(g.matrix), (0, 1)).all()),
    ("flip_chance", lambda g: np.linalg.det(g.matrix) < 0),
    ("turn_chance", lambda g: not np.array_equal(g.matrix, np.eye(2))),
    ("scale_chance", lambda g: abs(np.linalg.det(g.matrix)) != 1),
    ("elastic_chance", lambda g: g.grid is not None),
])  # fmt: skip
def test_each_chance_is_a_share_of_patches(chance: str, drawn_by) -> None:  # type: ignore[no-untyped-def]
    settings = POLICIES["none"].model_copy(update={chance: 0.3})
    geometries = [random_geometry(np.random.default_rng(i), (64, 64), 16, settings)
                  for i in range(400)]  # fmt: skip
    assert np.mean([drawn_by(g) for g in geometries]) == pytest.approx(0.3, abs=0.08)


def test_a_point_that_rounds_to_the_next_pixel_has_a_neighbour_still() -> None:
    """In float32 the last point lies on pixel 400, in float64 just before it."""
    points = np.zeros((2, 2, 2))
    points[:, 1, 1] = np.nextafter(400.0, 0)
    plane = np.arange(402.0 * 402, dtype=np.float32).reshape(402, 402)
    cut = Cut(points, plane.shape)
    assert cut.linear(plane)[1, 1] == cut.nearest(plane)[1, 1] == plane[400, 400]
    assert np.float32(points[0, 1, 1]) == 400


def test_the_policy_of_the_source_mirrors_along_either_axis_and_blurs() -> None:
    """A quarter mirrored, a quarter blurred, a quarter both: two independent halves."""
    rng, policy = np.random.default_rng(0), POLICIES["source"]
    turns = Counter(
        tuple(random_geometry(rng, (40, 40), 20, policy).matrix.ravel()) for _ in range(2000)
    )
    assert turns.keys() == {(1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, 1)}
    assert turns[1, 0, 0, 1] / 2000 == pytest.approx(0.5, abs=0.05)
    assert turns[1, 0, 0, -1] / 2000 == pytest.approx(0.25, abs=0.05)
    image = np.random.default_rng(1).random((1, 20, 20)).astype(np.float32)
    labels = np.zeros((20, 20), np.int32)
    blurred = [not np.array_equal(vary_intensity(image, labels, rng, policy), image)
               for _ in range(400)]  # fmt: skip
    assert np.mean(blurred) == pytest.approx(0.5, abs=0.1)


@given(seeds)
def test_upright_patches_are_turned_by_a_right_angle_at_most_and_never_mirrored(seed: int) -> None:
    matrix = drawn(seed, (200, 300), 64, "upright").matrix
    zoom = float(np.sqrt(np.linalg.det(matrix)))  # NaN where it is mirrored
    assert 1 / 1.4 - 1e-9 <= zoom <= 1 / 0.7 + 1e-9
    angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    assert abs(angle) <= 90 + 1e-9
    np.testing.assert_allclose(matrix.T @ matrix, zoom**2 * np.eye(2), atol=1e-9)
