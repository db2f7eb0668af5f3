"""stdout that nobody reads, streams that are closed or full, and names that they cannot show."""

from __future__ import annotations

import codecs
import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest
import tifffile

from engine import cli
from engine.errors import UsageError
from engine.job.job import run_job
from engine.labels.components import label_frame
from engine.stacks.inputs import expand_inputs
from engine.streams import reader_has_gone
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.faults.harness import slow

COMMAND = [sys.executable, "-m", "engine"]
NAME = "Zelle_ü_細胞"  # beyond ASCII, and beyond cp1252
SEGMENT = ["segment", "good.tif", "--model", "model.onnx", "--output"]
COMMANDS = {
    "help": ["--help"],
    "segment": [*SEGMENT, "new"],
    "again": [*SEGMENT, "done", "--keep", "probability"],
    "sample": [*SEGMENT, "new", "--sample", "2"],
    "plan": ["plan", "good.tif", "--model", "model.onnx"],
    "verify": ["verify", "done", "--json"],
    "inspect": ["inspect", "done"],
    "evaluate": ["evaluate", "done", "done/good.zarr"],
    "relabel": ["relabel", "done", "--threshold", "0.6"],
    "render": ["render", "done", "--output", "new.png", "--frames", "0"],
    "convert": ["convert", "done", "--to", "csv", "--output", "new"],
}  # by what they are


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack, a model, and a result with kept probabilities."""
    folder = tmp_path_factory.mktemp("whole")
    model = make_threshold_model(folder / "model.onnx")
    stack = jobs.write_stack(folder / "good.tif", jobs.blobs((2, 64, 80)))
    run_job(jobs.settings(stack, model, folder / "done", keep="probability"))
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the command is run; it stays one job, since times are copied."""
    for path in whole.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name)
        else:
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Here = Callable[..., Done]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """Runs the command in this process, by its own `main`, to a `stdout` if one is given."""
    monkeypatch.setattr(cli, "_end", sys.exit)  # which would end the tests where a thread hangs

    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object, stdout: TextIO | None = None) -> Done:
        with monkeypatch.context() as streams, pytest.raises(SystemExit) as ended:
            streams.setattr(sys, "argv", ["stackseg", *map(str, arguments)])
            streams.setattr(sys, "stdout", stdout or sys.stdout)
            streams.setattr(sys, "stderr", sys.stderr)  # what it puts there goes afterwards
            cli.main()
        signal.signal(signal.SIGTERM, before)
        sys.stdout.flush()
        told = capfd.readouterr()
        status = ended.value.code or 0
        assert isinstance(status, int)
        return Done(status, told.out, told.err)

    return run


@pytest.mark.parametrize("what", COMMANDS)
def test_a_reader_that_goes_changes_no_status(place: Path, here: Here, what: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `| head -0`
    with open(writer, "w", encoding="utf-8") as stdout:  # noqa: PTH123
        done = here(*COMMANDS[what], stdout=stdout)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    if what == "segment":
        assert (place / "new/job.json").is_file()


def test_a_process_whose_reader_goes_ends_as_well(place: Path) -> None:
    what = "segment"
    with subprocess.Popen(
        [*COMMAND, *COMMANDS[what]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # as `| head -0`
        messages = process.stderr.read()
    assert process.returncode == 0, messages
    assert "Traceback" not in messages and "BrokenPipe" not in messages
    assert (place / "new/job.json").is_file()


@pytest.mark.parametrize(
    ("error", "system", "gone"),
    [
        (BrokenPipeError(errno.EPIPE, "gone"), "posix", True),
        (BrokenPipeError(errno.EPIPE, "gone"), "nt", True),
        (OSError(errno.EINVAL, "gone"), "nt", True),
        (OSError(errno.EINVAL, "wrong"), "posix", False),
        (OSError(errno.ENOSPC, "full"), "nt", False),
    ],
)
def test_a_reader_that_goes_is_known_on_every_system(
    error: OSError, system: str, gone: bool
) -> None:
    assert reader_has_gone(error, system) == gone


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run `stackseg` as a shell does; streams that the line does not redirect are captured."""
    python = f"'{sys.executable}' -m engine"
    return subprocess.run(
        line.replace("stackseg", python), shell=True, capture_output=True, text=True
    )


CLOSED = (
    "2>/dev/full", "<&- >&- 2>&-",
    *map(slow, ("2>&-", ">&-", ">&- 2>&-", "<&- 2>&-")),
)  # fmt: skip


@pytest.mark.parametrize("streams", CLOSED)
def test_closed_and_full_streams_change_no_status(place: Path, streams: str) -> None:
    done = shell(f"stackseg {' '.join(SEGMENT)} new {streams}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and (place / "new/job.json").is_file()
    refused = shell(f"stackseg segment gone.tif --model model.onnx --output new2 {streams}")
    assert refused.returncode == 2


def test_a_process_of_its_own_needs_no_open_streams(place: Path, here: Here) -> None:
    # It sends what libraries print to stderr, which may be closed.
    assert here(*SEGMENT, "new", "--quiet").returncode == 0
    (place / "new/job.json").unlink()
    for record in (place / "new/.stackseg/records/good").iterdir():
        record.unlink()
        attempt = place / "new/.stackseg/attempts/good/segment" / record.name
        attempt.parent.mkdir(parents=True, exist_ok=True)
        attempt.write_text("{}")
    assert shell(f"stackseg {' '.join(SEGMENT)} new <&- >&- 2>&-").returncode == 0
    assert (place / "new/job.json").is_file()


def test_what_does_not_reach_a_full_disk_is_told(place: Path) -> None:
    done = shell("stackseg inspect done --json >/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("stackseg: ") and done.stderr.count("\n") == 1
    assert "stdout" in done.stderr and "No space left" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        slow({"PYTHONIOENCODING": "cp1252"}),
        slow({"LC_ALL": "C"}),
    ],
    ids=str,
)
def test_names_that_cannot_be_shown_are_escaped(
    tmp_path: Path, here: Here, environment: dict[str, str]
) -> None:
    model = make_threshold_model(tmp_path / f"{NAME}.onnx")
    stack = jobs.write_stack(tmp_path / f"{NAME}.tif", jobs.blobs((2, 64, 80)))
    output, log = tmp_path / f"out_{NAME}", tmp_path / f"{NAME}.jsonl"
    clean = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG", "PYTHONUTF8")}

    def run(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], capture_output=True, env=clean | environment
        )
        assert b"Traceback" not in done.stderr
        return done

    options = ("--model", model, "--output", output)
    done = run("segment", stack, *options, "--json-log", log, "--keep", "probability")
    assert done.returncode == 0, done.stderr
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    shown = str(output / f"{NAME}.zarr").encode(encoding, "backslashreplace")
    assert done.stdout.splitlines() == [shown]
    assert json.loads((output / "job.json").read_bytes())["inputs"][0]["name"] == NAME
    assert [json.loads(line) for line in log.read_bytes().splitlines()]
    with (output / "frames.csv").open(encoding="utf-8") as file:
        assert {row["stack"] for row in csv.DictReader(file)} == {NAME}
    for what in (
        ["verify", output],
        ["plan", stack, "--model", model],
        ["evaluate", output, output],
        ["segment", stack, *options, "--sample", 2],
    ):
        with (tmp_path / "shown").open("w", encoding=encoding) as stdout:
            assert here(*what, stdout=stdout).returncode == 0, what
    missing = run("segment", tmp_path / f"{NAME}_gone.tif", *options)
    assert missing.returncode == 2 and missing.stderr.count(b"\n") == 1


BAD = os.fsdecode(b"Zelle_\xfc")  # of an old Windows share: no UTF-8


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_threshold_model(tmp_path / "model.onnx")


def objects(output: Path) -> int:
    with (output / "frames.csv").open(encoding="utf-8") as file:
        return sum(int(row["objects"]) for row in csv.DictReader(file))


def test_a_name_that_is_not_utf_8_is_refused_and_a_link_to_it_is_not(
    tmp_path: Path, model: Path, here: Here
) -> None:
    jobs.write_stack(tmp_path / f"{BAD}.tif", jobs.blobs((2, 64, 80)))
    (tmp_path / "link.tif").symlink_to(f"{BAD}.tif")
    options = ["--model", model, "--output"]
    done = subprocess.run(
        [*COMMAND, "segment", tmp_path / f"{BAD}.tif", *options, tmp_path / "o1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "its name is not UTF-8; rename it, or link" in done.stderr
    done = here("segment", tmp_path / "link.tif", *options, tmp_path / "o2")
    assert done.returncode == 0, done.stderr
    assert objects(tmp_path / "o2") > 0
    for what in (["verify", tmp_path / "o2"], ["inspect", tmp_path / "o2"]):
        assert here(*what).returncode == 0


@pytest.mark.parametrize("bad_folder", [False, True])
def test_a_folder_of_such_names_is_a_stack(
    tmp_path: Path, model: Path, here: Here, bad_folder: bool
) -> None:
    folder = tmp_path / (BAD if bad_folder else "frames")
    folder.mkdir()
    for n, frame in enumerate(jobs.blobs((2, 64, 80))):
        tifffile.imwrite(folder / f"{BAD}{n}.tif", frame)
    if bad_folder:
        (tmp_path / "frames").symlink_to(folder)
    output = tmp_path / "out"
    done = here("segment", tmp_path / "frames", "--model", model, "--output", output)
    assert done.returncode == 0, done.stderr
    assert objects(output) > 0
    scores, truth = tmp_path / "scores.csv", tmp_path / "truth"
    truth.mkdir()
    for path in folder.iterdir():
        mask = tifffile.imread(path) > 0
        tifffile.imwrite(truth / path.name, label_frame(mask)[0].astype("uint16"))
    (store,) = output.glob("*.zarr")
    done = here("evaluate", store, truth, "--output", scores)
    assert done.returncode == 0, done.stderr
    assert "Zelle_\\udcfc" in scores.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["output", "model", "log", "result"])
def test_such_names_of_everything_else(tmp_path: Path, model: Path, here: Here, what: str) -> None:
    stack = jobs.write_stack(tmp_path / "good.tif", jobs.blobs((2, 64, 80)))
    output = tmp_path / (BAD if what == "output" else "out")
    if what == "model":
        model = model.rename(tmp_path / f"{BAD}.onnx")
    log = tmp_path / (BAD if what == "log" else "log")
    done = here("segment", stack, "--model", model, "--output", output, "--json-log", log)
    assert "Traceback" not in done.stderr
    if what == "output":  # no Parquet can be written there: that is told before, not after a night
        assert done.returncode == 2 and "Zelle_\\udcfc: its name is not UTF-8" in done.stderr
        assert not output.exists()
        return
    assert done.returncode == 0, done.stderr
    if what == "result":
        moved = output.rename(tmp_path / BAD)
        for how in (["inspect", moved], ["verify", moved]):
            done = here(*how)
            assert "Traceback" not in done.stderr
            assert done.returncode == 0 or "Zelle_\\udcfc" in done.stderr


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"],
)
def test_lists_of_inputs_in_any_unicode(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(encode(f"# mine\r\n{NAME}.tif\r\n\r\nb.tif\r\n"))
    wanted = [str(tmp_path / f"{NAME}.tif"), str(tmp_path / "b.tif")]
    assert expand_inputs([f"@{listed}"]) == wanted


@pytest.mark.parametrize("data", [b"a\xfc.tif\n", codecs.BOM_UTF16_LE + b"a", b"a\0.\0\xdc"])
def test_lists_in_no_unicode_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(UsageError, match=r"list\.txt: the list of inputs is not text in UTF-8"):
        expand_inputs([f"@{tmp_path / 'list.txt'}"])
