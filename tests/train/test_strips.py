"""Pictures of a network learning: which places, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.model.spec import Normalisation
from tests.train.runs import small
from train.data.frames import LabelledFrame, make_frame
from train.networks import UNet
from train.strips import choose_places, densest_window, draw_strip


def frame(labels: np.ndarray, border: int = 0) -> LabelledFrame:
    image = np.random.default_rng(0).normal(100, 10, labels.shape) + 50 * (labels > 0)
    return make_frame("f", image[None], labels.astype(np.int32), Normalisation(), border)


@given(st.integers(0, 2**32 - 1), st.integers(8, 40), st.integers(8, 40), st.integers(4, 24),
       st.integers(0, 3))  # fmt: skip
def test_the_densest_window_is_that_of_brute_force(
    seed: int, height: int, width: int, side: int, border: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((height, width)) > rng.random()).astype(np.int32)
    found = densest_window(frame(labels, border), side)
    inside = (labels > 0)[border : height - border, border : width - border]
    sizes = [min(side, length) for length in inside.shape]
    sums = [
        inside[y : y + sizes[0], x : x + sizes[1]].sum()
        for y in range(inside.shape[0] - sizes[0] + 1)
        for x in range(inside.shape[1] - sizes[1] + 1)
    ]
    assert labels[found].sum() == max(sums)
    assert labels[found].shape == tuple(sizes)
    assert found[0].start >= border and found[1].stop <= width - border


def test_what_fits_the_window_is_in_its_middle() -> None:
    labels = np.zeros((60, 80), np.int32)
    labels[40:46, 50:54] = 1
    y, x = densest_window(frame(labels), side=20)
    assert (y.start, x.start) in {(33, 42), (32, 42), (33, 41), (32, 41)}


def test_windows_fit_the_network_where_the_frame_does() -> None:
    labels = np.ones((50, 7), np.int32)
    y, x = densest_window(frame(labels), side=33, multiple=8)
    assert (y.stop - y.start, x.stop - x.start) == (32, 7)


def test_three_places_from_first_to_last() -> None:
    frames = [frame(np.eye(16, dtype=np.int32) * n) for n in range(1, 8)]
    places = choose_places(frames)
    assert [int(place.frame.labels.max()) for place in places] == [1, 4, 7]
    assert len(choose_places(frames[:2])) == 2


def test_a_strip_has_a_row_for_each_place(tmp_path: Path) -> None:
    """Also where frames differ in size: narrow rows end in black."""
    torch.manual_seed(0)
    wide, narrow = np.zeros((20, 40), np.int32), np.zeros((12, 10), np.int32)
    wide[5:15, 5:15] = narrow[2:6, 2:6] = 1
    settings, places = small("."), choose_places([frame(wide), frame(narrow)])
    draw_strip(tmp_path / "strip.png", UNet(1, settings.n_outputs, (2, 4)), places, settings)
    picture = imagecodecs.imread(tmp_path / "strip.png")
    assert picture.shape == (20 + 4 + 12, 4 * 40 + 3 * 4, 3)
    assert not picture[20:].any(axis=2)[:, 4 * 10 + 3 * 4 :].any()
