"""`--measure`: which channels are measured and read; nothing else of a result changes."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from engine.cli import stackseg
from engine.errors import OutputError, StackError, UsageError
from engine.geometry import layout
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.job.relabel import relabel
from engine.measure.objects import channels_of
from engine.plan.settings import job_settings
from engine.results.convert.geojson import _intensities
from engine.results.verify.run import verify_job
from engine.stacks.open import open_stack
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.engine.test_cut import REGIONS, WHOLE

NAMES = ("DAPI", "GFP", "RFP", "CY5", "far red")
FORMS = {"whole": (WHOLE, {}), "cut": (REGIONS, {}), "z": (WHOLE, {"connect": "z"})}


def write(folder: Path, kind: str, data: np.ndarray) -> Path:
    """A stack of (T, C, Z, Y, X); every channel of a plane is a page, or chunks, of its own."""
    path = folder / {"packed": "stack.ome.tif"}.get(kind, f"stack.{kind}")
    if kind == "zarr":
        array = zarr.create_array(
            path, shape=data.shape, dtype=data.dtype, chunks=(1, 1, 1, 48, 48),
            dimension_names=list("tczyx"),
        )  # fmt: skip
        array[...] = data
    else:
        metadata = {"axes": "TCZYX", "Channel": {"Name": list(NAMES[: data.shape[1]])}}
        options = {"compression": "zlib"} if kind == "packed" else {}
        tifffile.imwrite(path, data, metadata=metadata, photometric="minisblack", **options)
    return path


def segment(stack: Path, output: Path, form: str = "whole", **options: Any) -> Path:
    constants, form_options = FORMS[form]
    model = output.parent / "threshold.onnx"
    if not model.exists():
        make_threshold_model(model)
    with mock.patch.multiple(layout, **constants):
        job = jobs.settings(stack, model, output, **form_options, **options)
        assert run_job(job, executor=SerialExecutor()).exit_status == 0
    return output


@functools.cache
def by_default(n: int, channel: int, kind: str, form: str) -> tuple[Path, Path]:
    """A stack of `n` channels, and the result of a job that measures all of them."""
    place = Path(tempfile.mkdtemp())
    stack = write(place, kind, jobs.blobs((2, n, 2, 48, 50), seed=n))
    return stack, segment(stack, place / "all", form, channel=str(channel))


@pytest.fixture(scope="module", autouse=True)
def _places() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as place, mock.patch.object(tempfile, "tempdir", place):
        yield
        by_default.cache_clear()


@settings(max_examples=15)
@given(
    st.sampled_from(["tif", "packed", "zarr"]), st.sampled_from(list(FORMS)),
    st.integers(1, 4), st.data(),
)  # fmt: skip
def test_chosen_channels_have_the_columns_of_a_job_that_measures_all(
    kind: str, form: str, n: int, data: st.DataObject
) -> None:
    channel = data.draw(st.integers(0, n - 1))
    measured = sorted(data.draw(st.sets(st.integers(0, n - 1))))
    stack, everything = by_default(n, channel, kind, form)
    with tempfile.TemporaryDirectory() as place:
        given = ",".join(map(str, measured)) or "none"
        chosen = segment(stack, Path(place) / "out", form, channel=str(channel), measure=given)
        tables = [pq.read_table(one / "objects.parquet") for one in (everything, chosen)]
        assert channels_of(tables[0].column_names) == list(range(n))
        assert channels_of(tables[1].column_names) == measured
        assert tables[0].num_rows > 4
        for name in tables[1].column_names:
            assert tables[1][name].equals(tables[0][name]), name
            assert tables[1].schema.field(name).equals(tables[0].schema.field(name), True)
        left_out = set(tables[0].column_names) - set(tables[1].column_names)
        assert all("_intensity_" in name for name in left_out)
        assert np.array_equal(labels_of(chosen, "stack"), labels_of(everything, "stack"))
        assert (chosen / "frames.csv").read_text() == (everything / "frames.csv").read_text()
        assert verify_job(chosen).exit_status == 0


def test_all_is_the_default(tmp_path: Path) -> None:
    stack = write(tmp_path, "tif", jobs.blobs((2, 3, 1, 40, 50)))
    for name, options in (("a", {}), ("b", {"measure": "all"}), ("c", {"measure": "2,0,1,0"})):
        segment(stack, tmp_path / name, channel="1", **options)
    assert jobs.contents(tmp_path / "a") == jobs.contents(tmp_path / "b")
    assert jobs.contents(tmp_path / "a") == jobs.contents(tmp_path / "c")


def read_of(stack: Path, **options: Any) -> tuple[int, ...]:
    model = make_threshold_model(stack.parent / "threshold.onnx")
    job = prepare_job(jobs.settings(stack, model, stack.parent / "out", **options))
    return job.plan.stacks[0].channels_read


def test_what_is_read_feeds_the_model_or_is_measured_or_kept(tmp_path: Path) -> None:
    stack = write(tmp_path, "ome.tif", jobs.blobs((1, 4, 1, 40, 50)))
    assert read_of(stack, channel="2") == (0, 1, 2, 3)
    assert read_of(stack, channel="2", measure="none") == (2,)
    assert read_of(stack, channel="2", measure="GFP,0") == (0, 1, 2)
    assert read_of(stack, channel="GFP", measure="none", with_image=True) == (0, 1, 2, 3)
    with pytest.raises(StackError, match="has no channel 'BF'"):
        read_of(stack, channel="2", measure="BF")
    with pytest.raises(UsageError, match="--measure: is not understood"):
        job_settings(inputs=("s.tif",), model="nuclei", output=tmp_path, measure="0,,1")


def test_a_channel_may_be_called_all(tmp_path: Path) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "all"]}}
    stack = tmp_path / "s.ome.tif"
    tifffile.imwrite(stack, jobs.blobs((2, 40, 50)), metadata=metadata, photometric="minisblack")
    assert read_of(stack, channel="all", measure="none") == (1,)
    assert read_of(stack, channel="1", measure='"all"') == (1,)
    with pytest.raises(StackError, match=r'DAPI, "all"'):
        read_of(stack, channel="1", measure="2")


def bytes_read() -> int:
    """Bytes that this process has asked files for."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("channels", [(3,), (0, 3), (4, 0, 0)])
@pytest.mark.parametrize("kind", ["tif", "packed"])
def test_only_the_pages_of_these_channels_are_read_of_a_tiff(
    tmp_path: Path, kind: str, channels: tuple[int, ...]
) -> None:
    data = jobs.blobs((2, 5, 1, 512, 400))
    path = write(tmp_path, kind, data)
    with tifffile.TiffFile(path) as tif:
        sizes = [sum(page.databytecounts) for page in tif.series[0].pages]
    with open_stack(str(path), None, None) as stack:
        for t in range(2):
            before = bytes_read()
            found = stack.read(t, 0, channels)
            read = bytes_read() - before
            assert np.array_equal(found, data[t, list(channels), 0])
            least = sum(sizes[5 * t + c] for c in set(channels))
            assert least <= read < least * len(channels) / len(set(channels)) + min(sizes) / 4


@pytest.mark.parametrize("channels", [(3,), (0, 3), (3, 0, 0), (1, 2), (0, 2, 4)])
def test_only_the_chunks_of_these_channels_are_read_of_a_zarr(
    tmp_path: Path, channels: tuple[int, ...]
) -> None:
    data = jobs.blobs((2, 5, 1, 48, 50))
    with open_stack(str(write(tmp_path, "zarr", data)), None, None) as stack:
        read: list[str] = []
        get = LocalStore.get

        async def counted(self: Any, key: str, *args: Any, **options: Any) -> Any:
            read.append(key)
            return await get(self, key, *args, **options)

        with mock.patch.object(LocalStore, "get", counted):
            found = stack.read(1, 0, channels)
            window = stack.read_window(1, 0, channels, slice(3, 40), slice(0, 48))
    assert np.array_equal(found, data[1, list(channels), 0])
    assert np.array_equal(window, data[1, list(channels), 0, 3:40, :48])
    chunks = [key for key in read if "/c/" in f"/{key}"]
    assert {int(key.split("c/")[-1].split("/")[1]) for key in chunks} == set(channels)
    assert len(chunks) == 3 * len(set(channels))  # two chunks of a frame, one of the window


@pytest.mark.parametrize("form", list(FORMS))
def test_a_channel_that_is_not_read_may_be_lost(tmp_path: Path, form: str) -> None:
    """Of a network of two channels that are not the first ones."""
    network = networks.unet((4, 4), n_channels=2, seed=3, positive=False)
    model = networks.save(
        tmp_path / "threshold.onnx", network, networks.spec(network, n_channels=2, name="threshold")
    )
    stack = write(tmp_path, "zarr", jobs.blobs((2, 4, 2, 48, 50)))
    good = segment(stack, tmp_path / "good", form, channel="3,1", measure="2")
    for chunk in (stack / "c").glob("*/0/*"):
        shutil.rmtree(chunk)
    found = segment(stack, tmp_path / "found", form, channel="3,1", measure="2")
    assert pq.read_table(good / "objects.parquet").equals(pq.read_table(found / "objects.parquet"))
    assert (good / "frames.csv").read_text() == (found / "frames.csv").read_text()
    assert model.is_file()


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("form", list(FORMS))
def test_a_relabelling_measures_as_the_job_did(tmp_path: Path, form: str, image: bool) -> None:
    stack = write(tmp_path, "ome.tif", jobs.blobs((2, 3, 2, 48, 50)))
    options = {"channel": "2", "keep": "probability", "with_image": image}
    tables, frames = [], []
    for name, measure in (("some", "GFP"), ("all", "all"), ("none", "none")):
        result = segment(stack, tmp_path / name, form, measure=measure, **options)
        with mock.patch.multiple(layout, **FORMS[form][0]):
            assert relabel(result, "again", threshold=0.6).exit_status == 0
        assert verify_job(result / "relabelled/again").exit_status == 0
        tables.append(pq.read_table(result / "relabelled/again/objects.parquet"))
        frames.append((result / "relabelled/again/frames.csv").read_text())
    assert [channels_of(table.column_names) for table in tables] == [[1], [0, 1, 2], []]
    for table in tables:
        assert table.num_rows
        for name in table.column_names:
            assert table[name].equals(tables[1][name]), name
    assert frames[0] == frames[1] == frames[2]


def test_another_choice_is_another_job(tmp_path: Path) -> None:
    stack = write(tmp_path, "ome.tif", jobs.blobs((2, 3, 1, 48, 50)))
    output = segment(stack, tmp_path / "out", channel="0", measure="GFP")
    recorded = json.loads((output / "job.json").read_bytes())
    assert recorded["settings"]["measure"] == "GFP"
    (one,) = recorded["inputs"]
    assert one["channels"] == [0] and one["measured_channels"] == [1]
    job = jobs.settings(stack, tmp_path / "threshold.onnx", output, channel="0", measure="1")
    assert run_job(job, executor=SerialExecutor()).already_complete  # the same by its number
    for measure in ("all", "none", "0,1"):
        other = job.model_copy(update={"measure": measure})
        with pytest.raises(OutputError, match="measured channels"):
            run_job(other, executor=SerialExecutor())


def test_frames_are_repeated_though_another_channel_has_changed(tmp_path: Path) -> None:
    """The recorded hash of a frame is over what is read of it."""
    data = jobs.blobs((3, 3, 1, 48, 50))
    stack = write(tmp_path, "zarr", data)
    bad = stack / "c/1/1/0/0/0"
    whole = bad.read_bytes()
    bad.write_bytes(b"damaged")
    model = make_threshold_model(tmp_path / "threshold.onnx")
    job = jobs.settings(stack, model, tmp_path / "out", channel="1", measure="2")
    assert run_job(job, executor=SerialExecutor()).frames_failed == 1
    bad.write_bytes(whole)
    array = zarr.open_array(stack)
    array[0, 0] = 7  # never read
    again = run_job(job.model_copy(update={"retry_failed": True}), executor=SerialExecutor())
    assert (again.exit_status, again.frames_failed) == (0, 0)
    bad.write_bytes(b"damaged")
    output = tmp_path / "other"
    job = job.model_copy(update={"output": output})
    assert run_job(job, executor=SerialExecutor()).frames_failed == 1
    bad.write_bytes(whole)
    array[0, 2] = 7  # measured
    with pytest.raises(OutputError, match="t=0 z=0 has changed"):
        run_job(job.model_copy(update={"retry_failed": True}), executor=SerialExecutor())


def test_the_command_and_its_plan(tmp_path: Path) -> None:
    stack = write(tmp_path, "ome.tif", jobs.blobs((1, 4, 1, 512, 1024)))
    model = make_threshold_model(tmp_path / "threshold.onnx")

    def plan(*options: str) -> str:
        arguments = ["plan", str(stack), "--model", str(model), "--channel", "GFP", *options]
        result = CliRunner().invoke(stackseg, arguments)
        assert result.exit_code == 0, result.output
        return next(line.strip() for line in result.stdout.splitlines() if "reads" in line)

    assert plan() == (
        "reads 4 of 4 channels, 4.00 MB a frame; for the model: 1 (GFP); measured: all "
        "(with none 1.00 MB)"
    )
    assert plan("--measure", "none") == (
        "reads 1 of 4 channels, 1.00 MB a frame; for the model: 1 (GFP); measured: none"
    )
    assert plan("--measure", "RFP,1") == (
        "reads 2 of 4 channels, 2.00 MB a frame; for the model: 1 (GFP); measured: 1 (GFP), "
        "2 (RFP) (with none 1.00 MB)"
    )
    assert plan("--measure", "0", "--with-image").endswith("measured: 0 (DAPI); all are kept")


def test_memory_follows_from_the_channels_that_are_read(tmp_path: Path) -> None:
    stack = write(tmp_path, "packed", jobs.blobs((1, 4, 1, 256, 256)))
    model = make_threshold_model(tmp_path / "threshold.onnx")

    def frame_bytes(**options: Any) -> int:
        job = prepare_job(jobs.settings(stack, model, tmp_path / "out", channel="1", **options))
        return job.plan.memory.frame

    one, two, four = (frame_bytes(measure=given) for given in ("none", "2", "all"))
    page = 256 * 256 * 2
    assert four - two >= 2 * page and two - one >= page


def test_qupath_names_the_channel_that_was_measured(tmp_path: Path) -> None:
    stack = write(tmp_path, "ome.tif", jobs.blobs((1, 3, 1, 48, 50)))
    output = segment(stack, tmp_path / "out", channel="0", measure="RFP")
    schema = pq.read_schema(output / "objects.parquet")
    assert _intensities(schema, [2]) == {"mean_intensity_2": "Mean intensity: RFP"}
    assert _intensities(schema, []) == {}


def test_stacks_whose_channels_have_other_numbers(tmp_path: Path) -> None:
    """A column is of a number; where a stack did not measure that one, it is null."""
    paths = []
    for name, names in (("a", ["DAPI", "GFP"]), ("b", ["GFP", "DAPI"])):
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        paths.append(tmp_path / f"{name}.ome.tif")
        tifffile.imwrite(
            paths[-1], jobs.blobs((2, 48, 50)), metadata=metadata, photometric="minisblack"
        )
    model = make_threshold_model(tmp_path / "threshold.onnx")
    job = jobs.settings(paths, model, tmp_path / "out", channel="DAPI", measure="GFP")
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    table = pq.read_table(tmp_path / "out/objects.parquet")
    assert channels_of(table.column_names) == [0, 1]
    assert [table.schema.field(f"sum_intensity_{c}").metadata[b"channel"] for c in (0, 1)] == [
        b"GFP", b"GFP",
    ]  # fmt: skip
    for row in table.to_pylist():
        assert (row["mean_intensity_0"] is None) == (row["stack"] == "a")
        assert (row["mean_intensity_1"] is None) == (row["stack"] == "b")
    assert verify_job(tmp_path / "out").exit_status == 0
