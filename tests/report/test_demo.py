"""The demo on a small time-lapse: files, scores, picture, and running it again."""

import imagecodecs
import pytest
import tifffile
from click.testing import CliRunner

from engine.commands.demo import demo

SMALL = ["--frames", "3", "--size", "192x256", "--workers", "1"]


def test_the_demo_leaves_its_files_and_can_be_run_again(tmp_path):
    output = tmp_path / "demo"
    for seed in ("4", "4", "5"):
        done = CliRunner().invoke(
            demo, [*SMALL, "--seed", seed, "--output", str(output)], standalone_mode=False
        )
        assert done.return_value == 0, done.output
        for name in (
            "timelapse.tif",
            "truth.tif",
            "overlay.png",
            "movie.mp4",
            "result/timelapse.zarr",
        ):
            assert str(output / name) in done.stdout
            assert (output / name).exists()
    told = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if line)
    assert told["frames"] == "3"
    assert float(told["IoU"]) > 0.8
    assert imagecodecs.png_decode((output / "overlay.png").read_bytes()).shape == (192, 256, 3)
    with tifffile.TiffFile(output / "timelapse.tif") as tiff:
        assert (tiff.series[0].axes, tiff.series[0].shape) == ("TYX", (3, 192, 256))
    assert not list(output.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize("size", ["700", "0x5", "axb", "5x5x5"])
def test_impossible_sizes_are_wrong_use(size, tmp_path):
    done = CliRunner().invoke(demo, ["--size", size, "--output", str(tmp_path / "d")])
    assert done.exit_code == 2 and "700x1100" in done.stderr
    assert not (tmp_path / "d").exists()


def test_an_unknown_model_is_refused_before_anything_is_written(tmp_path):
    done = CliRunner().invoke(demo, [*SMALL, "--model", "no", "--output", str(tmp_path / "d")])
    assert "no: is neither a model file nor a bundled model" in str(done.exception)
    assert not (tmp_path / "d").exists()
