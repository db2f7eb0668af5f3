"""Pictures: outlines where objects end, stable colours, contrast by percentiles."""

import imagecodecs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.results.pictures.colours import colours
from engine.results.pictures.panels import contrast, outlines, overlay, overlay_png


def draw(*rows: str) -> np.ndarray:
    return np.array([[int(c) if c.isdigit() else 0 for c in row] for row in rows], np.uint32)


def test_outlines_by_hand():
    labels = draw("......",
                  ".1112.",
                  ".1112.",
                  ".111..",
                  "......",
                  "333333")  # fmt: skip
    assert ["".join(".#"[int(v)] for v in row) for row in outlines(labels)] == [
        "......",
        ".####.",
        ".#.##.",
        ".###..",
        "......",
        "######",
    ]


def test_an_object_that_fills_the_frame_has_no_outline():
    assert not outlines(np.ones((4, 5), np.uint8)).any()


@given(arrays(np.uint8, (7, 9), elements=st.integers(0, 3)))
def test_outlines_equal_looking_at_every_pixel(labels):
    expected = np.zeros(labels.shape, bool)
    for y, x in np.argwhere(labels):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in near if 0 <= v < 7 and 0 <= u < 9]
        expected[y, x] = any(labels[p] != labels[y, x] for p in inside)
    np.testing.assert_array_equal(outlines(labels), expected)


def test_contrast_spreads_a_small_range_and_bears_any():
    frame = np.linspace(33_000, 36_000, 1000).astype(np.uint16).reshape(20, 50)
    grey = contrast(frame)
    assert (grey.min(), grey.max()) == (0, 255)
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()
    assert not contrast(np.full((4, 4), 7.0, np.float32)).any()
    assert contrast(np.array([[-5, 0], [5, 10]], np.int16)).max() == 255
    assert contrast(np.array([[np.nan, 0], [5, 10]], np.float32))[0, 0] == 0


def test_colours_are_stable_distinct_and_bright():
    ids = np.arange(1, 200)
    first = colours(ids)
    np.testing.assert_array_equal(colours(ids[::-1])[::-1], first)
    assert len(np.unique(first, axis=0)) > 150
    steps = np.abs(np.diff(first.astype(int), axis=0)).sum(axis=1)
    assert steps.min() > 100, "neighbouring ids look different"
    assert first.max(axis=1).min() > 200


def test_the_png_is_the_overlay(tmp_path):
    rng = np.random.default_rng(0)
    frame = rng.integers(33_000, 34_000, (20, 30), np.uint16)
    labels = np.zeros((20, 30), np.uint32)
    labels[5:15, 5:20] = 2**25 + 1
    overlay_png(tmp_path / "o.png", frame, labels)
    read = imagecodecs.png_decode((tmp_path / "o.png").read_bytes())
    np.testing.assert_array_equal(read, overlay(frame, labels))
    np.testing.assert_array_equal(read[0, 0], np.repeat(contrast(frame, gamma=0.6)[0, 0], 3))
    np.testing.assert_array_equal(read[5, 5], colours(np.array([2**25 + 1]))[0])
