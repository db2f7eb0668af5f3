"""Levels: halved as documented, whatever the cut; and made of what lies below, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.geometry import layout as layout_module
from engine.geometry.arrays import arrays_of, level_layout, n_halvings, sources
from engine.geometry.layout import make_layout
from engine.geometry.pyramid import halve_image, halve_labels
from engine.inference.probability import from_8_bit, to_8_bit
from engine.job.job import run_job
from engine.results.verify.run import verify_job
from tests.engine import jobs

SIDES = st.integers(1, 40)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**16))
def test_labels_are_halved_by_the_mode(height: int, width: int, ids: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, ids, (height, width)).astype(np.uint32)
    found = halve_labels(labels)
    assert found.shape == (-(-height // 2), -(-width // 2))
    full = np.pad(labels, ((0, height % 2), (0, width % 2)), mode="edge")
    for y, x in np.ndindex(*found.shape):
        four = full[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()
        counts = {int(v): int((four == v).sum()) for v in four}
        assert counts[int(found[y, x])] == max(counts.values())
        first = next(int(v) for v in four if counts[int(v)] == max(counts.values()))
        assert found[y, x] == first
        if list(counts.values()).count(max(counts.values())) == 1:
            assert found[y, x] == stats.mode(four, keepdims=False).mode  # an independent oracle


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "int64", "uint16", "int16"])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_integers_of_any_width_are_halved_to_the_last_bit(dtype: str, seed: int) -> None:
    limits, rng = np.iinfo(dtype), np.random.default_rng(seed)
    image = rng.integers(limits.min, limits.max, (4, 6), dtype, endpoint=True)
    image[rng.random(image.shape) < 0.3] = limits.max
    image[rng.random(image.shape) < 0.1] = limits.min
    found = halve_image(image)
    assert found.dtype == image.dtype
    for y, x in np.ndindex(*found.shape):
        four = [int(v) for v in image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()]
        assert int(found[y, x]) == (sum(four) + 2) // 4  # Python's integers know no overflow


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_images_are_halved_by_the_mean(dtype: str, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = (0, 1) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    image = rng.uniform(low, high, (2, height, width)).astype(dtype)
    full = np.pad(image, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(float)
    h, w = -(-height // 2), -(-width // 2)
    mean = full.reshape(2, h, 2, w, 2).mean(axis=(2, 4))
    found = halve_image(image)
    assert found.dtype == image.dtype
    assert np.abs(found - mean).max() <= (1e-6 if dtype == "float32" else 0.5)


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 200), st.integers(1, 200)),
    block_pixels=st.integers(1, 9000),
    level=st.integers(1, 4),
    connect_z=st.booleans(),
)
def test_blocks_of_a_level_are_made_of_all_that_is_below(
    sizes: tuple[int, ...], block_pixels: int, level: int, connect_z: bool
) -> None:
    """Every pixel of every level comes from exactly one shard, at its own place."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK_PIXELS", block_pixels), ("REGION", 48), ("WHOLE", 40),
                            ("CHUNK", 32)):  # fmt: skip
            patch.setattr(layout_module, name, value)
        base = make_layout("TZYX", sizes, instances=True, connect_z=connect_z)
        below, layout = level_layout(base, level - 1), level_layout(base, level)
    t, z, y, x = below.sizes
    assert layout.sizes == (t, z, -(-y // 2), -(-x // 2))
    covered = np.zeros(layout.sizes, int)
    seen = []
    for block in layout.blocks():
        for source, rows, columns in sources(below, block):
            seen.append(source.index)
            assert (source.t, source.z) == (block.t, block.z)
            assert (source.y.start % 2, source.x.start % 2) == (0, 0)  # no two by two is torn
            assert source.y.start == 2 * (block.y.start + rows.start)
            assert source.x.start == 2 * (block.x.start + columns.start)
            assert rows.size == -(-source.y.size // 2)
            covered[
                block.t[0] : block.t[1], block.z[0] : block.z[1],
                block.y.start + rows.start : block.y.start + rows.stop,
                block.x.start + columns.start : block.x.start + columns.stop,
            ] += 1  # fmt: skip
    assert (covered == 1).all()
    assert sorted(seen) == list(range(below.n_blocks))
    shape = arrays_of(layout, "labels/m")[0].shape(layout)
    assert all(s % c == 0 for s, c in zip(shape.shard, shape.chunk, strict=True))


def test_the_coarsest_level_is_about_256_px() -> None:
    for side, levels in ((100, 0), (256, 0), (362, 0), (363, 1), (1100, 2), (100_000, 9)):
        layout = make_layout("YX", (side, side // 2 or 1), instances=True)
        assert n_halvings(layout) == levels
        if levels:
            assert 256 / 1.42 < max(level_layout(layout, levels).sizes) < 256 * 1.42


@given(st.integers(0, 255), st.floats(0, 1, width=32))
def test_probabilities_are_kept_to_half_a_step(kept: int, probability: float) -> None:
    assert to_8_bit(from_8_bit(np.array([kept], np.uint8)))[0] == kept
    error = from_8_bit(to_8_bit(np.array([probability], np.float32)))[0] - probability
    assert abs(error) <= 1 / 510 + 1e-7


# -- whole jobs -------------------------------------------------------------------------------


def _job(tmp_path: Path, model: Path, *, cut: bool, name: str = "out", **options: object) -> Path:
    stack = tmp_path / "stack.tif"
    if not stack.exists():  # two time points of three channels
        jobs.write_stack(stack, jobs.blobs((2, 3, 420, 400)), axes="TCYX")
    with pytest.MonkeyPatch.context() as patch:
        if cut:
            patch.setattr(layout_module, "BLOCK_PIXELS", 300 * 300)
            patch.setattr(layout_module, "REGION", 128)
        settings = jobs.settings(
            stack, model, tmp_path / name, channel="1", keep="probability", with_image=True,
            **options,
        )  # fmt: skip
        assert run_job(settings).exit_status == 0
    return tmp_path / name


@pytest.mark.parametrize("cut", [False, True])
def test_a_result_holds_image_probability_and_levels(
    threshold_model: Path, tmp_path: Path, cut: bool
) -> None:
    output = _job(tmp_path, threshold_model, cut=cut)
    data = jobs.blobs((2, 3, 420, 400))
    store = zarr.open_group(output / "stack.zarr", mode="r")
    assert np.array_equal(store["0"][...], data)
    assert np.array_equal(store["1"][...], halve_image(data))
    labels = store["labels/threshold/0"][...]
    assert np.array_equal(store["labels/threshold/1"][...], halve_labels(labels))
    kept = store["probability/threshold/0"][...]
    assert kept.shape == labels.shape
    assert np.array_equal(kept >= 128, labels > 0)
    scales = [
        one["coordinateTransformations"] for one in store.attrs["ome"]["multiscales"][0]["datasets"]
    ]
    label_scales = [
        one["coordinateTransformations"]
        for one in store["labels/threshold"].attrs["ome"]["multiscales"][0]["datasets"]
    ]
    assert [s[0]["scale"][-2:] for s in scales] == [[1, 1], [2, 2]]
    assert scales[1][1]["translation"][-2:] == [0.5, 0.5]  # centres of two by two
    assert [s[0]["scale"][-2:] for s in label_scales] == [[1, 1], [2, 2]]
    assert verify_job(output).exit_status == 0


@pytest.mark.parametrize("cut", [False, True])
def test_what_was_lost_of_any_array_is_named_and_made_again(
    threshold_model: Path, tmp_path: Path, cut: bool
) -> None:
    output = _job(tmp_path, threshold_model, cut=cut)
    before = jobs.contents(output)
    store = output / "stack.zarr"
    victims = [
        next(p for p in (store / name / "c").rglob("0") if p.is_file())
        for name in (
            "0",
            "1",
            "labels/threshold/0",
            "labels/threshold/1",
            "probability/threshold/0",
        )
    ]
    records = output / ".stackseg"
    victims += [records / "levels/1/stack/000000.json", records / "records/stack/000000.json"]
    for victim in victims:
        victim.unlink()
        named = [one["path"] for one in verify_job(output).problems.to_list()]
        assert victim.relative_to(output).as_posix() in named
        _job(tmp_path, threshold_model, cut=cut)
        assert jobs.contents(output) == before, victim
    flipped = bytearray(victims[3].read_bytes())
    flipped[10] ^= 1
    victims[3].write_bytes(flipped)
    text = " ".join(one["text"] for one in verify_job(output).problems.to_list())
    assert "labels are not those of the record" in text


def test_a_level_of_other_labels_is_made_again(threshold_model: Path, tmp_path: Path) -> None:
    output = _job(tmp_path, threshold_model, cut=False)
    before = jobs.contents(output)
    record = output / ".stackseg/levels/1/stack/000000.json"
    told = json.loads(record.read_bytes())
    record.write_text(json.dumps({**told, "parents": "0" * 64}))
    text = " ".join(one["text"] for one in verify_job(output).problems.to_list())
    assert "made of other labels" in text
    _job(tmp_path, threshold_model, cut=False)
    assert {k: v for k, v in jobs.contents(output).items() if "levels" not in k} == {
        k: v for k, v in before.items() if "levels" not in k
    }
    assert json.loads(record.read_bytes()) == told


def test_the_raw_stack_is_nothing_but_the_stack(threshold_model: Path, tmp_path: Path) -> None:
    """Readers of NGFF see image, labels and levels; and so does stackseg itself."""
    from engine.stacks.open import open_stack

    output = _job(tmp_path, threshold_model, cut=False)
    with open_stack(str(output / "stack.zarr")) as stack:
        assert (stack.info.axes, stack.info.shape) == ("TCYX", (2, 3, 420, 400))
        frame = stack.read(1, 0, range(3))
    assert np.array_equal(frame, jobs.blobs((2, 3, 420, 400))[1])
