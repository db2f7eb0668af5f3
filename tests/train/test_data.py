"""Layouts and splits: what is found, and that no group is ever in two parts."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StackError, StacksegError, UsageError
from engine.model.spec import Normalisation
from tests.train.data import nuclei, write_ctc, write_pairs
from tests.train.runs import small
from train.data.dataset import load_data
from train.data.frames import FrameSource, Reading, digest, load_frame, make_frame, read_image
from train.data.layouts import find_color_masks, find_ctc, find_pairs
from train.data.splits import split_frames
from train.data.synthetic import synthetic_frames
from train.data.truth import TruthSource


def test_ctc_finds_the_frames_that_have_truth(tmp_path: Path) -> None:
    found = find_ctc(write_ctc(tmp_path, {"01": 5, "02": 3}))
    assert [f.name for f in found] == ["01/t000", "01/t002", "01/t004", "02/t000", "02/t002"]
    assert [f.group for f in found] == ["01", "01", "01", "02", "02"]
    assert found[1].truth.file.name == "man_seg002.tif"


def test_ctc_frame_range_leaves_out_its_end(tmp_path: Path) -> None:
    found = find_ctc(write_ctc(tmp_path, {"01": 9}), (2, 6))
    assert [f.time for f in found] == [2, 4]
    with pytest.raises(
        UsageError, match=r"--frames 20:30: no frame of .* with truth has such a num"
    ):
        find_ctc(tmp_path, (20, 30))


def test_ctc_takes_tiff_of_any_suffix(tmp_path: Path) -> None:
    """A sequence of t000.TIF was passed over without a word."""
    write_ctc(tmp_path, {"01": 3, "02": 3})
    for path in (tmp_path / "01").iterdir():
        path.rename(path.with_suffix(".TIF"))
    assert [f.group for f in find_ctc(tmp_path)] == ["01", "01", "02", "02"]


def test_umlauts_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    write_pairs(tmp_path, ["a\u0308.tif", "b.tif"])  # as macOS has it: a and two dots
    (tmp_path / "images" / "a\u0308.tif").rename(tmp_path / "images" / "\u00e4.tif")
    found = find_pairs(tmp_path)
    assert {f.truth.file.name for f in found} == {"a\u0308.tif", "b.tif"}


def test_capitals_in_names_of_folders_do_not_matter(tmp_path: Path) -> None:
    """`Labels/` was not found, and the message named what should be there alone."""
    write_pairs(tmp_path, ["a/0.tif", "b/0.tif"])
    (tmp_path / "a" / "labels").rename(tmp_path / "a" / "Labels")
    (tmp_path / "b" / "images").rename(tmp_path / "b" / "IMAGES")
    (tmp_path / "b" / "labels").rename(tmp_path / "b" / "Masks")
    assert [f.truth.file.parent.name for f in find_pairs(tmp_path)] == ["Labels", "Masks"]


def test_where_no_images_are_found_the_message_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"in labels/ or masks/ next to it, nor anything else$"):
        find_pairs(tmp_path)
    write_pairs(tmp_path, ["0.tif"])
    (tmp_path / "labels").rename(tmp_path / "truth")
    with pytest.raises(StackError, match=r"in labels/ or masks/ next to it, but images/, truth/$"):
        find_pairs(tmp_path)
    (tmp_path / "truth").rename(tmp_path / "masks")
    (tmp_path / "images" / "a" / "b").mkdir(parents=True)
    (tmp_path / "images" / "0.tif").rename(tmp_path / "images" / "a" / "b" / "0.tif")
    for find in (find_pairs, find_color_masks):
        with pytest.raises(StackError, match=r"images: no images in it, but a/; folders in it are"):
            find(tmp_path)


def test_two_folders_of_truth_are_said(tmp_path: Path) -> None:
    """labels/ was taken without a word where masks/ were there as well."""
    names = [f"{n}.tif" for n in range(3)]
    settings = small(write_pairs(tmp_path, names))
    assert not load_data(settings).remarks
    write_pairs(tmp_path, names, truth="masks")
    (remark,) = load_data(settings).remarks
    assert "has labels/ and masks/, and the truth is taken from labels/" in remark


def test_images_in_folders_among_the_images_are_said(tmp_path: Path) -> None:
    """They were passed over without a word where images/ itself held others."""
    settings = small(write_pairs(tmp_path, [f"{n}.tif" for n in range(3)]))
    images = tmp_path / "images"
    (images / "notes").mkdir()
    assert not load_data(settings).remarks
    for name in ("day1/a.tif", "day1/b.tif", "day2/well/c.png", ".cache/d.tif"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / "0.tif", images / name)
    (remark,) = load_data(settings).remarks
    assert f"{images}: 3 images in folders inside it (day1/, day2/well/) are not read" in remark


def test_ctc_prefers_silver_truth(tmp_path: Path) -> None:
    write_ctc(tmp_path, {"01": 3}, kind="GT")
    assert "01_GT" in str(find_ctc(tmp_path)[0].truth.file)
    shutil.copytree(tmp_path / "01_GT", tmp_path / "01_ST")
    assert all("01_ST" in str(f.truth.file) for f in find_ctc(tmp_path))


@pytest.mark.parametrize("find", [find_ctc, find_pairs])
def test_an_empty_folder_is_refused_with_the_layout_it_should_have(find, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StackError, match=r"man_seg000|images/"):
        find(tmp_path)


@pytest.mark.parametrize("truth", ["labels", "masks"])
def test_pairs_in_one_folder(tmp_path: Path, truth: str) -> None:
    found = find_pairs(write_pairs(tmp_path, ["b.tif", "a.tif"], truth=truth))
    assert [f.name for f in found] == ["images/a.tif", "images/b.tif"]
    assert [f.group for f in found] == ["images/a.tif", "images/b.tif"]
    assert all(f.truth.file.parent.name == truth for f in found)


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_names_that_differ_in_their_suffix_alone_are_refused(tmp_path: Path, folder: str) -> None:
    """An image twice would be in two parts of the split; of two truths one would be taken."""
    write_pairs(tmp_path, ["a.tif", "b.tif"])
    shutil.copy(tmp_path / folder / "a.tif", tmp_path / folder / "a.tiff")
    names = rf"{folder}: a\.tif and a\.tiff differ only in their suffix"
    with pytest.raises(StackError, match=names):
        find_pairs(tmp_path)


def test_pairs_in_sub_folders_are_grouped_by_folder(tmp_path: Path) -> None:
    found = find_pairs(write_pairs(tmp_path, ["dish1/a.tif", "dish1/b.tif", "dish2/a.tif"]))
    assert [(f.name, f.group) for f in found] == [
        ("dish1/images/a.tif", "dish1"),
        ("dish1/images/b.tif", "dish1"),
        ("dish2/images/a.tif", "dish2"),
    ]


def test_pairs_are_grouped_by_what_the_pattern_matches(tmp_path: Path) -> None:
    names = ["p01_z0.tif", "p01_z1.tif", "p02_z0.tif"]
    write_pairs(tmp_path, names)
    assert [f.group for f in find_pairs(tmp_path, r"(p\d+)_z")] == ["p01", "p01", "p02"]
    assert [f.group for f in find_pairs(tmp_path, r"p\d+")] == ["p01", "p01", "p02"]
    with pytest.raises(UsageError, match="matches nothing in p01_z0"):
        find_pairs(tmp_path, "q")
    with pytest.raises(UsageError, match="not a regular expression"):
        find_pairs(tmp_path, "(")


def test_a_pattern_that_matches_nothing_in_a_name_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, ["mouse3_a.tif"])
    for pattern in ("(rat)?", "x*", "mouse(4?)"):
        with pytest.raises(UsageError, match=r"matches an empty text in mouse3_a\.tif"):
            find_pairs(tmp_path, pattern)


def test_an_image_without_truth_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, ["a.tif", "b.tif"])
    (tmp_path / "labels" / "b.tif").unlink()
    with pytest.raises(
        StackError, match=r"1 images have no truth there; the first is b\.tif .*same name"
    ):
        find_pairs(tmp_path)


def _sources(groups: list[str]) -> list[FrameSource]:
    return [
        FrameSource(f"{g}/{i}", g, Path(), TruthSource(Path()), i) for i, g in enumerate(groups)
    ]


@given(
    groups=st.lists(st.text("abc", min_size=1, max_size=3), min_size=4, max_size=40),
    val=st.sampled_from([0.1, 0.2]),
    test=st.sampled_from([0.0, 0.2]),
    order=st.randoms(use_true_random=False),
)
def test_parts_share_no_group_and_do_not_depend_on_order(
    groups: list[str], val: float, test: float, order: random.Random
) -> None:
    sources = _sources(groups)
    if len(set(groups)) == 2 and test:
        with pytest.raises(UsageError, match="cannot be split"):
            split_frames(sources, val, test)
        return
    split = split_frames(sources, val, test)
    parts = [split.train, split.val, split.test]
    assert sorted(f.name for p in parts for f in p) == sorted(f.name for f in sources)
    assert split.train and split.val and bool(split.test) == bool(test)
    if len(set(groups)) > 1:
        seen = [{f.group for f in part} for part in parts]
        assert sum(map(len, seen)) == len(set(groups))
    order.shuffle(sources)
    again = split_frames(sources, val, test)
    assert [{f.name for f in p} for p in (again.train, again.val, again.test)] == [
        {f.name for f in p} for p in parts
    ]


def test_one_sequence_is_split_by_time_and_says_so() -> None:
    split = split_frames(_sources(["01"] * 20), 0.1, 0.0)
    assert [f.time for f in split.val] == [5, 15], "spread over the sequence"
    later = split_frames(_sources(["01"] * 20), 0.1, 0.2)
    assert [f.time for f in later.test] == [16, 17, 18, 19]
    assert [f.time for f in later.val] == [4, 12]
    assert split.rule.startswith("by time")
    assert split.as_json()["val"]["frames"] == ["01/5", "01/15"]


def test_the_test_part_does_not_change_with_the_validation_fraction() -> None:
    sources = _sources([f"image{i}" for i in range(50)])
    first, second = split_frames(sources, 0.1, 0.2), split_frames(sources, 0.3, 0.2)
    assert first.test == second.test
    assert len(first.test) == 10


def sources(*groups: str) -> list[FrameSource]:
    return [
        FrameSource(f"{group}/{t}", group, Path("x.tif"), TruthSource(Path("y.tif")), t)
        for group in sorted(set(groups))
        for t in range(groups.count(group))
    ]


def test_every_nth_frame_of_each_sequence_is_held_back() -> None:
    split = split_frames(sources(*"aaaaa", *"bbbb"), 0.2, 0.0, test_every=2)
    assert [f.name for f in split.test] == ["a/0", "a/2", "a/4", "b/0", "b/2"]


def test_every_nth_file_of_a_flat_folder_is_held_back() -> None:
    """Each is a group of its own, so that all of them would be the first frame of theirs."""
    split = split_frames(sources(*"abcdefg"), 0.2, 0.0, test_every=3)
    assert [f.name for f in split.test] == ["a/0", "d/0", "g/0"]
    assert len(split.train) == 3
    assert len(split.val) == 1
    with pytest.raises(UsageError, match="holds back all 1 frames"):
        split_frames(sources("a"), 0.2, 0.0, test_every=3)


def test_grey_that_is_stored_as_colour_is_one_channel(tmp_path: Path) -> None:
    grey = nuclei(0)[0].astype(np.uint8)
    alpha = np.full_like(grey, 255)
    tifffile.imwrite(tmp_path / "rgb.tif", np.dstack([grey] * 3), photometric="rgb")
    tifffile.imwrite(
        tmp_path / "rgba.tif", np.dstack([grey] * 3 + [alpha]), photometric="rgb",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    for name in ("rgb.tif", "rgba.tif"):
        assert np.array_equal(read_image(tmp_path / name), grey[None])


def test_truth_of_another_size_is_refused_with_both(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", nuclei(0, 64)[0])
    tifffile.imwrite(tmp_path / "labels.tif", nuclei(0, 48)[1])
    source = FrameSource("a", "a", tmp_path / "image.tif", TruthSource(tmp_path / "labels.tif"))
    with pytest.raises(StackError, match=r"48x48 px, its image 64x64"):
        load_frame(source, Reading(Normalisation()))


def test_a_margin_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    (source,) = find_pairs(write_pairs(tmp_path, ["a.tif"], size=40))
    with pytest.raises(StacksegError, match="--ignore-border 20 leaves nothing of 40x40"):
        load_frame(source, Reading(Normalisation(), 20))
    assert load_frame(source, Reading(Normalisation(), 5)).inside == (slice(5, 35), slice(5, 35))


def test_a_frame_without_contrast_is_named() -> None:
    flat = np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(StackError, match="01/t003: every pixel has the value 0"):
        make_frame("01/t003", flat, np.zeros((8, 8), np.int32), Normalisation())


def test_a_window_limits_what_is_learnt_from() -> None:
    image = np.arange(-500, 524, dtype=np.int16).reshape(1, 32, 32)
    window = Normalisation(low=0, high=100, window=(-100, 200))
    frame = make_frame("a", image, np.zeros((32, 32), np.int32), window)
    np.testing.assert_array_equal(frame.image, np.clip(image, -100, 200))
    assert frame.statistics.tolist() == [[-100, 200]]
    with pytest.raises(StackError, match="every pixel has the value"):
        make_frame("b", image, frame.labels, Normalisation(window=(600, 700)))


def test_a_window_on_the_command_line_is_the_models() -> None:
    from train.cli import _normalisation

    assert _normalisation("40,400") == {"normalisation": Normalisation(window=(-160, 240))}
    assert _normalisation(None) == {}
    for wrong in ("file", "40"):
        with pytest.raises(UsageError, match="give CENTER,WIDTH"):
            _normalisation(wrong)


def test_the_digest_follows_contents_and_not_order() -> None:
    frames = [
        make_frame(str(i), image[None], labels.astype(np.int32), Normalisation())
        for i, (image, labels) in enumerate(map(nuclei, range(3)))
    ]
    assert digest(frames) == digest(frames[::-1])
    changed = frames[0].image.copy()
    changed[0, 0, 0] += 1
    other = make_frame("0", changed, frames[0].labels, Normalisation())
    assert digest([other, *frames[1:]]) != digest(frames)


def test_synthetic_frames_follow_from_their_seed() -> None:
    first, again = (synthetic_frames(3, 5, Normalisation()) for _ in range(2))
    assert [f.sha256 for f in first] == [f.sha256 for f in again]
    assert all(f.labels.any() for f in first)
    assert digest(synthetic_frames(3, 6, Normalisation())) != digest(first)
