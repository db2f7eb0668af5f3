"""What the bundled model `nuclei` reaches on real images that it has never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from engine.model.file import ModelFile, open_model
from engine.model.spec import IMAGE, STATISTICS
from engine.model.statistics import frame_statistics
from engine.results.score.metrics import Score, score
from engine.synthetic import TimeLapse
from tests.engine.cores import filled
from train.data.frames import Reading, load_frame
from train.data.layouts import find_pairs
from train.data.splits import split_frames

HELA_MARGIN = 25  # px; the truth ends there


class Nuclei:
    """The bundled model by ONNX Runtime alone: what any other program would get from the file."""

    def __init__(self) -> None:
        self.model: ModelFile = open_model("nuclei")
        self.session = onnxruntime.InferenceSession(
            self.model.data, providers=["CPUExecutionProvider"]
        )

    def labels(self, frame: NDArray[Any]) -> NDArray[np.int32]:
        """Instance labels (Y, X) of a frame (1, Y, X)."""
        spec = self.model.spec
        height, width = frame.shape[1:]
        after = ((0, 0), (0, -height % spec.stride), (0, -width % spec.stride))
        image = np.pad(frame, after, mode="reflect").astype(np.float32)
        statistics = frame_statistics(frame, spec.normalisation)
        feed = {IMAGE: image[None], STATISTICS: statistics[None]}
        probability = self.session.run(None, feed)[0][0, :, :height, :width]
        assert spec.cores is not None
        foreground = filled(probability[0] >= spec.threshold, spec.cores.pinhole)
        core = filled(probability[1] >= spec.cores.threshold, spec.cores.pinhole) & foreground
        labels, _ = ndimage.label(core, np.ones((3, 3)), np.int32)
        distance, (y, x) = ndimage.distance_transform_edt(~core, return_indices=True)
        labels = np.where(foreground & (distance <= spec.cores.growth), labels[y, x], 0)
        small = np.bincount(labels.ravel()) < spec.min_area
        return np.where(small[labels], 0, labels).astype(np.int32)


@pytest.fixture(scope="module")
def nuclei() -> Nuclei:
    return Nuclei()


def test_the_bundled_model_is_small_and_says_where_it_comes_from(nuclei: Nuclei) -> None:
    spec = nuclei.model.spec
    assert len(nuclei.model.data) < 4e6
    assert (spec.name, spec.stride, spec.receptive_radius) == ("nuclei", 16, 92)
    assert set(spec.hashes) == {"data", "code", "settings", "init", "teachers"}
    assert "dsb2018" in spec.trained_on
    card = nuclei.model.path.with_suffix(".md").read_text()
    assert nuclei.model.sha256 in card


@pytest.mark.parametrize("dome", [0.0, 0.5, 1.0])
def test_outlines_lie_where_flat_and_round_nuclei_end(nuclei: Nuclei, dome: float) -> None:
    """Radius found less that of the truth, of discs of the same area: the mean over nuclei."""
    found, true = [], []
    for seed in range(8):
        image, truth = TimeLapse(shape=(40, 384, 384), seed=seed, dome=dome).frame(30)
        labels = nuclei.labels(image[None])
        pairs = np.stack([labels[labels > 0], truth[labels > 0]])
        for label in np.unique(labels[labels > 0]):
            beneath = np.bincount(pairs[1][pairs[0] == label])
            match = int(beneath.argmax())
            areas = (int((labels == label).sum()), int((truth == match).sum()))
            if match and beneath[match] > sum(areas) / 3:  # an IoU of more than one half
                found.append(areas[0])
                true.append(areas[1])
    difference = float(np.mean(np.sqrt(np.divide(found, np.pi)) - np.sqrt(np.divide(true, np.pi))))
    print(f"dome {dome}: {len(found)} nuclei, {difference:+.2f} px")
    assert len(found) > 120
    assert abs(difference) < 0.6


@pytest.mark.realdata
def test_hela_foreground_is_found(realdata: Path, nuclei: Nuclei) -> None:
    """Floors under IoU and SEG on all frames of hela/01 with truth.

    The model's card gives what it reaches, SEG 0.875; the goal is 0.88.
    """
    total = Score()
    for truth in sorted((realdata / "hela" / "01_ST" / "SEG").glob("man_seg*.tif")):
        frame = tifffile.imread(realdata / "hela" / "01" / f"t{truth.stem[-3:]}.tif")
        total += score(nuclei.labels(frame[None]), tifffile.imread(truth), HELA_MARGIN)
    print(f"IoU {total.iou:.4f} SEG {total.seg:.4f} F1 {[round(f, 4) for f in total.f1]}")
    assert total.frames == 47
    assert total.iou >= 0.87
    assert total.seg >= 0.86


@pytest.mark.realdata
def test_held_back_images_are_segmented(realdata: Path, nuclei: Nuclei) -> None:
    """A floor under F1 at IoU 0.5 on the fifth of dsb2018 held back from training.

    The model's card gives what it reaches, 0.902; the goal is 0.90.
    """
    spec = nuclei.model.spec
    held_back = split_frames(find_pairs(realdata / "dsb2018"), 0.1, 0.2).test
    scores = []
    for source in held_back:
        frame = load_frame(source, Reading(spec.normalisation))
        scores.append(score(nuclei.labels(frame.image), frame.labels))
    per_image, pooled = float(np.mean([s.f1[0] for s in scores])), sum(scores, Score())
    print({"f1_50 per image": per_image, "f1_50 pooled": pooled.f1[0], "seg pooled": pooled.seg,
           "seg per image": float(np.mean([s.seg for s in scores])),
           "ap": [round(ap, 4) for ap in pooled.ap],
           "ap per image": np.mean([s.ap for s in scores], axis=0).round(4).tolist()})  # fmt: skip
    assert len(held_back) == 95
    assert per_image >= 0.885
