"""Jobs and plans with another runtime than the default, and with a device that has memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engine.errors import OutputError, UsageError
from engine.job.job import run_job
from engine.job.prepare import plan_job
from engine.model.file import open_model
from engine.plan.plan import Plan
from engine.runtimes.base import DeviceMemory, Target
from engine.runtimes.registry import RUNTIMES
from tests import networks
from tests.engine import jobs


@pytest.fixture(autouse=True)
def second_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "tests.engine.reference_runtime:ReferenceRuntime"
    monkeypatch.setitem(RUNTIMES, "reference", place)


def test_a_job_by_another_runtime(tmp_path: Path, threshold_model: Path) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 60, 70)))
    told, labels = {}, {}
    for name in ("auto", "reference"):
        run_job(jobs.settings(stack, threshold_model, tmp_path / name, runtime=name, tile=32))
        told[name] = json.loads((tmp_path / name / "job.json").read_bytes())
        labels[name] = jobs.labels_of(tmp_path / name, "stack")
    assert labels["auto"].any() and np.array_equal(labels["auto"], labels["reference"])
    resolved = {name: told[name]["settings"]["resolved"]["runtime"] for name in told}
    assert resolved["auto"].startswith("onnxruntime ")
    assert resolved["reference"] == f"onnx.reference {onnx.__version__} float32"
    with pytest.raises(OutputError, match="another"):  # what is resolved is what a job is
        run_job(jobs.settings(stack, threshold_model, tmp_path / "auto", runtime="reference"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"runtime": "abacus"},
            "runtime abacus: is not known; use onnxruntime, openvino, tensorrt, reference",
        ),
        ({"precision": "int8"}, "precision int8: ONNX Runtime runs fp32 here"),
        ({"runtime": "reference", "device": "cuda:0"}, "device 'cuda:0' is not known"),
    ],
)
def test_what_no_runtime_has_is_refused_before_anything(
    tmp_path: Path, threshold_model: Path, changes: dict[str, str], told: str
) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((1, 20, 20)))
    with pytest.raises(UsageError, match=told):
        run_job(jobs.settings(stack, threshold_model, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_workers_share_a_device() -> None:
    from engine.job.executors import _least

    one, other = DeviceMemory("a", 800), DeviceMemory("b", 500)
    assert _least([one, one, one, other]) == DeviceMemory("a", 266)
    assert _least([one, other]) == other
    assert _least([one, None]) is None and _least([]) is None


def test_the_plan_holds_the_devices_memory(tmp_path: Path) -> None:
    network = networks.unet((16, 32, 64, 128))
    path = networks.save(tmp_path / "model.onnx", network, networks.spec(network))
    frame = np.zeros((1, 1000, 1000), np.uint16)
    stacks = [jobs.write_stack(tmp_path / f"{n}.tif", frame) for n in range(8)]
    settings = jobs.settings(stacks, path, tmp_path / "out")

    def plan(free: int | None, **changes: Any) -> Plan:
        memory = None if free is None else DeviceMemory("a", free)
        site = jobs.site(8, 2**36, target=Target("onnxruntime", "cuda:0"), device_memory=memory)
        return plan_job(settings.model_copy(update=changes), open_model(str(path)), site)

    roomy, tight, tiny = (plan(int(gigabytes * 2**30)) for gigabytes in (80, 3.3, 1))
    # Two runs at once need memory, however many blocks are in flight.
    assert roomy.workers == 8 and roomy.stacks[0].tiling.n_tiles == 1 and not roomy.warnings
    assert tight.workers == 8 and tight.stacks[0].tiling.n_tiles == 1
    assert tiny.workers == 8 and tiny.stacks[0].tiling.n_tiles > 1
    for found, free in ((roomy, 80), (tight, 3.3), (tiny, 1)):
        assert 0 < found.memory.device_peak <= 0.8 * free * 2**30
    needed = roomy.memory.device
    assert needed is not None and roomy.memory.device_peak == needed.sessions + 2 * needed.run
    with pytest.raises(UsageError, match=r"of the device's memory.* 400 MB may be used"):
        plan(500 * 2**20)
    with pytest.raises(UsageError, match=r"needs [0-9,]+ MB of the device's memory"):
        plan(2**30, workers=8, tile=1024)
    unknown = plan(None)
    assert unknown.workers == 8
    assert any("cuda:0 does not tell how much" in text for text in unknown.warnings)
    # On the host there is no such memory, and activations are the host's.
    on_cpu = plan_job(settings, open_model(str(path)), jobs.site(8, 2**36))
    assert on_cpu.memory.device is None and on_cpu.memory.device_peak == 0
    assert on_cpu.memory.activations > 10 * roomy.memory.activations
