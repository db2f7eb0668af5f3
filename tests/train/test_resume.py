"""A run that was killed ends in the same bits as one that was not."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train.course as train_course
from engine.errors import OutputError, UsageError
from engine.store.local_store import write_error
from tests.train.data import write_pairs
from tests.train.runs import silent, small
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.cli import train
from train.curves import Epoch
from train.fit import fit

# All that has a state: dropout, averages, momentum, accumulated gradients, a worker's patches.
OPTIONS = {
    "channels": "2,4", "dropout": 0.5, "epochs": 5, "steps_per_epoch": 12, "patch": 32, "batch": 2,
    "accumulate": 2, "optimiser": "sgd", "schedule": "one-cycle", "ema": 0.9, "workers": 1,
    "device": "cpu", "precision": "fp32", "strip_every": 0, "layout": "pairs",
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(10)])


def command_line(data: Path, run: Path) -> list[str]:
    options = [f"--{k.replace('_', '-')}={v}" for k, v in OPTIONS.items()]
    return [f"--data={data}", f"--output={run}", *options]


def assert_same_bits(run: Path, other: Path) -> None:
    for name in ("history.csv", "curves.png"):  # which was drawn from other digits than resumed
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    losses = [json.loads((one / "summary.json").read_text())["loss"] for one in (run, other)]
    assert losses[0] == losses[1]
    for name in ("best.pt", "last.pt"):
        mine, theirs = _flat(load_checkpoint(run / name)), _flat(load_checkpoint(other / name))
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            same = (
                torch.equal(value, theirs[key])
                if isinstance(value, torch.Tensor)
                else value == theirs[key]
            )
            assert same, f"{name}: {key}"


def _flat(checkpoint: Checkpoint) -> dict[str, Any]:
    """Every value of a checkpoint by the path to it."""
    flat: dict[str, Any] = {}

    def put(where: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                put(f"{where}.{key}", inner)
        elif isinstance(value, list):
            put(where, dict(enumerate(value)))
        else:
            flat[where] = value

    for name in checkpoint.__dataclass_fields__:
        put(name, getattr(checkpoint, name))
    return flat


def test_a_run_that_was_killed_ends_in_the_same_bits(pairs: Path, tmp_path: Path) -> None:
    """SIGKILL to all of its processes, in the midst of the third epoch."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    code = "from train.cli import train; train.main(standalone_mode=False)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command_line(pairs, killed)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("epoch 2/5"):
            os.killpg(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL, "".join(said)
    process.stderr.close()
    assert 2 <= load_checkpoint(killed / "last.pt").epoch < 5
    assert not (killed / "summary.json").exists()
    for run, more in ((killed, ["--resume"]), (whole, [])):
        done = CliRunner().invoke(train, [*command_line(pairs, run), *more], catch_exceptions=False)
        assert done.exit_code == 0
    assert_same_bits(killed, whole)
    assert len((killed / "timings.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dropout": 0.4, "channels": (2, 4, 4), "shuffle": 2},
        {"ema": 0.8, "optimiser": "sgd", "schedule": "step"},
        {"loss": "dice", "optimiser": "adam", "schedule": "constant", "accumulate": 3},
    ],
)
def test_an_interrupted_run_ends_in_the_same_bits(
    values: dict[str, Any], pairs: Path, tmp_path: Path
) -> None:
    settings = small(pairs, **values)
    fit(settings, tmp_path / "whole", note=silent)

    def interrupt(_: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings, tmp_path / "cut", note=silent, report=interrupt)
    fit(settings, tmp_path / "cut", note=silent, resume=True)
    assert_same_bits(tmp_path / "cut", tmp_path / "whole")


def test_an_interrupted_run_says_how_to_resume_it(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.fit.fit", interrupt)
    begun = tmp_path / "run"
    for words in ("", "stackseg: interrupted; run the same command with --resume to resume it\n"):
        done = CliRunner().invoke(train, command_line(pairs, begun))
        assert done.exit_code == (130 if words else 1)  # 1: as click's runner has it
        assert done.stderr.endswith(words)
        begun.mkdir(exist_ok=True)
        (begun / "last.pt").touch()


def test_a_run_that_has_ended_is_resumed_to_the_same(pairs: Path, tmp_path: Path) -> None:
    settings = small(pairs, test_fraction=0.2)
    first = fit(settings, tmp_path, note=silent)
    assert fit(settings, tmp_path, note=silent, resume=True).scores == first.scores


def test_other_threads_are_said(pairs: Path, tmp_path: Path) -> None:
    settings = small(pairs, epochs=1)
    fit(settings, tmp_path, note=silent)
    last = load_checkpoint(tmp_path / "last.pt")
    assert last.threads == torch.get_num_threads()
    save_checkpoint(tmp_path / "last.pt", Checkpoint(**(vars(last) | {"threads": 7})))
    said: list[str] = []
    fit(settings, tmp_path, note=said.append, resume=True)
    assert any("computed by 7 threads" in words for words in said)


def test_a_run_does_not_go_on_with_other_settings(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training run to resume"):
        fit(small(pairs), tmp_path, note=silent, resume=True)
    fit(small(pairs, epochs=1), tmp_path, note=silent)
    before = {name: (tmp_path / name).read_bytes() for name in ("settings.json", "split.json")}
    with pytest.raises(
        UsageError, match=r"other settings \(test_fraction 0.0, now 0.2; epochs 1, now 2\)"
    ):
        fit(small(pairs, epochs=2, test_fraction=0.2), tmp_path, note=silent, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_full_disk_is_said_and_leaves_the_earlier_checkpoint(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch makes a RuntimeError of it, at the end of its archive."""
    fit(small(pairs, epochs=1), tmp_path, note=silent)
    last = load_checkpoint(tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    opened = Path.open

    def full(path: Path, *args: Any, **options: Any) -> Any:
        file = opened(path, *args, **options)
        if "w" not in file.mode:
            return file

        class Full(io.RawIOBase):
            def write(self, data: Any) -> int:
                if file.tell() + len(data) > 2000:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(file.write(data))

            def writable(self) -> bool:
                return True

        return Full()

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"last\.pt: the disk is full; make room"):
        save_checkpoint(tmp_path / "last.pt", last)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_full_disk_in_an_epoch_says_how_to_go_on(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command, as the message first said, is refused once there is a checkpoint."""
    settings, save = small(pairs), train_course.save_checkpoint

    def full_at(epoch: int, name: str) -> None:
        def full(path: Path, checkpoint: Checkpoint) -> None:
            if (checkpoint.epoch, path.name) == (epoch, name):
                raise write_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path)
            save(path, checkpoint)

        monkeypatch.setattr(train_course, "save_checkpoint", full)

    full_at(1, "last.pt")
    with pytest.raises(OutputError, match=r"the disk is full; .* run the same command again$"):
        fit(settings, tmp_path, note=silent)
    full_at(2, "last.pt")  # after the first epoch of the same command
    with pytest.raises(OutputError, match=r" run the same command again with --resume$"):
        fit(settings, tmp_path, note=silent)
    with pytest.raises(OutputError, match=r" run the same command again$"):
        fit(settings, tmp_path, note=silent, resume=True)
    monkeypatch.setattr(train_course, "save_checkpoint", save)
    assert fit(settings, tmp_path, note=silent, resume=True).settings.epochs == 2
