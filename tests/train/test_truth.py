"""What training makes of its truth and images: masks, empty frames, blank images, alpha."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import StackError
from engine.model.spec import Normalisation
from engine.stacks.images.coded import without_opaque_alpha
from tests.train.data import nuclei, write_pairs
from tests.train.test_cli import SMALL
from tests.truth.files import tiff
from train.checkpoint import load_checkpoint
from train.cli import train
from train.data.dataset import find_frames, load_data, load_part
from train.data.frames import NoContrast, make_frame, read_image
from train.data.splits import split_frames
from train.settings import TrainSettings

NAMES = [f"{i}.tif" for i in range(10)]


def run(data: Path, *options: str) -> Result:
    arguments = ["--data", str(data), "--layout", "pairs", "--output", str(data / "run"), *SMALL]
    return CliRunner().invoke(train, [*arguments, "--val-fraction", "0.1", *options])


def settings(data: Path, **values: Any) -> TrainSettings:
    return TrainSettings.model_validate(
        {"data": str(data), "layout": "pairs", "val_fraction": 0.1} | values
    )


def parts(data: Path) -> dict[str, list[str]]:
    """The names of the files of each part of the split."""
    split = split_frames(find_frames(settings(data)), 0.1, 0.2)
    found = {"train": split.train, "val": split.val, "test": split.test}
    return {part: [source.image.name for source in sources] for part, sources in found.items()}


def rewrite(data: Path, folder: str, names: list[str], value: int = 0) -> None:
    for name in names:
        tiff(data / folder / name, np.full((64, 64), value, np.uint16))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "data", NAMES)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
def test_masks_are_taken_apart_where_asked_for(data: Path, kind: type) -> None:
    for name in NAMES:
        labels = nuclei(int(name[0]))[1]
        tiff(data / "labels" / name, (labels > 0).astype(kind) * kind(1))
    given_masks = run(data, "--masks")
    assert given_masks.exit_code == 0 and "--masks" not in given_masks.stderr
    assert load_checkpoint(data / "run" / "best.pt").settings.masks
    apart = load_data(settings(data, masks=True)).train
    assert all(frame.labels.max() > 1 for frame in apart)
    if kind is np.bool_:
        with pytest.raises(StackError, match=r"labels/0\.tif: labels are boolean.* --masks$"):
            load_data(settings(data))
        return
    together = load_data(settings(data))
    assert all(frame.labels.max() == 1 for frame in together.train)
    (hint,) = together.remarks
    assert hint.startswith("images/") and hint.endswith("give --masks")


def test_a_hint_is_printed_once_and_the_truth_is_used_as_it_is(data: Path) -> None:
    for name in NAMES:
        labels = nuclei(int(name[0]))[1]
        tiff(data / "labels" / name, np.where(labels > 0, 255, 0).astype(np.uint8))
    done = run(data)
    assert done.exit_code == 0
    assert done.stderr.count("one id and") == 1


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_images_are_no_truth(data: Path, part: str) -> None:
    (name, *_) = parts(data)[part]
    noise = np.random.default_rng(0).integers(1, 200, (64, 64)).astype(np.uint8)
    tiff(data / "labels" / name, noise)
    done = run(data)
    assert isinstance(done.exception, StackError)
    assert f"the truth of images/{name}: looks like an image" in str(done.exception)
    assert not (data / "run").exists()


def test_ids_are_no_masks(data: Path) -> None:
    done = run(data, "--masks")
    assert isinstance(done.exception, StackError)
    assert "has the values 1 and 6, so it is not a mask; omit --masks" in str(done.exception)


def test_a_frame_without_an_object_teaches_background(data: Path) -> None:
    names = parts(data)
    rewrite(data, "labels", [*names["train"][1:], *names["test"]])
    done = run(data)
    assert done.exit_code == 0
    assert len(load_data(settings(data, test_fraction=0.2)).train) == len(names["train"])
    best = load_checkpoint(data / "run" / "best.pt")
    assert best.scores["val_f1"] < 1
    # A test part without an object has no F1 unless something is found there, and then it is 0.
    assert best.scores.get("test_f1", 0) == 0
    assert ("F1 is not defined" in done.stderr) == ("test_f1" not in best.scores)


@pytest.mark.parametrize(("part", "word"), [("train", "training"), ("val", "validation")])
def test_a_part_without_an_object_is_refused(data: Path, part: str, word: str) -> None:
    rewrite(data, "labels", parts(data)[part])
    done = run(data)
    assert isinstance(done.exception, StackError)
    assert f"the truth of the {word} part has no object in any of its" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (data / "run" / "best.pt").exists()


def test_objects_in_the_margin_do_not_count(data: Path) -> None:
    with pytest.raises(StackError, match="no object inside --ignore-border 31"):
        load_data(settings(data, ignore_border=31))


def test_a_blank_image_is_left_out_with_a_word(data: Path) -> None:
    names = parts(data)
    blank = [names["train"][0], names["test"][0]]
    rewrite(data, "images", blank, 77)
    done = run(data)
    assert done.exit_code == 0
    for name in blank:
        assert f"images/{name}: every pixel has the value 77; left out" in done.stderr
    saved = json.loads((data / "run" / "split.json").read_text())
    assert saved["left_out"] == [f"images/{name}" for name in blank]
    left = load_data(settings(data, test_fraction=0.2)).train
    assert f"images/{blank[0]}" not in [frame.name for frame in left]


@pytest.mark.parametrize(("part", "word"), [("train", "training"), ("val", "validation")])
def test_blank_images_alone_are_refused(data: Path, part: str, word: str) -> None:
    rewrite(data, "images", parts(data)[part], 77)
    done = run(data)
    assert isinstance(done.exception, StackError)
    assert f"no image of the {word} part can be used" in str(done.exception)
    assert "every pixel has the value 77" in str(done.exception)


def test_an_image_that_is_not_finite_is_refused_by_its_name(data: Path) -> None:
    image = np.random.default_rng(0).random((64, 64), np.float32)
    image[3, 4] = np.nan
    tiff(data / "images/4.tif", image)
    with pytest.raises(StackError, match=r"images/4\.tif: 1 of 4096 pixels are NaN"):
        load_part(find_frames(settings(data)), settings(data))
    with pytest.raises(StackError, match="NaN"):
        make_frame("a", np.full((1, 8, 8), np.nan, np.float32), image, Normalisation())  # type: ignore[arg-type]


def test_a_test_part_that_cannot_be_read_is_refused_before_training(data: Path) -> None:
    name = parts(data)["test"][0]
    tiff(data / "labels" / name, nuclei(0)[1].astype(np.float32) / 2)
    done = run(data)
    assert f"labels/{name}: labels must be whole numbers" in str(done.exception)
    assert not (data / "run" / "best.pt").exists()
    tiff(data / "labels" / name, nuclei(0)[1])
    colour = np.dstack([nuclei(i)[0] for i in range(3)])
    tiff(data / "images" / name, colour, photometric="rgb")
    assert f"images/{name} has 3 channels" in str(run(data).exception)


GREY, OPAQUE = nuclei(0)[0].astype(np.uint8), np.full((64, 64), 255, np.uint8)
COLOURS = [GREY, GREY // 2, GREY // 3]
HALF = OPAQUE // 2  # not opaque, and yet without contrast


@pytest.mark.parametrize(
    ("channels", "kept"),
    [
        ([GREY], 1),
        ([GREY, OPAQUE], 1),
        ([GREY, GREY[::-1]], 2),
        (COLOURS, 3),
        ([*COLOURS, OPAQUE], 3),
        ([*COLOURS, GREY[::-1]], 4),
        ([*COLOURS, HALF], 4),
        ([GREY, GREY, GREY, OPAQUE], 1),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_an_opaque_alpha_is_no_channel(
    channels: list[NDArray[np.uint8]], kept: int, deep: bool, tmp_path: Path
) -> None:
    pixels = np.dstack(channels)
    pixels = pixels.astype(np.uint16) * 257 if deep else pixels
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    found = read_image(tmp_path / "a.png")
    assert np.array_equal(found, np.moveaxis(pixels, -1, 0)[:kept])
    if len(channels) == 4:
        tiff(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
        assert np.array_equal(read_image(tmp_path / "a.tif"), found)


def test_a_channel_without_contrast_is_named() -> None:
    image, labels = np.stack([*COLOURS, HALF]), np.ones((64, 64), np.int32)
    with pytest.raises(NoContrast) as caught:
        make_frame("images/a.png", image, labels, Normalisation())
    assert str(caught.value) == (
        "images/a.png: every pixel of channel 3 (alpha, if it is RGBA) has the value 127"
    )
    with pytest.raises(NoContrast, match="of channel 1 has the value 127"):
        make_frame("a", image[[0, 3]], labels, Normalisation())
    fixed = Normalisation(policy="range", low=0, high=255)
    assert len(make_frame("a", image, labels, fixed).image) == 4, "nothing is divided by"


@given(
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(1, 5),
    st.sampled_from(["YXC", "CYX"]),
    st.booleans(),
)
def test_what_is_dropped_is_an_opaque_last_channel(
    kind: type, count: int, letters: str, opaque: bool
) -> None:
    pixels = np.random.default_rng(count).integers(0, 2, (count, 6, 7)).astype(kind)
    top = 1 if kind is np.float32 else np.iinfo(kind).max
    pixels[-1] = top
    pixels[-1, 2, 3] = top if opaque else 0
    dropped = opaque and count in (2, 4)
    left = pixels[: count - dropped]
    given_pixels = np.moveaxis(pixels, 0, -1) if letters == "YXC" else pixels
    found, axes = without_opaque_alpha(given_pixels, letters)
    assert axes == ("YX" if len(left) == 1 else letters)
    back = found if axes == letters else found[None]
    assert np.array_equal(np.moveaxis(back, -1, 0) if axes == "YXC" else back, left)
