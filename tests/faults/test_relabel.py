"""`stackseg relabel` that is killed at one point after the other, and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine.job.relabel import relabel
from engine.results.verify.run import verify_job
from tests.faults.campaigns import Undisturbed
from tests.faults.harness import (
    COMMAND,
    KILLED,
    LAYOUT,
    Campaign,
    Job,
    assert_nothing_left,
    assert_same,
    slow,
)
from tests.faults.points import COORDINATOR

# Neither the input nor the network is touched.
POINTS = tuple(p for p in COORDINATOR if p not in ("start", "read", "infer"))


class Relabelling(Job):
    """Labels made anew in a result; its output is RESULT/relabelled/NAME."""

    def command(self, output: Path, *options: str) -> list[str]:
        """See `Job.command`."""
        result = output.parent.parent
        given = [str(result), "--name", output.name, "--threshold", "0.6"]
        return [*COMMAND, "relabel", *given, *options]


def relabelling(whole: Undisturbed, folder: Path) -> Campaign:
    """A copy of the undisturbed job, to be labelled anew."""
    result = Path(shutil.copytree(whole.output, folder / "result"))
    one = Campaign(Relabelling((), whole.job.model), result / "relabelled/higher")
    one.json_log, one.log = folder / "events", folder / "log"  # beside the result, not in it
    return one


def listed(one: Campaign) -> list[str]:
    """Label images that the first stack's store names."""
    text = (one.output.parent.parent / "whole.zarr/labels/zarr.json").read_bytes()
    return list(json.loads(text)["attributes"]["ome"]["labels"])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("points", [("write", "level", "tables"), slow(POINTS)], ids=len)
def test_killed_while_it_relabels(
    tmp_path: Path, whole: Undisturbed, points: tuple[str, ...]
) -> None:
    undisturbed = Path(shutil.copytree(whole.output, tmp_path / "undisturbed"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LAYOUT.items():
            patch.setattr(name, value)
        relabel(undisturbed, "higher", threshold=0.6)
    one = relabelling(whole, tmp_path / "killed")
    for point in points:
        kill = {"point": point, "nth": 1, "token": str(tmp_path / point), "role": "main"}
        assert one.run(kill=kill).popen.returncode == KILLED, f"{point} was not reached"
        assert listed(one) == ["threshold"]  # what is not whole is not named
    # Complete, and killed when its labels were to be named: failures.json was put before.
    kill = {"point": "start", "nth": 2, "token": str(tmp_path / "start"), "role": "main"}
    assert one.run(kill=kill).popen.returncode == KILLED
    assert (one.output / "job.json").exists() and listed(one) == ["threshold"]
    problems = verify_job(one.output.parent.parent).problems.to_list()
    assert {p["what"] for p in problems} == {"the metadata do not name the labels higher"}
    one.complete()
    assert listed(one) == ["threshold", "higher"]
    one.check_events()
    assert {"level-1", "level-2"} <= {event["step"] for event in one.events()}
    assert_same(one.output.parent.parent, undisturbed)
    assert_nothing_left(one.output)
