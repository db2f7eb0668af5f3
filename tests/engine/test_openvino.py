"""OpenVINO: whole jobs beside ONNX Runtime's, lower precision, what it refuses, its silence."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ModelError, OutputError, UsageError
from engine.geometry.tiling import FrameTiling
from engine.inference.device_check import TOLERANCES
from engine.inference.tiles import predict
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.model.file import ModelFile, open_model
from engine.model.graph import receptive_field
from engine.model.spec import CoreSpec, Normalisation
from engine.plan.resources import cores
from engine.runtimes.base import Target
from engine.runtimes.openvino import MANY_RUNS, OpenVino, Requests, ov
from engine.runtimes.registry import REFERENCE, open_session, resolve
from engine.synthetic import TimeLapse
from tests import networks
from tests.engine import jobs

CPU = Target("openvino", "cpu")
BF16 = replace(CPU, precision="bf16")  # emulated where the processor does not have it
ROOT = Path(__file__).parents[2]
HAS_BF16 = "bf16" in OpenVino().precisions


@pytest.fixture(scope="module")
def nuclei() -> np.ndarray:
    lapse = TimeLapse(shape=(60, 200, 280), seed=0)
    return np.stack([lapse.frame(t)[0] for t in (0, 30, 59)])


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"tile": 208}])
def test_a_job_gives_the_labels_of_onnx_runtime(
    tmp_path: Path, nuclei: np.ndarray, options: dict[str, int]
) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", nuclei)
    for name in ("onnxruntime", "openvino"):
        out = tmp_path / name
        run_job(jobs.settings(stack, "nuclei", out, runtime=name, **options))  # type: ignore[arg-type]
    one, other = (
        np.asarray(jobs.labels_of(tmp_path / name, "stack", "nuclei")) > 0
        for name in ("onnxruntime", "openvino")
    )
    assert one.any() and (one != other).mean() <= 1e-6
    told = json.loads((tmp_path / "openvino" / "job.json").read_bytes())["settings"]["resolved"]
    assert told["runtime"] == OpenVino().build(CPU) == f"openvino {version()} CPU f32"


def test_requests_are_made_for_runs_in_flight_and_used_again() -> None:
    class Compiled:
        made = 0

        def create_infer_request(self) -> int:
            self.made += 1
            return self.made

        def release_memory(self) -> None:
            pass

    requests = Requests(compiled := Compiled())
    with requests.one() as first, requests.one() as second:
        assert {first, second} == {1, 2}
    for _ in range(5):
        with requests.one() as one:
            assert one in {1, 2}
    assert compiled.made == 2
    with pytest.raises(RuntimeError, match="broken"), requests.one() as broken:
        raise RuntimeError("broken")
    with requests.one() as one, requests.one() as new:
        assert one != broken and new == 3, "what failed is not used again"
    requests.release()
    with requests.one() as one:
        assert one == 4, "what was released is not kept"


def version() -> str:
    return str(ov.get_version()).partition("-")[0]


def test_a_job_is_resumed_by_its_own_runtime_alone(tmp_path: Path, threshold_model: Path) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 60, 70)))
    settings = jobs.settings(stack, threshold_model, tmp_path / "out", runtime="openvino")
    run_job(settings)
    whole = jobs.contents(tmp_path / "out")
    (tmp_path / "out" / "job.json").unlink()
    changed = settings.model_copy(update={"runtime": "auto"})
    with pytest.raises(OutputError, match=r"runtime was openvino .* and is onnxruntime .* now"):
        run_job(changed)
    assert run_job(settings).exit_status == 0
    assert jobs.contents(tmp_path / "out") == whole


def test_tiling_changes_nothing() -> None:
    network = networks.unet((4, 6, 8), n_channels=2, n_outputs=3, seed=3, activation=False)
    spec = networks.spec(
        network, n_channels=2, classes=("a", "b", "c"),
        normalisation=Normalisation(policy="range", low=0, high=65535),
    )  # fmt: skip
    field = receptive_field(network)
    model = ModelFile(Path("model.onnx"), spec, "", field, network.SerializeToString())
    assert model.halo is not None
    session = open_session(model, "uint16", CPU, 1)
    stride, halo = model.spec.stride, model.halo
    frame = np.random.default_rng(0).integers(0, 65536, (2, 213, 187), dtype=np.uint16)
    statistics = np.tile(np.float32([0, 65535]), (2, 1))
    whole, tiled = (
        predict(frame, statistics, FrameTiling(213, 187, stride, halo, tile), session)
        for tile in (None, 2 * halo + 3 * stride)
    )
    assert np.abs(whole - tiled).max() <= 1e-5 * np.ptp(whole)


def test_the_bundled_model_gives_the_same_whatever_the_threads(nuclei: np.ndarray) -> None:
    model, frame = open_model("nuclei"), nuclei[1:2, None, :192, :256]
    statistics = np.float32([[[frame.min(), np.percentile(frame, 99.8)]]])
    wanted = open_session(model, "uint16", REFERENCE, 1).run(frame, statistics)
    found = [
        open_session(model, "uint16", CPU, threads, in_flight).run(frame, statistics)
        for threads, in_flight in [(1, 1), (2, 1), (1, 3)]
    ]
    assert np.abs(found[0] - wanted).max() < 1e-5
    assert all(np.array_equal(one, found[0]) for one in found)


@pytest.mark.parametrize(("contrast", "offset"), [(1.0, 0), (0.02, 60_000)])
def test_bfloat16_normalises_in_float32(nuclei: np.ndarray, contrast: float, offset: int) -> None:
    """In bfloat16 all pixels from 60,672 to 60,927 would be one number."""
    model = open_model("nuclei")
    frame = (nuclei[1:2, None, :192, :256] * contrast + offset).astype(np.uint16)
    statistics = np.float32([[[frame.min(), np.percentile(frame, 99.8)]]])
    wanted = open_session(model, "uint16", REFERENCE, 1).run(frame, statistics)
    found = open_session(model, "uint16", BF16, 1).run(frame, statistics)
    least = 1e-5 if HAS_BF16 else 0  # with AVX2 alone OpenVINO computes in float32
    assert least < np.abs(found - wanted).max() < TOLERANCES["bf16"]
    assert ((found > 0.5) != (wanted > 0.5)).mean() < 1e-3


@pytest.mark.parametrize("target", [CPU, BF16])
def test_foreground_and_cores(tmp_path: Path, target: Target) -> None:
    network = networks.unet((4, 8), n_outputs=2, positive=False)
    spec = networks.spec(network, instances="cores", cores=CoreSpec(threshold=0.5, growth=3))
    model = open_model(str(networks.save(tmp_path / "m.onnx", network, spec)))
    frame = np.random.default_rng(0).integers(0, 65536, (1, 1, 64, 96), dtype=np.uint16)
    statistics = np.float32([[[0, 65535]]])
    wanted, found = (
        open_session(model, "uint16", one, 1).run(frame, statistics) for one in (REFERENCE, target)
    )
    assert found.shape == (1, 2, 64, 96)
    assert np.abs(found - wanted).max() < (1e-5 if target == CPU else TOLERANCES["bf16"])


def test_a_model_without_convolution_stays_in_float32(threshold_model: Path) -> None:
    model = open_model(str(threshold_model))
    frame = np.arange(64 * 64, dtype=np.uint16).reshape(1, 1, 64, 64) + 60_000
    statistics = np.float32([[[60_000, 65_000]]])
    one, other = (
        open_session(model, "uint16", target, 1).run(frame, statistics) for target in (CPU, BF16)
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize("target", [CPU, BF16])
@pytest.mark.parametrize("shape", [(64, 96), (240, 208), (704, 1104)])
def test_many_runs_of_a_shape_give_the_bytes_of_few(target: Target, shape: tuple[int, int]) -> None:
    """How many there are decides what they are compiled for, and nothing else."""
    runtime, nuclei = OpenVino(), open_model("nuclei")
    assert runtime.prefers_one_shape(nuclei, MANY_RUNS)
    assert not runtime.prefers_one_shape(nuclei, MANY_RUNS - 1)
    frame = np.random.default_rng(0).integers(0, 60_000, (1, 1, *shape)).astype(np.uint16)
    statistics = np.float32([[[0, 60_000]]])
    found, wanted = (
        open_session(open_model("nuclei"), "uint16", target, 1, shape=one).run(frame, statistics)
        for one in ((1, *shape), None)
    )
    assert np.array_equal(found, wanted)


def test_a_job_of_one_shape_alone_compiles_for_it(tmp_path: Path, threshold_model: Path) -> None:
    few, many = (
        jobs.write_stack(tmp_path / f"{n}.tif", jobs.blobs((n, 24, 32)))
        for n in (MANY_RUNS - 1, MANY_RUNS)
    )
    other = jobs.write_stack(tmp_path / "other.tif", jobs.blobs((2, 40, 32)))

    def fixes(*stacks: Path, runtime: str = "openvino") -> bool:
        given = tuple(map(str, stacks))
        settings = jobs.settings(stacks[0], threshold_model, tmp_path / "out", runtime=runtime)
        plan = prepare_job(settings.model_copy(update={"inputs": given})).plan
        (found,) = {stack.fixes_shape for stack in plan.stacks}
        return found

    assert fixes(many) and fixes(few, many)
    assert not fixes(few) and not fixes(many, other)
    assert not fixes(many, runtime="onnxruntime"), "its bytes would be others"


def test_where_it_compiles_for_one_shape_a_job_gives_the_same(tmp_path: Path) -> None:
    """A job is begun with so many frames that it does, and its frames also come in two stacks."""
    lapse = TimeLapse(shape=(MANY_RUNS, 64, 80), seed=0)
    frames = np.stack([lapse.frame(t)[0] for t in range(MANY_RUNS)])
    whole = jobs.write_stack(tmp_path / "whole.tif", frames)
    part = jobs.write_stack(tmp_path / "part.tif", frames[:20])
    for stack in (whole, part):
        run_job(jobs.settings(stack, "nuclei", tmp_path / stack.stem, runtime="openvino"))
    one, other = (np.asarray(jobs.labels_of(tmp_path / n, n, "nuclei")) for n in ("whole", "part"))
    assert other.any() and np.array_equal(one[:20], other)


@pytest.mark.skipif(HAS_BF16, reason="this processor has bfloat16")
def test_what_would_be_emulated_is_refused() -> None:
    with pytest.raises(UsageError, match="bf16: OpenVINO runs fp32 here; use --precision fp32"):
        resolve(BF16)


def test_a_refusal_names_the_operator(tmp_path: Path) -> None:
    network = networks.unet((2,))
    network.graph.node[-1].op_type = "NoSuchOperator"
    path = networks.save(tmp_path / "model.onnx", network, networks.spec(stride=1))
    with pytest.raises(ModelError, match=r"refuses it .*NoSuchOperator"):
        open_session(open_model(str(path)), "uint16", CPU, 1)


def test_cuda_is_left_to_others() -> None:
    with pytest.raises(UsageError, match=r"device cuda:0: .* use --device cpu, or --runtime onnx"):
        resolve(replace(CPU, device="cuda:0"))


def test_where_it_is_not_installed_one_sentence_says_so() -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from engine.errors import UsageError; from engine.runtimes.registry import runtime_of\n"
        "try: runtime_of('openvino')\nexcept UsageError as error: print(error)"
    )
    assert printed(code) == (
        "runtime openvino: is not installed; use --runtime onnxruntime, or `pip install openvino`\n"
    )


def test_nothing_is_sent_to_its_makers() -> None:
    """What OpenVINO would report its import by is never imported, and there for others again."""
    code = (
        "import sys, engine.runtimes.openvino\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
        "import importlib.util; print(importlib.util.find_spec('openvino_telemetry') is not None)"
    )
    assert printed(code) == "[]\nTrue\n"


def printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


SURVIVOR = """
import pickle, re, resource, sys
from pathlib import Path
import numpy as np
from engine.errors import OutOfMemory
from engine.runtimes.base import Target
from tests.engine.test_runtime import STATISTICS, model_of, pixels, session_of

def mapped():
    return int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

session = session_of(model_of(Path(sys.argv[1])), 2, Target("openvino", "cpu"))
session.run(pixels(64), STATISTICS)
limit = mapped() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
told = []
for side in (4096, 2048):
    try:
        session.run(pixels(side), STATISTICS)
    except OutOfMemory as error:
        told.append(str(error))
np.save(Path(sys.argv[1]) / "result.npy", session.run(pixels(256), STATISTICS))
Path(sys.argv[1], "told.pickle").write_bytes(pickle.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
@pytest.mark.skipif(cores() < 2, reason="on one core OpenVINO takes half as much, and has room")
def test_after_too_large_a_frame_a_smaller_one_is_right(tmp_path: Path) -> None:
    from tests.engine.test_runtime import STATISTICS, model_of, pixels, session_of

    subprocess.run([sys.executable, "-c", SURVIVOR, str(tmp_path)], check=True, cwd=ROOT)
    told = pickle.loads((tmp_path / "told.pickle").read_bytes())
    assert [one.partition(";")[0] for one in told] == [
        f"OpenVINO found no memory for a tile of {side} x {side} px" for side in (4096, 2048)
    ]
    expected = session_of(model_of(tmp_path), 2, CPU).run(pixels(256), STATISTICS)
    assert np.array_equal(np.load(tmp_path / "result.npy"), expected)
