"""What every runtime must do: one class, which each runtime's tests subclass."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from engine.errors import JobStopped, ModelError, OutOfMemory, UsageError
from engine.inference.outputs import Outputs
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile, open_model
from engine.model.graph.decision import Decision
from engine.model.spec import CoreSpec
from engine.runtimes.base import Precision, Session, Target
from engine.runtimes.registry import REFERENCE, open_session, resolve, runtime_of
from tests import networks

SIDE = 32


class RuntimeTests:
    """Subclasses name a target; what is made of it here is true of every other."""

    target: Target  # device and precision as a user gives them

    @pytest.fixture
    def resolved(self) -> Target:
        return resolve(self.target)

    @pytest.fixture
    def model(self, tmp_path: Path) -> ModelFile:
        network = networks.unet((4, 8), n_channels=2, n_outputs=3, positive=False)
        spec = networks.spec(network, classes=("background", "a", "b"), channels=("x", "y"))
        return open_model(str(networks.save(tmp_path / "m.onnx", network, spec)))

    @pytest.fixture
    def session(self, model: ModelFile, resolved: Target) -> Session:
        return open_session(model, "uint16", resolved, 1)

    @pytest.fixture
    def pixels(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        return rng.integers(0, 60_000, (3, 2, SIDE, SIDE + 16), dtype=np.uint16)

    @pytest.fixture
    def statistics(self) -> np.ndarray:
        return np.float32([[[0, 60_000], [1_000, 50_000]]] * 3)

    def test_what_is_resolved_is_never_auto(self, resolved: Target) -> None:
        assert "auto" not in (resolved.runtime, resolved.device)
        assert resolve(resolved) == resolved
        assert pickle.loads(pickle.dumps(resolved)) == resolved
        runtime = runtime_of(resolved.runtime)
        assert runtime.name == resolved.runtime and "auto" not in runtime.build(resolved)
        builds = [runtime.build(replace(resolved, caution=c)) for c in runtime.cautions]
        assert len(set(builds)) == len(builds) > 0

    def test_what_it_does_not_have_is_refused(self) -> None:
        lacking = set(get_args(Precision)) - set(
            runtime_of(resolve(self.target).runtime).precisions
        )
        wrong: list[dict[str, Any]] = [{"device": "abacus"}, *({"precision": p} for p in lacking)]
        for changes in wrong:
            with pytest.raises(UsageError, match=next(iter(changes.values()))) as caught:
                resolve(replace(self.target, **changes))
            assert "\n" not in str(caught.value)

    def test_a_batch_is_its_frames(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        found = session.run(pixels, statistics)
        assert found.dtype == np.float32 and found.shape == (3, 3, *pixels.shape[2:])
        assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
        for n in range(3):
            one = session.run(pixels[n : n + 1], statistics[n : n + 1])
            assert np.abs(one[0] - found[n]).max() < 1e-5

    def test_it_gives_what_the_reference_gives(
        self, model: ModelFile, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        wanted = open_session(model, "uint16", REFERENCE, 1).run(pixels, statistics)
        assert np.abs(session.run(pixels, statistics) - wanted).max() < 1e-5

    def test_a_buffer_is_filled(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        wanted = session.run(pixels, statistics)
        out = np.full_like(wanted, np.nan)
        for _ in range(2):
            assert session.run(pixels, statistics, out) is out
            assert np.array_equal(out, wanted)

    def test_a_session_for_one_shape_gives_the_same(
        self, model: ModelFile, session: Session, resolved: Target, pixels: np.ndarray,
        statistics: np.ndarray,
    ) -> None:  # fmt: skip
        """Byte by byte where a job may have either: by how many runs of a shape it has."""
        shape = (len(pixels), *pixels.shape[2:])
        own = open_session(model, "uint16", resolved, 1, shape=shape)
        found, wanted = own.run(pixels, statistics), session.run(pixels, statistics)
        runtime = runtime_of(resolved.runtime)
        either = runtime.prefers_one_shape(model, 10**9)
        assert np.array_equal(found, wanted) if either else np.abs(found - wanted).max() < 1e-5

    @pytest.mark.parametrize("kind", ["one class", "cores", "classes"])
    def test_what_the_graph_decides_is_what_its_probabilities_decide(
        self, tmp_path: Path, resolved: Target, pixels: np.ndarray, statistics: np.ndarray,
        kind: str,
    ) -> None:  # fmt: skip
        n = {"one class": 1, "cores": 2, "classes": 3}[kind]
        network = networks.unet((4, 8), n_channels=2, n_outputs=n, positive=False)
        names = ("background", "a", "b")[: 3 if kind == "classes" else 2]
        cores = CoreSpec() if kind == "cores" else None
        spec = networks.spec(network, classes=names, channels=("x", "y"), cores=cores)
        file = open_model(str(networks.save(tmp_path / "m.onnx", network, spec)))
        probability = open_session(file, "uint16", resolved, 1).run(pixels, statistics)
        # Thresholds that some pixels just reach.
        levels = [float(channel[5, 5]) for channel in probability[0]]
        decision = Decision(spec.n_class_outputs, levels[0], levels[1] if cores else None)
        session = open_session(file, "uint16", resolved, 1, decision=decision)
        found = session.run(pixels, statistics)
        assert found.dtype == np.uint8 and found.shape == (3, 2, *pixels.shape[2:])
        how = Postprocessing(
            levels[0], instances="cores" if cores else "components", core_threshold=levels[-1]
        )
        for one, other in zip(found, probability, strict=True):
            decided, whole = (Outputs(each, spec.n_class_outputs) for each in (one, other))
            assert np.array_equal(decided.class_map(levels[0]), whole.class_map(levels[0]))
            assert np.abs(decided.certainty() - whole.certainty()).max() <= 0.5001 / 255
            if kind != "classes":
                for mask, wanted in zip(decided.masks(how), whole.masks(how), strict=True):
                    assert wanted is None or 0 < wanted.mean() < 1
                    assert np.array_equal(mask, wanted) if wanted is not None else mask is None

    def test_pixels_may_be_a_view(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        view = np.repeat(pixels, 2, axis=3)[:, ::-1, :, ::2]
        view.flags.writeable = False
        found = session.run(view, statistics)
        assert np.array_equal(found, session.run(view.copy(), statistics))

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
    def test_pixels_of_any_type_are_their_values(
        self, model: ModelFile, resolved: Target, session: Session, dtype: str
    ) -> None:
        pixels = np.random.default_rng(1).integers(0, 128, (1, 2, SIDE, SIDE), dtype=np.uint16)
        statistics = np.float32([[[0, 127]] * 2])
        own = open_session(model, dtype, resolved, 1).run(pixels.astype(dtype), statistics)
        assert np.array_equal(own, session.run(pixels, statistics))

    def test_a_constant_channel_is_nothing(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        pixels[:, 1], statistics[:, 1] = 700, 700
        found = session.run(pixels, statistics)
        statistics[:, 1] = 700, 800
        assert np.array_equal(found, session.run(pixels, statistics)) and np.isfinite(found).all()

    def test_threads_share_a_session(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        wanted = session.run(pixels, statistics)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: session.run(pixels, statistics), range(12)))
        assert all(np.array_equal(one, wanted) for one in found)

    def test_memory_that_is_released_is_taken_again(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        wanted = session.run(pixels, statistics)
        session.runtime.release_memory()
        assert np.array_equal(session.run(pixels, statistics), wanted)

    def test_needs_grow_with_what_is_run(self, model: ModelFile, resolved: Target) -> None:
        runtime = runtime_of(resolved.runtime)

        def needs(n: int, side: int, sessions: int = 1) -> tuple[int, int]:
            found = runtime.memory(model, resolved, [(n, side, side), (1, 8, 8)], sessions)
            both = [one for one in (found.host, found.device) if one is not None]
            return sum(one.sessions for one in both), sum(one.run for one in both)

        assert needs(1, 64)[1] > 64 * 64 * 4 * (2 + 3)  # more than what goes in and comes out
        assert needs(4, 64)[1] == pytest.approx(4 * needs(1, 64)[1], rel=1e-3)
        assert needs(1, 128)[1] == pytest.approx(4 * needs(1, 64)[1], rel=0.1)
        assert needs(1, 64, sessions=2)[0] - needs(1, 64)[0] >= len(model.data)

    def test_no_memory_is_told_from_other_failures(
        self, session: Session, pixels: np.ndarray, statistics: np.ndarray
    ) -> None:
        def failing(error: Exception) -> Session:
            def compute(*_: Any) -> None:
                raise error

            return replace(session, compute=compute)

        with pytest.raises(OutOfMemory, match="no memory for a tile of 32 x 48 px") as no_memory:
            failing(MemoryError("Unable to allocate 8.00 GiB")).run(pixels, statistics)
        with pytest.raises(JobStopped, match=r"failed \(it broke\)") as broken:
            failing(RuntimeError("it broke\nin many lines")).run(pixels, statistics)
        assert not isinstance(broken.value, OutOfMemory)
        assert all("\n" not in str(caught.value) for caught in (no_memory, broken))

    def test_a_model_that_it_refuses_is_one_sentence(
        self, tmp_path: Path, resolved: Target
    ) -> None:
        network = networks.unet((2,))
        network.graph.node[-1].op_type = "NoSuchOperator"
        path = networks.save(tmp_path / "model.onnx", network, networks.spec(stride=1))
        title = runtime_of(resolved.runtime).title
        with pytest.raises(ModelError, match=f"{title} refuses it") as caught:
            open_session(open_model(str(path)), "uint16", resolved, 1)
        assert "\n" not in str(caught.value)
