"""DET and OP_CSB: cases worked out by hand, and an oracle straight from the definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from engine.errors import StackError
from engine.results.score.metrics import Detection, Score, detect, score
from tests.score.test_metrics import draw, two_frames


def test_a_frame_worked_out_by_hand():
    """Of four markers one is found, two by one object, one by none; one object is spurious.

    AOGM-D = 10 * 1 missed + 5 * 1 split + 1 * 1 spurious = 16, AOGM-D0 = 10 * 4 = 40.
    """
    markers = draw("11.22.33.44",
                   "11.22.33.44")  # fmt: skip
    result = draw("77.88888...",
                  "77.88888..9")  # fmt: skip
    found = detect(result, markers)
    assert found == Detection(objects=3, markers=4, missed=1, splits=1, spurious=1)
    assert found.det == pytest.approx(1 - 16 / 40)
    s = score(result, markers)
    assert s.detection == found  # without markers, the truth's objects take their place
    assert s.seg == pytest.approx((1 + 4 / 10 + 4 / 10 + 0) / 4)
    assert s.op_csb == pytest.approx((0.45 + 0.6) / 2)


def test_a_marker_that_is_covered_by_half_is_missed():
    assert detect(draw("22.."), draw("1111")) == Detection(1, 1, missed=1, splits=0, spurious=1)
    assert detect(draw("222."), draw("1111")) == Detection(1, 1, missed=0, splits=0, spurious=0)


def test_an_object_may_be_any_larger_than_its_marker():
    assert detect(draw("222222222"), draw("....1....")).det == 1


def test_det_is_never_below_that_of_an_empty_result():
    noise = np.arange(1, 65).reshape(8, 8)
    one = np.zeros((8, 8), int)
    one[:, :2] = 1
    assert detect(noise, one).spurious == 64
    assert detect(noise, one).det == 0
    assert detect(noise * 0, one).det == 0


def test_without_markers_det_is_not_defined():
    nothing = np.zeros((4, 4), int)
    assert math.isnan(detect(nothing, nothing).det)
    assert math.isnan(detect(nothing + 1, nothing).det)


def test_frames_are_pooled_as_the_challenge_does():
    """Costs add up before they are compared with an empty result: a frame of noise costs others."""
    good = detect(draw("11.22"), draw("11.22"))
    noise = detect(draw("1.2.3.4.5.6.7.8.9.1.2.3"), draw("1......................"))
    pooled = Score(detection=good) + Score(detection=noise)
    assert pooled.detection.markers == 3
    assert pooled.det == pytest.approx(1 - pooled.detection.spurious / 30)
    assert pooled.frames == 0 and math.isnan(pooled.seg)


def test_shapes_must_agree():
    with pytest.raises(StackError, match="shape"):
        detect(np.ones((2, 2), int), np.ones((2, 3), int))


@settings(max_examples=200)
@given(two_frames())
def test_equal_to_the_plain_oracle(frames):
    result, markers = frames
    cost, n = 0, 0
    finds = {int(i): 0 for i in np.unique(result) if i}
    for marker in np.unique(markers[markers != 0]):
        inside = result[markers == marker]
        finders = [i for i in finds if 2 * np.count_nonzero(inside == i) > inside.size]
        n += 1
        cost += 0 if finders else 10
        for finder in finders:
            finds[finder] += 1
    cost += sum(5 * (count - 1) if count else 1 for count in finds.values())
    expected = 1 - min(cost, 10 * n) / (10 * n) if n else math.nan
    np.testing.assert_allclose(detect(result, markers).det, expected)
