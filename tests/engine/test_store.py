"""Results open with the field's own readers, and are valid OME-Zarr."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from engine import layout as layout_module
from engine import store
from engine.job import run_job
from engine.layout import LabelLayout
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs


@st.composite
def layouts(draw: st.DrawFn) -> LabelLayout:
    axes = draw(st.sampled_from(["YX", "TYX", "ZYX", "TZYX"]))
    shape = tuple(draw(st.integers(1, 7)) for _ in axes[:-2])
    sides = (draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    origin = draw(st.integers(0, 3)) if "T" in axes else 0
    return LabelLayout(axes, (*shape, *sides), draw(st.sampled_from(["uint8", "uint32"])), origin)


@given(layouts(), st.integers(1, 9000), st.integers(0, 2**16))
def test_shards_put_one_by_one_make_the_array(
    plan: LabelLayout, block_pixels: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "BLOCK_PIXELS", block_pixels)
        patch.setattr(layout_module, "WHOLE", 40)
        patch.setattr(layout_module, "CHUNK", 32)
        rng = np.random.default_rng(seed)
        expected = rng.integers(0, 200, plan.shape).astype(plan.dtype)
        frames = expected.reshape(-1, *plan.shape[-2:])
        target = MemoryStore()
        array = store._new_array(target, plan, plan.shape)
        done = []
        for block in plan.blocks():
            shard = store.new_shard(plan)
            for t, z in block.frames:
                position = (t - plan.t0) * plan._size("Z") + z - plan.z0
                labels = frames[position]
                shard[t - block.t[0], z - block.z[0], : labels.shape[0], : labels.shape[1]] = labels
                done.append(position)
            data = default_buffer_prototype().buffer.from_bytes(store.encode_shard(plan, shard))
            sync(target.set(plan.shard_key(block), data))
        assert done == list(range(plan.n_frames))  # every frame once, in order
        assert np.array_equal(array[...], expected)
        assert len(target._store_dict) == 1 + plan.n_blocks  # a shard is an object


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
