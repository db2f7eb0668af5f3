"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_named_files_exist(path: Path) -> None:
    for name in re.findall(
        r"`((?:engine|train|export|tests|benchmarks)/[\w./]+\.\w+)`", path.read_text()
    ):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(test_\w+\.py)`", path.read_text()):
        assert list((ROOT / "tests").rglob(name)), name


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives a heading: "On a GPU" is at #on-a-gpu."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_anchors_are_headings(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", path.read_text()):
        text = (path.parent / target if target else path).read_text()
        assert anchor in map(anchor_of, re.findall(r"^#+ (.*)$", text, re.M)), f"{target}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_options_of_examples_exist(path: Path) -> None:
    from click.testing import CliRunner

    from engine.cli import stackseg

    text = path.read_text().replace("\\\n", " ")
    for command, rest in re.findall(r"(?:^    |`)stackseg ([a-z]+) ([^`#\n]*)", text, re.M):
        shown = CliRunner().invoke(stackseg, [command, "--help"])
        assert not shown.exit_code, command
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", rest):
            assert option in shown.output, f"{command} {option}"


def test_the_page_of_models_lists_every_field_of_the_spec() -> None:
    from engine.model.spec import ModelSpec

    _, _, text = (ROOT / "docs/models.md").read_text().partition("| field | meaning |\n")
    rows = re.findall(r"^\| (`[^|]+`) \|", text.partition("\n\n")[0], re.M)
    told = {name.partition(".")[0] for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert told == set(ModelSpec.model_fields)


def test_the_lines_that_open_a_result_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.job.executors import SerialExecutor
    from engine.job.job import run_job
    from tests import networks
    from tests.engine import jobs

    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/results.md").read_text(), re.M | re.S
    )
    frames = jobs.write_stack(tmp_path / "frames.tif", jobs.blobs((2, 48, 64)))
    network = networks.threshold_model()
    model = networks.save(tmp_path / "m.onnx", network, networks.spec(network, name="nuclei"))
    settings = jobs.settings(frames, model, tmp_path / "result", workers=1)
    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["labels"].shape == (2, 48, 64) and found["first"].shape == (48, 64)
    counts = np.bincount(np.asarray(found["labels"]).ravel())[1:]
    assert counts.size and found["areas"].sum() == counts.sum()


def test_the_memory_document_lists_every_constant() -> None:
    from engine.plan import footprint
    from engine.runtimes import onnxruntime, openvino
    from engine.runtimes.base import Constant

    def shown(value: float) -> str:
        return f"{value / 2**20:,.0f} Mi" if value >= 2**20 else f"{value:g}"

    wanted = [
        f"| {name} | {shown(value.value)} | {value.unit} | {value.meaning} | {value.origin} |"
        for module in (footprint, onnxruntime, openvino)
        for name, value in vars(module).items()
        if isinstance(value, Constant)
    ]
    text = (ROOT / "docs/memory.md").read_text()
    _, _, constants = text.partition("\n## The constants\n")
    _, _, table = constants.partition("| --- | --- | --- | --- | --- |\n")
    assert table.partition("\n\n")[0].splitlines() == wanted and len(wanted) > 20


def test_the_tables_document_lists_every_column() -> None:
    from engine.store import columns

    text = (ROOT / "docs/tables.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.M)
    found = [(name, [part.strip() for part in rest.split("|")]) for name, rest in told]
    listed = (
        *columns.FRAMES, columns.FRACTION, *columns.OBJECTS, *columns.INTENSITIES, *columns.VOLUMES,
        *columns.TIMINGS,
    )  # fmt: skip
    assert found == [(c.name, [c.type, c.unit, c.meaning, c.null]) for c in listed]
    # And what is listed is what the files have.
    assert columns.frames_schema().names == [c.name for c in columns.FRAMES]
    each = [c.name.replace("_C", "_0") for c in columns.INTENSITIES]
    assert columns.objects_schema([0]).names == [*(c.name for c in columns.OBJECTS), *each]
    for column in columns.OBJECTS:
        field = columns.objects_schema([0]).field(column.name)
        assert str(field.type) == column.type
