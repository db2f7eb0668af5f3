"""The command as users and scripts see it: one sentence, the right status, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from engine.commands.grouped import OTHERS, GroupedCommand
from engine.commands.plan import plan
from engine.commands.segment import segment
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from train.cli import train


def stackseg(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good stack, a good model, and one of each kind of bad input."""
    place = tmp_path_factory.mktemp("place")
    make_threshold_model(place / "model.onnx")
    network = networks.unet((2, 2))
    networks.save(place / "nospec.onnx", network, None)
    jobs.write_stack(place / "good.tif", jobs.blobs((3, 64, 80)))
    jobs.write_stack(place / "two.ome.tif", jobs.blobs((3, 2, 64, 80)), axes="TCYX")
    (place / "text.tif").write_text("this is not a TIFF\n")
    (place / "empty").mkdir()
    whole = (place / "good.tif").read_bytes()
    (place / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(place / "lzw.tif", jobs.blobs((64, 80)), compression="lzw")
    whole = (place / "lzw.tif").read_bytes()
    (place / "lzw.tif").write_bytes(whole[: len(whole) // 2])
    zarr.create_array(place / "bare.zarr", data=np.zeros((5, 3, 32, 32), np.uint16))
    (place / "file").write_text("in the way")
    (place / "loop").symlink_to(place / "loop")
    return place


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text.tif"], ["text.tif"]),
        (["truncated.tif"], ["truncated.tif", "truncated"]),
        (["lzw.tif"], ["lzw.tif", "truncated"]),
        (["empty"], ["empty: is a folder without TIFF"]),
        (["missing.tif"], ["missing.tif"]),
        (["bare.zarr"], ["(5, 3, 32, 32)", "TCYX", "--axes"]),
        (["good.tif", "--model", "missing.onnx"], ["missing.onnx: there is no such file"]),
        (["good.tif", "--model", "nospec.onnx"], ["nospec.onnx", "spec", "stackseg export"]),
        (["good.tif", "--model", "text.tif"], ["text.tif", "not an ONNX file"]),
        (["good.tif", "--channel", "1"], ["good.tif", "no channel '1'"]),
        (["two.ome.tif"], ["2 channels", "--channel"]),
        (["good.tif", "--axes", "ZZYX"], ["ZZYX"]),
        (["good.tif", "--frames", "9:12"], ["--frames 9:12", "3 frames"]),
        (["good.tif", "--frames", "x"], ["--frames x"]),
        (["good.tif", "--threshold", "2"], ["--threshold", "less than 1"]),
        (["good.tif", "--tile", "soon"], ["--tile"]),
        (["good.tif", "--workers", "0"], ["--workers"]),
        (["good.tif", "--device", "gpu"], ["gpu", "auto, cpu, cuda"]),
        (["good.tif", "--scheduler", "tcp://127.0.0.1:1"], ["--scheduler tcp://127.0.0.1:1"]),
        (["good.tif", "--scheduler", "nonsense"], ["--scheduler nonsense"]),
        (["good.tif", "--scheduler", "file"], ["--scheduler file", "no scheduler file"]),
        (["good.tif", "--json-log", "good.tif"], ["--json-log good.tif"]),
        (["good.tif", "--model", "m" * 300], ["neither a model file"]),
        (["x" * 300], ["cannot be opened"]),
        (["loop"], ["loop"]),
        ([""], ["empty"]),
        (["@list.txt"], ["list.txt"]),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    model = [] if "--model" in arguments else ["--model", "model.onnx"]
    before = sorted(place.rglob("*"))
    done = stackseg("segment", *arguments, *model, "--output", tmp_path / "out", cwd=place)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("stackseg: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "out").exists()
    assert sorted(place.rglob("*")) == before


def test_the_first_help_fits_and_comes_without_a_command_too() -> None:
    """Half of the commands' summaries were cut off, and stackseg alone began "stackseg: Usage"."""
    asked, bare = stackseg("--help"), stackseg()
    assert (asked.returncode, bare.returncode, bare.stdout) == (0, 2, "")
    assert asked.stdout == bare.stderr and asked.stdout.startswith("Usage: ")
    assert "..." not in asked.stdout.partition("Options:")[2]
    assert all(len(line) <= 80 for line in asked.stdout.splitlines())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("segmet", "No such command 'segmet'. Did you mean 'segment'? (see "),
        ("eval", "No such command 'eval'. Did you mean 'evaluate'? (see "),
        ("plot", "No such command 'plot' (see "),
        ("", "No such command '' (see "),
    ],
)
def test_a_mistyped_command_is_answered_with_near_ones(name: str, words: str) -> None:
    done = stackseg(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"stackseg: {words}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/stackseg", "", "o" * 300, "loop"])
def test_a_folder_that_cannot_be_written(place: Path, output: str) -> None:
    done = stackseg("segment", "good.tif", "--model", "model.onnx", "--output", output, cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("stackseg: ") and done.stderr.count("\n") == 1, done.stderr


def test_results_go_to_stdout_and_messages_to_stderr(place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    arguments = ["good.tif", "--model", "model.onnx", "--output", tmp_path / "out"]
    done = stackseg("segment", *arguments, "--json-log", log, cwd=place)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [str(tmp_path / "out/good.zarr")]
    assert "3 of 3 frames" in done.stderr and "frames/s" in done.stderr
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "step", "block", "end"]
    assert events[2]["frames"] == 3
    again = stackseg("segment", *arguments, cwd=place)
    assert again.returncode == 0 and "already complete" in again.stderr
    quiet = stackseg("segment", *arguments, "--quiet", "--fresh", cwd=place)
    assert quiet.returncode == 0 and quiet.stderr == ""


def test_the_plan_writes_nothing(place: Path, tmp_path: Path) -> None:
    arguments = ["good.tif", "--model", "nuclei", "--tile", "208"]
    plan = stackseg("plan", *arguments, cwd=place)
    dry = stackseg("segment", *arguments, "--output", tmp_path / "o", "--dry-run", cwd=place)
    assert plan.returncode == dry.returncode == 0
    assert plan.stdout == dry.stdout
    assert not (tmp_path / "o").exists()
    for word in ["3 frames", "halo", "memory", "disk", "workers"]:
        assert word in plan.stdout


def test_a_folder_with_other_files_is_named_once(place: Path, tmp_path: Path) -> None:
    """One that was taken for another, such as that of a truth; nothing in it is touched."""
    output = tmp_path / "01_ST"
    (output / "SEG").mkdir(parents=True)
    (output / "SEG/man_seg000.tif").write_text("truth")
    for name in ("good.tif", "model.onnx"):
        (output / name).write_bytes((place / name).read_bytes())
    (output / ".DS_Store").write_text("")
    (output / "list.txt").write_text("good.tif\n")
    arguments = ["@list.txt", "--model", "model.onnx", "--output", "."]
    sentence = "holds other files as well (SEG), which are left as they are"
    for dry in (["--dry-run"], []):
        done = stackseg("segment", *arguments, *dry, cwd=output)
        assert done.returncode == 0 and done.stderr.count(sentence) == 1, done.stderr
    again = stackseg("segment", *arguments, "--fresh", cwd=output)
    assert again.returncode == 0 and "other files" not in again.stderr
    assert (output / "SEG/man_seg000.tif").read_text() == "truth"


def test_inputs_and_overlays_are_no_other_files(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(2):
        tifffile.imwrite(folder / f"{t}.tif", jobs.blobs((64, 80)))
    arguments = [".", "--model", place / "model.onnx", "--output", "."]
    done = stackseg("segment", *arguments, "--sample", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = stackseg("segment", *arguments, "--dry-run", cwd=folder)
    assert done.returncode == 0 and "other files" not in done.stderr


def test_the_old_name_of_array_task(place: Path, tmp_path: Path) -> None:
    """--shard, by which scripts may still call it; settings know the new name alone."""
    arguments = ["good.tif", "--model", "model.onnx", "--output", tmp_path / "out"]
    done = stackseg("segment", *arguments, "--shard", "1/2", cwd=place)
    assert done.returncode == 0
    recorded = json.loads((tmp_path / "out/.stackseg/settings.json").read_text())["settings"]
    assert recorded["array_task"] == "1/2" and "shard" not in recorded
    done = stackseg("segment", *arguments, "--array-task", "2/2", cwd=place)
    assert done.returncode == 0 and "already complete" in done.stderr  # it has one block
    assert "--shard" not in stackseg("segment", "--help").stdout
    for option, given in (("--array-task", "3/2"), ("--shard", "1"), ("--shard", "0/2")):
        done = stackseg("segment", *arguments, option, given, cwd=place)
        assert done.returncode == 2
        assert f"--array-task: use I/N with I from 1 to N (got '{given}')" in done.stderr
    done = stackseg("segment", *arguments, "--shard", "1/2", "--fresh", cwd=place)
    assert done.returncode == 2 and "with --fresh and without --array-task first" in done.stderr


def test_some_bad_inputs_give_status_1(place: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# two\n{place / 'good.tif'}\n\n{place / 'text.tif'}\n")
    arguments = ["--model", place / "model.onnx", "--output", tmp_path / "out"]
    done = stackseg("segment", f"@{tmp_path / 'list.txt'}", *arguments)
    assert done.returncode == 1
    assert "text.tif" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out/good.zarr").is_dir()


def test_inspect_tells_models_stacks_and_results(place: Path, tmp_path: Path) -> None:
    stackseg("segment", place / "good.tif", "--model", place / "model.onnx",
             "--output", tmp_path / "out")  # fmt: skip
    model = json.loads(stackseg("inspect", "nuclei", "--json").stdout)
    assert model["halo"] == 96 and model["classes"][1]["name"] == "nucleus"
    stack = json.loads(stackseg("inspect", place / "good.tif", "--json").stdout)
    assert stack["axes"] == "TYX" and stack["shape"] == {"T": 3, "Y": 64, "X": 80}
    result = json.loads(stackseg("inspect", tmp_path / "out", "--json").stdout)
    assert result["counts"]["frames"] == 3
    shown = stackseg("inspect", place / "good.tif").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["stack", "format", "axes", "shape", "dtype"]
    text = stackseg("inspect", "nuclei").stdout
    assert "halo" in text and "{" not in text
    missing = stackseg("inspect", place / "missing")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1


def test_inspect_names_the_images_of_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("t10.tif", "t2.tif", "T1.tif"):
        tifffile.imwrite(tmp_path / name, np.eye(32, dtype=np.uint8))
    stack = json.loads(stackseg("inspect", tmp_path, "--json").stdout)
    assert stack["files"] == ["T1.tif", "t2.tif", "t10.tif"]
    assert "files   T1.tif to t10.tif; see --json" in stackseg("inspect", tmp_path).stdout


def test_inspect_of_a_training_run_says_what_shows_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.pt").touch()
    tifffile.imwrite(tmp_path / "run/curves.tif", np.eye(32, dtype=np.uint8))
    done = stackseg("inspect", tmp_path / "run")
    assert done.returncode == 2 and "run: is a training run; `stackseg compare" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(place: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = stackseg("segment", place / "good.tif", "--model", place / "model.onnx",
                    "--output", tmp_path / "out")  # fmt: skip
    tmp_path.chmod(0o700)
    assert done.returncode == 2 and "permission" in done.stderr


def test_only_options_that_are_nearly_the_same_are_offered(place: Path) -> None:
    done = stackseg("segment", "good.tif", "--modle", "model.onnx", "--output", "out", cwd=place)
    assert done.returncode == 2 and done.stderr.count("--") == 3, done.stderr
    assert "Did you mean '--model'" in done.stderr


def test_frames_beyond_the_end_are_said_once(place: Path, tmp_path: Path) -> None:
    jobs.write_stack(tmp_path / "short.tif", jobs.blobs((2, 64, 80)))
    inputs = (place / "good.tif", tmp_path / "short.tif")
    done = stackseg("plan", *inputs, "--model", place / "model.onnx", "--frames", "0:100")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("--frames 0:100: there are fewer") == 1
    assert "good.tif has 3 frames" in done.stderr and "short.tif has 2 frames" in done.stderr
    exact = stackseg("plan", inputs[0], "--model", place / "model.onnx", "--frames", "0:3")
    assert exact.returncode == 0 and exact.stderr == ""


def test_what_helps_frames_that_were_set_aside(place: Path, tmp_path: Path) -> None:
    """Images of another size stay of another size: they are not to be tried again."""
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for n, size in enumerate((64, 64, 80)):
        tifffile.imwrite(images / f"t{n}.tif", jobs.blobs((size, 80)))
    command = ("segment", images, "--model", place / "model.onnx", "--output", output)
    done = stackseg(*command)
    (line,) = [line for line in done.stderr.splitlines() if "of 3 frames was set aside" in line]
    assert done.returncode == 1 and "--retry-failed" not in line, line
    assert "segment the images one by one" in line
    damaged = (images / "t1.tif").read_bytes()[:100]
    (images / "t1.tif").write_bytes(damaged)
    done = stackseg(*command, "--fresh")
    (line,) = [line for line in done.stderr.splitlines() if "of 3 frames were set aside" in line]
    assert "--retry-failed" in line and "for 1 of them" in line, line


def test_a_job_that_was_all_but_complete_tells_no_speed(place: Path, tmp_path: Path) -> None:
    command = ("segment", place / "good.tif", "--model", place / "model.onnx", "--output", tmp_path)
    assert stackseg(*command).returncode == 0
    (tmp_path / "job.json").unlink()
    done = stackseg(*command)
    assert done.returncode == 0 and "frames/s" not in done.stderr and "left," not in done.stderr
    assert "no frame was left to do; 3 frames by earlier runs" in done.stderr


@pytest.mark.parametrize("command", [segment, plan, train])
def test_help_shows_every_option_once_in_a_named_group(command: GroupedCommand) -> None:
    shown = CliRunner().invoke(command, ["--help"]).stdout
    first_group, second = list(command.groups)[:2]
    shown = shown[shown.index(f"{first_group}:") :]
    assert shown.index(f"--{command.groups[first_group][0]}") < shown.index(f"{second}:")
    assert OTHERS not in shown, "each has a group"
    named = [name for names in command.groups.values() for name in names]
    assert len(named) == len(set(named)), "and one only"
    for option in command.params:
        if isinstance(option, click.Option):
            first = option.opts[0]
            starts = [
                line for line in shown.splitlines() if line.split()[:1] in ([first], [f"{first},"])
            ]
            assert len(starts) == 1, first
