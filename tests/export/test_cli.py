"""`stackseg export` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.errors import ModelError, OutputError, StacksegError, UsageError
from engine.model.file import open_model
from export.cli import export
from tests.export.networks import write_run


def test_a_run_becomes_a_model(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    output = tmp_path / "models" / "m.onnx"
    arguments = [str(tmp_path / "run"), "--output", str(output), "--name", "tiny-net"]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "tiny-net" in result.stderr
    assert "receptive radius 8 px" in result.stderr
    assert open_model(str(output)).spec.name == "tiny-net"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [str(tmp_path), "--output", str(tmp_path / "m.onnx")])
    assert isinstance(result.exception, ModelError)
    assert "there is no such" in str(result.exception)


LOWER = ("--precision", "fp16", "--frames", "no such stack")


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (["nuclei", "--output", "m.onnx"], UsageError, "nuclei: is not the folder of a training"),
        (
            ["nuclei", "--output", "my model.onnx", *LOWER],
            UsageError,
            "its name, 'my model', cannot be",
        ),
        (
            ["nuclei", "--output", "m.onnx", "--name", "a/b", *LOWER],
            UsageError,
            "--name a/b cannot be",
        ),
        (["nuclei", "--output", ".", "--name", "m", *LOWER], OutputError, "is a folder or a dev"),
        (["old.onnx", "--output", "old.onnx", *LOWER], UsageError, "old.onnx: is the model itself"),
        (["old.onnx", "--output", "new.onnx"], UsageError, "old.onnx: is not the folder of a"),
        (["run", "--output", "old.onnx"], OutputError, "old.onnx: is there already; give another"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_computed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    kind: type[StacksegError],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.onnx").write_bytes(b"a model in float32")
    result = CliRunner().invoke(export, arguments)
    assert isinstance(result.exception, kind) and sentence in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"a model in float32"
