"""Masks as truth, and indexed pictures as class maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from engine.commands.evaluate import evaluate
from engine.errors import StackError, UsageError
from engine.results.result import LabelClass
from engine.results.score.classes import class_pixels
from engine.results.score.compare import compare
from engine.results.score.table import hints
from engine.truth.image import LabelImage, read_label_images
from tests.truth.files import INDEXED, RGB, png, tiff

IDS = np.zeros((20, 30), np.uint8)
IDS[2:8, 3:9], IDS[2:8, 20:28], IDS[12:18, 5:25] = 1, 2, 3
MASK = IDS > 0


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(evaluate, [str(a) for a in arguments])


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tiff(tmp_path / "result.tif", IDS)


@pytest.mark.parametrize("mask", [MASK, MASK * np.uint8(1), MASK * np.uint8(255)])
def test_masks_are_taken_apart_where_asked_for(mask: NDArray[Any], result: Path) -> None:
    truth = tiff(result.with_name("mask.tif"), mask)
    done = run(result, truth, "--masks", "--json")
    told = json.loads(done.stdout)
    assert (told["masks"], told["pooled"]["truth_objects"], told["pooled"]["seg"]) == (True, 3, 1)
    assert "give --masks" not in done.stderr
    assert "the connected pieces of its masks" in done.stderr
    if mask.dtype == np.bool_:
        with pytest.raises(StackError, match=r"mask\.tif: labels are boolean.* --masks$"):
            compare(result, truth)
        return
    done = run(result, truth, "--json")
    assert json.loads(done.stdout)["pooled"]["truth_objects"] == 1, "used as it is"
    assert done.stderr.count("mask.tif: the truth has one id and 3 separate pieces") == 1


def test_the_hint_is_given_once_for_many_frames(tmp_path: Path) -> None:
    for folder, labels in (("ours", IDS), ("theirs", MASK * np.uint8(255))):
        (tmp_path / folder).mkdir()
        for t in range(3):
            tiff(tmp_path / folder / f"m{t}.tif", labels if t else IDS * 0)
    done = run(tmp_path / "ours", tmp_path / "theirs")
    assert done.stderr.count("one id and") == 1 and "m1.tif" in done.stderr
    one_piece = tiff(tmp_path / "one.tif", IDS // 3 * 9)
    assert "one id" not in run(one_piece, one_piece).stderr
    assert done.output.index("one id and") < done.output.index("pooled"), "above the scores"


def test_boolean_labels_are_taken_apart_as_well(tmp_path: Path) -> None:
    ours, theirs = tiff(tmp_path / "ours.tif", MASK), tiff(tmp_path / "theirs.tif", IDS // 3)
    assert compare(ours, theirs, masks=True).pooled.counts()["objects"] == 3
    with pytest.raises(StackError, match=r"ours\.tif: labels are boolean"):
        compare(ours, theirs)
    touching = tiff(tmp_path / "touching.tif", np.where(np.arange(30) < 15, IDS, IDS * 10))
    found = compare(touching, tiff(tmp_path / "mask.tif", MASK), masks=True).pooled
    assert found.counts()["objects"] == 4, "ids of the result stay as they are"


def test_pieces_of_volumes_go_on_from_plane_to_plane(tmp_path: Path) -> None:
    volume = np.stack([MASK, MASK, np.zeros_like(MASK), MASK]).astype(np.uint8)
    path = tiff(tmp_path / "v.tif", volume, metadata={"axes": "ZYX"})
    assert compare(path, path, masks=True).pooled.truth_objects == 9
    whole = compare(path, path, masks=True, volumes=True)
    assert whole.pooled.truth_objects == 6
    (hint,) = [line for line in hints(compare(path, path, volumes=True)) if "one id" in line]
    assert "6 separate pieces" in hint


def test_ids_and_classes_are_no_masks(result: Path) -> None:
    with pytest.raises(StackError, match=r"result\.tif: has the values 1 and 3, so it is no mask"):
        compare(result, result, masks=True)
    with pytest.raises(UsageError, match="--masks is about objects"):
        compare(result, result, masks=True, classes=True)


def test_an_empty_truth_has_no_score(result: Path) -> None:
    empty = tiff(result.with_name("empty.tif"), IDS * 0)
    told = json.loads(run(empty, empty, "--json").stdout)["pooled"]
    assert {told[name] for name in ("iou", "dice", "seg", "det", "f1_0.5")} == {None}


CLASSES = [
    LabelClass(0, "background", (0, 0, 0)),
    LabelClass(1, "cat", (255, 0, 0)),
    LabelClass(2, "dog", (0, 255, 0)),
]
MAP = IDS % 3  # classes 0, 1, 2


def indexed(path: Path, numbers: NDArray[Any], palette: list[tuple[int, int, int]]) -> LabelImage:
    entries = b"".join(bytes(colour) for colour in palette)
    path.write_bytes(png(numbers, depth=2, colour=INDEXED, palette=entries))
    return read_label_images(path)[0]


def test_an_index_is_a_class_unless_its_colours_are_the_classes(tmp_path: Path) -> None:
    voc = indexed(tmp_path / "voc.png", MAP, [(0, 0, 0), (128, 0, 0), (0, 128, 0)])
    assert np.array_equal(class_pixels(voc, CLASSES), MAP)
    # A packed picture: its indices count colours in the order in which they were met.
    packed = indexed(tmp_path / "packed.png", 2 - MAP, [(0, 255, 0), (255, 0, 0), (0, 0, 0)])
    assert np.array_equal(class_pixels(packed, CLASSES)[..., 0] == 255, MAP == 1)
    assert np.array_equal(class_pixels(packed, CLASSES)[..., 1] == 255, MAP == 2)


def test_indexed_class_maps_that_nothing_names(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
    indexed(tmp_path / "indexed.png", MAP, colours)
    indexed(tmp_path / "packed.png", 2 - MAP, colours[::-1])
    (tmp_path / "numbers.png").write_bytes(png(MAP))
    (tmp_path / "rgb.png").write_bytes(png(np.array(colours, np.uint8)[MAP], colour=RGB))
    for other, names in (
        ("numbers", ["class 1", "class 2"]),
        ("rgb", ["#00ff00", "#ff0000"]),
        ("packed", ["#00ff00", "#ff0000"]),
    ):
        for sides in (("indexed", other), (other, "indexed")):
            ours, theirs = (tmp_path / f"{side}.png" for side in sides)
            comparison = compare(ours, theirs, classes=True)
            assert comparison.pooled.mean_dice == 1
            assert sorted(c.name for c in comparison.classes or ()) == names
