"""The demo on a small time-lapse: files, scores, picture, and running it again."""

import logging
from pathlib import Path

import imagecodecs
import pytest
import tifffile
from click.testing import CliRunner

from engine.commands.demo import _command, demo
from engine.demo import _duration

SMALL = ["--frames", "3", "--size", "192x256", "--workers", "1"]


def test_the_demo_leaves_its_files_and_can_be_run_again(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stackseg")
    output = tmp_path / "demo"
    for seed in ("4", "4", "5"):
        done = CliRunner().invoke(
            demo, [*SMALL, "--seed", seed, "--output", str(output)], standalone_mode=False
        )
        assert done.return_value == 0, done.output
        assert "3 frames of 192 x 256 px takes about 10 s on 1 core" in caplog.messages[0]
        assert "segment FRAMES.tif --model nuclei" in done.stderr.splitlines()[-1]
        caplog.clear()
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


@pytest.mark.parametrize(
    ("shape", "n_cores", "words"),
    [
        ((3, 192, 256), 1, "10 s"),
        ((60, 700, 1100), 2, "40 s"),
        ((60, 700, 1100), 1, "1 minute"),
        ((600, 700, 1100), 8, "3 minutes"),
    ],
)
def test_the_demo_says_how_long_it_takes(shape, n_cores, words):
    assert _duration(shape, n_cores) == words


def test_the_demo_says_how_to_call_the_command(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/stackseg"
    command.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bin/stackseg", "demo"])
    assert Path(_command()) == Path("bin/stackseg")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert _command() == "stackseg"


@pytest.mark.parametrize("size", ["700", "0x5", "axb", "5x5x5"])
def test_impossible_sizes_are_wrong_use(size, tmp_path):
    done = CliRunner().invoke(demo, ["--size", size, "--output", str(tmp_path / "d")])
    assert done.exit_code == 2 and "700x1100" in done.stderr
    assert not (tmp_path / "d").exists()


def test_an_unknown_model_is_refused_before_anything_is_written(tmp_path):
    done = CliRunner().invoke(demo, [*SMALL, "--model", "no", "--output", str(tmp_path / "d")])
    assert "no: is neither a model file nor a bundled model" in str(done.exception)
    assert not (tmp_path / "d").exists()
