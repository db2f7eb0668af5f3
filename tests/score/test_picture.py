"""The picture of the worst frames: which they are, and that every kind of object has its colour."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from engine.commands.evaluate import evaluate
from engine.errors import OutputError
from engine.job.job import run_job
from engine.results.score.compare import compare
from engine.results.score.picture import FOUND, MISSED, SPURIOUS, TRUTH, WRONG, draw_worst
from tests.engine import jobs


def pixels(path) -> np.ndarray:
    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of a colour above the legend."""
    return int((picture[:-40] == colour).all(axis=2).sum())


@pytest.fixture
def lapse(tmp_path):
    """Five frames of two objects: frame 1 misses one, frame 3 has one too many and half of one."""
    truth = np.zeros((5, 60, 80), np.uint16)
    truth[:, 10:30, 10:30], truth[:, 40:55, 50:70] = 1, 2
    result = np.roll(truth, 1, axis=2)
    result[1] = np.where(truth[1] == 1, 1, 0)
    result[3] = np.where(truth[3] == 1, 1, 0)
    result[3, 10:16, 10:30] = 0
    result[3, 5:15, 60:70] = 9
    for name, frames in (("truth", truth), ("result", result), ("image", truth * 100 + 7)):
        tifffile.imwrite(tmp_path / f"{name}.tif", frames, metadata={"axes": "TYX"})
    return tmp_path


def test_the_worst_frames_are_drawn_in_their_colours(lapse):
    comparison = compare(lapse / "result.tif", lapse / "truth.tif")
    assert [f.number[0] for f in comparison.worst()] == [3, 1, 0]
    told = draw_worst(comparison, lapse / "worst.png", str(lapse / "image.tif"))
    assert told == [f"worst 3 frames: {lapse / 'worst.png'}"]
    picture = pixels(lapse / "worst.png")
    for colour in (TRUTH, FOUND, MISSED, SPURIOUS):
        assert has(picture, colour) > 20
    good = compare(lapse / "truth.tif", lapse / "truth.tif")
    draw_worst(good, lapse / "good.png", str(lapse / "image.tif"))
    assert not has(pixels(lapse / "good.png"), MISSED)
    assert not has(pixels(lapse / "good.png"), SPURIOUS)


def test_without_an_image_it_is_drawn_over_black(lapse):
    comparison = compare(lapse / "result.tif", lapse / "truth.tif", ignore_border=3)
    told = draw_worst(comparison, lapse / "worst.png")
    assert "give --image" in told[0] and len(told) == 2
    small = lapse / "small.tif"
    tifffile.imwrite(small, np.zeros((5, 20, 20), np.uint8), metadata={"axes": "TYX"})
    assert "(14, 14)" in draw_worst(comparison, lapse / "worst.png", str(small))[0]


def test_the_images_of_a_folder_go_by_number_and_by_name(lapse):
    (lapse / "images").mkdir()
    for t in range(5):
        image = np.full((60, 80), 50 * t, np.uint8)
        image[0, :2] = 0, 255
        tifffile.imwrite(lapse / "images" / f"t{t:03d}.tif", image)
    from engine.results.score.background import background

    comparison = compare(lapse / "result.tif", lapse / "truth.tif")
    frames = [background(f, image=str(lapse / "images")) for f in comparison.frames]
    assert [int(f[30, 30]) for f in frames] == [0, 50, 100, 150, 200]


def test_a_result_knows_its_image(lapse, threshold_model):
    run_job(jobs.settings(lapse / "image.tif", threshold_model, lapse / "out", frames=(1, 4)))
    target = lapse / "worst.png"
    arguments = [str(lapse / "out"), str(lapse / "truth.tif"), "--picture", str(target)]
    done = CliRunner().invoke(evaluate, arguments)
    assert done.exit_code == 0 and "over black" not in done.stderr
    grey = pixels(target)
    assert has(grey, (153, 153, 153)) > 100, "the objects' own brightness"
    with pytest.raises(OutputError, match="cannot be a folder"):
        draw_worst(compare(lapse / "out", lapse / "truth.tif"), target / "where.png")


def test_classes_are_drawn_as_areas(lapse):
    comparison = compare(lapse / "result.tif", lapse / "truth.tif", classes=True)
    draw_worst(comparison, lapse / "worst.png")
    picture = pixels(lapse / "worst.png")
    for colour in (MISSED, SPURIOUS):
        assert has(picture, tuple(c // 2 for c in colour)) > 20
    assert not has(picture, tuple(c // 2 for c in WRONG))


def test_nothing_to_draw(lapse):
    tifffile.imwrite(lapse / "empty.tif", np.zeros((5, 60, 80), np.uint8), metadata={"axes": "TYX"})
    comparison = compare(lapse / "result.tif", lapse / "empty.tif")
    assert draw_worst(comparison, lapse / "none.png") == ["no picture: no frame has a score"]
    assert not (lapse / "none.png").exists()
