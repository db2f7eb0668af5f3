"""F1 at IoU 0.9 and the share of changed pixels, by plain loops over objects and pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.inference.agreement import Agreement, Counts, compare

LABELS = arrays(np.uint32, (3, 4), elements=st.integers(0, 3))


def plain(found: np.ndarray, wanted: np.ndarray) -> tuple[int, int]:
    """Objects that are the same, and pixels that have changed."""
    same, kept = 0, np.zeros(found.shape, bool)
    for a in set(found.ravel().tolist()) - {0}:
        for b in set(wanted.ravel().tolist()) - {0}:
            both, either = (found == a) & (wanted == b), (found == a) | (wanted == b)
            same += 10 * both.sum() >= 9 * either.sum()
            if 2 * both.sum() > either.sum():
                kept |= both
    return same, int((~kept & ((found > 0) | (wanted > 0))).sum())


@given(LABELS, LABELS)
def test_objects_by_plain_loops(found: np.ndarray, wanted: np.ndarray) -> None:
    agreement = compare(found, wanted, instances=True)
    same, changed = plain(found, wanted)
    n_found, n_wanted = (len(set(one.ravel().tolist()) - {0}) for one in (found, wanted))
    assert agreement.changed == changed and agreement.pixels == 12
    assert agreement.objects == n_wanted
    expected = 2 * same / (n_found + n_wanted) if n_found + n_wanted else None
    assert agreement.f1 == expected
    assert compare(found, found, instances=True).f1 in (1.0, None)


def test_ids_do_not_matter() -> None:
    one = np.array([[1, 1, 0, 2]], np.uint32)
    other = np.array([[7, 7, 0, 3]], np.uint32)
    agreement = compare(one, other, instances=True)
    assert agreement.f1 == 1 and agreement.changed == 0


def test_of_class_maps_the_worst_class_counts() -> None:
    found = np.array([[1, 1, 1, 2, 0]], np.uint8)
    wanted = np.array([[1, 1, 1, 2, 2]], np.uint8)
    agreement = compare(found, wanted, instances=False)
    assert agreement.changed_fraction == 0.2 and agreement.objects == 0
    assert agreement.f1 == pytest.approx(2 / 3)  # of class 2: one pixel of one and of two


def test_frames_add_up() -> None:
    one = Agreement(10, 1, {0: Counts(3, 4, 4)})
    both = one + Agreement(10, 0, {}) + Agreement(20, 3, {0: Counts(6, 6, 6)})
    assert both == Agreement(40, 4, {0: Counts(9, 10, 10)})
    assert both.f1 == 0.9 and both.changed_fraction == 0.1
    assert Agreement().f1 is None and Agreement().changed_fraction == 0
