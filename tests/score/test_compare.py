"""Label frames from everywhere, matched by number, and the command around them."""

import csv
import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from engine.commands.evaluate import evaluate
from engine.errors import OutputError, StackError, StacksegError, UsageError
from engine.job.job import run_job
from engine.results.score.compare import compare
from engine.results.score.picture import draw_worst
from engine.results.score.sources import open_labels
from engine.results.score.table import hints, notes, write_csv
from tests.engine import jobs

FRAMES = np.zeros((5, 20, 30), np.uint32)
for _t in range(5):
    FRAMES[_t, 2:8, 3 + _t : 10 + _t] = 1
    FRAMES[_t, 10:18, 5:25] = 2**24 + 1 + _t  # lost, were it to become float32


def as_result(folder, frames=FRAMES, first=0, step=30.0, name="lapse"):
    """A job's output folder, as `engine.store.ome_zarr` lays it out."""
    root = zarr.create_group(folder / f"{name}.zarr")
    axes = [{"name": a} for a in "tyx"]
    transforms = [
        {"type": "scale", "scale": [step, 0.5, 0.5]},
        {"type": "translation", "translation": [first * step, 0, 0]},
    ]

    def image(path):
        datasets = [{"path": path, "coordinateTransformations": transforms}]
        return {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}}

    root.attrs.update(image("labels/nuclei/0"))
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"labels": ["nuclei"]}
    nuclei = labels.create_group("nuclei")
    nuclei.attrs.update(image("0"))
    nuclei.create_array("0", data=frames, dimension_names=list("tyx"))
    return folder


def as_tiff(folder, frames=FRAMES):
    tifffile.imwrite(folder / "labels.tif", frames, metadata={"axes": "TYX"}, compression="zlib")
    return folder / "labels.tif"


def as_plain_tiff(folder, frames=FRAMES):
    tifffile.imwrite(folder / "plain.tif", frames, photometric="minisblack", metadata=None)
    return folder / "plain.tif"


def as_imagej(folder, frames=FRAMES):
    short = np.where(frames > 1, 2, frames).astype(np.uint16)
    tifffile.imwrite(folder / "ij.tif", short, imagej=True, metadata={"axes": "TYX"})
    return folder / "ij.tif"


def as_folder(folder, frames=FRAMES, stem="mask", numbers=None):
    for t, frame in zip(numbers or range(len(frames)), frames, strict=True):
        tifffile.imwrite(folder / f"{stem}{t:03d}.tif", frame)
    return folder


def as_pngs(folder, frames=FRAMES):
    for t, frame in enumerate(frames):
        short = np.where(frame > 1, 2, frame).astype(np.uint16)
        (folder / f"frame_{t}.png").write_bytes(imagecodecs.png_encode(short))
    return folder


def as_challenge(folder, frames=FRAMES):
    (folder / "01_ST" / "SEG").mkdir(parents=True)
    (folder / "01").mkdir()
    as_folder(folder / "01_ST" / "SEG", frames, "man_seg")
    return folder


def as_zarr_array(folder, frames=FRAMES):
    zarr.create_array(folder / "a.zarr", data=frames)
    return folder / "a.zarr"


def as_zarr2(folder, frames=FRAMES):
    group = zarr.create_group(folder / "v2.zarr", zarr_format=2)
    group.create_array("0", data=frames)
    axes = [{"name": a} for a in "tyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    return folder / "v2.zarr"


EVERYWHERE = [
    as_result, as_tiff, as_plain_tiff, as_imagej, as_folder, as_pngs, as_challenge,
    as_zarr_array, as_zarr2,
]  # fmt: skip


@pytest.fixture
def truth(tmp_path):
    (tmp_path / "truth").mkdir()
    return as_folder(tmp_path / "truth", stem="man_seg")


@pytest.mark.parametrize("make", EVERYWHERE)
def test_labels_from_everywhere(make, tmp_path, truth):
    (tmp_path / "labels").mkdir()
    comparison = compare(make(tmp_path / "labels"), truth)
    assert [f.number for f in comparison.frames] == [(t, 0) for t in range(5)]
    assert comparison.pooled.seg == 1
    assert comparison.pooled.truth_objects == 10


def test_a_label_image_of_other_software_is_read_as_images_are(tmp_path):
    """OME-Zarr 0.4, the smallest level first, paths that are numbers, the axes of 0.3."""
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_group("labels").attrs["labels"] = ["cells"]
    image = group.create_group("labels/cells")
    datasets = [{"path": 1}, {"path": 0}]
    image.attrs["multiscales"] = [{"axes": ["t", "y", "x"], "datasets": datasets}]
    image.create_array("0", data=FRAMES)
    image.create_array("1", data=FRAMES[:, ::2, ::2])
    frames = open_labels(tmp_path / "a.zarr")
    assert frames.numbers == tuple((t, 0) for t in range(len(FRAMES)))
    for t, frame in enumerate(FRAMES):
        np.testing.assert_array_equal(frames.read((t, 0)), frame)


@pytest.mark.parametrize("inside", ["lapse.zarr", "lapse.zarr/labels/nuclei", "lapse.zarr/labels"])
def test_parts_of_a_result(inside, tmp_path):
    assert len(open_labels(as_result(tmp_path) / inside).numbers) == 5


def test_a_later_part_is_matched_by_number(tmp_path, truth):
    (tmp_path / "part").mkdir()
    comparison = compare(as_result(tmp_path / "part", FRAMES[2:4], first=2), truth)
    assert [f.number for f in comparison.frames] == [(2, 0), (3, 0)]
    assert comparison.pooled.seg == 1
    assert (comparison.without_truth, comparison.truth_without_result) == (0, 3)


def test_frames_without_truth_are_skipped_and_counted(tmp_path):
    (tmp_path / "sparse").mkdir()
    truth = as_folder(tmp_path / "sparse", FRAMES[[1, 4]], "man_seg", numbers=[1, 4])
    comparison = compare(as_tiff(tmp_path), truth)
    assert (len(comparison.frames), comparison.without_truth, comparison.truth_without_result) == (
        2,
        3,
        0,
    )


def test_truth_without_a_result_in_between_is_an_error_that_names_it(tmp_path, truth):
    (tmp_path / "gaps").mkdir()
    gaps = as_folder(tmp_path / "gaps", FRAMES[[0, 1, 4]], numbers=[0, 1, 4])
    with pytest.raises(UsageError, match=r"2 frames of the truth \(2, 3\)"):
        compare(gaps, truth)


def test_nothing_in_common(tmp_path, truth):
    (tmp_path / "late").mkdir()
    late = as_folder(tmp_path / "late", numbers=range(10, 15))
    with pytest.raises(UsageError, match="frames 10 to 14, the truth frames 0 to 4"):
        compare(late, truth)


def test_two_single_images_are_compared_whatever_their_names(tmp_path):
    for name in ("result7.tif", "truth.tif"):
        tifffile.imwrite(tmp_path / name, FRAMES[0])
    assert compare(tmp_path / "result7.tif", tmp_path / "truth.tif").pooled.seg == 1


def test_planes_of_a_volume_and_of_a_time_lapse_of_volumes(tmp_path):
    deep = np.stack([FRAMES, FRAMES[::-1]])  # T 2, Z 5
    tifffile.imwrite(tmp_path / "tzyx.tif", deep, metadata={"axes": "TZYX"})
    assert open_labels(tmp_path / "tzyx.tif").numbers[-1] == (1, 4)
    np.testing.assert_array_equal(open_labels(tmp_path / "tzyx.tif").read((1, 0)), FRAMES[4])
    tifffile.imwrite(tmp_path / "zyx.tif", FRAMES, metadata={"axes": "ZYX"})
    assert open_labels(tmp_path / "zyx.tif").numbers[-1] == (4, 0)
    for z in (1, 3):  # a sparse 3-D truth of the challenge: man_seg_TTT_ZZZ.tif
        (tmp_path / "SEG").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "SEG" / f"man_seg_001_{z:03d}.tif", deep[1, z])
    comparison = compare(tmp_path / "tzyx.tif", tmp_path / "SEG")
    assert [f.number for f in comparison.frames] == [(1, 1), (1, 3)]
    assert comparison.pooled.seg == 1


def test_unnumbered_files_count_by_natural_order(tmp_path):
    for name, frame in zip(("t2_a.tif", "t10_a.tif"), FRAMES, strict=False):
        tifffile.imwrite(tmp_path / name, frame)
    opened = open_labels(tmp_path)
    np.testing.assert_array_equal(opened.read((0, 0)), FRAMES[0])
    np.testing.assert_array_equal(opened.read((1, 0)), FRAMES[1])


def test_markers_of_a_challenge_folder_are_what_det_is_against(tmp_path):
    """SEG over the frames that have it, DET over those with markers, as in the challenge."""
    (tmp_path / "01_GT/SEG").mkdir(parents=True)
    (tmp_path / "01_GT/TRA").mkdir()
    as_folder(tmp_path / "01_GT/SEG", FRAMES[[1, 3]], "man_seg", numbers=[1, 3])
    markers = np.zeros_like(FRAMES)[[0, 1, 4]]
    markers[:, 5, 8], markers[:, 12, 12], markers[:, 0, 0] = 1, 2, 3
    as_folder(tmp_path / "01_GT/TRA", markers, "man_track", numbers=[0, 1, 4])
    (tmp_path / "01_GT/TRA/man_track.txt").write_text("1 0 4 0\n")
    (tmp_path / "01_RES").mkdir()
    comparison = compare(as_folder(tmp_path / "01_RES"), tmp_path / "01_GT")
    assert [f.number[0] for f in comparison.frames] == [0, 1, 3, 4]
    pooled = comparison.pooled
    assert (pooled.frames, pooled.truth_objects, pooled.seg) == (2, 4, 1)
    assert (pooled.detection.markers, pooled.detection.missed, pooled.detection.spurious) == (
        9,
        3,
        0,
    )
    assert pooled.det == pytest.approx(1 - 30 / 90)
    assert pooled.op_csb == pytest.approx((1 + 2 / 3) / 2)
    rows = comparison.rows()
    assert [row["seg"] for row in rows] == [None, 1, 1, None]
    assert [row["det"] is None for row in rows] == [False, False, True, False]
    assert comparison.without_truth == 1 and "TRA" in comparison.det_against[0]
    alone = compare(tmp_path / "01_RES", tmp_path / "01_GT/TRA")
    assert alone.pooled.det == pooled.det and alone.pooled.frames == 0
    assert any("no frame here has a truth of objects" in line for line in notes(alone))
    assert any("the other scores are of the 2 with" in line for line in notes(comparison))
    objects = compare(tmp_path / "01_RES", tmp_path / "01_GT/SEG")
    assert objects.pooled.det == 1 and objects.det_against == ("the objects of the truth",)


def test_volumes(tmp_path):
    """An object that goes on from plane to plane is one; by planes, it is found once in two."""
    truth = np.zeros((2, 3, 8, 8), np.uint16)
    truth[:, :, 2:6, 2:6] = 1
    result = truth.copy()
    result[:, 0] = 0
    for name, volumes in (("truth", truth), ("result", result)):
        (tmp_path / name).mkdir()
        for t, volume in enumerate(volumes):
            path = tmp_path / name / f"mask{t:03d}.tif"
            tifffile.imwrite(path, volume, metadata={"axes": "ZYX"}, photometric="minisblack")
    by_planes = compare(tmp_path / "result", tmp_path / "truth").pooled
    whole = compare(tmp_path / "result", tmp_path / "truth", volumes=True)
    assert (by_planes.frames, by_planes.truth_objects) == (6, 6)
    assert [f.number for f in whole.frames] == [(0, 0), (1, 0)]
    assert (whole.pooled.frames, whole.pooled.truth_objects) == (2, 2)
    assert by_planes.seg == whole.pooled.seg == pytest.approx(2 / 3)
    assert whole.pooled.f1[:2] == (1, 1) and by_planes.f1[0] == pytest.approx(0.8)
    for name, volume in (("truth", truth[0]), ("result", result[0])):  # one volume, without T
        tifffile.imwrite(tmp_path / f"{name}.tif", volume, metadata={"axes": "ZYX"})
    one = compare(tmp_path / "result.tif", tmp_path / "truth.tif", volumes=True)
    assert (one.pooled.frames, one.pooled.truth_objects) == (1, 1)


def test_a_result_whose_planes_connect_says_how_to_score_it(tmp_path, threshold_model):
    image = np.zeros((3, 40, 40), np.uint16)
    image[:, 10:20, 10:20] = 1000
    jobs.write_stack(tmp_path / "image.tif", image, "ZYX")
    run_job(jobs.settings(tmp_path / "image.tif", threshold_model, tmp_path / "out", connect="z"))
    for volumes in (False, True):
        comparison = compare(tmp_path / "out", tmp_path / "out", volumes=volumes)
        assert comparison.pooled.frames == (1 if volumes else 3)
        assert any("--volumes" in line for line in hints(comparison)) != volumes


@pytest.mark.parametrize("axes", ["TYX", "ZYX"])
def test_frames_that_were_set_aside_are_named(tmp_path, threshold_model, axes):
    frames = FRAMES.clip(0, 2).astype(np.float32) * 1000
    frames[[1, 3]] = np.nan
    jobs.write_stack(tmp_path / "image.tif", frames, axes)
    run_job(jobs.settings(tmp_path / "image.tif", threshold_model, tmp_path / "out"))
    tifffile.imwrite(tmp_path / "truth.tif", FRAMES, metadata={"axes": axes})
    comparison = compare(tmp_path / "out", tmp_path / "truth.tif")
    assert [f.set_aside for f in comparison.frames] == [False, True, False, True, False]
    assert hints(comparison)[0].startswith("the job set 2 frames aside (1, 3): they have no labels")
    assert comparison.to_dict()["set_aside"] == 2
    assert not hints(compare(tmp_path / "truth.tif", tmp_path / "truth.tif"))


@pytest.mark.parametrize("classes", [False, True])
def test_a_frame_set_aside_is_empty_whatever_the_shape_of_its_truth(
    tmp_path, threshold_model, classes
):
    """Its image differed from the first of the folder, and so does its truth."""
    truth = [FRAMES[0].clip(0, 2), np.ones((30, 40), np.uint32), FRAMES[2].clip(0, 2)]
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    for t, labels in enumerate(truth):
        image = (labels * (1 if classes else 1000)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"images/t{t}.tif", image)
        tifffile.imwrite(tmp_path / f"truth/t{t}.tif", labels.astype(np.uint16))
    run_job(jobs.settings(tmp_path / "images", threshold_model, tmp_path / "out"))
    comparison = compare(tmp_path / "out", tmp_path / "truth", classes=classes)
    assert [f.set_aside for f in comparison.frames] == [False, True, False]
    assert comparison.frames[1].score.foreground == (0, 0, 1200)
    draw_worst(comparison, tmp_path / "worst.png")
    if not classes:
        with pytest.raises(
            StackError, match=r"truth: has frames of the shapes \(20, 30\) and \(30, 40\)"
        ):
            comparison.frames[0].sides.arrays([pair for f in comparison.frames for pair in f.pairs])


def noise(bits: int) -> np.ndarray:
    """A photograph of FRAMES: bright where objects are, and noisy."""
    rng = np.random.default_rng(0)
    dtype, gain, depth = (np.uint8, 60, 4) if bits == 8 else (np.uint16, 900, 40)
    return (FRAMES.clip(0, 2) * gain + rng.normal(3 * depth, depth, FRAMES.shape)).astype(dtype)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_photograph_is_no_truth_and_no_result(tmp_path, truth, bits):
    tifffile.imwrite(tmp_path / "raw.tif", noise(bits), metadata={"axes": "TYX"})
    for sides in ((tmp_path / "raw.tif", truth), (truth, tmp_path / "raw.tif")):
        with pytest.raises(
            StackError, match=r"raw\.tif.*: looks like an image and not like labels"
        ):
            compare(*sides)


def test_small_objects_that_touch_are_labels(tmp_path):
    """Of 2 by 2 px: every second neighbour is another object."""
    labels = np.arange(1, 151, dtype=np.uint16).reshape(10, 15).repeat(2, 0).repeat(2, 1)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    comparison = compare(tmp_path / "labels.tif", tmp_path / "labels.tif")
    assert comparison.pooled.seg == 1 and not hints(comparison)


def test_errors_are_one_sentence(tmp_path, truth):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tif").write_text("no TIFF")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "two").mkdir()
    for name in "ab":
        as_result(tmp_path / "two", name=name)
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    (tmp_path / "small").mkdir()
    as_folder(tmp_path / "small", FRAMES[:, :10])
    for name in ("missing", "empty", "text.tif", "notes.txt", "two", "colour.tif", "small"):
        with pytest.raises(StacksegError) as caught:
            compare(tmp_path / name, truth)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_torn_file_is_named(tmp_path, truth):
    file = truth / "man_seg003.tif"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(StackError, match="man_seg003"):
        compare(as_tiff(tmp_path), truth)


def test_the_command_prints_a_table(tmp_path, truth):
    done = CliRunner().invoke(evaluate, [str(as_tiff(tmp_path)), str(truth)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split()[:5] == ["frame", "objects", "truth", "IoU", "Dice"]
    assert lines[-1].split()[0] == "pooled" and len(lines) == 7
    assert len({len(line) for line in lines}) == 1, "columns line up"
    assert "5 frames compared" in done.stderr
    (truth / "man_seg003.tif").unlink()
    one = CliRunner().invoke(evaluate, [str(truth / "man_seg001.tif")] * 2)
    assert "1 frame compared" in one.stderr


def test_the_command_prints_json(tmp_path, truth):
    arguments = [str(as_tiff(tmp_path)), str(truth), "--json", "--ignore-border", "2"]
    told = json.loads(CliRunner().invoke(evaluate, arguments).stdout)
    assert told["compared"] == 5 and told["ignore_border"] == 2
    assert told["pooled"]["f1_0.5"] == told["pooled"]["det"] == told["pooled"]["op_csb"] == 1
    assert told["det_against"] == ["the objects of the truth"]
    assert told["frames"][3]["t"] == 3 and told["frames"][3]["objects"] == 2


def test_the_command_writes_csv(tmp_path, truth):
    target = tmp_path / "scores.csv"
    done = CliRunner().invoke(
        evaluate, [str(as_tiff(tmp_path)), str(truth), "--output", str(target)]
    )
    assert done.exit_code == 0
    with target.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["t"] for row in rows] == list("01234")
    assert rows[0]["seg"] == "1.0" and rows[0]["name"] == "man_seg000.tif"
    with pytest.raises(OutputError, match="cannot be a folder"):
        write_csv(compare(tmp_path / "labels.tif", truth), target / "where.csv")


def test_a_picture_is_a_png(tmp_path):
    """It was written as PNG under any name."""
    done = CliRunner().invoke(
        evaluate, [str(tmp_path), str(tmp_path), "--picture", str(tmp_path / "worst.jpg")]
    )
    assert isinstance(done.exception, UsageError)
    assert "worst.jpg: give a name that ends in .png" in str(done.exception)


@pytest.mark.parametrize("option", ["--output", "--picture"])
def test_the_command_writes_over_nothing_unless_asked(tmp_path, truth, option, monkeypatch):
    target = tmp_path / "notes.png"
    target.write_text("mine")
    arguments = [str(as_tiff(tmp_path)), str(truth), option]

    def run(*more):
        return CliRunner().invoke(evaluate, [*arguments, *map(str, more)], standalone_mode=False)

    with monkeypatch.context() as patch:
        patch.setattr(
            "engine.results.score.compare.compare", lambda *_, **__: pytest.fail("compared")
        )
        there, nowhere = run(target).exception, run(target / "x.png").exception
    assert isinstance(there, OutputError) and "is there already" in str(there)
    assert isinstance(nowhere, OutputError) and "notes.png is a file" in str(nowhere)
    assert target.read_text() == "mine"
    assert run(target, "--overwrite").exit_code == 0
    assert target.stat().st_size > 100
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] == ".") == []


def test_files_that_are_read_one_by_one_do_not_stay_open(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "one.tif", FRAMES[0].astype(np.uint16))
    opened = []

    class Remembered(tifffile.TiffFile):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)

    monkeypatch.setattr(tifffile, "TiffFile", Remembered)
    labels = open_labels(tmp_path / "one.tif")
    assert opened and all(file.filehandle.closed for file in opened)
    np.testing.assert_array_equal(labels.read(labels.numbers[0]), FRAMES[0].astype(np.uint16))
    open_labels(as_tiff(tmp_path)).read((1, 0))  # and one that is read frame by frame does


def test_an_unfinished_job_is_not_scored(tmp_path: Path, threshold_model: Path) -> None:
    jobs.write_stack(tmp_path / "a.tif", FRAMES.clip(0, 2).astype(np.uint16) * 1000)
    run_job(jobs.settings(tmp_path / "a.tif", threshold_model, tmp_path / "out"))
    (tmp_path / "out/job.json").unlink()
    for path in ("out", "out/a.zarr"):
        with pytest.raises(UsageError, match="is not complete"):
            open_labels(tmp_path / path)
