"""`verify`: metadata that are lost or changed, and strays, are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.verify.damage import damaged, name, shards, text_of, write_json

ARRAY = "stack.zarr/labels/threshold/0/zarr.json"
IMAGE = "stack.zarr/labels/threshold/zarr.json"
GROUPS = (IMAGE, "stack.zarr/labels/zarr.json", "stack.zarr/zarr.json")


@pytest.mark.parametrize("path", [ARRAY, *GROUPS])
@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_metadata_that_are_lost(job: Path, tmp_path: Path, path: str, how: str) -> None:
    output = damaged(job, tmp_path)
    content = (output / path).read_bytes()
    (output / path).unlink()
    if how != "gone":
        (output / path).write_bytes(b"[1]" if how == "other" else content[:-20])
    assert text_of(output).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [99, 40, 50]),
        ("fill_value", 1),
        ("data_type", "uint16"),
        ("dimension_names", ["z", "y", "x"]),
        ("codecs", []),
        ("attributes", {"a": 1}),
    ],
)
@pytest.mark.parametrize("unfinished", [False, True])
def test_array_metadata_that_are_changed(
    job: Path, tmp_path: Path, key: str, value: Any, unfinished: bool
) -> None:
    output = damaged(job, tmp_path)
    if unfinished:
        (output / "job.json").unlink()
    write_json(output / ARRAY, lambda content: content.update({key: value}))
    assert f"{ARRAY}: stack stack: the metadata are not as written: {key}" in text_of(output)


def ome(content: Any) -> Any:
    return content["attributes"]["ome"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (IMAGE, lambda c: ome(c)["multiscales"][0]["datasets"][0].update(path="1")),
        (IMAGE, lambda c: ome(c).pop("image-label")),
        (IMAGE, lambda c: ome(c)["multiscales"][0]["axes"].reverse()),
        ("stack.zarr/labels/zarr.json", lambda c: ome(c)["labels"].clear()),
        ("stack.zarr/zarr.json", lambda c: ome(c).pop("multiscales")),
        ("stack.zarr/zarr.json", lambda c: c.update(node_type="array")),
    ],
)
@pytest.mark.parametrize("unfinished", [False, True])
def test_group_metadata_that_are_changed(
    whole: Path, tmp_path: Path, path: str, change: Any, unfinished: bool
) -> None:
    output = damaged(whole, tmp_path)
    if unfinished:
        (output / "job.json").unlink()
    write_json(output / path, change)
    assert f"{path}: stack stack: the metadata " in text_of(output)


def test_metadata_of_which_a_scale_is_changed(job: Path, tmp_path: Path) -> None:
    output = damaged(job, tmp_path)
    path = output / "stack.zarr/zarr.json"
    path.write_text(path.read_text().replace("1.0", "1.5"))
    assert "stack.zarr/zarr.json: stack stack: has changed since the end of the job" in (
        text_of(output)
    )


@pytest.mark.parametrize("key", ["c/99/0/0", "c/0/0", "c/00/0/0", "c/0/0/0.part", "x"])
def test_files_that_no_block_owns(whole: Path, tmp_path: Path, key: str) -> None:
    output = damaged(whole, tmp_path)
    path = output / "stack.zarr/labels/threshold/0" / key
    if path.is_dir():
        path /= "0x"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shards(output)[0], path)
    assert text_of(output) == f"{name(output, path)}: stack stack: belongs to no block"


@pytest.mark.parametrize("kind", ["records/stack/000099.json", "objects/stack/000099.parquet"])
def test_records_of_no_block(job: Path, tmp_path: Path, kind: str) -> None:
    output = damaged(job, tmp_path)
    (output / ".stackseg" / kind).write_bytes(b"")
    assert text_of(output) == f".stackseg/{kind}: stack stack: belongs to no block"


def test_an_identity_that_is_damaged(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    path = output / ".stackseg/identity.json"
    content = path.read_text()
    pairs = [('"layout"', '"lay"'), ("0.5", "0.6"), ("uint32", "uint64"), ('"shape"', '"form"')]
    for text in (*(content.replace(*pair) for pair in pairs), content[:50]):
        assert text != content
        path.write_text(text)
        assert text_of(output)
    assert ".stackseg/identity.json" in text_of(output)
