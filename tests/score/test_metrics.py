"""Scores: tiny cases worked out by hand, properties that must hold, and a plain oracle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from engine.errors import StackError, UsageError
from engine.results.score.metrics import THRESHOLDS, Score, score


def draw(*rows: str) -> np.ndarray:
    """A label image from rows of digits, '.' is background."""
    return np.array([[int(c) if c != "." else 0 for c in row] for row in rows], np.uint16)


# -- by hand ------------------------------------------------------------------------------------

TWO = draw("11..",
           "11..",
           "..22",
           "..22")  # fmt: skip


def test_identical_frames_score_one():
    s = score(TWO, TWO)
    assert (s.iou, s.dice, s.seg) == (1, 1, 1)
    assert s.f1 == (1,) * len(THRESHOLDS)
    assert (s.result_objects, s.truth_objects) == (2, 2)


def test_one_found_in_part_one_missed_one_invented():
    result = draw("33.4",
                  "3..4",
                  "....",
                  "....")  # fmt: skip
    s = score(result, TWO)
    # Foreground: 3 px shared, 5 in the result, 8 in the truth.
    assert s.iou == pytest.approx(3 / 10)
    assert s.dice == pytest.approx(6 / 13)
    # Truth 1 is covered by 3 of its 4 px, Jaccard 3/4; truth 2 by nothing.
    assert s.seg == pytest.approx((3 / 4 + 0) / 2)
    # One pair with IoU 0.75: 2 TP / (2 objects + 2 objects) up to 0.7, none beyond.
    assert s.f1 == pytest.approx((0.5, 0.5, 0.5, 0, 0))
    # The same pair in TP / (TP + FP + FN): 1 / (1 + 1 + 1).
    assert s.ap == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0, 0))


def test_exactly_half_covered_is_not_found_by_seg_but_matches_at_iou_one_half():
    truth = draw("1111")
    result = draw("22..")
    s = score(result, truth)
    assert s.seg == 0
    assert s.f1 == (1, 0, 0, 0, 0)


def test_two_halves_of_one_object_match_it_once():
    """Both halves reach IoU 0.5 with the truth; one is left over."""
    s = score(draw("2233"), draw("1111"))
    assert s.iou == 1
    assert s.seg == 0
    assert s.f1[0] == pytest.approx(2 * 1 / 3)


def test_merged_objects():
    """One result over two truths of 4 and 2 px: it covers both by more than half."""
    s = score(draw("333333"), draw("111122"))
    assert s.seg == pytest.approx((4 / 6 + 2 / 6) / 2)
    assert s.f1 == pytest.approx((2 / 3, 2 / 3, 0, 0, 0))


def test_a_chain_where_the_greedy_choice_loses_a_pair():
    """At IoU 1/2 exactly, an object may have two partners; the best matching still finds both."""
    truth = draw("11112222")
    result = draw("33..44..")
    assert score(result, truth).f1[0] == 1
    assert score(truth, result).f1[0] == 1


def test_ignored_border():
    """Outside the middle 2 x 2 everything is wrong, inside nothing."""
    truth = draw("5555",
                 "5115",
                 "5115",
                 "5555")  # fmt: skip
    result = draw("....",
                  ".22.",
                  ".22.",
                  "....")  # fmt: skip
    assert score(result, truth).iou == pytest.approx(4 / 16)
    inside = score(result, truth, ignore_border=1)
    assert (inside.iou, inside.seg, inside.f1[-1], inside.truth_objects) == (1, 1, 1, 1)
    with pytest.raises(UsageError, match="border of 2 px leaves nothing"):
        score(result, truth, ignore_border=2)


def test_nothing_to_find():
    empty = np.zeros((4, 4), np.uint8)
    nothing = score(empty, empty)
    assert all(math.isnan(v) for v in (nothing.iou, nothing.seg, nothing.f1[0], nothing.ap[0]))
    invented = score(TWO, empty)
    assert (invented.iou, invented.dice, invented.f1[0]) == (0, 0, 0)
    assert math.isnan(invented.seg)
    missed = score(empty, TWO)
    assert (missed.iou, missed.seg, missed.f1[0]) == (0, 0, 0)


def test_pooled_is_not_the_mean_of_frames():
    """SEG pools objects, IoU pools pixels: a frame of one object weighs less than one of two."""
    one = draw("1111")
    pooled = score(one * 0, one) + score(TWO, TWO)
    assert pooled.frames == 2
    assert pooled.seg == pytest.approx(2 / 3)
    assert pooled.iou == pytest.approx(8 / 12)
    assert sum([score(TWO, TWO)], Score()) == score(TWO, TWO)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.float32])
def test_dtypes(dtype):
    assert score(TWO.astype(dtype), TWO) == score(TWO, TWO)


def test_ids_beyond_float32_and_beyond_32_bits_stay_apart():
    for high in (2**24, 2**32 - 2, 2**40):
        labels = np.where(TWO, TWO + np.uint64(high - 1), 0).astype(np.uint64)
        assert score(labels, TWO) == score(TWO, TWO)
        assert score(TWO, labels).result_objects == 2


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(StackError, match=r"\(4, 4\), but the truth's \(2, 2\)"):
        score(TWO, TWO[:2, :2])
    with pytest.raises(StackError, match="whole numbers"):
        score(TWO / 2.5, TWO)
    with pytest.raises(StackError, match="negative"):
        score(TWO.astype(np.int16) - 3, TWO)


# -- properties ---------------------------------------------------------------------------------

labels = arrays(
    np.uint16, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 4)
)


@st.composite
def two_frames(draw_from):
    shape = draw_from(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    one = arrays(np.uint16, shape, elements=st.integers(0, 4))
    return draw_from(one), draw_from(one)


@given(two_frames(), st.permutations([1, 2, 3, 4]), st.integers(0, 10**9))
def test_names_of_objects_do_not_matter(frames, order, shift):
    result, truth = frames
    renamed = np.array([0, *(np.array(order) + shift)], np.uint64)[result]
    assert score(renamed, truth) == score(result, truth)


@given(labels)
def test_identical_is_one(frame):
    s = score(frame, frame)
    if frame.any():
        assert (s.iou, s.dice, s.seg, *s.f1) == (1,) * 8


@given(two_frames())
def test_swapping_the_two_changes_only_seg(frames):
    ours, theirs = score(*frames), score(*frames[::-1])
    np.testing.assert_equal((ours.iou, ours.dice, *ours.f1), (theirs.iou, theirs.dice, *theirs.f1))


@settings(max_examples=300)
@given(two_frames())
def test_equal_to_the_plain_oracle(frames):
    s = score(*frames)
    np.testing.assert_allclose((s.iou, s.dice, s.seg, *s.f1), oracle(*frames))
    np.testing.assert_allclose(s.ap, [f1 / (2 - f1) for f1 in s.f1])


def oracle(result: np.ndarray, truth: np.ndarray) -> list[float]:
    """Straight from the definitions: sets of pixels, every pair, a dense assignment."""

    def ratio(a: float, b: float) -> float:
        return a / b if b else math.nan

    def objects(labels: np.ndarray) -> list[set[int]]:
        return [set(np.flatnonzero(labels == i).tolist()) for i in np.unique(labels) if i]

    ours, theirs = objects(result), objects(truth)
    a, b = set().union(*ours), set().union(*theirs)
    jaccard = [
        sum(len(r & s) / len(r | s) for s in ours if 2 * len(r & s) > len(r)) for r in theirs
    ]
    scores = [ratio(len(a & b), len(a | b)), ratio(2 * len(a & b), len(a) + len(b))]
    scores.append(ratio(sum(jaccard), len(theirs)))
    iou = np.array([[len(r & s) / len(r | s) for s in ours] for r in theirs])
    for threshold in THRESHOLDS:
        pairs = 0
        if ours and theirs:
            rows, columns = linear_sum_assignment(-(iou >= threshold).astype(float))
            pairs = int((iou >= threshold)[rows, columns].sum())
        scores.append(ratio(2 * pairs, len(ours) + len(theirs)))
    return scores
