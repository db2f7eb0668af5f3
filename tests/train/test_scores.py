"""Scores that choose an epoch, and the choice of a threshold."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from engine.labels.postprocessing import Postprocessing
from engine.model.spec import CurvePoint, ModelSpec
from engine.results.score.metrics import score
from train.assess import named_scores
from train.choose import CORE_THRESHOLDS, THRESHOLDS, Frame, choose, score_frames, write_curve
from train.curves import Epoch, draw_curves, read_rows, write_rows
from train.objects import postprocessing_of
from train.scores import Scores
from train.settings import TrainSettings


def rules(**given: Any) -> Postprocessing:
    """How objects are told apart where nothing has been chosen."""
    values = {"data": "d", "layout": "pairs", "instances": "components"} | given
    return postprocessing_of(TrainSettings.model_validate(values))


def frame(truth: NDArray[Any], *outputs: NDArray[np.float32]) -> Frame:
    """A frame with probabilities, all of whose truth counts."""
    return Frame(np.stack(outputs), truth, np.ones(truth.shape, dtype=bool))


def test_f1_is_the_mean_of_frames_and_iou_that_of_pixels() -> None:
    one = np.zeros((10, 10), np.int32)
    one[:4] = 1
    many = np.arange(1, 101, dtype=np.int32).reshape(10, 10)
    nothing = np.zeros_like(many)
    scores = Scores.pooled([score(one, one), score(nothing, many), score(nothing, nothing)])
    assert scores.iou == pytest.approx(40 / 140)
    assert scores.f1 == scores.f1_50 == scores.seg == pytest.approx(0.5)
    assert scores.rank == pytest.approx(0.5)
    assert Scores(iou=1, seg=0.9, f1=0.8, f1_50=1).rank == pytest.approx(0.85)


def test_a_score_that_nothing_defines_is_left_out_and_never_chosen(tmp_path: Path) -> None:
    nothing = np.zeros((4, 4), np.int32)
    for frames in ([], [score(nothing, nothing)]):
        undefined = Scores.pooled(frames)
        assert undefined.defined() == named_scores("val", undefined) == {}
        assert undefined.rank < Scores(0.0, 0.0, 0.0, 0.0).rank
    assert Scores(0.5, math.nan, math.nan, 0.2).defined() == {"iou": 0.5, "f1_50": 0.2}
    best, curve = choose([frame(nothing, np.zeros((4, 4), np.float32))], rules())
    assert (best.threshold, best.min_area) == (0.5, 0), "well-defined all the same"
    assert best.as_dict() == {"threshold": 0.5, "min_area": 0}
    write_curve(tmp_path / "threshold.csv", curve)
    assert "0.5,,0,,,," in (tmp_path / "threshold.csv").read_text().splitlines()
    assert CurvePoint.model_validate(best.as_dict()).f1 is None


def test_a_threshold_whose_score_is_not_defined_loses() -> None:
    """Above 0.5 nothing is found, and nothing is there: F1 is 0 below, and not defined above."""
    nothing, found = np.zeros((8, 8), np.int32), np.full((8, 8), 0.5, np.float32)
    best, curve = choose([frame(nothing, found)], rules())
    assert best.threshold == 0.5 and best.scores.f1 == 0
    assert any(math.isnan(choice.scores.f1) for choice in curve)


def test_the_history_leaves_undefined_scores_empty(tmp_path: Path) -> None:
    rows = [Epoch(1, 5, 0.1, 1.0, math.nan, 1.0, math.nan, math.nan, math.nan, math.nan),
            Epoch(2, 10, 0.1, 1.0, 0.25, 1.0, 0.5, 0.5, 0.0, 0.0)]  # fmt: skip
    write_rows(tmp_path / "history.csv", rows)
    assert "nan" not in (tmp_path / "history.csv").read_text()
    first, second = read_rows(tmp_path / "history.csv", Epoch)
    assert second == rows[1] and (first.epoch, first.val_loss) == (1, 1.0)
    assert math.isnan(first.val_f1) and math.isnan(first.train_iou)
    draw_curves(tmp_path / "curves.png", rows)
    assert (tmp_path / "curves.png").stat().st_size


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_holds_no_score_that_is_no_number(value: float) -> None:
    spec = {"name": "m", "channels": ["c"], "stride": 1, "receptive_radius": 0,
            "classes": [{"name": n, "color": "#000000"} for n in "ab"]}  # fmt: skip
    assert ModelSpec.model_validate(spec | {"scores": {"val_iou": 0.5}}).scores == {"val_iou": 0.5}
    with pytest.raises(ValidationError):
        ModelSpec.model_validate(spec | {"scores": {"val_iou": value}})


def test_the_threshold_that_separates_and_the_area_that_cleans_are_chosen(tmp_path: Path) -> None:
    truth = np.zeros((40, 40), np.int32)
    truth[5:20, 5:19], truth[5:20, 21:35] = 1, 2
    probability = np.where(truth > 0, 0.95, 0.05).astype(np.float32)
    probability[5:20, 19:21] = 0.58  # a bridge that only 0.6 and more cut
    probability[30:34, 30:34] = 0.95  # 16 px of dirt
    best, curve = choose([frame(truth, probability)], rules())
    assert (best.threshold, best.min_area) == (0.6, 20)
    assert best.scores.f1 == 1
    write_curve(tmp_path / "threshold.csv", curve)
    lines = (tmp_path / "threshold.csv").read_text().splitlines()
    assert lines[0] == "threshold,core_threshold,min_area,iou,seg,f1,f1_50"
    assert len(lines) == 1 + len(curve) == 55


def test_among_equals_one_half_and_no_minimum_area_are_chosen() -> None:
    truth = np.zeros((40, 40), np.int32)
    truth[5:20, 5:19] = 1
    best, _ = choose([frame(truth, (truth > 0).astype(np.float32))], rules())
    assert (best.threshold, best.min_area) == (0.5, 0)


def test_a_pixel_at_the_threshold_counts_as_in_the_engine() -> None:
    """The engine takes p >= threshold, in float32: what is scored is what will be run."""
    probability = np.zeros((8, 8), np.float32)
    probability[2:6, 2:6] = 0.7
    truth = (probability > 0).astype(np.int32)
    at = replace(rules(), threshold=0.7)
    assert score_frames([frame(truth, probability)], at).iou == 1


def test_thresholds_of_foreground_and_core_are_chosen_together() -> None:
    """Cores that a bridge of 0.75 joins, in a foreground whose halo reaches 0.45."""
    truth = np.zeros((40, 60), np.int32)
    truth[10:30, 10:30], truth[10:30, 30:50] = 1, 2
    outer = np.where(truth > 0, 0.95, 0.05).astype(np.float32)
    outer[9, 10:50] = 0.45
    core = np.zeros_like(outer)
    core[12:28, 12:28] = core[12:28, 32:48] = 0.9
    core[20, 28:32] = 0.75
    best, curve = choose([frame(truth, outer, core)], rules(instances="cores"))
    assert best.scores.rank == 1
    assert (best.threshold, best.core_threshold, best.min_area) == (0.5, 0.8, 0)
    pairs = {(c.threshold, c.core_threshold) for c in curve}
    assert {c for _, c in pairs} == set(CORE_THRESHOLDS), "all of them, at the best foreground"
    assert {t for t, _ in pairs} == set(THRESHOLDS)
    assert len(pairs) < len(CORE_THRESHOLDS) * len(THRESHOLDS)


def test_what_is_not_known_neither_counts_for_nor_against() -> None:
    truth = np.zeros((20, 40), np.int32)
    truth[5:15, 5:15] = 1
    probability = (truth > 0).astype(np.float32)
    probability[5:15, 25:35] = 1  # found where nobody looked
    known = np.ones(truth.shape, dtype=bool)
    known[:, 20:] = False
    part = Frame(probability[None], truth, known)
    assert score_frames([part], rules()).f1 == 1
    assert choose([part], rules())[0].scores.f1 == 1


def test_what_shows_of_an_undrawn_neighbour_is_no_false_positive() -> None:
    """An undrawn object juts 2 of its 8 columns into what is known; a drawn one as far."""
    truth = np.zeros((30, 30), np.int32)
    truth[20:26, 8:10] = 1
    found = np.zeros(truth.shape, np.float32)
    found[4:10, 2:10] = found[20:26, 2:10] = 1
    known = np.zeros(truth.shape, dtype=bool)
    known[:, 8:] = True
    part = Frame(found[None], truth, known)
    assert choose([part], rules())[0].scores.f1 == score_frames([part], rules()).f1 == 1
    invented = part.probability.copy()
    invented[0, 14:18, 6:12] = 1  # most of it lies where the truth is known
    assert score_frames([replace(part, probability=invented)], rules()).f1 < 1


def test_objects_at_the_edge_of_what_is_known_are_scored_by_what_is_known_of_them() -> None:
    truth = np.zeros((20, 30), np.int32)
    truth[5:15, 5:20] = 1
    found = np.where(np.arange(30) < 12, truth > 0, False).astype(np.float32)
    known = np.broadcast_to(np.arange(30) < 12, truth.shape).copy()
    part = Frame(found[None], truth, known)
    assert score_frames([part], rules()).iou == choose([part], rules())[0].scores.iou == 1


@pytest.mark.parametrize(("slack", "expected"), [(0.0, 0.7), (0.05, 0.8), (0.5, 0.95)])
def test_the_core_threshold_is_raised_as_far_as_it_costs_little(
    slack: float, expected: float
) -> None:
    """Above 0.7 one of 20 objects is lost, above 0.8 a frame of four."""
    frames = []
    for number in range(4):
        truth = np.zeros((20, 60), np.int32)
        for at in range(5):
            truth[5:15, 12 * at + 1 : 12 * at + 9] = at + 1
        inside = ndimage.binary_erosion(truth > 0).astype(np.float32)
        core = (0.99 if number else 0.82) * inside
        if number == 0:
            core[:, 12:24] = 0.75 * inside[:, 12:24]
        frames.append(frame(truth, (truth > 0).astype(np.float32), core))
    best, _ = choose(frames, rules(instances="cores"), slack)
    assert best.core_threshold == expected
