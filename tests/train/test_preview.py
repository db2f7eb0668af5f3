"""`stackseg train --preview`: a sheet of patches, and nothing trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from tests.train.data import write_pairs
from train.cli import train
from train.data.dataset import load_data
from train.data.patches import Patches, shares_by_area
from train.preview import COUNT
from train.settings import TrainSettings


def test_a_preview_shows_the_first_patches_and_trains_nothing(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", [f"{i}.tif" for i in range(10)])
    run = tmp_path / "run"
    result = CliRunner().invoke(
        train,
        ["--data", str(data), "--layout", "pairs", "--output", str(run), "--patch", "48",
         "--ignore-border", "8", "--augment", "none", "--preview"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0 and str(run / "preview.png") in result.stderr
    assert [path.name for path in run.iterdir()] == ["preview.png"]
    sheet = np.asarray(Image.open(run / "preview.png"))

    settings = TrainSettings(data=str(data), layout="pairs", patch=48, ignore_border=8,
                             test_fraction=0.2, augment="none")  # fmt: skip
    frames = load_data(settings).train
    patches = Patches(frames, shares_by_area(frames, [False] * len(frames), 0), settings, 0, COUNT)
    image, labels, counts = patches.draw(0)
    assert patches.name(0) in [frame.name for frame in frames]
    # The first patch: its image, then 4 px of a gap, then its truth, then its target.
    first, truth, target = (sheet[4:52, 4 + at * 52 :][:, :48] for at in range(3))
    wanted = np.rint(255 * np.clip(image[0], 0, 1) ** 0.6)
    assert np.abs(first.astype(float) - wanted[..., None]).max() <= 1
    unchanged = counts & (labels == 0)
    assert np.array_equal(truth[unchanged], first[unchanged])
    assert (target[unchanged] == 0).all() and (target[counts & (labels > 0)] > 0).all()
    assert not (~counts).any() or (target[~counts] > 0).all()
