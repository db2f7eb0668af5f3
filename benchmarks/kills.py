"""What kills cost: SIGKILL at every point of a job, many times, and what was done again.

    python -m benchmarks.kills [--kills 5] [--random 20] [--points read,write] [--save]
    python -m benchmarks.kills --syscalls      how one block reaches the disk, by strace

Each job has a stack of whole frames, one whose frames are cut, and one whose planes connect: 61
tasks. It is killed, and the same command run again, until it is complete; its files are then
compared byte by byte with those of a job that nobody disturbed. Workers are two processes of a
Dask cluster; when one is killed, the job goes on by itself. The same campaigns are the slow tests
in `tests/faults/`, which also see that no block is committed twice.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from engine.job.report import machine
from tests.faults import campaigns
from tests.faults.campaigns import Tally
from tests.faults.harness import COMMAND, LAYOUT, environment, three_kinds
from tests.faults.points import COORDINATOR, TASK

RESULTS = Path(__file__).parent / "results"
TRACED = "openat,write,fsync,rename,renameat,renameat2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5, help="at each point, to each kind")
    parser.add_argument("--random", type=int, default=20, help="at random moments, to each kind")
    parser.add_argument("--points", help="these alone, by commas")
    parser.add_argument("--who", default="coordinator,worker", help="is killed, by commas")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/kills.md")
    parser.add_argument("--syscalls", action="store_true", help="trace one block's commit instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.syscalls:
            lines = list(syscalls(Path(folder)))
        else:
            points = options.points.split(",") if options.points else COORDINATOR
            who = options.who.split(",")
            lines = list(table(Path(folder), points, who, options.kills, options.random))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        name = "commit-syscalls.md" if options.syscalls else "kills.md"
        (RESULTS / name).write_text(text)


def table(
    folder: Path, points: Sequence[str], who: Sequence[str], kills: int, at_random: int
) -> Iterator[str]:
    """The report, line by line, as it comes."""
    here = machine()
    yield "# Kills"
    yield ""
    yield (
        f"{here.processor}, {here.cores} cores; "
        f"{time.strftime('%Y-%m-%d')}; SIGKILL to the coordinator, or to one of two workers"
    )
    yield ""
    yield "| killed | point | kills | jobs | runs | blocks done | begun again | bytes equal |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    whole = campaigns.undisturbed(folder)
    todo: list[Callable[[Path], Tally]] = []
    if "coordinator" in who:
        kill, kill_random = campaigns.kill_coordinator, campaigns.kill_at_random
        todo += [partial(kill, whole, point=point, kills=kills) for point in points]
        todo += [partial(kill_random, whole, kills=at_random)] if at_random else []
    if "worker" in who:
        kill, kill_random = campaigns.kill_workers, campaigns.kill_workers_at_random
        todo += [partial(kill, whole, point=p, kills=kills) for p in points if p in TASK]
        todo += [partial(kill_random, whole, kills=at_random)] if at_random else []
    total, wrong = Tally("all", ""), 0
    for number, campaign in enumerate(todo):
        place = folder / str(number)
        place.mkdir()
        try:
            tally, equal = campaign(place), "yes"
        except AssertionError as error:
            arguments = campaign.keywords  # type: ignore[attr-defined]
            tally = Tally(arguments.get("point", "any moment"), campaign.func.__name__)  # type: ignore[attr-defined]
            equal, wrong = f"NO: {str(error).splitlines()[0] if str(error) else 'see tests'}", 1
        for name in ("kills", "jobs", "runs", "blocks", "redone"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        yield row(tally, equal)
        print(row(tally, equal), file=sys.stderr, flush=True)
        shutil.rmtree(place)
    yield row(total, "no" if wrong else "yes")
    yield ""
    yield (
        "Runs are of the command, until every job was complete; begun again are blocks that were "
        "in flight when a process was killed. A block that was committed when a run began was "
        "never done again by it."
    )


def row(tally: Tally, equal: str) -> str:
    values = (tally.kills, tally.jobs, tally.runs, tally.blocks, tally.redone)
    return f"| {tally.who} | {tally.point} | {' | '.join(map(str, values))} | {equal} |"


# -- system calls ----------------------------------------------------------------------------------


def syscalls(folder: Path) -> Iterator[str]:
    """What the system is asked while one block is committed."""
    if shutil.which("strace") is None:
        sys.exit("benchmarks.kills: --syscalls needs strace; install it")
    job, output = three_kinds(folder), folder / "out"
    trace = ["strace", "-ff", "-y", "-s", "0", "-e", f"trace={TRACED}", "-o", str(folder / "trace")]
    command = [*trace, *job.command(output, "--workers", "1")]
    assert command[len(trace) : len(trace) + len(COMMAND)] == list(COMMAND)
    subprocess.run(command, env=environment({"layout": LAYOUT}), check=True, capture_output=True)
    record = f"{output}/.stackseg/records/whole/000001.json"
    for file in sorted(folder.glob("trace.*")):
        lines = file.read_text(errors="replace").splitlines()
        ends = [i for i, line in enumerate(lines) if line.startswith("rename") and record in line]
        if ends:
            break
    else:
        sys.exit("benchmarks.kills: the trace shows no commit")
    begins = [i for i in range(ends[0]) if "attempts/whole/segment/000001.json" in lines[i]]
    yield "# One block's commit, as system calls"
    yield ""
    yield (
        "`python -m benchmarks.kills --syscalls`: block 1 of a stack of whole frames, in one "
        "thread. Each object is written in staging, flushed, renamed, and its folder flushed: the "
        "labels, what is kept beside them, the measures, the timings, and the record last."
    )
    yield ""
    yield "```"
    yield from _shortened(lines[begins[0] : ends[0] + 3], output)
    yield "```"


def _shortened(lines: list[str], output: Path) -> Iterator[str]:
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return "staging/" + names.setdefault(found[1], chr(ord("a") + len(names)))

    for line in lines:
        if str(output) in line and "ENOENT" not in line and "identity.json" not in line:
            line = line.replace(str(output), "DIR").replace(
                "AT_FDCWD<" + str(Path.cwd()) + ">", "."
            )
            line = re.sub(r"staging/([0-9a-f]{32})", name, line)
            yield re.sub(r"\s+=", " =", line)


if __name__ == "__main__":
    main()
