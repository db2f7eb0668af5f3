"""Results of many stacks, files matched by name, and groups of frames."""

import json
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from engine.errors import StackError, UsageError
from engine.job.job import run_job
from engine.results.score.compare import compare
from engine.results.score.table import notes, table
from tests.engine import jobs
from tests.score.test_compare import FRAMES, as_folder, as_result
from tests.stacks.numbered import numbered
from tests.stacks.test_tiff_images import ome_planes

NAMES = ("p1_a", "p1_b", "p2_c")  # no number tells them apart


def write_png(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(image.astype(np.uint16)))
    return path


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    """A PNG of labels for each of NAMES, and one of something else."""
    folder = tmp_path / "truths"
    folder.mkdir()
    for name, frame in zip((*NAMES, "other"), FRAMES % 7, strict=False):
        write_png(folder / f"{name}.png", frame)
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A job's result of a stack of one frame for each of NAMES; the last finds only one object."""
    for name, frame in zip(NAMES, FRAMES, strict=False):
        labels = np.where(frame == 1, 1, 0) if name == NAMES[-1] else frame
        as_result(tmp_path / "many", labels[None].astype(np.uint32), name=name)
    return tmp_path / "many"


def test_stacks_are_matched_by_name(many, truths):
    comparison = compare(many, truths)
    assert [f.stack for f in comparison.frames] == list(NAMES)
    assert list(comparison.groups) == list(NAMES)
    assert comparison.groups["p1_a"].seg == 1 and comparison.groups["p2_c"].seg == 0.5
    assert comparison.pooled.seg == pytest.approx(5 / 6)
    assert comparison.mean_of_groups()["seg"] == pytest.approx(2.5 / 3)
    assert (comparison.without_truth, comparison.truth_without_result) == (0, 1)
    assert [f.stack for f in comparison.worst()] == ["p2_c", "p1_a", "p1_b"]
    rows = [row for part in table(comparison) for row in part]
    assert [row[0] for row in rows] == ["frame", *NAMES, "mean of 3 stacks", "pooled"]
    assert notes(comparison)[0].startswith("3 frames of 3 stacks compared; 1 of the truth")


def test_a_stack_without_a_truth_is_counted(many, truths):
    (truths / "p1_b.png").unlink()
    comparison = compare(many, truths)
    assert len(comparison.frames) == 2 and comparison.without_truth == 1


def as_class_map(store: Path, *names: str) -> None:
    """Name the values of a label image as classes, background first."""
    nuclei = zarr.open_group(store / "labels/nuclei")
    told = {
        "properties": [{"label-value": v, "name": name} for v, name in enumerate(names)],
        "colors": [{"label-value": v, "rgba": [v, v, v, 255]} for v in range(len(names))],
    }
    nuclei.attrs["ome"] = {**nuclei.attrs["ome"], "image-label": told}


def test_stacks_of_different_kinds_are_not_pooled(tmp_path):
    (tmp_path / "truths").mkdir()
    ones = (FRAMES[:1] > 0).astype(np.uint8)
    for name in "ab":
        as_result(tmp_path / "out", ones, name=name)
        write_png(tmp_path / "truths" / f"{name}.png", ones[0])
    as_class_map(tmp_path / "out/b.zarr", "background", "rim")
    words = r"a\.zarr\S* is scored by objects, but \S*b\.zarr\S* by the classes .*, 1 rim;"
    with pytest.raises(UsageError, match=words):
        compare(tmp_path / "out", tmp_path / "truths")
    with pytest.raises(UsageError, match=r"by classes that nothing names, but .* 1 rim;"):
        compare(tmp_path / "out", tmp_path / "truths", classes=True)
    as_class_map(tmp_path / "out/a.zarr", "background", "body")
    with pytest.raises(UsageError, match=r"1 body, but .* 1 rim;"):
        compare(tmp_path / "out", tmp_path / "truths")
    as_class_map(tmp_path / "out/a.zarr", "background", "rim")
    assert compare(tmp_path / "out", tmp_path / "truths").pooled.dice == 1


def test_challenge_sequences_are_matched_by_name(tmp_path):
    for name in ("01", "02"):
        as_result(tmp_path / "out", name=name)
        (tmp_path / "data" / f"{name}_ST" / "SEG").mkdir(parents=True)
        as_folder(tmp_path / "data" / f"{name}_ST" / "SEG", FRAMES, "man_seg")
        (tmp_path / "data" / name).mkdir()
    comparison = compare(tmp_path / "out", tmp_path / "data")
    assert len(comparison.frames) == 10 and comparison.pooled.seg == 1
    names = [row[0] for row in table(comparison)[1]]
    assert names[:2] == ["01 0", "01 1"] and names[-1] == "02 4"
    assert [row[0] for row in table(comparison)[2]] == ["01", "02", "mean of 2 stacks"]


def test_stacks_need_a_folder_of_truths_by_their_names(many, truths, tmp_path):
    with pytest.raises(UsageError, match="one truth for the 3 stacks"):
        compare(many, truths / "p1_a.png")
    (tmp_path / "strange").mkdir()
    write_png(tmp_path / "strange/x.png", FRAMES[0] % 7)
    with pytest.raises(UsageError, match=r"p1_a\.tif, \.png or \.zarr"):
        compare(many, tmp_path / "strange")


def test_groups_pool_the_frames_whose_names_agree(many, truths):
    comparison = compare(many, truths, group=r"^(p\d)_")
    assert {name: s.frames for name, s in comparison.groups.items()} == {"p1": 2, "p2": 1}
    assert comparison.mean_of_groups()["seg"] == pytest.approx((1 + 0.5) / 2)
    told = comparison.to_dict()
    assert [g["group"] for g in told["groups"]] == ["p1", "p2"]
    assert told["mean_of_groups"]["seg"] == pytest.approx(0.75)
    for pattern, why in (
        ("(", "regular expression"),
        ("zzz", "matches nothing in p1_a.png"),
        ("(zzz)?", "matches an empty text in p1_a.png"),
    ):
        with pytest.raises(UsageError, match=why):
            compare(many, truths, group=pattern)


def test_files_without_numbers_are_matched_by_name_not_by_order(tmp_path, truths):
    (tmp_path / "some").mkdir()
    for name in NAMES[1:]:
        write_png(tmp_path / "some" / f"{name}.png", FRAMES[NAMES.index(name)])
    comparison = compare(tmp_path / "some", truths)
    assert comparison.matched_by == ("name",)
    assert [f.name for f in comparison.frames] == ["p1_b.png", "p2_c.png"]
    assert comparison.pooled.seg == 1 and comparison.truth_without_result == 2


def test_a_result_knows_the_files_that_it_was_made_from(tmp_path, truths, threshold_model):
    """A folder of images: frames are matched by the files' names, though only two are there."""
    images = tmp_path / "images"
    images.mkdir()
    for name, frame in zip(NAMES, FRAMES, strict=False):
        tifffile.imwrite(images / f"{name}.tif", (frame > 0).astype(np.uint16) * 1000 + 100)
    run_job(jobs.settings(images, threshold_model, tmp_path / "out", frames=(1, 3)))
    comparison = compare(tmp_path / "out", truths)
    assert comparison.matched_by == ("name",)
    assert [f.name for f in comparison.frames] == ["p1_b.png", "p2_c.png"]
    assert comparison.pooled.iou == 1


def test_a_result_of_numbered_files_counts_as_these(tmp_path, threshold_model):
    """Frame 0 of a folder t005.tif, t007.tif is that of man_seg005.tif."""
    (tmp_path / "images").mkdir()
    (tmp_path / "SEG").mkdir()
    for t in (5, 7):
        image = (FRAMES[t - 5] > 0).astype(np.uint16) * 1000
        tifffile.imwrite(tmp_path / "images" / f"t{t:03d}.tif", image)
        tifffile.imwrite(tmp_path / "SEG" / f"man_seg{t:03d}.tif", FRAMES[t - 5])
    run_job(jobs.settings(tmp_path / "images", threshold_model, tmp_path / "out"))
    comparison = compare(tmp_path / "out", tmp_path / "SEG")
    assert [f.number for f in comparison.frames] == [(5, 0), (7, 0)]
    assert comparison.pooled.iou == 1
    stack = tmp_path / "truth.tif"  # whose frames have no names, and count from 0
    tifffile.imwrite(stack, FRAMES[[0, 2]], metadata={"axes": "TYX"})
    assert [f.number for f in compare(tmp_path / "out", stack).frames] == [(0, 0), (1, 0)]


def test_files_that_agree_in_nothing_are_matched_by_order_if_as_many(tmp_path, truths):
    (tmp_path / "others").mkdir()
    for name, frame in zip("wxyz", FRAMES, strict=False):
        write_png(tmp_path / "others" / f"{name}.png", frame)
    assert compare(tmp_path / "others", truths).matched_by == ("order",)
    stack = tmp_path / "stack.tif"  # whose frames have no names at all
    tifffile.imwrite(stack, FRAMES[:4], metadata={"axes": "TYX"})
    assert compare(stack, tmp_path / "others").matched_by == ("order",)
    (tmp_path / "others/z.png").unlink()
    for labels, truth in ((tmp_path / "others", truths), (stack, tmp_path / "others")):
        with pytest.raises(UsageError, match="cannot be matched"):
            compare(labels, truth)


def test_a_folder_that_has_changed_since_is_not_matched_by_its_files(tmp_path, threshold_model):
    """Every name after a new one would stand for another frame."""
    for folder in ("images", "truth"):
        (tmp_path / folder).mkdir()
    for name, frame in zip("bcd", FRAMES, strict=False):
        tifffile.imwrite(tmp_path / f"images/{name}.tif", (frame > 0).astype(np.uint16) * 1000)
        tifffile.imwrite(tmp_path / f"truth/{name}.tif", frame)
    run_job(jobs.settings(tmp_path / "images", threshold_model, tmp_path / "out"))
    assert compare(tmp_path / "out", tmp_path / "truth").pooled.iou == 1
    tifffile.imwrite(tmp_path / "images/a.tif", FRAMES[0])
    with pytest.raises(StackError, match="has 4 images now and had 3"):
        compare(tmp_path / "out", tmp_path / "truth")


def test_a_folder_of_planes_is_matched_by_its_files(tmp_path, threshold_model):
    for folder in ("images", "truth"):
        (tmp_path / folder).mkdir()
    for name, frame in zip("bcd", FRAMES, strict=False):
        tifffile.imwrite(tmp_path / f"images/{name}.tif", (frame > 0).astype(np.uint16) * 1000)
        tifffile.imwrite(tmp_path / f"truth/{name}.tif", frame)
    run_job(jobs.settings(tmp_path / "images", threshold_model, tmp_path / "out", axes="ZYX"))
    comparison = compare(tmp_path / "out", tmp_path / "truth")
    assert comparison.matched_by == ("name",) and comparison.pooled.iou == 1


def test_large_ids_mean_the_same_object_in_every_plane(tmp_path):
    """Ids beyond 32 bits are renumbered for counting, and not plane by plane before that."""
    planes = np.zeros((2, 8, 12), np.uint64)
    planes[0, 2:4, 1:5], planes[0, 5:7, 1:5] = 2**33 + 1, 2**33 + 2
    planes[1, 2:4, 1:5], planes[1, 5:7, 7:11] = 2**33 + 2, 2**33 + 3
    zarr.create_array(tmp_path / "v.zarr", data=planes, dimension_names=["z", "y", "x"])
    small = np.where(planes > 0, planes - 2**33, 0).astype(np.uint8)
    zarr.create_array(tmp_path / "s.zarr", data=small, dimension_names=["z", "y", "x"])
    score = compare(tmp_path / "v.zarr", tmp_path / "s.zarr", volumes=True).pooled
    assert score.truth_objects == 3 and score.seg == 1


@pytest.mark.parametrize(("shift", "words"), [(-1, "negative"), (0.5, "whole numbers")])
def test_it_is_told_whose_labels_are_none(tmp_path, truths, shift, words):
    bad = tmp_path / "bad.tif"
    kind = np.int32 if shift == -1 else np.float32
    tifffile.imwrite(bad, FRAMES.astype(kind) + kind(shift), metadata={"axes": "TYX"})
    good = tmp_path / "good.tif"
    tifffile.imwrite(good, FRAMES, metadata={"axes": "TYX"})
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(StackError, match=rf"bad.tif.*{words}"):
            compare(*pair)


def test_a_truth_written_frame_by_frame_is_read_to_its_end(tmp_path):
    as_result(tmp_path / "out", FRAMES.astype(np.uint32), name="a")
    for frame in FRAMES:
        tifffile.imwrite(tmp_path / "truth.tif", frame.astype(np.uint32), append=True)
    comparison = compare(tmp_path / "out", tmp_path / "truth.tif")
    assert len(comparison.frames) == len(FRAMES) and comparison.pooled.seg == 1


def test_a_truth_of_several_images_is_refused(tmp_path):
    as_result(tmp_path / "out", FRAMES.astype(np.uint32), name="a")
    with tifffile.TiffWriter(tmp_path / "truth.ome.tif", ome=True) as writer:
        for frame in FRAMES:
            writer.write(frame.astype(np.uint32), photometric="minisblack", metadata={"axes": "YX"})
    with pytest.raises(
        StackError, match=f"holds {len(FRAMES)} images; labels are read from files of one image"
    ):
        compare(tmp_path / "out", tmp_path / "truth.ome.tif")


def test_a_truth_whose_metadata_count_more_than_there_is(tmp_path):
    as_result(tmp_path / "out", FRAMES.astype(np.uint32), name="a")
    ome_planes(tmp_path / "truth.tif", numbered(0, 1, 2), 5)
    with pytest.raises(StackError, match="count 5 planes, but it has only 3"):
        compare(tmp_path / "out", tmp_path / "truth.tif")


@pytest.mark.parametrize("stated", [None, "/", "."])
def test_a_nested_zarr_truth_that_does_not_say_so(tmp_path, stated):
    as_result(tmp_path / "out", FRAMES.astype(np.uint32), name="a")
    array = zarr.create_array(
        tmp_path / "truth.zarr", shape=FRAMES.shape, chunks=(1, *FRAMES.shape[1:]), dtype="u4",
        zarr_format=2, chunk_key_encoding={"name": "v2", "separator": "/"},
    )  # fmt: skip
    array[...] = FRAMES
    file = tmp_path / "truth.zarr" / ".zarray"
    meta = json.loads(file.read_text())
    meta.pop("dimension_separator")
    file.write_text(json.dumps(meta if stated is None else meta | {"dimension_separator": stated}))
    assert compare(tmp_path / "out", tmp_path / "truth.zarr").pooled.seg == 1
    for folder in [path for path in (tmp_path / "truth.zarr").iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    with pytest.raises(StackError, match="none of its chunks is there"):
        compare(tmp_path / "out", tmp_path / "truth.zarr")


def test_frames_that_tifffile_takes_for_colours_are_frames(tmp_path):
    """It writes (2, 3, Y, X) of 8 bits as two pages of three samples that lie apart."""
    frames = (FRAMES[:1] % 7).repeat(6, axis=0).astype(np.uint8)
    frames[4:] = 0
    as_result(tmp_path / "out", frames.astype(np.uint32), name="a")
    tifffile.imwrite(tmp_path / "truth.tif", frames.reshape(2, 3, *frames.shape[1:]))
    comparison = compare(tmp_path / "out", tmp_path / "truth.tif")
    assert len(comparison.frames) == 6 and comparison.pooled.seg == 1


def test_pages_of_two_indexed_colours_are_indices(tmp_path):
    frames = FRAMES[:3] == 1
    as_result(tmp_path / "out", frames.astype(np.uint32), name="a")
    with tifffile.TiffWriter(tmp_path / "truth.tif") as writer:
        for frame in frames:
            writer.write(frame, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "truth.tif", mode="r+b") as tif:
        for page in tif.pages:
            page.tags["PhotometricInterpretation"].overwrite(3)  # indexed: tifffile writes no such
    assert compare(tmp_path / "out", tmp_path / "truth.tif").pooled.seg == 1
