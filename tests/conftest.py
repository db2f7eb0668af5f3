"""Fixtures that every test may use, and the rule that real data, once given, is never skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from engine.geometry.pyramid import halve_labels
from engine.labels.components import areas_and_first_pixels, label_part
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.objects import object_sums
from engine.model.spec import CoreSpec, ModelSpec
from tests import networks

DATA = "STACKSEG_DATA"

# Deadlines are timings, and timings do not belong in tests.
settings.register_profile(
    "stackseg", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# For mutants: any failure will do, the smallest is not looked for.
settings.register_profile(
    "mutants", settings.get_profile("stackseg"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("stackseg")


@pytest.fixture
def realdata() -> Path:
    """The folder of real data sets; tests that take it carry the marker `realdata`."""
    folder = os.environ.get(DATA)
    if not folder:
        pytest.skip(f"{DATA} is not set")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get(DATA):
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(pytest.mark.skip(reason=f"{DATA} is not set"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and os.environ.get(DATA) and item.get_closest_marker("realdata"):
        report.outcome = "failed"
        report.longrepr = f"{DATA} is set, and a test of real data was skipped"
    return report


@pytest.fixture
def threshold_model(tmp_path: Path) -> Path:
    """A model file whose foreground is what lies in the brighter half of the frame's range."""
    return make_threshold_model(tmp_path / "threshold.onnx")


def make_threshold_model(path: Path, **changes: Any) -> Path:
    model = networks.threshold_model()
    return networks.save(path, model, networks.spec(model, name="threshold", **changes))


def make_core_model(path: Path, **changes: Any) -> Path:
    """As the threshold model, but with cores: foreground from 0.4 of the range, cores from 0.6."""
    model = networks.threshold_model(0.4, 0.6)
    cores = CoreSpec(**{"threshold": 0.5, "growth": 4, "pinhole": 3, **changes})
    spec = networks.spec(model, name="threshold", instances="cores", cores=cores)
    return networks.save(path, model, spec)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a network and its spec; returns the path of the file."""

    def make(model: Any, spec: ModelSpec | None, name: str = "model.onnx") -> Path:
        return networks.save(tmp_path / name, model, spec)

    return make


@pytest.fixture(scope="session", autouse=True)
def _loops_are_compiled() -> None:
    """Compile before jobs are watched for hangs or measured: the first job would take longer."""
    mask = np.eye(9, dtype=bool)
    how = Postprocessing(0.5, 1, instances="cores", growth=2, pinhole=2)
    labels = label_instances(mask, how, mask)
    view = np.zeros((1, 9, 10), np.uint32)[..., :9]
    label_part(mask[None], view, connect_z=False)
    areas_and_first_pixels(view, 1)
    for one in (labels, view[0]):
        for dtype in (np.uint8, np.uint16):
            object_sums(one, {0: mask.astype(dtype)}, mask.astype(np.float32))
    halve_labels(labels)
