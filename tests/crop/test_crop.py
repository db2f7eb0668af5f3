"""Regions of interest: boxes, margins, pixels, and where the parts lie in the whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from engine.commands.crop import crop as command
from engine.errors import NothingFound, OutputError, StackError, UsageError
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.results.crop.boxes import Box, Margin, find_boxes, parse_margin, together, widened
from engine.results.crop.run import crop
from engine.results.planes import open_planes
from engine.results.result import open_result
from engine.stacks.open import open_stack
from tests import networks, results
from tests.engine import jobs

SHAPE = (2, 3, 40, 48)  # T, Z, Y, X
PIXEL_UM = 0.5


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A job's class map of two channels, T, Z, Y, X, its labels, and what they come from."""
    place = tmp_path_factory.mktemp("deep")
    pixels = np.stack([jobs.blobs(SHAPE), jobs.blobs(SHAPE, 1)], axis=2)
    source = results.write_ome(place / "four.ome.tif", pixels, "TZCYX")
    network = networks.unet((4, 4), n_outputs=3, positive=False, seed=35)
    spec = networks.spec(network, classes=("background", "rim", "body"))
    model = networks.save(place / "c.onnx", network, spec)
    job = jobs.settings(source, model, place / "out", workers=1, channel="0")
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 1, 10:14, 20:25] = 1
    labels[1, 2, 12:20, 22:23] = 1
    labels[:, :, 30:33, 2:4] = 2
    zarr.open_array(place / "out/four.zarr/labels/test/0", mode="r+")[...] = labels
    return place / "out", labels, pixels


class Drawn:
    """Labels of one time point, (Z, Y, X), in bands of two rows."""

    pixel_size_um = {"Y": 0.5, "X": 0.25}  # noqa: RUF012
    first = (0, 3)

    def __init__(self, array):
        self.array = array
        self.numbers = [(0, 3 + z) for z in range(len(array))]

    def size(self, axis):
        return self.array.shape["ZYX".index(axis)]

    def bands(self):
        return [slice(y, min(y + 2, self.size("Y"))) for y in range(0, self.size("Y"), 2)]

    def read(self, t, z, rows):
        return self.array[z - 3, rows]


@settings(max_examples=60)
@given(
    arrays(np.uint8, (3, 7, 6), elements=st.integers(0, 2), fill=st.just(0)),
    st.sampled_from([{1}, {2}, {1, 2}, None]),
    st.integers(0, 3),
)
def test_boxes_are_the_smallest_around_what_is_wanted(array, values, px):
    labels = Drawn(array)
    mask = array != 0 if values is None else np.isin(array, list(values))
    boxes = find_boxes(labels, values)
    assert set(boxes) == {(0, 3 + z) for z in range(3) if mask[z].any()}
    for (_, z), box in boxes.items():
        y, x = np.nonzero(mask[z - 3])
        assert box == ((z, z + 1), (y.min(), y.max() + 1), (x.min(), x.max() + 1))
    if boxes:
        z, y, x = np.nonzero(mask)
        whole = together(boxes.values())
        assert whole == tuple((a.min() + n, a.max() + 1 + n) for a, n in ((z, 3), (y, 0), (x, 0)))
        wide = widened(whole, Margin(px), labels, along_z=True)
        assert wide.z == whole.z
        assert wide.y == (max(whole.y[0] - px, 0), min(whole.y[1] + px, 7))


def test_margins_in_px_and_lengths():
    assert parse_margin("10px") == parse_margin("10") == Margin(10)
    assert parse_margin("5mm") == Margin(um=5000) and parse_margin(" 2.5 um ") == Margin(um=2.5)
    for text in ("", "-1px", "1.5px", "3 inch", "mm"):
        with pytest.raises(UsageError, match="--margin"):
            parse_margin(text)
    labels = Drawn(np.zeros((9, 20, 20), np.uint8))
    box = Box((6, 7), (10, 11), (10, 11))
    assert widened(box, Margin(um=1.1), labels, along_z=True) == ((6, 7), (7, 14), (5, 16))
    labels.pixel_size_um = {"Z": 1.0, "Y": 0.5, "X": 0.25}
    assert widened(box, Margin(um=1.1), labels, along_z=True).z == (4, 9)
    assert widened(box, Margin(um=1.1), labels, along_z=False).z == (6, 7)
    labels.pixel_size_um = {}
    with pytest.raises(UsageError, match="knows no pixel size; give it in px"):
        widened(box, Margin(um=1.1), labels, along_z=True)


def test_one_box_for_the_volume_lies_at_its_place(deep, tmp_path):
    out, labels, pixels = deep
    (path,) = crop(out, "rim", "1um", tmp_path)
    assert path == tmp_path / "four.zarr"
    inside = np.s_[:, 1:3, 8:22, 18:27]  # 10:20 and 20:25, with 2 px more on each side
    found = zarr.open_array(path / "labels/test/0", mode="r")[...]
    np.testing.assert_array_equal(found, labels[inside])
    image = zarr.open_array(path / "0", mode="r")[...]  # T, C, Z, Y, X
    np.testing.assert_array_equal(image, pixels.transpose(0, 2, 1, 3, 4)[:, :, 1:3, 8:22, 18:27])
    whole = open_planes(out / "four.zarr/labels/test")
    for group, names in ((path, "tczyx"), (path / "labels/test", "tzyx")):
        opened = (Image if group == path else ImageLabel).from_zarr(zarr.open_group(group))
        (scale,) = opened.attributes.ome.multiscales
        assert [axis.name for axis in scale.axes] == list(names)
        steps, shift = scale.datasets[0].coordinateTransformations
        place = dict(zip(names, zip(steps.scale, shift.translation, strict=True), strict=True))
        assert place["y"] == (PIXEL_UM, 8 * PIXEL_UM) and place["x"] == (PIXEL_UM, 18 * PIXEL_UM)
        assert place["z"] == (1, 1) and place["t"] == (results.STEP, 0)
        assert {a.name: a.unit for a in scale.axes}["x"] == "micrometer"
    assert whole.pixel_size_um == open_planes(path / "labels/test").pixel_size_um


def test_a_crop_is_read_as_a_result_and_as_a_stack(deep, tmp_path):
    out, labels, pixels = deep
    (path,) = crop(out, "body", "0px", tmp_path)
    (stack,) = open_result(path)
    assert [c.name for c in stack.classes] == ["background", "rim", "body"]
    np.testing.assert_array_equal(stack.labels.read(1, 2), labels[1, 2, 30:33, 2:4])
    with open_stack(str(path)) as opened:
        assert (opened.info.axes, opened.info.shape) == ("TCZYX", (2, 2, 3, 3, 2))
        np.testing.assert_array_equal(opened.read(1, 2, [1])[0], pixels[1, 2, 1, 30:33, 2:4])


def test_a_box_for_each_slice(deep, tmp_path):
    out, labels, pixels = deep
    paths = crop(out, "rim", "3px", tmp_path, per_slice=True)
    assert [p.name for p in paths] == ["four_t0000_z001.zarr", "four_t0001_z002.zarr"]
    found = zarr.open_array(paths[1] / "labels/test/0", mode="r")[...]
    np.testing.assert_array_equal(found, labels[1:, 2:, 9:23, 19:26])
    image = zarr.open_array(paths[1] / "0", mode="r")[...]
    np.testing.assert_array_equal(image[0, :, 0], pixels[1, 2, :, 9:23, 19:26])
    (stack,) = open_result(paths[1])
    assert stack.labels.first == (1, 2)
    np.testing.assert_array_equal(stack.labels.read(1, 2), labels[1, 2, 9:23, 19:26])


def test_objects_are_one_class_or_foreground(tmp_path):
    source = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((2, 40, 48)))
    out = results.make_result(tmp_path, [source])
    labels = jobs.labels_of(out, "s")
    y, x = np.flatnonzero(labels.any((0, 2))), np.flatnonzero(labels.any((0, 1)))
    for name in ("nucleus", "foreground"):
        (path,) = crop(out, name, "0", tmp_path / name)
        found = zarr.open_array(path / "labels/threshold/0", mode="r")[...]
        expected = labels[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        np.testing.assert_array_equal(found, expected, "ids stay")
    with pytest.raises(UsageError, match="the result knows no pixel size"):
        crop(out, "nucleus", "5mm", tmp_path / "o")
    with pytest.raises(UsageError, match=r"--class rim: .* it has nucleus, foreground"):
        crop(out, "rim", "0", tmp_path / "o")
    with pytest.raises(UsageError, match="lies in a job's folder"):
        crop(out, "nucleus", "0", out / "crops")
    source.write_bytes(source.read_bytes() + b"\0")
    with pytest.raises(StackError, match=r"s.tif: has changed since s was segmented"):
        crop(out, "nucleus", "0", tmp_path / "o")
    source.unlink()
    with pytest.raises(StackError, match=r"cannot be read again .*does not exist"):
        crop(out, "nucleus", "0", tmp_path / "o")
    shutil.copytree(out / "s.zarr", tmp_path / "moved.zarr")
    with pytest.raises(UsageError, match="was moved away from its job"):
        crop(tmp_path / "moved.zarr", "foreground", "0", tmp_path / "o")
    assert not list(tmp_path.glob("o/*"))


def test_a_class_that_is_nowhere_is_a_sentence(deep, tmp_path):
    out, labels, _ = deep
    array = zarr.open_array(out / "four.zarr/labels/test/0", mode="r+")
    try:
        with zarr.config.set({"array.write_empty_chunks": True}):
            array[...] = np.where(labels == 1, 0, labels)
        arguments = [str(out), "--class", "rim", "--output", str(tmp_path / "o")]
        done = CliRunner().invoke(command, arguments)
    finally:
        array[...] = labels
    assert isinstance(done.exception, NothingFound) and done.exception.exit_status == 1
    assert "no pixel of it is rim; nothing was written" in str(done.exception)
    assert not (tmp_path / "o").exists()


def test_what_is_there_stays_unless_asked(deep, tmp_path):
    out, _, _ = deep
    arguments = [str(out), "--class", "body", "--margin", "2px", "--output", str(tmp_path)]
    assert CliRunner().invoke(command, arguments).output.strip() == str(tmp_path / "four.zarr")
    with pytest.raises(OutputError, match="is there already"):
        crop(out, "body", "0", tmp_path)
    (path,) = crop(out, "body", "0", tmp_path, overwrite=True)
    assert zarr.open_array(path / "0", mode="r").shape[-2:] == (3, 2)
    shutil.rmtree(path)
    shutil.copytree(out / "four.zarr", path)
    with pytest.raises(OutputError, match="is not an earlier crop"):
        crop(out, "body", "0", tmp_path, overwrite=True)
    assert Path(path / "labels/test/0").is_dir()


@pytest.mark.parametrize("damaged", [5, [5], {"colors": 5}, {"properties": [{"label-value": "x"}]}])
def test_names_and_colours_that_are_none_cost_only_themselves(deep, tmp_path, damaged):
    output = shutil.copytree(deep[0], tmp_path / "out")
    group = zarr.open_group(output / "four.zarr/labels/test", mode="r+")
    group.attrs["ome"] = {**group.attrs["ome"], "image-label": damaged}
    crop(output, "foreground", "2px", tmp_path / "crop")
    found = zarr.open_group(tmp_path / "crop/four.zarr/labels/test", mode="r").attrs["ome"]
    assert found["image-label"]["source"] == {"image": "../../"}
