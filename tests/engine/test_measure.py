"""Rows of the frames table, by hand and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.measure.frames import ClassSums, FrameSums
from engine.measure.objects import object_sums


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_area_summaries_equal_numpy(areas: list[int]) -> None:
    sums = FrameSums(10_000, 0.0)
    columns = {"sum_intensity_0": np.zeros(1), "sum_probability": np.zeros(1)}
    for area in areas:
        touching = {"touches_border": np.zeros(1, bool)}
        sums.add({"area_px": np.array([area]), **columns, **touching})
    row = sums.row(None)
    assert row["objects"] == len(areas)
    assert row["area_mean_px"] == pytest.approx(np.mean(areas))
    for name, q in (("q25", 25), ("median", 50), ("q75", 75)):
        assert row[f"area_{name}_px"] == pytest.approx(np.percentile(areas, q))


def test_a_frame_by_hand() -> None:
    labels = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]], np.uint32)
    channel = np.full((4, 4), 10, np.uint16)
    channel[labels == 1], channel[labels == 2] = 20, 50
    probability = np.where(labels > 0, 0.75, 0.25).astype(np.float32)
    sums = FrameSums(16, float(channel.sum()))
    sums.add(object_sums(labels, {0: channel}, probability))
    row = sums.row(0.25)
    assert row["objects"] == 2
    assert (row["area_mean_px"], row["area_median_px"]) == (1.5, 1.5)
    assert row["area_q75_um2"] == 1.75 * 0.25
    assert row["foreground_fraction"] == 3 / 16
    assert row["mean_intensity_objects"] == 30
    assert row["mean_intensity_background"] == 10
    assert row["mean_probability_objects"] == 0.75
    assert row["objects_touching_border"] == 1


def test_an_empty_frame_has_no_means() -> None:
    empty = np.zeros((5, 5), np.uint32)
    channel = np.full((5, 5), 3, np.uint8)
    sums = FrameSums(25, 75)
    sums.add(object_sums(empty, {0: channel}, empty.astype(np.float32)))
    row = sums.row(None)
    assert row["objects"] == 0 and row["foreground_fraction"] == 0
    assert row["area_mean_px"] is row["mean_intensity_objects"] is row["area_mean_um2"] is None
    assert row["mean_intensity_background"] == 3


def test_class_maps_have_the_fraction_of_each_class() -> None:
    classes = np.array([[0, 1], [2, 2]], np.uint8)
    probability = np.full((3, 2, 2), 0.1, np.float32)
    probability[2, 1] = 0.8
    channel = np.array([[1, 2], [3, 5]], np.uint16)
    sums = ClassSums(3)
    sums.add(classes, probability, channel)
    row = sums.row(("background", "a", "b"))
    assert [row[f"fraction_{n}"] for n in ("background", "a", "b")] == [0.25, 0.25, 0.5]
    assert row["mean_intensity_objects"] == pytest.approx(10 / 3)
    assert row["mean_probability_objects"] == pytest.approx((0.1 + 0.8 + 0.8) / 3)
