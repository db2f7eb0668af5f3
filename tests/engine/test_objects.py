"""Measures of objects against scikit-image's regionprops, on made and on real frames."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.io import imread
from skimage.measure import regionprops_table

from engine.labels.components import label_frame
from engine.measure.hulls import convex_areas, merged_rows
from engine.measure.objects import merged, object_dtypes, object_sums, objects_of, piece_sums

PROPERTIES = ("label", "area", "centroid", "bbox", "eccentricity", "solidity", "intensity_mean",
              "intensity_min", "intensity_max")  # fmt: skip


def assert_equals_regionprops(
    labels: NDArray[np.uint32], pixels: NDArray[Any], probability: NDArray[np.float32]
) -> None:
    """Every column; `pixels` (C, Y, X)."""
    found = objects_of(object_sums(labels, dict(enumerate(pixels)), probability))
    assert list(found) == list(object_dtypes(range(len(pixels))))
    if not labels.any():
        assert not any(len(values) for values in found.values())
        return
    image = np.stack([*pixels, probability], axis=-1, dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = regionprops_table(
            labels.astype(int), image, PROPERTIES,
            extra_properties=(lambda mask, image: image[mask].sum(axis=0),),
        )  # fmt: skip
    for name, wanted in {"label": "label", "area_px": "area", "solidity": "solidity",
                         "bbox_y0": "bbox-0", "bbox_x0": "bbox-1", "bbox_y1": "bbox-2",
                         "bbox_x1": "bbox-3"}.items():  # fmt: skip
        assert np.array_equal(found[name], table[wanted]), name
    close = {"centroid_y_px": "centroid-0", "centroid_x_px": "centroid-1"}
    # Its own rounding shows where eccentricity is 0: a root of a difference that should be.
    assert found["eccentricity"] ** 2 == pytest.approx(table["eccentricity"] ** 2, abs=1e-9)
    for name, wanted in close.items():
        assert found[name] == pytest.approx(table[wanted], rel=1e-12)
    for c in range(len(pixels)):
        assert found[f"mean_intensity_{c}"] == pytest.approx(table[f"intensity_mean-{c}"])
        for what in ("min", "max"):
            assert np.array_equal(found[f"{what}_intensity_{c}"], table[f"intensity_{what}-{c}"])
        assert found[f"sum_intensity_{c}"] == pytest.approx(table[f"<lambda>-{c}"], rel=1e-12)
    certainty = table[f"intensity_mean-{len(pixels)}"]
    assert found["mean_probability"] == pytest.approx(certainty, rel=1e-6)
    y0, x0, y1, x1 = (table[f"bbox-{i}"] for i in range(4))
    touching = (y0 == 0) | (x0 == 0) | (y1 == labels.shape[0]) | (x1 == labels.shape[1])
    assert np.array_equal(found["touches_border"], touching)


def made_up(shape: tuple[int, int], rng: np.random.Generator, n: int, dtype: Any) -> Any:
    pixels = rng.integers(-999, 60_000, (n, *shape)).clip(0).astype(dtype)
    return pixels, rng.random(shape, dtype=np.float32)


@given(
    st.integers(0, 2**16), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1),
    st.integers(1, 3), st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
)  # fmt: skip
def test_objects_equal_regionprops(
    seed: int, height: int, width: int, density: float, n_channels: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    labels, count = label_frame(rng.random((height, width)) < density)
    if rng.random() < 0.5 and count:  # labels that touch each other, as a watershed leaves them
        labels = np.where(labels > 0, rng.integers(1, 4, labels.shape), 0).astype(np.uint32)
    assert_equals_regionprops(labels, *made_up((height, width), rng, n_channels, dtype))


@pytest.mark.realdata
def test_real_frames_equal_regionprops(realdata: Path) -> None:
    hela = sorted((realdata / "hela/01_ST/SEG").glob("*.tif"))[::16]
    paths = [*hela, *sorted((realdata / "dsb2018/labels").glob("*.png"))[::30]]
    assert len(paths) > 15
    for path in paths:
        labels = imread(path).astype(np.uint32)
        picture = realdata / "hela/01" / path.name.replace("man_seg", "t")
        if not picture.is_file():
            picture = realdata / "dsb2018/images" / path.name
        pixels = imread(picture)
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        probability = np.random.default_rng(0).random(labels.shape, dtype=np.float32)
        assert_equals_regionprops(labels, pixels, probability)


@given(st.integers(0, 2**16), st.integers(2, 40), st.integers(2, 40), st.floats(0, 1))
def test_pieces_add_up_to_the_whole(seed: int, height: int, width: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    labels, _ = label_frame(rng.random((height, width)) < density)
    pixels = rng.integers(0, 65536, (2, height, width), dtype=np.uint16)
    probability = rng.integers(0, 256, (height, width)).astype(np.float32) / 256  # adds exactly
    y, x = int(rng.integers(1, height)), int(rng.integers(1, width))
    cuts = [(0, y, 0, x), (0, y, x, width), (y, height, 0, x), (y, height, x, width)]
    found = [
        piece_sums(
            labels[a:b, c:d], dict(enumerate(pixels[:, a:b, c:d])), probability[a:b, c:d],
            origin=(a, c), frame_shape=(height, width),
        )
        for a, b, c, d in cuts
    ]  # fmt: skip
    sums = [one for one, _ in found]
    whole = merged({name: np.concatenate([s[name] for s in sums]) for name in sums[0]})
    whole["convex_px"] = convex_areas(merged_rows([rows for _, rows in found]))
    expected = objects_of(object_sums(labels, dict(enumerate(pixels)), probability))
    for name, values in objects_of(whole).items():
        assert np.array_equal(values, expected[name]), name


def test_shapes_far_from_the_corner_lose_no_digits() -> None:
    labels = np.zeros((20, 30), np.uint32)
    labels[3:12, 4:9], labels[14:17, 10:28] = 1, 2
    pixels, probability = {0: np.ones((20, 30), np.uint8)}, np.ones((20, 30), np.float32)
    near, rows = piece_sums(labels, pixels, probability)
    far, far_rows = piece_sums(
        labels, pixels, probability, origin=(99_000, 87_000), frame_shape=(100_000, 100_000)
    )
    near, far = (
        objects_of({**sums, "convex_px": convex_areas(r)})
        for sums, r in ((near, rows), (far, far_rows))
    )
    assert np.array_equal(near["eccentricity"], far["eccentricity"])
    assert near["solidity"].tolist() == far["solidity"].tolist() == [1, 1]
    assert np.array_equal(near["centroid_y_px"] + 99_000, far["centroid_y_px"])
