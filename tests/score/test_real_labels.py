"""Scores of the challenge's own truths against each other."""

from pathlib import Path

import pytest

from engine.results.score.compare import compare
from engine.results.score.metrics import Score, score
from engine.results.score.sources import open_labels


@pytest.mark.realdata
def test_silver_truth_against_itself(realdata: Path):
    comparison = compare(realdata / "hela", realdata / "hela" / "01_ST", ignore_border=25)
    assert len(comparison.frames) == 47
    assert (comparison.pooled.iou, comparison.pooled.seg) == (1, 1)


@pytest.mark.realdata
def test_silver_truth_finds_the_gold_nuclei(realdata: Path):
    silver = open_labels(realdata / "hela" / "01_ST")
    gold = open_labels(realdata / "hela" / "01_GT" / "SEG")
    common = sorted(set(silver.numbers) & set(gold.numbers))
    assert common
    pooled = sum((score(silver.read(n), gold.read(n)) for n in common), Score())
    assert pooled.truth_objects > 10
    assert pooled.seg > 0.75
