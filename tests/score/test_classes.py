"""Class maps: by hand, against confusion counted by NumPy, and truths that are colours."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given

from engine.errors import StackError, UsageError
from engine.job.job import run_job
from engine.results.result import LabelClass
from engine.results.score.classes import ClassScore, class_numbers, score_classes
from engine.results.score.compare import compare
from engine.results.score.table import table
from tests import networks
from tests.engine import jobs
from tests.score.test_metrics import draw, two_frames

HEART = (
    LabelClass(0, "background", (0, 0, 0)),
    LabelClass(1, "myocardium", (255, 0, 0)),
    LabelClass(2, "ventricle", (0, 255, 0)),
)


def coloured(classes: np.ndarray) -> np.ndarray:
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    return palette[classes]


def test_a_frame_worked_out_by_hand():
    """Class 1: 3 px of both, 3 in the result, 4 in the truth. Class 2: 1, 2, 1. Class 3: none."""
    result = draw("11.122..")
    truth = draw("1111.2..")
    s = score_classes(result, truth, (*HEART, LabelClass(3, "lung", (0, 0, 255))))
    assert s.areas == {1: (3, 3, 4), 2: (1, 2, 1), 3: (0, 0, 0)}
    assert s.class_dice(1) == pytest.approx(6 / 7) and s.class_iou(1) == pytest.approx(3 / 4)
    assert s.class_dice(2) == pytest.approx(2 / 3) and s.class_iou(2) == pytest.approx(1 / 2)
    assert np.isnan(s.class_dice(3))
    assert s.mean_dice == pytest.approx((6 / 7 + 2 / 3) / 2), "of the classes there are"
    assert s.foreground == (4, 5, 5)


def test_voxels_are_pooled_not_means_of_frames():
    found, missed = draw("1111"), draw("....")
    pooled = score_classes(found, found) + score_classes(missed, draw("1..."))
    assert pooled.frames == 2
    assert pooled.class_dice(1) == pytest.approx(8 / 9)
    assert sum([pooled], ClassScore()) == pooled


@given(two_frames())
def test_equal_to_numpy(frames):
    s = score_classes(*frames)
    for value in set(np.unique(frames)) - {0}:
        ours, theirs = (side == value for side in frames)
        dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        assert s.class_dice(value) == pytest.approx(dice)
        assert s.class_iou(value) == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())


def test_the_border_is_left_out():
    assert score_classes(draw("111", "121", "111"), draw("...", ".2.", "..."), HEART, 1).areas == {
        1: (0, 0, 0), 2: (1, 1, 1),
    }  # fmt: skip


def test_colours_are_classes():
    classes = draw("0122").astype(np.uint8)
    np.testing.assert_array_equal(class_numbers(coloured(classes), HEART, "x"), classes)
    np.testing.assert_array_equal(class_numbers(classes, HEART, "x"), classes)
    with_alpha = np.concatenate([coloured(classes), np.full((1, 4, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(class_numbers(with_alpha, HEART, "x"), classes)


def test_what_is_none_of_the_classes_is_named():
    blue = np.array([[[0, 0, 255]]], np.uint8)
    with pytest.raises(
        StackError, match=r"x: has the colour #0000ff, which .* ventricle 2 #00ff00"
    ):
        class_numbers(blue, HEART, "x")
    with pytest.raises(StackError, match="value 85"):
        class_numbers(np.array([[0, 85]], np.uint8), HEART, "x")
    with pytest.raises(StackError, match="8 bits"):
        class_numbers(blue.astype(np.uint16), HEART, "x")
    with pytest.raises(StackError, match="ids of objects"):
        score_classes(np.arange(4096).reshape(64, 64), np.zeros((64, 64), int))


@pytest.fixture
def result(tmp_path):
    """A job's class map of two frames, of a folder of images."""
    (tmp_path / "images").mkdir()
    for name, frame in zip(("p1_a", "p2_b"), jobs.blobs((2, 48, 64)), strict=True):
        (tmp_path / "images" / f"{name}.png").write_bytes(imagecodecs.png_encode(frame))
    network = networks.unet((4, 4), n_outputs=3, seed=5, positive=False)
    classes = tuple(c.name for c in HEART)
    model = networks.save(tmp_path / "m.onnx", network, networks.spec(network, classes=classes))
    run_job(jobs.settings(tmp_path / "images", model, tmp_path / "out"))
    return tmp_path / "out"


def test_a_class_map_against_colours_by_patient(result, tmp_path):
    found = jobs.labels_of(result, "images", "test")
    truth = found.copy()
    truth[1, :, :20] = 0
    (tmp_path / "masks").mkdir()
    for name, frame in zip(("p1_a", "p2_b"), truth, strict=True):
        (tmp_path / "masks" / f"{name}.png").write_bytes(imagecodecs.png_encode(coloured(frame)))
    comparison = compare(result, tmp_path / "masks", group=r"p\d")
    assert [c.name for c in comparison.classes] == ["myocardium", "ventricle"]
    values = [v for v in (1, 2) if (found == v).any()]
    assert values
    for value in values:
        both = ((found == value) & (truth == value)).sum()
        dice = 2 * both / ((found == value).sum() + (truth == value).sum())
        assert comparison.pooled.class_dice(value) == pytest.approx(dice)
    first = comparison.groups["p1"]
    assert first.mean_dice == 1 and comparison.groups["p2"].mean_dice < 1
    assert [f.name for f in comparison.worst()] == ["p2_b.png", "p1_a.png"]
    told = comparison.to_dict()
    assert told["kind"] == "classes" and told["classes"] == ["myocardium", "ventricle"]
    assert "det_against" not in told and "dice_myocardium" in told["frames"][0]
    assert "Dice ventricle" in table(comparison)[0][0]


def test_a_class_map_against_itself_and_against_objects(result, tmp_path):
    assert compare(result, result).pooled.dice == 1
    (tmp_path / "ids").mkdir()
    for name in ("p1_a", "p2_b"):
        ids = np.full((48, 64), 77, np.uint16)
        (tmp_path / "ids" / f"{name}.png").write_bytes(imagecodecs.png_encode(ids))
    with pytest.raises(StackError, match=r"p1_a\.png: has the value 77"):
        compare(result, tmp_path / "ids")


def test_folders_are_class_maps_where_that_is_said(tmp_path):
    numbers = [draw("0112", "...."), draw("0122", "....")]
    for name, pictures in {
        "ours": numbers, "theirs": numbers[::-1], "colours": [coloured(n) for n in numbers],
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        for t, picture in enumerate(pictures):
            data = imagecodecs.png_encode(np.ascontiguousarray(picture.astype(np.uint8)))
            (tmp_path / name / f"m{t}.png").write_bytes(data)
    comparison = compare(tmp_path / "ours", tmp_path / "theirs", classes=True)
    assert [c.name for c in comparison.classes] == ["class 1", "class 2"]
    assert comparison.pooled.class_dice(1) == pytest.approx(4 / 6)
    colours = compare(tmp_path / "colours", tmp_path / "colours", classes=True)
    assert [c.name for c in colours.classes] == ["#00ff00", "#ff0000"]
    with pytest.raises(StackError, match="one has colours, the other numbers"):
        compare(tmp_path / "ours", tmp_path / "colours", classes=True)
    with pytest.raises(StackError, match="give --classes"):
        compare(tmp_path / "ours", tmp_path / "colours")


def test_different_classes_are_not_compared(result, tmp_path):
    network = networks.unet((4, 4), n_outputs=3, seed=5, positive=False)
    spec = networks.spec(network, classes=("background", "cat", "dog"))
    model = networks.save(tmp_path / "other.onnx", network, spec)
    run_job(jobs.settings(tmp_path / "images", model, tmp_path / "other"))
    with pytest.raises(UsageError, match=r"1 myocardium, 2 ventricle, but .* 1 cat, 2 dog"):
        compare(result, tmp_path / "other")
