"""Runs of an image against Python's own grouping of equal values."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.labels.runs import FEW, fill, runs_of

shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=21)
images = st.one_of(
    hnp.arrays(np.bool_, shapes),
    hnp.arrays(np.uint32, shapes, elements=st.integers(0, 3)),
    hnp.arrays(np.uint32, shapes, elements=st.sampled_from([0, 1, 2**32 - 1])),
)


def by_hand(image: np.ndarray) -> list[tuple[Any, ...]]:
    found = []
    for y, row in enumerate(image.reshape(-1, image.shape[-1]).tolist()):
        x = 0
        for value, same in itertools.groupby(row):
            n = len(list(same))
            if value:
                found.append((y, x, x + n, value))
            x += n
    return found


@given(images)
def test_equal_pythons_groups(image: np.ndarray) -> None:
    runs = runs_of(image)
    columns = runs.row, runs.start, runs.stop, runs.value
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == by_hand(image)
    assert len(runs) == len(by_hand(image)) and runs.value.dtype == image.dtype


@given(images)
def test_filled_again_they_are_the_image_also_in_a_view(image: np.ndarray) -> None:
    runs = runs_of(image)
    around = np.zeros([n + 2 for n in image.shape], image.dtype)
    view = around[(slice(1, -1),) * image.ndim]
    fill(view, runs, runs.value)
    assert (view == image).all() and np.count_nonzero(around) == np.count_nonzero(image)


@given(images)
def test_of_a_view(image: np.ndarray) -> None:
    around = np.ones([n + 2 for n in image.shape], image.dtype)
    around[(slice(1, -1),) * image.ndim] = image
    runs, whole = runs_of(around[(slice(1, -1),) * image.ndim]), runs_of(image)
    for name in ("row", "start", "stop", "value"):
        assert (getattr(runs, name) == getattr(whole, name)).all()


def test_more_changes_than_there_is_room_for_at_first() -> None:
    image = np.zeros((5, 4 * FEW), bool)
    image[:, ::2] = True
    image[2] = True
    runs = runs_of(image)
    assert len(runs) == 4 * 2 * FEW + 1
    again = np.zeros_like(image)
    fill(again, runs, runs.value)
    assert (again == image).all()


def test_of_nothing() -> None:
    for shape in ((0, 5), (5, 0), (0, 2, 3)):
        assert len(runs_of(np.zeros(shape, np.uint32))) == 0
