"""Synthetic time-lapses on disk: what is read back is what was made."""

import numpy as np
import pytest
import tifffile

from engine.synthetic import TimeLapse, write_ctc, write_tiff

LAPSE = TimeLapse(shape=(5, 64, 80), seed=2, density=800, cycle=10)


def test_tiff_and_truth(tmp_path):
    done = []
    write_tiff(tmp_path / "t.tif", LAPSE, tmp_path / "truth.tif", progress=done.append)
    assert done == [1, 2, 3, 4, 5]
    for name, which in (("t.tif", 0), ("truth.tif", 1)):
        with tifffile.TiffFile(tmp_path / name) as tiff:
            assert len(tiff.series) == 1
            assert tiff.series[0].axes == "TYX"
            read = tiff.asarray()
        np.testing.assert_array_equal(read, np.stack([LAPSE.frame(t)[which] for t in range(5)]))


def test_tiff_bytes_are_the_same_every_time(tmp_path):
    for name in "ab":
        write_tiff(tmp_path / f"{name}.tif", LAPSE)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("frames", [1, 2])
def test_short_tiffs_keep_their_axes(tmp_path, frames):
    lapse = TimeLapse(shape=(frames, 20, 30))
    write_tiff(tmp_path / "t.tif", lapse, tmp_path / "truth.tif")
    for name in ("t.tif", "truth.tif"):
        with tifffile.TiffFile(tmp_path / name) as tiff:
            assert (tiff.series[0].axes, tiff.series[0].shape) == ("TYX", lapse.shape)


def test_challenge_folder(tmp_path):
    write_ctc(tmp_path, LAPSE)
    image, labels = LAPSE.frame(4)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "01/t004.tif"), image)
    for truth in ("SEG/man_seg004.tif", "TRA/man_track004.tif"):
        read = tifffile.imread(tmp_path / "01_GT" / truth)
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, labels)
    rows = np.loadtxt(tmp_path / "01_GT/TRA/man_track.txt", dtype=int)
    np.testing.assert_array_equal(rows, LAPSE.tracks())
