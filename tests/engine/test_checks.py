"""One real tile tells a device that computes wrongly, and what too small a halo costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError, OutOfMemory
from engine.geometry.tiling import FrameTiling
from engine.inference.device_check import (
    TOLERANCE,
    HaloError,
    halo_error,
    least_caution,
    real_tile,
)
from engine.inference.tiles import pad_to
from engine.model.file import ModelFile, open_model
from engine.runtimes.base import Caution, Session, Target
from engine.runtimes.registry import REFERENCE, open_session
from tests import networks
from tests.engine import jobs

STATISTICS = np.float32([[0, 65535]])


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 2, 8, 16]), st.integers(1, 60))
def test_the_tile_is_the_middle_of_the_frame(h: int, w: int, stride: int, limit: int) -> None:
    frame = np.arange(h * w, dtype=np.uint16).reshape(1, h, w)
    tile = real_tile(frame, stride, limit)
    rows, columns = (-(-n // stride) * stride for n in (h, w))
    padded = pad_to(frame, (rows, columns))[0]
    height, width = tile.shape[1:]
    assert height % stride == width % stride == 0
    assert height == min(rows, max(limit // stride, 1) * stride)
    assert tile.dtype == frame.dtype and tile.flags.c_contiguous
    top, left = np.argwhere(padded == tile[0, 0, 0])[0]
    assert top % stride == left % stride == 0
    assert np.array_equal(padded[top : top + height, left : left + width], tile[0])
    assert abs((h - height) / 2 - top) <= stride and abs((w - width) / 2 - left) <= stride


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    network = networks.unet((4, 8), positive=False)
    return open_model(str(networks.save(tmp_path / "m.onnx", network, networks.spec(network))))


@pytest.fixture
def tile() -> np.ndarray:
    return real_tile(jobs.blobs((1, 200, 300)), 2)


def disturb(**by_caution: Any) -> Any:
    """Open sessions whose device, but not the reference, is off by so much at each caution."""
    made: list[Target] = []

    def make(model: ModelFile, dtype: str, target: Target, threads: int, **_: Any) -> Session:
        made.append(target)
        session = open_session(model, dtype, replace(target, device="cpu"), threads)
        if target == REFERENCE:
            return session

        def compute(pixels: Any, statistics: Any, out: Any) -> None:
            session.compute(pixels, statistics, out)
            out[0, 0, 3, 5] += by_caution["careful" if target.caution else "bold"]

        return replace(session, compute=compute)

    make.made = made  # type: ignore[attr-defined]
    return make


CUDA = Target("onnxruntime", "cuda:0")


@pytest.mark.parametrize(
    ("bold", "careful", "caution"),
    [
        (0.0, 0.0, 0),
        (0.9 * TOLERANCE, 0.0, 0),
        (2 * TOLERANCE, 0.0, 1),
        (0.3, 0.9 * TOLERANCE, 1),
        (np.nan, 0.0, 1),
        (np.inf, 0.0, 1),
    ],
)
def test_the_least_caution_that_is_right(
    model: ModelFile, tile: np.ndarray, bold: float, careful: float, caution: int
) -> None:
    make = disturb(bold=bold, careful=careful)
    chosen, difference = least_caution(
        model, "uint16", CUDA, tile, STATISTICS, 1, open_session=make
    )
    assert chosen == caution
    assert difference == pytest.approx(careful if caution else bold, abs=1e-5)
    assert make.made[0] == REFERENCE


@pytest.mark.parametrize(
    ("bold", "careful", "told"),
    [
        (0.25, 0.125, "by 0.25, and without graph optimisation by 0.125, where 0.001"),
        (np.nan, np.nan, "by an infinite amount, and without"),
    ],
)
def test_a_device_that_stays_wrong_is_refused(
    model: ModelFile, tile: np.ndarray, bold: float, careful: float, told: str
) -> None:
    make = disturb(bold=bold, careful=careful)
    with pytest.raises(ModelError, match=told) as caught:
        least_caution(model, "uint16", CUDA, tile, STATISTICS, 1, open_session=make)
    assert "use --device cpu" in str(caught.value) and "\n" not in str(caught.value)


def test_the_cpu_is_checked_against_itself_unoptimised(model: ModelFile, tile: np.ndarray) -> None:
    chosen, difference = least_caution(model, "uint16", jobs.CPU, tile, STATISTICS, 2)
    assert chosen == 0 and difference < 1e-5
    make = disturb(bold=0.5, careful=0.5)
    found = least_caution(model, "uint16", jobs.CPU, tile, STATISTICS, 2, open_session=make)
    assert found == (Caution.UNOPTIMISED, 0.0)


def test_a_reference_that_is_not_finite_is_refused(model: ModelFile, tile: np.ndarray) -> None:
    nothing = np.float32([[np.nan, 7]])
    with pytest.raises(ModelError, match="not finite for a real tile, on the CPU"):
        least_caution(model, "uint16", jobs.CPU, tile, nothing, 1)


@pytest.fixture(scope="module")
def rim(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFile, Session, int]:
    """Positive weights, heavy at the rim of each kernel: what lies far out counts."""
    network = networks.unet((4, 4, 4), activation=False, rim=True)
    path = tmp_path_factory.mktemp("rim") / "m.onnx"
    file = open_model(str(networks.save(path, network, networks.spec(network))))
    assert file.halo is not None
    return file, jobs.session(file), file.halo


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (1, height, width), dtype=np.uint16)


def tiling(frame: np.ndarray, stride: int, halo: int, tile: int | None) -> FrameTiling:
    return FrameTiling(*frame.shape[1:], stride, halo, tile)


def test_the_full_halo_has_no_error_and_a_stride_less_has(rim: Any) -> None:
    file, runtime, halo = rim
    stride, frame, tile = file.spec.stride, noise(150, 190), 2 * halo + 16
    # Half of the pixels lie above the median: whatever changes, some change sides.
    threshold = float(np.median(runtime.run(frame[None, :, :148, :188], STATISTICS[None])))
    errors = [
        halo_error(
            frame, STATISTICS, tiling(frame, stride, used, tile), runtime, threshold=threshold
        )
        for used in (halo, halo - stride, 0)
    ]
    assert errors[0] == HaloError(pytest.approx(0, abs=1e-6), 0)
    assert 1e-6 < errors[1].max_probability < errors[2].max_probability
    assert 0 < errors[2].changed_fraction < 1


def test_a_frame_that_is_not_cut_has_no_error(rim: Any) -> None:
    file, runtime, _ = rim
    for tile in (None, 64):
        frame = noise(61, 64)
        whole = tiling(frame, file.spec.stride, 0, tile)
        assert halo_error(frame, STATISTICS, whole, runtime) == HaloError(0, 0)


def test_a_tile_larger_than_the_piece_is_cut_all_the_same(rim: Any) -> None:
    file, runtime, _ = rim
    frame = noise(300, 300)
    cut = tiling(frame, file.spec.stride, 0, 256)
    found = halo_error(frame, STATISTICS, cut, runtime, limit=128)
    assert found.max_probability > 1e-6


def small(session: Session, side: int, seen: list[int]) -> Session:
    """A session with memory for tiles of at most `side` px; `seen` is what it was given."""

    def compute(pixels: Any, statistics: Any, out: Any) -> None:
        seen.append(pixels.shape[-1])
        if pixels.shape[-1] > side:
            raise MemoryError("no memory")
        session.compute(pixels, statistics, out)

    return replace(session, compute=compute)


def test_a_piece_that_does_not_fit_is_halved(rim: Any) -> None:
    file, runtime, _ = rim
    seen: list[int] = []
    frame, stride = noise(400, 400), file.spec.stride
    cut = tiling(frame, stride, 0, 64)
    found = halo_error(frame, STATISTICS, cut, small(runtime, 100, seen))
    assert seen[:3] == [400, 200, 100] and found.max_probability > 1e-6
    with pytest.raises(OutOfMemory):
        halo_error(frame, STATISTICS, tiling(frame, stride, 16, 64), small(runtime, 8, []))


def test_several_classes_change_by_their_greatest(tmp_path: Path) -> None:
    network = networks.unet((4, 4), n_outputs=3, instance_norm=True, positive=False)
    spec = networks.spec(network, classes=("background", "a", "b"))
    file = open_model(str(networks.save(tmp_path / "m.onnx", network, spec)))
    assert file.halo is None  # it cannot be tiled exactly, and the error tells by how much not
    frame = jobs.blobs((1, 200, 200))
    cut = tiling(frame, file.spec.stride, 16, 64)
    found = halo_error(frame, STATISTICS, cut, jobs.session(file))
    assert 1e-3 < found.max_probability <= 1 and 0 < found.changed_fraction < 0.5
