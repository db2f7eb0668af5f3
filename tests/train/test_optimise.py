"""What moves the weights: schedules, optimisers, arithmetic, averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from tests.train.runs import small
from train.networks import UNet
from train.optimise import (
    Arithmetic,
    AveragedNetwork,
    build_optimiser,
    learning_rate,
    resolve_arithmetic,
)


def rates(**values: Any) -> list[float]:
    settings = small(".", **({"epochs": 10, "steps_per_epoch": 100, "lr": 1.0} | values))
    return [learning_rate(step, settings) for step in range(10 * 100)]


def test_cosine_rises_then_falls_to_nothing() -> None:
    found = rates(schedule="cosine")
    assert int(np.argmax(found)) == 100
    assert found[:101] == sorted(found[:101])
    assert found[100:] == sorted(found[100:], reverse=True)
    assert found[100] == 1.0
    assert found[-1] < 1e-4


def test_one_cycle_equals_that_of_torch() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=1000, cycle_momentum=False
    )
    expected = []
    for _ in range(1000):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    np.testing.assert_allclose(rates(schedule="one-cycle"), expected, rtol=1e-9)


def test_step_takes_a_tenth_after_each_third_and_constant_stays() -> None:
    found = rates(schedule="step", epochs=9, steps_per_epoch=100)
    np.testing.assert_allclose([found[n] for n in (299, 300, 599, 600)], [1, 0.1, 0.1, 0.01])
    constant = rates(schedule="constant")
    assert constant[0] < 0.02 and set(constant[100:]) == {1.0}


@given(
    st.sampled_from(["cosine", "one-cycle", "step", "constant"]),
    st.integers(1, 3), st.integers(1, 8),
)  # fmt: skip
def test_every_step_of_runs_however_short_has_a_rate(name: str, epochs: int, steps: int) -> None:
    settings = small(".", schedule=name, epochs=epochs, steps_per_epoch=steps, lr=1.0)
    assert all(0 < learning_rate(step, settings) <= 1 for step in range(epochs * steps))


def test_optimisers_by_name_with_a_rate_that_suits_them() -> None:
    network = UNet(1, 1, (2, 4))
    for name, kind in (("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")):
        settings = small(".", optimiser=name, weight_decay=0.25)
        group = (optimiser := build_optimiser(network, settings)).param_groups[0]
        assert type(optimiser).__name__ == kind
        assert (group["lr"], group["weight_decay"]) == (settings.lr, 0.25)
    assert group["momentum"] == 0.99
    assert small(".", optimiser="sgd").lr > small(".").lr
    assert small(".", optimiser="sgd", lr=0.5).lr == 0.5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("has", "precision"),
    [((), "fp32"), (("_is_amx_tile_supported",), "bf16"),
     (("_is_avx512_bf16_supported",), "bf16")],
)  # fmt: skip
def test_bf16_is_taken_where_the_processor_has_instructions_for_it(
    has: tuple[str, ...], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in has, raising=False)
    found = resolve_arithmetic(small(".", precision="auto"))
    assert found == Arithmetic(torch.device("cpu"), precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_the_machine_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="finds no CUDA device"):
        resolve_arithmetic(small(".", device="cuda"))
    with pytest.raises(UsageError, match=r"fp16: is for CUDA devices, .* use bf16 or fp32"):
        resolve_arithmetic(small(".", device="auto", precision="fp16"))


def test_the_average_is_of_weights_and_batch_statistics() -> None:
    """By hand: a_0 from fresh weights w, then a <- d a + (1 - d) w_n with d = min(decay, ...)."""
    torch.manual_seed(0)
    network = UNet(1, 1, (2, 4))
    average = AveragedNetwork(network, decay=0.3)
    names = ("head.weight", "encoders.0.1.running_var")
    assert set(names) <= set(network.state_dict())
    expected = {name: network.state_dict()[name].clone() for name in names}
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.3, 0.3)):
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(1)
        average.update(network, step)
        for name in names:
            expected[name] = decay * expected[name] + (1 - decay) * network.state_dict()[name]
    found = average.network.state_dict()
    for name in names:
        torch.testing.assert_close(found[name], expected[name])
    assert int(found["encoders.0.1.num_batches_tracked"]) == 5


def test_a_fresh_average_is_the_network(tmp_path: Path) -> None:
    network = UNet(1, 1, (2, 4))
    average = AveragedNetwork(network, 0.9)
    network.head.weight.data.add_(1)
    assert not torch.equal(average.network.state_dict()["head.weight"], network.head.weight)
    assert not any(p.requires_grad for p in average.network.parameters())
