"""Tiling changes nothing: geometry by Hypothesis, and the tiled frame against the whole one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.geometry.tiling import FrameTiling, Window, cut
from engine.inference.tiles import pad_to, predict, predict_regions
from engine.model.file import ModelFile
from engine.model.graph import receptive_field
from engine.model.spec import Normalisation
from engine.runtimes.base import Session
from tests import networks
from tests.engine import jobs


def test_a_cut_by_hand() -> None:
    #  0    4    8    12   16   20      length 20, size 12, halo 4
    #  |-------- r0 -------|            core 4: writes [0,8) [8,12) [12,20)
    #       |--- r1 ---...
    spans = cut(20, 12, 4)
    assert [s.write for s in spans] == [Window(0, 8), Window(8, 12), Window(12, 20)]
    assert [s.read for s in spans] == [Window(0, 12), Window(4, 16), Window(8, 20)]
    assert [s.crop for s in spans] == [slice(0, 8), slice(4, 8), slice(4, 12)]


geometry = st.integers(1, 16).flatmap(
    lambda stride: st.tuples(
        st.just(stride),
        st.integers(1, 60),  # length, in strides
        st.integers(0, 6),  # halo
        st.integers(1, 30),  # core
    )
)


@given(geometry)
def test_spans_partition_the_axis_and_carry_their_halo(values: tuple[int, ...]) -> None:
    stride, n, halo_strides, core = values
    length, halo = n * stride, halo_strides * stride
    size = 2 * halo + core * stride
    spans = cut(length, size, halo)
    assert spans[0].write.start == 0 and spans[-1].write.stop == length
    for left, right in itertools.pairwise(spans):
        assert left.write.stop == right.write.start
    assert len({s.read.size for s in spans}) == 1  # one shape for the runtime
    for span in spans:
        assert span.read.start >= 0 and span.read.stop <= length
        assert span.read.size <= size and span.write.size > 0
        assert span.read.start % stride == span.write.start % stride == 0
        assert span.read.start == 0 or span.write.start - span.read.start >= halo
        assert span.read.stop == length or span.read.stop - span.write.stop >= halo


def test_a_tile_that_is_all_halo_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 96 px"):
        FrameTiling(500, 500, 8, 48, 96)


def test_waste_counts_halo_and_padding() -> None:
    assert FrameTiling(512, 512, 8, 48, None).waste == 0
    assert FrameTiling(511, 512, 8, 48, None).waste == pytest.approx(1 / 512)
    tiling = FrameTiling(1024, 1024, 8, 48, 512)
    assert tiling.n_tiles == 9
    assert tiling.waste == pytest.approx(1 - 1024**2 / (9 * 512**2))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 50), st.integers(0, 50))
def test_padding_reflects_even_beyond_the_frame(h: int, w: int, below: int, right: int) -> None:
    frame = np.arange(h * w, dtype=np.uint16).reshape(1, h, w)
    padded = pad_to(frame, (h + below, w + right))

    def mirror(i: int, n: int) -> int:
        period = max(2 * (n - 1), 1)
        i %= period
        return i if i < n else period - i

    rows = [mirror(i, h) for i in range(h + below)]
    columns = [mirror(i, w) for i in range(w + right)]
    assert np.array_equal(padded[0], frame[0][np.ix_(rows, columns)])


def runtime_of(model: object, n_channels: int, n_outputs: int) -> tuple[Session, int, int]:
    field = receptive_field(model)  # type: ignore[arg-type]
    names = tuple(f"class {i}" for i in range(n_outputs + (n_outputs == 1)))
    spec = networks.spec(
        model,  # type: ignore[arg-type]
        n_channels=n_channels,
        classes=names,
        normalisation=Normalisation(policy="range", low=0, high=65535),
    )
    data = model.SerializeToString()  # type: ignore[attr-defined]
    file = ModelFile(networks.Path("model.onnx"), spec, "", field, data)
    assert file.halo is not None
    return jobs.session(file), field.stride, file.halo


# Shallow networks, whose furthest pixels weigh most, and not a pixel more of halo than they need.
@example(
    depth=1, n_channels=1, n_outputs=1, height=100, width=90, core=1, extra_halo=0, seed=0
)  # fmt: skip
@example(
    depth=2, n_channels=2, n_outputs=3, height=200, width=230, core=2, extra_halo=0, seed=0
)  # fmt: skip
@settings(max_examples=25)
@given(
    depth=st.integers(1, 4),
    n_channels=st.integers(1, 3),
    n_outputs=st.sampled_from([1, 3]),
    height=st.integers(1, 260),
    width=st.integers(1, 260),
    core=st.integers(1, 12),
    extra_halo=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_tiling_changes_nothing(
    depth: int, n_channels: int, n_outputs: int, height: int, width: int,
    core: int, extra_halo: int, seed: int,
) -> None:  # fmt: skip
    model = networks.unet(
        (4, 6, 8, 8)[:depth],
        n_channels=n_channels,
        n_outputs=n_outputs,
        seed=seed,
        activation=False,
    )
    runtime, stride, halo = runtime_of(model, n_channels, n_outputs)
    halo += extra_halo * stride
    tile = 2 * halo + core * stride
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 65536, (n_channels, height, width), dtype=np.uint16)
    statistics = np.tile(np.float32([0, 65535]), (n_channels, 1))
    whole = predict(frame, statistics, FrameTiling(height, width, stride, halo, None), runtime)
    tiled = predict(frame, statistics, FrameTiling(height, width, stride, halo, tile), runtime)
    assert whole.shape == (n_outputs, height, width)
    spread = max(float(np.ptp(whole)), 1e-6)
    assert np.abs(tiled - whole).max() <= 1e-5 * spread


@settings(max_examples=25)
@given(
    depth=st.integers(1, 3),
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    core=st.integers(1, 8),
    edges=st.tuples(*[st.integers(0, 149)] * 4),
    seed=st.integers(0, 2**16),
)
def test_a_region_is_that_part_of_the_whole(
    depth: int, height: int, width: int, core: int, edges: tuple[int, ...], seed: int
) -> None:
    model = networks.unet((4, 6, 8)[:depth], seed=seed, activation=False)
    runtime, stride, halo = runtime_of(model, 1, 1)
    frame = np.random.default_rng(seed).integers(0, 65536, (1, height, width), dtype=np.uint16)
    statistics = np.float32([[0, 65535]])
    whole = predict(frame, statistics, FrameTiling(height, width, stride, halo, None), runtime)
    y0, y1 = sorted((edges[0] % height, edges[1] % height))
    x0, x1 = sorted((edges[2] % width, edges[3] % width))
    tiling = FrameTiling(height, width, stride, halo, 2 * halo + core * stride)
    region = tiling.region(Window(y0, y1 + 1), Window(x0, x1 + 1))
    pixels = frame[:, region.read_y.as_slice(), region.read_x.as_slice()]
    (part,) = predict_regions([(pixels, statistics)], region, runtime)
    spread = max(float(np.ptp(whole)), 1e-6)
    assert np.abs(part - whole[:, y0 : y1 + 1, x0 : x1 + 1]).max() <= 1e-5 * spread


def test_a_region_mirrors_what_the_frame_mirrors() -> None:
    # A frame of 9 px, padded to 12 by its last pixels: the tile that holds the last one needs
    # pixels before its own to mirror them.
    model = networks.unet((4, 6, 8), activation=False, positive=False)
    runtime, stride, _ = runtime_of(model, 1, 1)
    frame = np.random.default_rng(0).integers(0, 65536, (1, 9, 9), dtype=np.uint16)
    statistics = np.float32([[0, 65535]])
    tiling = FrameTiling(9, 9, stride, 0, 4)
    whole = predict(frame, statistics, tiling, runtime)
    region = tiling.region(Window(8, 9), Window(4, 8))
    pixels = frame[:, region.read_y.as_slice(), region.read_x.as_slice()]
    (part,) = predict_regions([(pixels, statistics)], region, runtime)
    assert np.array_equal(part, whole[:, 8:9, 4:8])


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_one_stride_less_than_the_halo_shows(depth: int) -> None:
    # Positive weights, heavy at the rim of each kernel: nothing cancels, and what lies at the
    # far end of the receptive field counts.
    model = networks.unet((4, 4, 4, 4)[:depth], activation=False, rim=True)
    runtime, stride, halo = runtime_of(model, 1, 1)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 65536, (1, 256, 320), dtype=np.uint16)
    statistics = np.float32([[0, 65535]])
    whole = predict(frame, statistics, FrameTiling(256, 320, stride, halo, None), runtime)

    def error(used: int) -> float:
        tiling = FrameTiling(256, 320, stride, used, 2 * used + 4 * stride)
        tiled = predict(frame, statistics, tiling, runtime)
        return float(np.abs(tiled - whole).max() / np.ptp(whole))

    assert error(halo) <= 1e-5
    assert error(halo - stride) > 1e-5
