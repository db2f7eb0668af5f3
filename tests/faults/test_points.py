"""SIGKILL at every point of a job, and at random moments: nothing lost, nothing done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import campaigns
from tests.faults.campaigns import Undisturbed
from tests.faults.points import COORDINATOR, TASK

KILLS = 5
AT_RANDOM = 20


def test_killed_at_every_point_in_turn(tmp_path: Path, whole: Undisturbed) -> None:
    tally = campaigns.kill_in_turn(whole, tmp_path)
    assert tally.kills == len(COORDINATOR)


def test_killed_at_random_moments(tmp_path: Path, whole: Undisturbed) -> None:
    assert campaigns.kill_at_random(whole, tmp_path, 3).kills == 3


def test_a_worker_killed_while_it_writes(tmp_path: Path, whole: Undisturbed) -> None:
    tally = campaigns.kill_workers(whole, tmp_path, "write", 1)
    assert (tally.kills, tally.runs) == (1, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("point", COORDINATOR)
def test_killed_at_a_point_again_and_again(tmp_path: Path, whole: Undisturbed, point: str) -> None:
    assert campaigns.kill_coordinator(whole, tmp_path, point, KILLS).kills == KILLS


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("point", TASK)
def test_workers_killed_at_a_point(tmp_path: Path, whole: Undisturbed, point: str) -> None:
    assert campaigns.kill_workers(whole, tmp_path, point, KILLS).kills >= KILLS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_many_random_moments(tmp_path: Path, whole: Undisturbed) -> None:
    assert campaigns.kill_at_random(whole, tmp_path, AT_RANDOM).kills == AT_RANDOM


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_workers_killed_at_many_random_moments(tmp_path: Path, whole: Undisturbed) -> None:
    assert campaigns.kill_workers_at_random(whole, tmp_path, AT_RANDOM).kills >= AT_RANDOM
