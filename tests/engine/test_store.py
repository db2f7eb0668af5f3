"""Results open with the field's own readers, and are valid OME-Zarr."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.image_label import ImageLabelAttrs
from ome_zarr_models.v05.labels import LabelsAttrs
from pydantic import TypeAdapter
from zarr.core.buffer import Buffer, default_buffer_prototype

from engine.geometry import layout as layout_module
from engine.geometry.arrays import arrays_of
from engine.geometry.layout import LabelLayout, make_layout
from engine.job.job import run_job
from engine.stacks.base import StackInfo
from engine.store import ome_zarr as store
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs


@given(
    axes=st.sampled_from(["YX", "TYX", "ZYX", "TZYX"]),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 90), st.integers(1, 90)),
    first=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    instances=st.booleans(),
    connect_z=st.booleans(),
    block_pixels=st.integers(1, 9000),
    seed=st.integers(0, 2**16),
)
def test_shards_put_one_by_one_make_the_array(
    axes: str, sizes: tuple[int, ...], first: tuple[int, int], instances: bool, connect_z: bool,
    block_pixels: int, seed: int,
) -> None:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "BLOCK_PIXELS", block_pixels)
        patch.setattr(layout_module, "REGION", 48)
        patch.setattr(layout_module, "WHOLE", 40)
        patch.setattr(layout_module, "CHUNK", 32)
        shape = tuple(n for axis, n in zip("TZYX", sizes, strict=True) if axis in axes)
        first = tuple(n if axis in axes else 0 for axis, n in zip("TZ", first, strict=True))  # type: ignore[assignment]
        plan = make_layout(axes, shape, instances=instances, first=first, connect_z=connect_z)
        expected = np.random.default_rng(seed).integers(0, 200, plan.shape).astype(plan.dtype)
        whole = expected.reshape(plan.sizes)
        objects: dict[str, Buffer] = {}
        (labels,) = arrays_of(plan, "labels/m")
        shape_of = labels.shape(plan)
        array = store._new_array(objects, shape_of, plan.shape)
        covered = np.zeros(plan.sizes, int)
        for block in plan.blocks():
            shard = store.new_shard(shape_of)
            for t, z in block.frames:
                at = (t - plan.t0, z - plan.z0, block.y.as_slice(), block.x.as_slice())
                inside = (t - block.t[0], z - block.z[0])
                shard[inside][: block.y.size, : block.x.size] = whole[at]
                covered[at] += 1
            encoded = store.encode_shard(shape_of, shard)
            assert np.array_equal(store.decode_shard(shape_of, encoded), shard)
            data = default_buffer_prototype().buffer.from_bytes(encoded)
            objects[labels.key(plan, block).removeprefix("labels/m/0/")] = data
        assert (covered == 1).all()  # every pixel once
        assert np.array_equal(array[...], expected)
        assert len(objects) == 1 + plan.n_blocks  # a shard is an object
        numbers = [b for stitch_group in plan.stitch_groups() for b in stitch_group.blocks]
        assert sorted(numbers) == list(range(plan.n_blocks))  # stitch groups share no block
        assert TypeAdapter(LabelLayout).validate_json(json.dumps(asdict(plan))) == plan
        for stitch_group in plan.stitch_groups():
            assert {plan.stitch_group_of(block) for block in stitch_group.blocks} == {
                stitch_group.index
            }


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """A class map of a calibrated time-lapse of volumes; the path of the OME-Zarr."""
    import tifffile

    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path,
        jobs.blobs((3, 2, 64, 80)),
        metadata={
            "axes": "TZYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZ": 2.0,
            "PhysicalSizeZUnit": "µm",
            "TimeIncrement": 30.0,
            "TimeIncrementUnit": "s",
        },
        photometric="minisblack",
    )
    network = networks.unet((4, 4), n_outputs=3, seed=5, positive=False)
    spec = networks.spec(network, classes=("background", "left", "right"), name="heart")
    model = networks.save(tmp_path / "model.onnx", network, spec)
    run_job(jobs.settings(path, model, tmp_path / "out"))
    return tmp_path / "out/stack.zarr"


@pytest.fixture(params=["YX", "TYX", "ZYX", "TZYX", "classes"])
def result(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Instance labels of stacks of each shape, and a class map; the path of the OME-Zarr."""
    if request.param == "classes":
        return request.getfixturevalue("calibrated")  # type: ignore[no-any-return]
    shape = {"YX": (), "TYX": (3,), "ZYX": (3,), "TZYX": (2, 3)}[request.param]
    stack = tmp_path / "stack.ome.tif"
    jobs.write_stack(stack, jobs.blobs((*shape, 64, 80)), axes=request.param)
    model = make_threshold_model(tmp_path / "model.onnx")
    run_job(jobs.settings(stack, model, tmp_path / "out"))
    return tmp_path / "out/stack.zarr"


def name_of(result: Path) -> str:
    (name,) = zarr.open_group(result / "labels", mode="r").attrs["ome"]["labels"]  # type: ignore
    return str(name)


def expected(result: Path) -> Any:
    return zarr.open_array(result / "labels" / name_of(result) / "0", mode="r")[...]


def test_axes_units_and_pixel_sizes_carry_over(calibrated: Path) -> None:
    image = zarr.open_group(calibrated, mode="r").attrs["ome"]["multiscales"][0]  # type: ignore
    assert [a["name"] for a in image["axes"]] == ["t", "z", "y", "x"]
    assert [a["unit"] for a in image["axes"]] == ["second", *["micrometer"] * 3]
    transform = image["datasets"][0]["coordinateTransformations"][0]
    assert transform == {"type": "scale", "scale": [30.0, 2.0, 0.5, 0.5]}


def test_valid_by_ome_zarr_models(result: Path) -> None:
    from ome_zarr_models.v05 import Image, ImageLabel, Labels

    image = Image.from_zarr(zarr.open_group(result, mode="r"))
    assert image.labels is not None
    Labels.from_zarr(zarr.open_group(result / "labels", mode="r"))
    label = ImageLabel.from_zarr(zarr.open_group(result / "labels" / name_of(result), mode="r"))
    assert label.attributes.ome.image_label is not None


def test_classes_have_names_and_colours(calibrated: Path) -> None:
    group = zarr.open_group(calibrated / "labels/heart", mode="r")
    shown = group.attrs["ome"]["image-label"]  # type: ignore
    assert [p["name"] for p in shown["properties"]] == ["background", "left", "right"]  # type: ignore
    assert shown["colors"][0]["rgba"][3] == 0  # type: ignore


def _written(**changes: Any) -> dict[str, bytes]:
    """Metadata of a class map (T, Y, X) of two levels, with these fields of the stack changed."""
    info = StackInfo("a", "Zarr", "TYX", (3, 700, 500), "uint8", **changes)
    layout = make_layout("TYX", (3, 700, 500), instances=False)
    spec = networks.spec(networks.unet((4,), n_outputs=3), classes=("background", "a", "b"))
    arrays = arrays_of(layout, "labels/m")
    return store.metadata_files("a", info, layout, arrays, spec, {"version": "1", "none": None})


def test_metadata_hold_nothing_empty_but_what_a_job_says() -> None:
    files = {key: json.loads(content) for key, content in _written().items()}
    label = files["labels/m/zarr.json"]["attributes"]
    assert list(label["ome"]) == ["version", "multiscales", "image-label"]
    assert list(label["ome"]["multiscales"][0]) == ["name", "axes", "datasets", "type"]
    assert list(label["ome"]["image-label"]) == ["version", "source", "colors", "properties"]
    assert label["stackseg"] == {"version": "1", "none": None}
    assert "null" not in json.dumps([one["attributes"].get("ome", {}) for one in files.values()])


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "TZYX", "TCYX", "TCZYX"])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_all_metadata_are_valid_by_ome_zarr_models(
    axes: str, n_outputs: int, is_calibrated: bool
) -> None:
    """They are not checked as they are written: importing what checks them takes 0.2 s."""
    sizes = {"T": 3, "C": 2, "Z": 4, "Y": 700, "X": 500}
    shape = tuple(sizes[axis] for axis in axes)
    known = {axis: 0.5 for axis in "ZYX" if axis in axes}
    info = StackInfo(
        "a", "Zarr", axes, shape, "uint16",
        pixel_size_um=known if is_calibrated else {},
        time_step_s=30.0 if is_calibrated and "T" in axes else None,
    )  # fmt: skip
    without_c = axes.replace("C", "")
    layout = make_layout(
        without_c, tuple(sizes[axis] for axis in without_c), instances=n_outputs == 1,
        first=(1 if "T" in axes else 0, 0),
    )  # fmt: skip
    classes = ("background", "a", "b") if n_outputs == 3 else ("background", "a")
    spec = networks.spec(networks.unet((4,), n_outputs=n_outputs), classes=classes)
    channels = sizes["C"] if "C" in axes else 0
    arrays = arrays_of(
        layout, "labels/m", probability=("probability/m", n_outputs), image=("uint16", channels)
    )
    files = {
        key: json.loads(content)["attributes"].get("ome")
        for key, content in store.metadata_files("a", info, layout, arrays, spec, {}).items()
    }
    ImageAttrs.model_validate(files["zarr.json"])
    ImageAttrs.model_validate(files["probability/m/zarr.json"])
    ImageLabelAttrs.model_validate(files["labels/m/zarr.json"])
    LabelsAttrs.model_validate(files["labels/zarr.json"])


def test_opens_with_ome_zarr_py(result: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(str(result))
    assert location is not None
    nodes = list(Reader(location)())
    arrays = [np.asarray(node.data[0]) for node in nodes if node.data]
    assert len(arrays) >= 2  # the image, and its label image
    for array in arrays:
        assert np.array_equal(array, expected(result))


def test_opens_in_naparis_reader(result: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from napari_ome_zarr import napari_get_reader

        read = napari_get_reader(str(result))
        assert read is not None
        layers = read(str(result))
    kinds = {layer[2] for layer in layers}
    assert {"image", "labels"} <= kinds
    for data, _, _ in layers:
        level = data[0] if isinstance(data, list) else data
        assert np.array_equal(np.asarray(level), expected(result))


def test_opens_with_our_own_reader(result: Path) -> None:
    from engine.stacks.open import open_stack

    with open_stack(str(result)) as stack:
        labels = expected(result)
        t, z = stack.info.size("T") - 1, stack.info.size("Z") - 1
        assert np.array_equal(stack.read(t, z, [0])[0], labels.reshape(-1, *labels.shape[-2:])[-1])


def test_image_labels_and_levels_open_in_naparis_reader(tmp_path: Path) -> None:
    """With the raw stack, channels included: as many levels of labels as of the image."""
    from ome_zarr_models.v05 import Image, ImageLabel

    data = jobs.blobs((2, 2, 420, 400))
    stack = jobs.write_stack(tmp_path / "stack.ome.tif", data, axes="TCYX")
    model = make_threshold_model(tmp_path / "model.onnx")
    run_job(
        jobs.settings(
            stack, model, tmp_path / "out", channel="1", with_image=True, keep="probability"
        )
    )
    result = tmp_path / "out/stack.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from napari_ome_zarr import napari_get_reader

        read = napari_get_reader(str(result))
        assert read is not None
        layers = {kind: (levels, told) for levels, told, kind in read(str(result))}
    image, labels = layers["image"][0], layers["labels"][0]
    assert [level.shape for level in image] == [(2, 2, 420, 400), (2, 2, 210, 200)]
    assert [level.shape[-2:] for level in labels] == [(420, 400), (210, 200)]
    assert np.array_equal(np.asarray(image[0]), data)
    assert np.array_equal(np.asarray(labels[0]).reshape(2, 420, 400), expected(result))
    assert Image.from_zarr(zarr.open_group(result, mode="r")).labels is not None
    ImageLabel.from_zarr(zarr.open_group(result / "labels/threshold", mode="r"))
    Image.from_zarr(zarr.open_group(result / "probability/threshold", mode="r"))
