"""Results in other formats, read back by other readers."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
import zarr
from click.testing import CliRunner

from engine.commands.convert import convert as command
from engine.errors import MissingExtra, OutputError, StackError, StacksegError, UsageError
from engine.results.convert import geojson, run, tiff
from engine.results.convert.run import convert
from engine.results.result import open_result
from engine.results.score.compare import compare
from tests import networks, results
from tests.engine import jobs


@pytest.fixture(scope="module")
def lapse(tmp_path_factory):
    """The folder of a job over frames 2 to 5 of a time-lapse."""
    place = tmp_path_factory.mktemp("lapse")
    stack = results.write_ome(place / "lapse.ome.tif", jobs.blobs((6, 61, 83)), "TYX")
    return results.make_result(place, [stack], frames=(2, 6), min_area=3)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The folder of a job over two stacks, one of them T, Z, Y, X."""
    place = tmp_path_factory.mktemp("deep")
    four = results.write_ome(place / "four.ome.tif", jobs.blobs((2, 3, 40, 48)), "TZYX")
    flat = results.write_ome(place / "flat.ome.tif", jobs.blobs((40, 48), 1), "YX")
    return results.make_result(place, [four, flat])


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    """The folder of a job over two stacks of several planes, whose objects go on along Z."""
    place = tmp_path_factory.mktemp("connected")
    stacks = [
        results.write_ome(place / f"{name}.ome.tif", jobs.blobs((2, depth, 40, 48)), "TZYX")
        for name, depth in (("three", 3), ("two", 2))
    ]
    return results.make_result(place, stacks, connect="z")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """The folder of a job whose model gives three classes."""
    place = tmp_path_factory.mktemp("classes")
    network = networks.unet((4, 4), n_outputs=3, positive=False)
    spec = networks.spec(network, classes=("background", "rim", "body"))
    path = networks.save(place / "c.onnx", network, spec)
    from engine.job.executors import SerialExecutor
    from engine.job.job import run_job

    stack = jobs.write_stack(place / "s.tif", jobs.blobs((2, 48, 64)))
    settings = jobs.settings(stack, path, place / "out", workers=1)
    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    array = zarr.open_array(place / "out/s.zarr/labels/test/0", mode="r+")
    array[...] = np.random.default_rng(0).integers(0, 3, array.shape)
    return place / "out"


def test_tiffs_hold_the_same_labels(lapse, tmp_path):
    (path,) = convert(lapse, "tiff", tmp_path)
    assert path.name == "lapse.ome.tif"
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        assert (series.axes, series.dtype) == ("TYX", np.uint16)
        np.testing.assert_array_equal(series.asarray(), jobs.labels_of(lapse, "lapse"))
        meta = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert meta["PhysicalSizeX"] == meta["PhysicalSizeY"] == results.PIXEL
    assert meta["TimeIncrement"] == results.STEP
    from engine.stacks.open import open_stack

    with open_stack(str(path)) as stack:
        assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.5} and stack.info.time_step_s == 300


def test_large_planes_are_written_in_tiles(deep, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "BLOCK_PIXELS", 100)
    monkeypatch.setattr(tiff, "TILE", 32)
    monkeypatch.setattr(tiff, "highest_label", lambda labels: 70_000)
    paths = convert(deep, "tiff", tmp_path)
    assert [p.name for p in paths] == ["four.ome.tif", "flat.ome.tif"]
    with tifffile.TiffFile(paths[0]) as file:
        assert file.pages[0].is_tiled and file.series[0].axes == "TZYX"
        assert file.series[0].dtype == np.uint32
        np.testing.assert_array_equal(file.asarray(), jobs.labels_of(deep, "four"))


def test_challenge_masks_score_as_the_labels_themselves(lapse, tmp_path):
    (folder,) = convert(lapse, "ctc", tmp_path)
    assert folder == tmp_path / "01_RES"
    assert sorted(p.name for p in folder.iterdir()) == [f"mask{t:03d}.tif" for t in range(2, 6)]
    mask = tifffile.imread(folder / "mask003.tif")
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, jobs.labels_of(lapse, "lapse")[1])
    scores = compare(lapse, folder)
    assert len(scores.frames) == 4
    assert scores.pooled.iou == scores.pooled.seg == 1.0


def test_challenge_masks_of_volumes_and_of_several_stacks(connected, tmp_path):
    done = CliRunner().invoke(
        command, [str(connected), "--to", "ctc", "--output", str(tmp_path)], standalone_mode=False
    )
    assert done.stdout.splitlines() == [str(tmp_path / "01_RES"), str(tmp_path / "02_RES")]
    for sequence, name in (("01", "three"), ("02", "two")):
        volume = tifffile.imread(tmp_path / f"{sequence}_RES/mask001.tif")
        np.testing.assert_array_equal(volume, jobs.labels_of(connected, name)[1])


def test_planes_whose_ids_begin_anew_are_no_volume(deep, connected, tmp_path, caplog):
    """A mask would make one object of the first of each plane."""
    with pytest.raises(UsageError, match=r"four.zarr: .* 3 planes.* --connect z, or use --to tiff"):
        convert(deep, "ctc", tmp_path / "o")
    assert not (tmp_path / "o").exists()
    (folder,) = convert(deep, "ctc", tmp_path / "o", stack="flat")
    assert tifffile.imread(folder / "mask000.tif").shape == (40, 48)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    for store in (deep / "four.zarr", connected / "two.zarr"):
        caplog.clear()
        moved = tmp_path / store.parent.parent.name / store.name
        shutil.copytree(store, moved)
        assert convert(moved, "ctc", moved.parent)
        (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert told.startswith(f"{moved}: was moved away from its job")


def test_sequences_keep_their_numbers(deep):
    class Named:
        def __init__(self, name):
            self.name = name

    assert run._sequences([Named("02"), Named("01")]) == ["02", "01"]
    assert run._sequences([Named("02"), Named("a")]) == ["01", "02"]


def test_masks_that_the_challenge_cannot_hold(lapse, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "highest_label", lambda labels: 65_536)
    with pytest.raises(UsageError, match=r"label 65536.*65535; use --to tiff"):
        convert(lapse, "ctc", tmp_path / "o")
    with pytest.raises(UsageError, match="is a class map"):
        convert(classes, "ctc", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_tables_as_csv(lapse, deep, tmp_path):
    frames, objects = convert(lapse, "csv", tmp_path / "a")
    assert frames.read_text() == (lapse / "frames.csv").read_text()
    with objects.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(lapse / "objects.parquet")
    assert list(rows[0]) == table.column_names
    assert [int(r["label"]) for r in rows] == table["label"].to_pylist()
    assert [float(r["area_um2"]) for r in rows] == table["area_um2"].to_pylist()
    frames, _ = convert(deep, "csv", tmp_path / "b", stack="flat")
    assert len(frames.read_text().splitlines()) == 2


def test_a_table_that_is_damaged_is_told(lapse, tmp_path, monkeypatch):
    def damaged(path):
        raise pa.ArrowInvalid

    monkeypatch.setattr(pq, "ParquetFile", damaged)
    with pytest.raises(StackError, match=r"frames.parquet: .*\(ArrowInvalid\)"):
        convert(lapse, "csv", tmp_path)
    assert not list(tmp_path.iterdir())


def test_outlines_are_the_objects(lapse, tmp_path):
    (folder,) = convert(lapse, "geojson", tmp_path)
    labels = jobs.labels_of(lapse, "lapse")
    assert sorted(p.name for p in folder.iterdir()) == [f"t{t:04d}.geojson" for t in range(2, 6)]
    table = pq.read_table(lapse / "objects.parquet").to_pylist()
    areas = {(r["t"], r["label"]): r["area_px"] for r in table}
    seen = set()
    for t in range(2, 6):
        content = json.loads((folder / f"t{t:04d}.geojson").read_text())
        assert content["type"] == "FeatureCollection"
        drawn = np.zeros((61, 83), np.uint32)
        for feature in content["features"]:
            shape = shapely.geometry.shape(feature["geometry"])
            label = int(feature["properties"]["name"])
            assert shape.is_valid and shape.area == areas[t, label]
            y, x = np.mgrid[:61, :83] + 0.5
            drawn[shapely.contains_xy(shape, x, y)] = label
            assert feature["geometry"]["plane"] == {"c": -1, "z": 0, "t": t}
            properties = feature["properties"]
            assert properties["objectType"] == "detection"
            assert (
                properties["classification"]["color"] == [31, 119, 180]
                or len(properties["classification"]["color"]) == 3
            )
            assert properties["measurements"]["Area px^2"] == areas[t, label]
            assert properties["measurements"]["Area um^2"] == pytest.approx(shape.area / 4)
            assert properties["measurements"].keys() == {
                "Area px^2", "Area um^2", "Mean intensity", "Mean probability",
            }  # fmt: skip
            seen.add(feature["id"])
        np.testing.assert_array_equal(drawn, labels[t - 2])
    assert len(seen) == len(table), "ids are unique"


def test_outlines_without_shapely_name_what_to_install(lapse, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)
    for name in ("geojson", "polygons"):
        monkeypatch.delitem(sys.modules, f"engine.results.convert.{name}")
    with pytest.raises(
        MissingExtra, match=r"pip install '\.\[qupath\]' in stackseg's source folder$"
    ):
        convert(lapse, "geojson", tmp_path / "o")
    assert not (tmp_path / "o").exists()
    assert convert(lapse, "tiff", tmp_path / "o")


def test_outlines_tell_the_intensity_in_each_channel(tmp_path):
    """Of the table's channels those that the stack has, by their names; what is no number not."""
    pixels = jobs.blobs((2, 40, 48)).astype(np.float32)
    pixels[1, :20] = np.nan
    tifffile.imwrite(
        tmp_path / "two.ome.tif", pixels, ome=True, photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}},
    )  # fmt: skip
    jobs.write_stack(tmp_path / "bare.tif", pixels, "CYX")
    jobs.write_stack(tmp_path / "one.tif", pixels[0], "YX")
    own = {"Area px^2", "Mean probability"}
    seen = {}
    for names, more in ((["two.ome.tif", "one.tif"], "GFP"), (["bare.tif"], "1")):
        place = tmp_path / more
        place.mkdir()
        stacks = [tmp_path / name for name in names]
        result = results.make_result(place, stacks, channel="0", min_area=3)
        table = {
            (r["stack"], r["label"]): r
            for r in pq.read_table(result / "objects.parquet").to_pylist()
        }
        for folder in convert(result, "geojson", place / "o"):
            (path,) = folder.iterdir()
            for feature in json.loads(path.read_text())["features"]:
                told = feature["properties"]["measurements"]
                row = table[folder.name, int(feature["properties"]["name"])]
                for number, name in enumerate(("DAPI", "GFP") if more == "GFP" else "01"):
                    if value := told.get(f"Mean intensity: {name}"):
                        assert value == row[f"mean_intensity_{number}"]
                seen.setdefault(folder.name, set()).add(frozenset(told.keys() - own))
    assert seen == {
        "two": {
            frozenset({"Mean intensity: DAPI"}),
            frozenset({"Mean intensity: DAPI", "Mean intensity: GFP"}),
        },
        "bare": {
            frozenset({"Mean intensity: 0"}),
            frozenset({"Mean intensity: 0", "Mean intensity: 1"}),
        },
        "one": {frozenset({"Mean intensity"})},
    }


def test_outlines_of_volumes_and_of_a_store_by_itself(deep, tmp_path):
    shutil.copytree(deep / "four.zarr", tmp_path / "moved.zarr")
    (folder,) = convert(tmp_path / "moved.zarr", "geojson", tmp_path / "o")
    assert sorted(p.name for p in folder.iterdir())[:2] == [
        "t0000_z000.geojson", "t0000_z001.geojson",
    ]  # fmt: skip
    content = json.loads((folder / "t0001_z002.geojson").read_text())
    assert content["features"][0]["geometry"]["plane"] == {"c": -1, "z": 2, "t": 1}
    assert content["features"][0]["properties"]["measurements"].keys() == {"Area px^2"}
    with pytest.raises(UsageError, match=r"moved.zarr\S*: was moved away from its job"):
        convert(tmp_path / "moved.zarr", "csv", tmp_path / "o")


def test_class_maps_are_annotations(classes, tmp_path):
    (stack,) = open_result(classes)
    (folder,) = convert(classes, "geojson", tmp_path)
    content = json.loads((folder / "t0001.geojson").read_text())
    plane = stack.labels.read(1, 0)
    for feature in content["features"]:
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        (one,) = [c for c in stack.classes if c.name == properties["classification"]["name"]]
        assert properties["classification"]["color"] == list(one.rgb)
        area = shapely.geometry.shape(feature["geometry"]).area
        assert area == (plane == one.value).sum()
    assert len(content["features"]) == 2
    (path,) = convert(classes, "tiff", tmp_path)
    assert tifffile.imread(path).dtype == np.uint8


@pytest.mark.parametrize("to", ["tiff", "ctc", "csv", "geojson"])
def test_what_is_there_stays_unless_asked(lapse, tmp_path, to, monkeypatch):
    convert(lapse, to, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match="is there already"):
        convert(lapse, to, tmp_path)
    convert(lapse, to, tmp_path, overwrite=True)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    for name in ("write_stack", "write_mask", "write_csv"):
        monkeypatch.setattr(run, name, stop)
    monkeypatch.setattr(geojson, "write_frame", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(lapse, to, tmp_path, overwrite=True)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert set(after) == set(before)
    if to != "tiff":  # whose file holds an id of its own
        assert after == before


def test_a_folder_with_more_in_it_is_not_replaced(lapse, tmp_path):
    (folder,) = convert(lapse, "ctc", tmp_path)
    (folder / "res_track.txt").write_text("1 0 3 0\n")
    with pytest.raises(OutputError, match="holds more than"):
        convert(lapse, "ctc", tmp_path, overwrite=True)
    assert (folder / "res_track.txt").is_file()


def test_wrong_use(lapse, tmp_path):
    (tmp_path / "file").write_text("")
    for path, options in (
        (tmp_path / "no", {}), (lapse, {"stack": "no"}), (lapse, {"labels": "no"}),
    ):  # fmt: skip
        with pytest.raises(StacksegError):
            convert(path, "tiff", tmp_path / "o", **options)
    with pytest.raises(UsageError, match="is a file"):
        convert(lapse, "tiff", tmp_path / "file")
    assert [p.name for p in Path(tmp_path).iterdir()] == ["file"]
