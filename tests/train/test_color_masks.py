"""Masks whose colours are classes: palettes, their errors, and slices of several sizes."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import StackError, UsageError
from engine.model.spec import Normalisation
from engine.truth.color_masks import class_numbers
from engine.truth.palette import Palette, read_palette
from export.onnx import export_run
from tests.stacks import dicoms
from tests.train.heart import acdc_colours, heart_settings, heart_slice, write_hearts
from tests.train.runs import silent
from train.data.dataset import find_frames, load_data, load_part
from train.data.frames import make_frame
from train.data.patches import cut_patch
from train.fit import fit
from train.geometry import Geometry
from train.settings import TrainSettings

BINARY = {"tolerance": 200, "classes": [{"name": "background", "color": [0, 0, 0]},
                                        {"name": "heart", "color": [255, 255, 255]}]}  # fmt: skip


def test_the_palettes_that_ship() -> None:
    ct, acdc = read_palette("heart-ct"), read_palette("acdc")
    assert len(ct.classes) == 9
    assert dict(zip(ct.names, (c.color for c in ct.classes), strict=True))["vena cava"] == "#ffa500"
    assert [(c.name, c.rgb) for c in acdc.classes] == [
        ("background", (0, 0, 0)), ("right ventricle", (0, 255, 0)),
        ("myocardium", (255, 0, 0)), ("left ventricle", (0, 0, 255)),
    ]  # fmt: skip


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(BINARY))
    (tmp_path / "p.yaml").write_text(
        "tolerance: 200\nclasses:\n- {name: background, color: '#000000'}\n"
        "- {name: heart, colors: ['#FFFFFF']}\n"
    )
    assert read_palette(str(tmp_path / "p.json")) == read_palette(str(tmp_path / "p.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not YAML or JSON"),
        ("- a", "has no list of classes"),
        ("classes: [{name: background, color: '#000000'}]", "at least 2 items"),
        ("classes: [{name: a, color: '#000000'}, {name: a, color: '#000001'}]", "two classes are"),
        ("classes: [{name: a, color: '#000000'}, {name: b, color: '#000000'}]", "are both #000000"),
        ("classes: [{name: a, color: black}, {name: b, color: '#000000'}]", "classes.0.colors.0"),
        ("classes: [{name: a, color: [0, 0, 256]}, {name: b, color: '#000000'}]", "0 to 255"),
    ],
)
def test_a_palette_that_is_none_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_palette(str(tmp_path / "p.yaml"))
    with pytest.raises(UsageError, match="neither a file nor one of acdc, binary, heart-ct"):
        read_palette("missing")


def test_masks_become_class_numbers_and_patients_stay_together(tmp_path: Path) -> None:
    how = heart_settings(write_hearts(tmp_path))
    sources = find_frames(how)
    assert {s.group for s in sources} == {f"patient{n:03d}" for n in range(6)}
    for frame, seed in zip(load_part(sources[:4], how).frames, (0, 1, 10, 11), strict=True):
        assert np.array_equal(frame.labels, heart_slice(seed, frame.shape)[1])
    parts = load_data(how).split.as_json()
    groups = [set(parts[name]["groups"]) for name in ("train", "val")]
    assert not groups[0] & groups[1]
    assert {s.group for s in find_frames(heart_settings(tmp_path, group=r"_(z\d+)"))} == {
        "z00", "z01"
    }  # fmt: skip


def test_an_unknown_colour_is_named_with_file_count_and_place(tmp_path: Path) -> None:
    how = heart_settings(write_hearts(tmp_path))
    mask = acdc_colours(heart_slice(0, (40, 56))[1])
    mask[7, 5] = mask[30, 2] = (1, 2, 3)
    file = tmp_path / "masks" / "patient000_z00.png"
    file.write_bytes(imagecodecs.png_encode(mask))
    with pytest.raises(
        StackError,
        match=r"patient000_z00\.png: .*#010203 in 2 pixels, the first at row 7, column 5",
    ):
        load_data(how)
    near = how.palette.model_copy(update={"tolerance": 4.0})  # type: ignore[union-attr]
    assert load_data(how.model_copy(update={"palette": near})).train


def test_jpeg_masks_need_a_tolerance(tmp_path: Path) -> None:
    root = write_hearts(tmp_path)
    for file in sorted((root / "masks").iterdir()):
        grey = np.uint8(255) * (imagecodecs.png_decode(file.read_bytes()).max(axis=-1) > 0)
        file.unlink()
        file.with_suffix(".jpg").write_bytes(imagecodecs.jpeg_encode(grey.astype(np.uint8)))
    strict = BINARY | {"tolerance": 0}
    with pytest.raises(StackError, match=r"\.jpg: is JPEG, which changes colours.*tolerance"):
        load_data(heart_settings(root, palette=strict))
    frame = load_data(heart_settings(root, palette=BINARY)).train[0]
    seed = int(Path(frame.name).stem[7:10]) * 10 + int(Path(frame.name).stem[-2:])
    assert np.mean((heart_slice(seed, frame.shape)[1] > 0) == frame.labels) > 0.99


@pytest.mark.parametrize(("subsampling", "tolerance"), [("444", 60), ("420", 230)])
def test_the_tolerances_that_jpeg_masks_are_said_to_need(subsampling: str, tolerance: int) -> None:
    _, classes = heart_slice(3, (160, 160))
    coded = imagecodecs.jpeg_encode(acdc_colours(classes), level=90, subsampling=subsampling)
    palette = read_palette("acdc").model_copy(update={"tolerance": tolerance})
    found = class_numbers(imagecodecs.jpeg_decode(coded), palette, Path("mask"))
    assert np.count_nonzero(found != classes) <= 0.06 * np.count_nonzero(classes)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 120))
def test_the_nearest_colour_within_the_tolerance(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    palette = read_palette("acdc").model_copy(update={"tolerance": tolerance})
    picture = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    rgb = np.array([one.rgb for one in palette.classes], float)
    distance = np.linalg.norm(picture[:, :, None].astype(float) - rgb, axis=-1)
    if (distance.min(axis=-1) > tolerance).any():
        with pytest.raises(StackError, match="that of no class"):
            class_numbers(picture, palette, Path("mask"))
    else:
        assert np.array_equal(class_numbers(picture, palette, Path("mask")), distance.argmin(-1))


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 40), st.integers(5, 40), st.integers(0, 2**32 - 1))
def test_a_slice_is_padded_or_cropped_and_never_stretched(
    height: int, width: int, seed: int
) -> None:
    """Image, mask and what counts of them at the same places, and background beyond them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 250, (1, height, width)).astype(np.uint8)
    labels = rng.integers(0, 4, (height, width)).astype(np.int32)
    frame = make_frame("one", image, labels, Normalisation(policy="range", low=1, high=101))
    top, left = (int(rng.integers(-20, 20)) for _ in range(2))
    cut = Geometry(np.eye(2), np.array([top, left], float), 24).on((height, width))
    patch, truth, counts = cut_patch(frame, cut, padded=True)
    for y, x in np.ndindex(24, 24):
        at = (y + top, x + left)
        inside = 0 <= at[0] < height and 0 <= at[1] < width
        assert patch[0, y, x] == pytest.approx((image[0][at] - 1) / 100 if inside else 0)
        assert truth[y, x] == (labels[at] if inside else 0)
    assert counts.all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_images_have_up_to_four_channels(count: int, tmp_path: Path) -> None:
    """Grey is the rest of the tests; three are red, green and blue, or any others."""
    root = write_hearts(tmp_path / "data")
    for file in sorted((root / "images").iterdir()):
        grey = imagecodecs.png_decode(file.read_bytes())
        pixels = np.stack([grey // (n + 1) for n in range(count)])
        file.unlink()
        if count == 3:
            file.write_bytes(imagecodecs.png_encode(np.moveaxis(pixels, 0, -1).copy()))
        else:
            tifffile.imwrite(file.with_suffix(".tif"), pixels, metadata={"axes": "CYX"},
                             photometric="minisblack", planarconfig="separate")  # fmt: skip
    fit(heart_settings(root, epochs=1, steps_per_epoch=1), tmp_path / "run", note=silent)
    spec = export_run(tmp_path / "run", tmp_path / "model.onnx")
    assert (len(spec.channels), len(spec.classes)) == (count, 4)


def test_options_that_do_not_fit_colour_masks(tmp_path: Path) -> None:
    for values, words in (
        ({"palette": None}, "needs a palette"),
        ({"masks": True}, "`masks` is for truth of objects"),
        ({"synthetic": 3}, "`synthetic` is for truth of objects"),
    ):
        with pytest.raises(ValueError, match=words):
            heart_settings(tmp_path, **values)
    with pytest.raises(ValueError, match="`palette` and `class_weights` are for `layout`"):
        TrainSettings.model_validate({"data": ".", "layout": "pairs", "palette": "acdc"})
    assert Palette.model_validate(BINARY).names == ("background", "heart")


def test_images_may_be_slices_of_dicom(tmp_path: Path) -> None:
    """By their Hounsfield units, each beside the mask of its name."""
    pytest.importorskip("pydicom")
    root = write_hearts(tmp_path)
    for file in sorted((root / "images").iterdir()):
        grey = imagecodecs.png_decode(file.read_bytes()).astype(np.int16)
        dicoms.write(file.with_suffix(".dcm"), grey, RescaleSlope=2, RescaleIntercept=-1000)
        file.unlink()
    frame = load_part(find_frames(heart_settings(root))[:1], heart_settings(root)).frames[0]
    grey, classes = heart_slice(0, (40, 56))
    assert np.array_equal(frame.image[0], 2 * grey.astype(int) - 1000)
    assert np.array_equal(frame.labels, classes)
