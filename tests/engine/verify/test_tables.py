"""`verify`: tables and reports that are lost or changed are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.verify.damage import TABLES, damaged, rewrite, text_of, write_json


def changed(table: str) -> str:
    return f"{table}: has changed since the end of the job: its SHA-256 is not that in job.json"


@pytest.mark.parametrize("column", ["area_px", "max_intensity_0", "class", "touches_border"])
@pytest.mark.parametrize("at", [0, 7, -1])
def test_a_value_of_an_object(whole: Path, tmp_path: Path, at: int, column: str) -> None:
    output = damaged(whole, tmp_path)
    path = output / "objects.parquet"
    known = pq.read_table(path).to_pylist()[at][column]
    value: Any = "another" if isinstance(known, str) else known + 1
    value = not known if isinstance(known, bool) else value
    rewrite(path, lambda rows: rows[at].update({column: value}))
    assert text_of(output) == changed("objects.parquet")


@pytest.mark.parametrize("table", ["objects.parquet", "frames.parquet"])
@pytest.mark.parametrize("at", [0, 2, -1])
def test_a_row_that_is_lost_or_twice_there(job: Path, tmp_path: Path, table: str, at: int) -> None:
    if not pq.read_table(job / table).num_rows:
        pytest.skip("a class map has no objects")
    output = damaged(job, tmp_path)
    rewrite(output / table, lambda rows: rows.pop(at))
    assert text_of(output) == changed(table)
    output = damaged(job, tmp_path)
    rewrite(output / table, lambda rows: rows.insert(at, rows[at]))
    assert text_of(output) == changed(table)


@pytest.mark.parametrize("at", [1, 3, -1])
def test_a_line_of_frames_csv(job: Path, tmp_path: Path, at: int) -> None:
    lines = (job / "frames.csv").read_text().splitlines(keepends=True)
    for line in ("", lines[at].replace("0.", "1."), lines[at].rstrip() + ",1\n", "x" + lines[at]):
        if line == lines[at]:
            continue  # a frame that was set aside has no figures
        output = damaged(job, tmp_path)
        rest = lines[:]
        rest[at] = line
        (output / "frames.csv").write_text("".join(rest))
        assert text_of(output) == changed("frames.csv")


@pytest.mark.parametrize("table", [*TABLES, "job.json"])
@pytest.mark.parametrize("how", ["gone", "empty", "cut"])
def test_a_table_or_report_that_is_gone_or_cut_short(
    whole: Path, tmp_path: Path, table: str, how: str
) -> None:
    output = damaged(whole, tmp_path)
    content = (output / table).read_bytes()
    if how == "gone":
        (output / table).unlink()
    else:
        (output / table).write_bytes(b"" if how == "empty" else content[: len(content) // 2])
    lines = text_of(output).splitlines()
    assert lines and all(line.startswith(table) for line in lines)


@settings(max_examples=40)
@given(data=st.data(), table=st.sampled_from(TABLES))
def test_any_byte_of_any_table(
    whole: Path, tmp_path: Path, data: st.DataObject, table: str
) -> None:
    path = whole / table
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    kept = path.read_bytes()
    try:
        path.write_bytes(content)
        assert table in text_of(whole)
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["frames"].clear(),
        lambda content: content["frames"][0].update(t=5),
        lambda content: content["frames"][0].update(reason="because"),
        lambda content: content["frames"].append(content["frames"][0]),
        lambda content: content["stacks"].append({"input": "x", "reason": "y"}),
        lambda content: content.update(frames=None),
    ],
)
def test_failures_that_are_others(job: Path, tmp_path: Path, change: Any) -> None:
    output = damaged(job, tmp_path)
    write_json(output / "failures.json", change)
    assert text_of(output).startswith("failures.json: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["counts"].update(frames=7),
        lambda content: content["counts"].update(failed=0),
        lambda content: content["counts"].update(objects=3),
        lambda content: content["inputs"][0].update(pixels_sha256="0" * 64),
        lambda content: content["inputs"][0].update(labels_shape=[1, 2, 3]),
        lambda content: content["inputs"].clear(),
        lambda content: content["settings"]["resolved"].update(threshold=0.25),
        lambda content: content["model"].update(sha256="0" * 64),
        lambda content: content.pop("counts"),
    ],
)
def test_a_report_that_is_another(job: Path, tmp_path: Path, change: Any) -> None:
    output = damaged(job, tmp_path)
    write_json(output / "job.json", change)
    assert "job.json: " in text_of(output)
