"""What of a truth is known: sparse gold truth, ignored labels, margins, and stacks of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from engine.errors import StackError, UsageError
from engine.model.spec import Normalisation
from tests.train.data import nuclei, write_ctc, write_pairs
from train.data.dataset import find_frames, load_data
from train.data.frames import LabelledFrame, Reading, load_frame, read_image
from train.data.layouts import find_ctc, find_pairs
from train.data.patches import whole_frame
from train.data.truth import near_undrawn, overruled
from train.settings import TrainSettings

SIZE = 80


def discs(*centres: tuple[int, int], radius: float = 5) -> NDArray[np.uint16]:
    """Cells numbered from 1 at these centres."""
    yy, xx = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.uint16)
    for number, (y, x) in enumerate(centres, start=1):
        labels[np.hypot(yy - y, xx - x) <= radius] = number
    return labels


A, B, C = (15, 15), (40, 40), (60, 20)


def challenge(
    root: Path,
    silver: NDArray[Any] | None = None,
    gold: NDArray[Any] | None = None,
    markers: NDArray[Any] | None = None,
    tracks: str | None = None,
) -> Path:
    """Sequence 01 with a single frame, and these truths of it."""
    write_ctc(root, {"01": 1}, SIZE, "XX")
    parts = {"01_ST/SEG/man_seg": silver, "01_GT/SEG/man_seg": gold,
             "01_GT/TRA/man_track": markers}  # fmt: skip
    for name, pixels in parts.items():
        if pixels is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / f"{name}000.tif", pixels)
    if tracks is not None:
        (root / "01_GT/TRA").mkdir(parents=True, exist_ok=True)
        (root / "01_GT/TRA/man_track.txt").write_text(tracks)
    return root


def read(root: Path, truth: Any = None, border: int = 0) -> LabelledFrame:
    (source,) = find_ctc(root, truth=truth)
    return load_frame(source, Reading(Normalisation(), border))


def test_gold_truth_that_draws_every_cell_is_known_everywhere(tmp_path: Path) -> None:
    for number, tracks in enumerate(("1 0 9 0\n2 0 0 0\n3 1 9 2\n", None)):
        markers = discs(A, B, radius=2) if tracks is None else None
        root = challenge(tmp_path / str(number), gold=discs(A, B), markers=markers, tracks=tracks)
        frame = read(root)
        assert frame.known is None and frame.counted.all()


def test_of_sparse_gold_truth_the_drawn_cells_count(tmp_path: Path) -> None:
    root = challenge(tmp_path, gold=discs(A, B), tracks="1 0 9 0\n2 0 9 0\n3 0 0 0\n")
    frame = read(root)
    assert np.array_equal(frame.counted, discs(A, B) > 0)
    assert read(root, border=20).counted.sum() == (discs(B) > 0).sum()
    weight = whole_frame(frame, TrainSettings(data="", layout="ctc")).weight.numpy()
    assert np.array_equal(weight > 0, np.broadcast_to(discs(A, B) > 0, weight.shape))


def test_markers_tell_where_a_cell_is_not_drawn(tmp_path: Path) -> None:
    root = challenge(tmp_path, gold=discs(A, B), markers=discs(A, B, C, radius=1))
    counted = read(root).counted
    assert counted[discs(A, B) > 0].all() and not counted[discs(C) > 0].any()
    yy, xx = np.mgrid[:SIZE, :SIZE]
    reach = np.hypot(11, 11) + 1  # the box's diagonal from the rim of the marker
    background = discs(A, B) == 0
    assert counted[background & (np.hypot(yy - C[0], xx - C[1]) > reach + 0.5)].all()
    assert not counted[background & (np.hypot(yy - C[0], xx - C[1]) < reach - 0.5)].any()


def test_a_silver_truth_that_misses_a_marked_cell_does_not_teach_background_there(
    tmp_path: Path,
) -> None:
    frame = read(challenge(tmp_path, silver=discs(A, B), markers=discs(A, B, C, radius=1)))
    assert not frame.counted[C] and frame.counted[A] and frame.counted[5, 75]


def test_where_nothing_is_drawn_nothing_is_known() -> None:
    assert near_undrawn(discs(), discs(A)).all()
    assert not near_undrawn(discs(), discs()).any()


def test_gold_cells_overrule_silver_ones(tmp_path: Path) -> None:
    silver = discs((15, 17), B, C)
    gold = discs(A)
    root = challenge(tmp_path, silver=silver, gold=gold)
    assert np.array_equal(read(root).labels > 0, silver > 0)
    assert np.array_equal(read(root, "silver").labels > 0, silver > 0)
    assert np.array_equal(read(root, "gold").labels > 0, gold > 0)
    both = read(root, "both").labels
    assert np.array_equal(both > 0, discs(A, B, C) > 0)
    assert both.max() == 3


def test_of_silver_cells_that_were_merged_gold_takes_its_own() -> None:
    merged = (discs(A, (15, 24), (15, 33)) > 0).astype(np.uint16)
    both = overruled(merged, discs(A))
    assert np.array_equal(both == both[A], discs(A) > 0)
    rest = both == both[15, 30]
    assert np.array_equal(rest, (merged > 0) & (discs(A) == 0)) and both[15, 30] != both[A]


def test_choices_of_the_challenge_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    root = challenge(tmp_path, gold=discs(A))
    with pytest.raises(StackError, match="no frames with silver truth"):
        find_ctc(root, truth="silver")
    with pytest.raises(UsageError, match=r"--sequences 07: .* has no such sequence; it has 01"):
        find_ctc(root, sequences=["01", "07"])
    challenge(tmp_path / "b", gold=discs(A), tracks="1 0 five 0\n")
    with pytest.raises(StackError, match=r"man_track\.txt: the line '1 0 five 0' is not four"):
        find_ctc(tmp_path / "b")


def test_sequences_are_chosen_by_name(tmp_path: Path) -> None:
    write_ctc(tmp_path, {"01": 2, "02": 2, "03": 2})
    assert [f.group for f in find_ctc(tmp_path, sequences=("03", "01"))] == ["01", "03"]


def test_gold_truth_without_tracks_is_taken_as_complete_with_a_remark(tmp_path: Path) -> None:
    root = write_ctc(tmp_path, {"01": 6}, kind="GT")
    data = load_data(TrainSettings(data=str(root), layout="ctc"))
    (remark,) = data.remarks
    assert "01_GT" in remark and "all of them are taken to be drawn" in remark


@pytest.mark.parametrize("masks", [False, True])
def test_an_ignored_label_is_no_object_and_does_not_count(masks: bool, tmp_path: Path) -> None:
    root = write_pairs(tmp_path, ["a.tif"], SIZE)
    truth, unclear = discs(A, B), discs((40, 50)) > 0
    truth = np.where(unclear, 255, np.minimum(truth, 1) if masks else truth)
    tifffile.imwrite(root / "labels/a.tif", truth.astype(np.uint8))
    (source,) = find_pairs(root)
    frame = load_frame(source, Reading(Normalisation(), 3, masks, ignore_label=255))
    assert np.array_equal(frame.labels > 0, (discs(A, B) > 0) & ~unclear)
    assert frame.labels.max() == 2
    inside = np.pad(np.ones((SIZE - 6, SIZE - 6), bool), 3)
    assert np.array_equal(frame.counted, inside & ~unclear)
    other = load_frame(source, Reading(Normalisation(), 3, ignore_label=7))
    assert other.sha256 != frame.sha256


def test_a_label_that_no_truth_has_is_remarked_on(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"{i}.tif" for i in range(5)])
    settings = TrainSettings(data=str(tmp_path), layout="pairs", ignore_label=99)
    assert "--ignore-label 99: no truth has a pixel of it" in load_data(settings).remarks


def stack(root: Path, frames: int, planes: int) -> Path:
    """A TIFF of several frames, with a truth of several planes."""
    for folder, count, at in (("images", frames, 0), ("labels", planes, 1)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.stack([nuclei(t)[at] for t in range(count)])
        tifffile.imwrite(root / folder / "a.tif", pixels, photometric="minisblack")
    return root


def test_frames_of_a_stack_are_one_group_with_a_plane_of_truth_each(tmp_path: Path) -> None:
    sources = find_pairs(stack(tmp_path, 5, 5))
    assert [(s.name, s.group, s.time) for s in sources] == [
        (f"images/a.tif[{t}]", "images/a.tif", t) for t in range(5)
    ]
    for t, source in enumerate(sources):
        frame = load_frame(source, Reading(Normalisation()))
        image, labels = nuclei(t)
        assert np.array_equal(frame.image[0], image)
        assert np.array_equal(frame.labels > 0, labels > 0)
    split = load_data(TrainSettings(data=str(tmp_path), layout="pairs")).split
    assert split.rule.startswith("by time") and len(split.val) == 1


def test_a_stack_with_another_number_of_truths_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"a\.tif: holds 5 frames, but .*a\.tif 4 label images"):
        find_pairs(stack(tmp_path, 5, 4))


def test_channels_are_chosen_by_number_and_by_name(tmp_path: Path) -> None:
    pixels = np.stack([nuclei(seed)[0] for seed in range(3)])
    file = tmp_path / "a.ome.tif"
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "RFP"]}}
    tifffile.imwrite(file, pixels, metadata=names, photometric="minisblack")
    assert np.array_equal(read_image(file), pixels)
    assert np.array_equal(read_image(file, channel="1"), pixels[1:2])
    assert np.array_equal(read_image(file, channel="RFP,0"), pixels[[2, 0]])
    with pytest.raises(StackError, match="has no channel 'Cy5'"):
        read_image(file, channel="Cy5")
    with pytest.raises(UsageError, match=r"--channel 'a,' is not understood"):
        read_image(file, channel="a,")


def test_depths_kinds_and_sizes_mix_in_one_data_set(tmp_path: Path) -> None:
    """8 and 16 bits, float, grey stored as colour; every size is cut into patches of one."""
    images = tmp_path / "images"
    write_pairs(tmp_path, ["a.tif", "b.tif"], 64)
    write_pairs(tmp_path, ["c.tif", "d.png"], 30)
    grey = (nuclei(0)[0] // 16).astype(np.uint8)
    tifffile.imwrite(images / "a.tif", np.dstack([grey] * 3), photometric="rgb")
    tifffile.imwrite(images / "b.tif", nuclei(1)[0].astype(np.float32) / 7)
    (images / "d.png").write_bytes(imagecodecs.png_encode(nuclei(1, 30)[0]))
    (tmp_path / "labels/d.png").write_bytes(imagecodecs.png_encode(nuclei(1, 30)[1]))
    settings = TrainSettings(data=str(tmp_path), layout="pairs", val_fraction=0.3, patch=48)
    data = load_data(settings)
    kinds = {str(f.image.dtype) for f in (*data.train, *data.val)}
    assert kinds == {"uint8", "uint16", "float32"}
    assert data.n_channels == 1 and len(find_frames(settings)) == 4


@pytest.mark.realdata
def test_gold_truth_of_hela_is_sparse_and_says_so(realdata: Path) -> None:
    """Frames with markers know some background; frames without know their drawn cells alone."""
    sources = {s.time: s for s in find_ctc(realdata / "hela", truth="gold")}
    assert len(sources) == 12
    dense, sparse, unmarked = (
        load_frame(sources[t], Reading(Normalisation(), 25)) for t in (52, 23, 62)
    )
    assert (dense.labels.max(), sparse.labels.max(), unmarked.labels.max()) == (110, 12, 21)
    assert dense.counted.mean() > 0.8 > 0.7 > sparse.counted.mean() > 0.1
    assert np.array_equal(unmarked.counted, (unmarked.labels > 0) & unmarked.counted)
    both = find_ctc(realdata / "hela", truth="both")
    assert len(both) == 50, "47 silver frames, and 3 of gold alone"
