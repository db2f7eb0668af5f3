"""Scale bars are as long as they say; times are told in one unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.results.pictures.caption import draw_strip, scale_bar, time_text

UM = {"nm": 1e-3, "um": 1.0, "mm": 1e3, "px": 1.0}


@given(st.integers(32, 30_000), st.integers(64, 4096), st.floats(1e-3, 1e3))
def test_an_automatic_bar_is_round_and_as_long_as_it_says(frame, picture, pixel):
    bar = scale_bar(frame, picture, pixel)
    value, unit = bar.label.split()
    um = float(value) * UM[unit]
    np.testing.assert_allclose(bar.length * frame / picture * pixel, um, rtol=1e-5)
    assert 0.2 * picture / 2.5 - 1e-6 < bar.length <= 0.2 * picture * (1 + 1e-6)
    assert value.lstrip("0.").rstrip("0") in {"1", "2", "5"}


def test_bars_by_hand():
    assert scale_bar(1000, 500, 0.65, 50).label == "50 um"
    assert scale_bar(1000, 500, 0.65, 50).length == pytest.approx(50 / 0.65 / 2)
    assert scale_bar(1100, 1100, None).label == "200 px"
    assert scale_bar(1100, 550, None).length == 100
    assert scale_bar(100, 400, 1e-3).label == "20 nm"


@pytest.mark.parametrize("width", [256, 700, 2204])
def test_the_bar_that_is_drawn_has_its_length(width):
    bar = scale_bar(width, width, 0.5)
    strip = draw_strip(width, "", bar)
    middle = strip[len(strip) // 2, :, 0] == 255
    first = int(np.argmax(middle))
    length = int(np.argmin(middle[first:]))
    assert length == round(bar.length)


def test_a_text_that_does_not_fit_leaves_the_bar_alone():
    bar = scale_bar(256, 256, None)
    plain, long = draw_strip(256, "", bar), draw_strip(256, "name " * 40 + "t 5", bar)
    first = int(np.argmax(plain.any(axis=(0, 2))))  # where the bar begins
    np.testing.assert_array_equal(long[:, first:], plain[:, first:])
    assert long[:, :first].any()


@pytest.mark.parametrize(
    ("t", "step", "last", "text"),
    [
        (3, 1.0, 60, "3 s"),
        (3, 0.25, 60, "0.8 s"),
        (3, 60.0, 10, "3 min"),
        (12, 300.0, 91, "1.00 h"),
        (12, 300.0, 20, "60 min"),
        (0, 1800.0, 91, "0.0 h"),
        (5, 3600.0, 91, "5 h"),
        (7, 0.002, 10, "0.014 s"),
    ],
)
def test_times(t, step, last, text):
    assert time_text(t, step, last) == text
