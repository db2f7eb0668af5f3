"""SEG and DET equal py-ctcmetrics, F1 and AP equal stardist's matching.

What py-ctcmetrics does not do is kept out of its way: it takes the smallest value of an image for
background, adds ids up in the images' own type, and cannot divide by no markers.
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.results.score.compare import compare
from engine.results.score.metrics import THRESHOLDS, Score, score
from tests.score.test_metrics import two_frames

Frames = tuple[np.ndarray, np.ndarray]


@st.composite
def lapses(draw_from):
    """Result and truth of a few frames: small blocks, of which each side has its own."""
    count, height, width = (draw_from(st.integers(1, 3)), *(draw_from(st.integers(3, 9)),) * 2)
    side = arrays(np.uint16, (count, height, width), elements=st.integers(0, 5))
    grown = [draw_from(side).repeat(2, 1).repeat(2, 2) for _ in range(2)]
    for frames in grown:
        frames[:, 0] = 0
    shifted = np.roll(grown[1], draw_from(st.integers(0, 1)), axis=2)
    return grown[0], np.where(draw_from(st.booleans()), shifted, grown[0])


@settings(max_examples=40)
@given(lapses())
def test_seg_and_det_equal_those_of_the_challenge(lapse):
    assume(lapse[1].any() and lapse[0].any())
    pooled = sum((score(r, t) for r, t in zip(*lapse, strict=True)), Score())
    expected = of_the_challenge(zip(*lapse, strict=True))
    assert pooled.seg == pytest.approx(expected["SEG"], abs=1e-9)
    assert pooled.det == pytest.approx(expected["DET"], abs=1e-9)
    assert pooled.op_csb == pytest.approx(expected["OP_CSB"], abs=1e-9)


@settings(max_examples=100)
@given(two_frames())
def test_f1_and_ap_equal_stardist(frames):
    assume(
        frames[0].any() or frames[1].any()
    )  # stardist says 0 of nothing, we that it is undefined
    from stardist.matching import matching

    expected = matching(frames[1], frames[0], thresh=THRESHOLDS)
    found = score(*frames)
    np.testing.assert_allclose(found.f1, [m.f1 for m in expected], atol=1e-12)
    np.testing.assert_allclose(found.ap, [m.accuracy for m in expected], atol=1e-12)


def test_pooled_f1_equals_stardist_of_a_data_set():
    from stardist.matching import matching_dataset

    rng = np.random.default_rng(0)
    truths = [np.kron(rng.integers(0, 40, (9, 9)), np.ones((4, 4), int)) for _ in range(3)]
    results = [np.roll(t, 1, 0) * (rng.random(t.shape) > 0.1) for t in truths]
    pooled = sum((score(r, t) for r, t in zip(results, truths, strict=True)), Score())
    for at, f1 in zip(THRESHOLDS, pooled.f1, strict=True):
        assert f1 == pytest.approx(matching_dataset(truths, results, at, show_progress=False).f1)


@pytest.mark.realdata
def test_real_frames_equal_the_challenges(realdata: Path, tmp_path: Path):
    """A faulty result, made of the silver truth, against gold segmentation and gold markers."""
    hela = realdata / "hela"
    seg, tra = hela / "01_GT/SEG", hela / "01_GT/TRA"
    numbers = [23, 39, 77]
    (tmp_path / "01_GT/SEG").mkdir(parents=True)
    (tmp_path / "01_GT/TRA").mkdir()
    (tmp_path / "01_RES").mkdir()
    pairs: dict[str, list[Frames]] = {"SEG": [], "TRA": []}
    for t in numbers:
        labels = tifffile.imread(hela / f"01_ST/SEG/man_seg{t:03d}.tif")
        faulty = with_faults(labels)
        tifffile.imwrite(tmp_path / f"01_RES/mask{t:03d}.tif", faulty)
        for kind, folder, name in (("SEG", seg, "man_seg"), ("TRA", tra, "man_track")):
            truth = tifffile.imread(folder / f"{name}{t:03d}.tif")
            tifffile.imwrite(tmp_path / f"01_GT/{kind}/{name}{t:03d}.tif", truth)
            pairs[kind].append((faulty, truth))
    comparison = compare(tmp_path / "01_RES", tmp_path / "01_GT")
    assert comparison.pooled.seg == pytest.approx(of_the_challenge(pairs["SEG"])["SEG"], abs=1e-9)
    assert comparison.pooled.det == pytest.approx(of_the_challenge(pairs["TRA"])["DET"], abs=1e-9)
    assert 0.3 < comparison.pooled.seg < 0.95 and 0.5 < comparison.pooled.det < 0.99
    whole = sum((score(*pair) for pair in pairs["SEG"]), Score())
    from stardist.matching import matching_dataset

    truths, results = ([p[i] for p in pairs["SEG"]] for i in (1, 0))
    for at, f1 in zip(THRESHOLDS, whole.f1, strict=True):
        assert f1 == pytest.approx(matching_dataset(truths, results, at, show_progress=False).f1)


def with_faults(labels: np.ndarray) -> np.ndarray:
    """Every third object smaller, every seventh gone, every fifth merged with the one before."""
    faulty = labels.copy()
    faulty[labels % 7 == 0] = 0
    faulty[(labels % 3 == 0) & (np.arange(len(labels)) % 2 == 0)[:, None]] = 0
    merged = (faulty % 5 == 0) & (faulty > 1)
    faulty[merged] -= 1
    return faulty


def of_the_challenge(pairs: Iterable[Frames]) -> dict[str, float]:
    """SEG, DET and OP_CSB by py-ctcmetrics, which reads files."""
    from ctc_metrics.metrics import det, op_csb, seg
    from ctc_metrics.utils.representations import (
        count_acyclic_graph_correction_operations,
        match,
    )

    found = []
    with TemporaryDirectory() as folder:
        result_file, truth_file = f"{folder}/result.tif", f"{folder}/truth.tif"
        for result, truth in pairs:
            tifffile.imwrite(result_file, result.astype(np.uint16))
            tifffile.imwrite(truth_file, truth.astype(np.uint16))
            found.append(match(truth_file, result_file))
    refs, comps, mapped_refs, mapped_comps, ious = (list(part) for part in zip(*found, strict=True))
    counts = count_acyclic_graph_correction_operations(
        None, None, refs, comps, mapped_refs, mapped_comps
    )
    scores = {"SEG": seg(refs, ious), "DET": det(**counts)}
    return scores | {"OP_CSB": op_csb(scores["SEG"], scores["DET"])}
