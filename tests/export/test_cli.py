"""`stackseg export` from the command line."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from engine.errors import ModelError
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
    assert "there is no such checkpoint; train first" in str(result.exception)
