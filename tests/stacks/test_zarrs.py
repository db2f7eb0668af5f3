from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import StackError
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.stacks.open import open_stack
from tests.engine import jobs
from tests.stacks.frames import check, ramp


def write(path: Path, pixels: np.ndarray, version: int = 3, **options: Any) -> zarr.Array[Any]:
    chunks = tuple(max(1, n // 2) for n in pixels.shape)
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunks=chunks,
        zarr_format=version,  # type: ignore[arg-type]
        overwrite=True,
        **options,
    )
    array[...] = pixels
    return array


def ngff(axes: str, scale: list[float], version: str) -> dict[str, Any]:
    kinds = {"T": "time", "C": "channel"}
    units = {"T": "minute", "Z": "nanometer", "Y": "micrometer", "X": "micrometer"}
    names = [
        {"name": a.lower(), "type": kinds.get(a, "space")}
        | ({"unit": units[a]} if a in units else {})
        for a in axes
    ]
    dataset = {
        "path": "s0",
        "coordinateTransformations": [{"type": "scale", "scale": scale}],
    }
    small = {
        "path": "s1",
        "coordinateTransformations": [{"type": "scale", "scale": [2 * s for s in scale]}],
    }
    image: dict[str, Any] = {
        "multiscales": [{"axes": names, "datasets": [dataset, small], "version": "0.4"}],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
    }
    return {"ome": {**image, "version": version}} if version == "0.5" else image


def write_image(path: Path, pixels: np.ndarray, axes: str, version: str) -> None:
    zarr_format = 3 if version == "0.5" else 2
    scale = [{"T": 2.0, "Z": 500.0, "Y": 0.5, "X": 0.25}.get(a, 1.0) for a in axes]
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    group.attrs.update(ngff(axes, scale, version))
    write(path / "s0", pixels, zarr_format)
    write(path / "s1", pixels[..., ::2, ::2], zarr_format)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str) -> None:
    pixels = ramp((3, 2, 4, 20, 30))
    path = tmp_path / "a.zarr"
    write_image(path, pixels, "TCZYX", version)
    with check(path, pixels, "TCZYX") as stack:
        assert stack.info.format == "OME-Zarr"
        assert stack.info.pixel_size_um == pytest.approx({"Z": 0.5, "Y": 0.5, "X": 0.25})
        assert stack.info.time_step_s == 120
        assert stack.info.channel_names == ("DAPI", "GFP")
        np.testing.assert_array_equal(stack.read(1, 2, [1]), pixels[1, [1], 2])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", ">u2", "<i2", "float16", ">f4", "float64", "int32"]
)
def test_plain_arrays(tmp_path: Path, version: int, dtype: str) -> None:
    pixels = ramp((20, 30), np.dtype(dtype).name).astype(dtype)
    write(tmp_path / "a", pixels, version)
    check(tmp_path / "a", pixels, "YX").close()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(axes=st.permutations("TCZYX"), lost=st.sets(st.sampled_from("TCZ")), data=st.data())
def test_any_order_of_axes(
    tmp_path: Path, axes: list[str], lost: set[str], data: st.DataObject
) -> None:
    names = "".join(a for a in axes if a not in lost)
    pixels = ramp(tuple(data.draw(st.integers(1, 5)) for _ in names))
    write(tmp_path / "a", pixels, dimension_names=list(names.lower()))
    check(tmp_path / "a", pixels, names).close()
    write(tmp_path / "b", pixels, 2)
    check(tmp_path / "b", pixels, names, names).close()


def test_xarray_names_its_dimensions_in_the_attributes(tmp_path: Path) -> None:
    pixels = ramp((3, 20, 30))
    array = write(tmp_path / "a", pixels, 2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"]
    check(tmp_path / "a", pixels, "TYX").close()


def test_nameless_dimensions_are_ambiguous(tmp_path: Path) -> None:
    write(tmp_path / "a", ramp((5, 20, 30)))
    with pytest.raises(StackError) as caught:
        open_stack(str(tmp_path / "a"))
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: has shape (5, 20, 30) and no axes in its metadata: "
        "give --axes TYX, --axes CYX or --axes ZYX"
    )


def test_a_group_with_one_image_and_with_two(tmp_path: Path) -> None:
    pixels = ramp((20, 30))
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    write(tmp_path / "a.zarr" / "only", pixels)
    check(tmp_path / "a.zarr", pixels, "YX").close()
    write(tmp_path / "a.zarr" / "second", pixels)
    with pytest.raises(StackError, match=r"holds 2 images; give one of them: .*only, .*second"):
        open_stack(str(tmp_path / "a.zarr"))


def test_plates_are_refused_with_their_fields(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="w", zarr_format=2)
    group.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    with pytest.raises(StackError, match=r"plate of 2 wells; give its fields: .*A/1/0, .*B/2/0"):
        open_stack(str(tmp_path / "p.zarr"))
    group.attrs["plate"] = {"wells": [{"path": "A/1"}]}
    with pytest.raises(StackError, match=r"plate of 1 well; give its fields: .*A/1/0$"):
        open_stack(str(tmp_path / "p.zarr"))


def test_threads_read_the_same_frames(tmp_path: Path) -> None:
    pixels = ramp((20, 64, 80))
    write(tmp_path / "a", pixels, dimension_names=["t", "y", "x"])
    with open_stack(str(tmp_path / "a")) as stack, ThreadPoolExecutor(8) as pool:
        order = list(np.random.default_rng(0).permutation(np.repeat(np.arange(20), 3)))
        for t, frame in zip(order, pool.map(lambda t: stack.read(t, 0, [0]), order), strict=True):
            np.testing.assert_array_equal(frame[0], pixels[t])


def _v2(**changes: Any) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": [4, 4],
        "chunks": [4, 4],
        "dtype": "<u2",
        "compressor": None,
        "fill_value": 0,
        "filters": None,
        "order": "C",
        **changes,
    }


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (_v2(dtype="|O", filters=[{"id": "pickle"}]), "objects"),
        (_v2(filters=[{"id": "pickle"}]), "objects"),
        (_v2(dtype="<U8"), "type"),
        (_v2(dtype="<c8", fill_value=None), "complex64"),
        (_v2(dtype=[["a", "<u2"]]), "objects"),
        (_v2(shape=[0, 4]), "no image"),
        (_v2(shape=[16], chunks=[16]), "no image"),
        (_v2(shape=[2**40, 2**40]), "damaged"),
        (_v2(shape=[-3, 4]), "damaged"),
        (_v2(chunks=[0, 0]), "no image"),
        (_v2(compressor={"id": "no such codec"}), "not read here"),
        ({"zarr_format": 2}, "objects"),
        ("{", "JSON"),
        ("[]", "not Zarr metadata"),
    ],
    ids=str,
)
def test_bad_arrays(tmp_path: Path, document: Any, says: str) -> None:
    (tmp_path / "a").mkdir()
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "a" / ".zarray").write_text(text)
    with pytest.raises(StackError, match=says) as caught:
        open_stack(str(tmp_path / "a"))
    assert "\n" not in str(caught.value)


def test_chunks_without_pixels(tmp_path: Path) -> None:
    """Nothing can have been stored in them: what zarr reads there is no image."""
    write(tmp_path / "a", ramp((5, 20, 30)), 3)
    metadata = tmp_path / "a" / "zarr.json"
    document = json.loads(metadata.read_text())
    document["chunk_grid"]["configuration"]["chunk_shape"] = [1, 20, 0]
    metadata.write_text(json.dumps(document))
    with pytest.raises(StackError, match="no image"):
        open_stack(str(tmp_path / "a"))


@pytest.mark.parametrize(
    "multiscales",
    [
        [],
        {},
        "x",
        [{}],
        [{"datasets": []}],
        [{"datasets": [{"path": "../../etc"}], "axes": ["y", "x"]}],
        [{"datasets": [{"path": "gone"}], "axes": ["y", "x"]}],
        [{"datasets": [{"path": "s0"}], "axes": [{"type": "space"}]}],
        [{"datasets": [{"path": "s0"}], "axes": ["q", "y", "x"]}],
    ],
    ids=str,
)
def test_bad_images(tmp_path: Path, multiscales: Any) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["multiscales"] = multiscales
    write(tmp_path / "a.zarr" / "s0", ramp((5, 20, 30)), 2)
    with pytest.raises(StackError) as caught:
        open_stack(str(tmp_path / "a.zarr"))
    assert "\n" not in str(caught.value)


def _image(path: Path, axes: list[Any], scale: list[Any], **attributes: Any) -> Path:
    """An image of two channels and three planes, (C, Z, Y, X), with these metadata."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    transforms = [{"type": "scale", "scale": scale}]
    dataset = {"path": "s0", "coordinateTransformations": transforms}
    group.attrs.update({"multiscales": [{"axes": axes, "datasets": [dataset]}], **attributes})
    write(path / "s0", ramp((2, 3, 20, 30)), 2)
    return path


def _axes(unit: Any, **changes: Any) -> list[dict[str, Any]]:
    um = {"type": "space", "unit": "micrometer"}
    z = {"name": "z", "type": "space", "unit": unit, **changes}
    return [{"name": "c", "type": "channel"}, z, {"name": "y", **um}, {"name": "x", **um}]


GFP = {"omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}}


@pytest.mark.parametrize(
    "unit, size",
    [
        ("micrometer", 2.0), ("nanometer", 2e-3), ("angstrom", 2e-4), ("decimeter", 2e5),
        ("dm", 2e5), ("inch", 50_800.0), ("µm", 2.0), ("pixel", None), ("", None), (None, None),
        ("furlongs", None), (3, None), (["micrometer"], None), ({}, None), ("second", None),
    ],
)  # fmt: skip
def test_a_units_fault_costs_its_axis_alone(tmp_path: Path, unit: Any, size: float | None) -> None:
    path = _image(tmp_path / "a.zarr", _axes(unit), [1, 2.0, 0.5, 0.25], **GFP)
    with open_stack(str(path)) as stack:
        wanted = {"Y": 0.5, "X": 0.25} | ({"Z": size} if size is not None else {})
        assert stack.info.pixel_size_um == pytest.approx(wanted)
        assert stack.info.channel_names == ("DAPI", "GFP")
        assert stack.info.unused == ()


@pytest.mark.parametrize("value", [None, "wide", 0, -1, 1e400, [], {}, 10**400, float("nan")])
def test_a_scales_fault_costs_its_axis_alone(tmp_path: Path, value: Any) -> None:
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [None, value, 0.5, 0.25], **GFP)
    with open_stack(str(path)) as stack:
        assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.25}
        assert stack.info.channel_names == ("DAPI", "GFP")


@pytest.mark.parametrize("transforms", [{}, "x", [3], [None], [{"type": "scale"}], [{"scale": 1}]])
def test_transforms_that_are_none_cost_the_sizes_alone(tmp_path: Path, transforms: Any) -> None:
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [1, 1, 1, 1], **GFP)
    group = zarr.open_group(str(path), mode="r+", zarr_format=2)
    scales: Any = group.attrs["multiscales"]
    scales[0]["datasets"][0]["coordinateTransformations"] = transforms
    group.attrs["multiscales"] = scales
    with open_stack(str(path)) as stack:
        assert stack.info.pixel_size_um == {}
        assert stack.info.channel_names == ("DAPI", "GFP")


def test_both_scales_count_where_both_are_told(tmp_path: Path) -> None:
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [1, 2, 0.5, 0.25])
    group = zarr.open_group(str(path), mode="r+", zarr_format=2)
    scales: Any = group.attrs["multiscales"]
    whole = [{"type": "scale", "scale": [1, "x", 3, 4]}]
    scales[0]["coordinateTransformations"] = whole
    group.attrs["multiscales"] = scales
    assert open_stack(str(path)).info.pixel_size_um == {"Y": 1.5, "X": 1.0}


@pytest.mark.parametrize("unit, step", [("minute", 120.0), ("day", 172_800.0), ("frame", None)])
def test_units_of_time(tmp_path: Path, unit: str, step: float | None) -> None:
    path = tmp_path / "a.zarr"
    write_image(path, ramp((3, 20, 30)), "TYX", "0.5")
    group = zarr.open_group(str(path), mode="r+")
    ome: Any = group.attrs["ome"]
    ome["multiscales"][0]["axes"][0]["unit"] = unit
    group.attrs["ome"] = ome
    with open_stack(str(path)) as stack:
        assert stack.info.time_step_s == step
        assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.25}


@pytest.mark.parametrize("name", [5, None, [], {}, True])
def test_an_axis_without_a_name_can_be_named_by_the_user(tmp_path: Path, name: Any) -> None:
    path = _image(tmp_path / "a.zarr", _axes("micrometer", name=name), [1, 2, 0.5, 0.25], **GFP)
    with pytest.raises(StackError, match="--axes CTYX or --axes CZYX"):
        open_stack(str(path))
    with open_stack(str(path), "CZYX") as stack:
        assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.25}
        assert stack.info.channel_names == ("DAPI", "GFP")


@pytest.mark.parametrize(
    "label, name", [(None, ""), ([], ""), ({}, ""), (True, ""), (488, "488"), ("", "")]
)
@pytest.mark.parametrize("channel", [True, False])
def test_a_channel_without_a_name_costs_its_own(
    tmp_path: Path, label: Any, name: str, channel: bool
) -> None:
    first = {"label": label} if channel else label
    omero = {"channels": [first, {"label": "GFP"}]}
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [1, 2, 0.5, 0.25], omero=omero)
    with open_stack(str(path)) as stack:
        assert stack.info.channel_names == (name if channel else "", "GFP")
        assert stack.info.unused == ()


def test_names_for_another_number_of_channels_are_not_used_and_that_is_said(
    tmp_path: Path,
) -> None:
    omero = {"channels": [{"label": "GFP"}]}
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [1, 2, 0.5, 0.25], omero=omero)
    with open_stack(str(path)) as stack:
        assert stack.info.channel_names == ()
        (said,) = stack.info.unused
        assert "(1)" in said and "(2)" in said


def test_further_images_of_a_group_are_said(tmp_path: Path) -> None:
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [1, 2, 0.5, 0.25])
    group = zarr.open_group(str(path), mode="r+", zarr_format=2)
    scales: Any = group.attrs["multiscales"]
    group.attrs["multiscales"] = [*scales, {"name": "deconvolved", "datasets": []}, {}, 5]
    write(path / "mask", ramp((20, 30)), 2)
    write(path / "other" / "deep", ramp((20, 30)), 2)  # a plain group of whatever
    zarr.open_group(str(path / "second"), mode="w", zarr_format=2).attrs["multiscales"] = [{}]
    zarr.open_group(str(path / "labels"), mode="w", zarr_format=2).attrs["labels"] = ["cells"]
    (path / "damaged").mkdir()
    (path / "damaged/.zarray").write_text("{")
    with open_stack(str(path)) as stack:
        images, beside = stack.info.unused
        assert "deconvolved, number 2, number 3" in images
        assert beside.endswith("mask, second")
        assert stack.info.shape == (2, 3, 20, 30)


def test_levels_and_labels_are_no_images_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_image(path, ramp((3, 2, 20, 30)), "TCYX", "0.5")
    zarr.open_group(str(path / "labels"), mode="w").attrs["ome"] = {"labels": ["cells"]}
    assert open_stack(str(path)).info.unused == ()


def test_a_level_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = _image(tmp_path / "a.zarr", _axes("micrometer"), [1, 2, 0.5, 0.25])
    shutil.rmtree(path / "s0")
    with pytest.raises(StackError, match="names s0 as its pixels, which is not there"):
        open_stack(str(path))


@pytest.mark.parametrize("version", [2, 3])
def test_identity_changes_when_a_chunk_does(tmp_path: Path, version: int) -> None:
    data = np.arange(4 * 8 * 9, dtype=np.uint16).reshape(4, 8, 9)
    array = zarr.create_array(
        tmp_path / "a.zarr",
        data=data,
        chunks=(1, 8, 9),
        zarr_format=version,  # type: ignore
    )
    before = open_stack(str(tmp_path / "a.zarr"), "TYX").info.identity
    assert open_stack(str(tmp_path / "a.zarr"), "TYX").info.identity == before
    array[2] = data[1]
    assert open_stack(str(tmp_path / "a.zarr"), "TYX").info.identity != before


def test_a_label_image_is_said_to_be_one(tmp_path: Path, threshold_model: Path) -> None:
    """It can be read, as any image, but its values are no intensities."""
    stack = jobs.write_stack(tmp_path / "a.tif", jobs.blobs((2, 40, 48)))
    run_job(jobs.settings(stack, threshold_model, tmp_path / "out"), executor=SerialExecutor())
    for path in ("out/a.zarr", "out/a.zarr/labels/threshold"):
        with open_stack(str(tmp_path / path)) as labels:
            assert any("is a label image" in said for said in labels.info.unused)
