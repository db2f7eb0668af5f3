"""A real time-lapse in pictures: its own frames lie under the outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from engine.results.pictures.panels import grey, outlines
from engine.results.pictures.render import RenderSettings, render
from engine.results.result import open_result
from tests import results


@pytest.mark.realdata
def test_a_real_frame_under_its_outlines(realdata: Path, tmp_path: Path) -> None:
    result = results.make_result(tmp_path, [realdata / "hela/01"], frames=(3, 5))
    render(result, RenderSettings(tmp_path / "p.png", "outlines", frames=slice(4, 5)))
    picture = np.asarray(Image.open(tmp_path / "p.png"))[:700]
    assert picture.shape == (700, 1100, 3)
    edge = outlines(open_result(result)[0].labels.read(4, 0))
    frame = tifffile.imread(realdata / "hela/01/t004.tif").astype(np.float32)
    expected = grey(frame, *np.percentile(frame, (1, 99.8)), gamma=0.7)
    seen = picture[~edge][:, 0].astype(int)
    assert np.abs(seen - expected[~edge]).max() <= 2
