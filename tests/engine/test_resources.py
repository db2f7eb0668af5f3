"""What the process may use: real affinity, limits and cgroups, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.plan.footprint import MB
from engine.plan.resources import cgroup_folders, cores, memory_bytes, parse_memory, size_text

ROOT = Path(__file__).parents[2]
TELL = "from engine.plan.resources import cores, memory_bytes; print(cores(), memory_bytes())"
linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity, cgroups and /proc")


def told(before: str = "", **variables: str) -> tuple[int, int]:
    """Cores and bytes that a fresh process finds, once it has run `before`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{TELL}"],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**clean, **variables},
    )  # fmt: skip
    n_cores, n_bytes = done.stdout.split()
    return int(n_cores), int(n_bytes)


@linux
def test_affinity_counts() -> None:
    assert told("import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})")[0] == 1


def limited(kind: str, size: int) -> str:
    return f"import resource; resource.setrlimit(resource.{kind}, ({size}, {size}))"


@linux
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_RSS"])
def test_rlimits_count(kind: str) -> None:
    size = 4096 * MB
    found = told(limited(kind, size))[1]
    assert 1024 * MB < found <= min(size, told()[1])
    if kind != "RLIMIT_RSS":
        # Libraries and threads map more than a process holds.
        assert found < size - 1024 * MB


@linux
def test_of_an_address_space_only_what_is_left_counts() -> None:
    # 3 GB are mapped already and never touched: nobody else gets them.
    hoard = "import mmap; m = mmap.mmap(-1, 3 * 2**30, flags=mmap.MAP_PRIVATE)\n"
    size = 4096 * MB
    fresh, hoarding = (
        told(limited("RLIMIT_AS", size))[1],
        told(hoard + limited("RLIMIT_AS", size))[1],
    )
    assert hoarding < 1024 * MB < fresh


# A job's threads map address space too: what is told must leave room for that.
HOLDER = """
import threading, time
import distributed, numba, onnxruntime, pyarrow, zarr
from engine.plan.resources import cores, memory_bytes
size = memory_bytes()
threads = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(4 + 4 * cores())]
for thread in threads:
    thread.start()
held = bytearray(size // 100 * 80)
held[::4096] = b"1" * len(held[::4096])
for thread in threads:
    thread.join()
print("held")
"""


@linux
def test_what_is_told_can_be_held() -> None:
    code = f"{limited('RLIMIT_AS', 2048 * MB)}\n{HOLDER}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "held\n", done.stderr[-500:]


@linux
def test_too_tight_a_limit_leaves_nothing() -> None:
    assert told(limited("RLIMIT_AS", 900 * MB))[1] == 0


@pytest.fixture
def cgroup(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A group below the one that the tests run in, gone afterwards; `request.param` names it."""
    made = None
    for parent in cgroup_folders(request.param)[:1]:
        made = parent / f"stackseg-test-{uuid.uuid4().hex[:8]}"
        try:
            made.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made here ({error.strerror})")
        break
    if made is None:
        pytest.skip(f"no cgroup of {request.param} is mounted here")
    yield made
    made.rmdir()


def put(folder: Path, values: dict[str, str]) -> None:
    """Write the first of the files that the group has (v2 and v1 name them differently)."""
    for name, value in values.items():
        if (folder / name).exists():
            (folder / name).write_text(value)
            return
    pytest.skip(f"the cgroup has no {' or '.join(values)}: its controller is not handed down")


def joined(folder: Path) -> str:
    return f"import os; open({str(folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"


@linux
@pytest.mark.parametrize("cgroup", ["memory"], indirect=True)
def test_a_cgroups_memory_counts(cgroup: Path) -> None:
    size = 512 * MB
    put(cgroup, {"memory.max": str(size), "memory.limit_in_bytes": str(size)})
    found = told(joined(cgroup))[1]
    assert 400 * MB < found <= size + 64 * MB  # what it held before it came is not charged here


@linux
@pytest.mark.parametrize("cgroup", ["memory"], indirect=True)
def test_what_others_hold_in_the_cgroup_is_not_left(cgroup: Path) -> None:
    size = 512 * MB
    put(cgroup, {"memory.max": str(size), "memory.limit_in_bytes": str(size)})
    code = f"{joined(cgroup)}\nheld = b'1' * {256 * MB}\nprint(flush=True)\ninput()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    try:
        found = told(joined(cgroup))[1]
    finally:
        other.communicate(b"\n")
    assert 128 * MB < found < 320 * MB


@linux
@pytest.mark.parametrize("cgroup", ["cpu"], indirect=True)
def test_a_cgroups_share_of_the_cores_counts(cgroup: Path) -> None:
    put(cgroup, {"cpu.max": "50000 100000", "cpu.cfs_quota_us": "50000"})
    assert told(joined(cgroup))[0] == 1


V1 = "4:memory:/job/step\n3:cpuacct,cpu:/\n0::/\n"
V2 = "0::/slurm/job_7/step_0\n"
MOUNTS_V1 = "35 31 0:32 {root} {point} rw,relatime shared:3 - cgroup cgroup rw,memory\n"
MOUNTS_V2 = "35 31 0:32 {root} {point} rw,relatime - cgroup2 cgroup rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "root", "folders"),
    [
        (V1, MOUNTS_V1, "/", ["job/step", "job", ""]),
        (V2, MOUNTS_V2, "/", ["slurm/job_7/step_0", "slurm/job_7", "slurm", ""]),
        (V2, MOUNTS_V2, "/slurm/job_7", ["step_0", ""]),  # a container with its part alone
        ("0::/../../other\n", MOUNTS_V2, "/", [""]),  # a namespace that was left
        ("0::/docker/abc\n", MOUNTS_V2, "/docker/ab", [""]),  # a name that begins alike
    ],
)
def test_where_cgroups_are(
    tmp_path: Path, groups: str, mounts: str, root: str, folders: list[str]
) -> None:
    point = tmp_path / "mounted"
    (tmp_path / "cgroup").write_text(groups)
    (tmp_path / "mountinfo").write_text(mounts.format(root=root, point=point))
    assert cgroup_folders("memory", tmp_path) == [point / folder for folder in folders]


def test_no_cgroups_are_no_error(tmp_path: Path) -> None:
    assert cgroup_folders("memory", tmp_path) == []
    (tmp_path / "cgroup").write_text("what is this\n")
    (tmp_path / "mountinfo").write_text("- -\n")
    assert cgroup_folders("memory", tmp_path) == []


# A job of two nodes: 4 tasks of 8 CPUs on the first, 2 on the second.
STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "4,2",
    "SLURM_NODEID": "0",
    "SLURM_CPUS_ON_NODE": "32",
    "SLURM_CPUS_PER_TASK": "8",
}


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of 64 cores and 512 GB with no limits of its own: SLURM alone decides."""
    for name in [n for n in os.environ if n.startswith("SLURM")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("psutil.Process.cpu_affinity", lambda self: range(64), raising=False)
    monkeypatch.setattr("engine.plan.resources.cgroup_folders", lambda controller: [])
    machine = type("Memory", (), {"available": 512 * 1024 * MB})
    monkeypatch.setattr("psutil.virtual_memory", machine)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 64),
        ({"SLURM_CPUS_PER_TASK": "8"}, 8),
        # In a batch script one process has the job's share of the node, not one task's.
        ({"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "32"}, 32),
        ({**STEP, "SLURM_STEP_ID": "4294967291"}, 32),  # the batch script's own step
        (STEP, 8),
        ({**STEP, "SLURM_NODEID": "1", "SLURM_CPUS_ON_NODE": "16"}, 8),
        # The batch script's wish, inherited by a step that was given one CPU.
        ({**STEP, "SLURM_CPUS_ON_NODE": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}, 1),
        ({**STEP, "SLURM_CPUS_PER_TASK": "", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, 16),
        ({"SLURM_CPUS_PER_TASK": "many", "SLURM_CPUS_ON_NODE": "-3"}, 64),
    ],
)
def test_slurms_cores(roomy: pytest.MonkeyPatch, variables: dict[str, str], expected: int) -> None:
    for name, value in variables.items():
        roomy.setenv(name, value)
    assert cores() == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "65536"}, 65536),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "1000"}, 1000),  # --mem=0: all
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "32"}, 64000),
        ({**STEP, "SLURM_MEM_PER_NODE": "64000"}, 16000),  # one of four tasks
        ({**STEP, "SLURM_MEM_PER_CPU": "2000"}, 16000),
    ],
)
def test_slurms_memory(roomy: pytest.MonkeyPatch, variables: dict[str, str], expected: int) -> None:
    for name, value in variables.items():
        roomy.setenv(name, value)
    assert memory_bytes() == expected * MB


@linux
def test_slurm_is_a_limit_and_no_promise() -> None:
    machine = told()
    assert told(SLURM_CPUS_PER_TASK="4096", SLURM_MEM_PER_NODE="1000000000")[0] == machine[0]
    assert told(SLURM_CPUS_PER_TASK="1", SLURM_MEM_PER_NODE="300") == (1, 300 * MB)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 2**30),
        ("8GiB", 8 * 2**30),
        ("8g", 8 * 2**30),
        ("8000MB", 8000 * 2**20),
        (" 1.5 TB ", 3 * 2**39),
        ("512 kib", 2**19),
        ("123456B", 123456),
    ],
)
def test_memory_as_people_write_it(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "8", "GB", "-8GB", "0GB", "8 XB", "8GBB", "1e3GB", "nan", "٣GB"]
)
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="as in 8GB") as caught:
        parse_memory(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0 KB"), (700, "0.7 KB"), (40 * MB // 1000, "41 KB"), (3 * MB, "3.0 MB"),
     (1023 * MB, "1023 MB"), (1400 * MB, "1.4 GB"), (27 * 2**30, "27 GB"), (5 * 2**40, "5.0 TB")],
)  # fmt: skip
def test_sizes_are_readable_however_small(size: int, text: str) -> None:
    assert size_text(size) == text
