"""Who carries out blocks: a serial loop, Dask in this process, by device, or a Dask cluster.

All of them take a stream of tasks and give a stream of outcomes. Submission keeps a bounded window,
so that a million blocks cost no more memory than ten.
"""

from __future__ import annotations

import itertools
import json
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from engine.errors import JobStopped, UsageError
from engine.inference.device_check import least_caution
from engine.job.attempts import run_task
from engine.model.file import open_model
from engine.plan.resources import Site, cores, local_site
from engine.plan.settings import JobSettings
from engine.runtimes.base import ALL_DEVICES, Caution, DeviceMemory, Target
from engine.runtimes.cuda import VISIBLE, visible_devices
from engine.steps.task import Outcome, Task

WINDOW = 2  # tasks on their way for each block in flight: the next one is always there
CONNECT_SECONDS = 10
LOOPBACK = "127.0.0.1"
QUIET = {
    "distributed.admin.tick.limit": "1h",  # blocks compute in C; a late tick is no news
    "distributed.admin.tick.interval": "1s",  # fifty a second took 3 % of a core
    # It asks for all threads' frames a hundred times a second, during which CPython 3.11 may
    # wait for itself for ever (python/cpython#106883), as it once did in a job like any other.
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}
Value = TypeVar("Value")


class Executor(Protocol):
    """Runs tasks, each of which comes to nothing once the job has been asked to stop."""

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """Outcomes of the blocks that were done, in any order."""
        ...


class SerialExecutor:
    """One block after the other, without Dask: what every other executor must equal."""

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See `Executor`."""
        for task in tasks:
            outcome = run_task(task)
            if outcome is None:
                return
            yield outcome


class DaskExecutor:
    """Blocks as tasks of a Dask client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def _slots(self) -> int:
        """Blocks that can be in flight now: workers of a cluster come and go."""
        # Where none is there just now, tasks wait for one.
        slots: int = sum(self._client.nthreads().values())
        return max(slots, 1)

    def site(self, wanted: Target) -> Site:
        """What the workers are: all alike, or UsageError. Memory and cores are of the least."""
        sites: list[Site] = list(self._client.run(local_site, wanted).values())
        builds = sorted({site.build for site in sites})
        if len(builds) > 1:
            raise UsageError(
                f"the workers would not give the same labels ({'; '.join(builds)}); "
                "install the same version on all, and choose one --device"
            )
        sharing = Counter(site.host for site in sites)
        return replace(
            sites[0],
            cores=min(self._client.nthreads().values()),
            memory_bytes=min(site.memory_bytes // sharing[site.host] for site in sites),
            device_memory=_least([site.device_memory for site in sites]),
        )

    def least_caution(self, model: Path, *what: Any) -> tuple[Caution, float]:
        """See `engine.inference.device_check.least_caution`: the most that any worker needs."""
        found: dict[str, tuple[Caution, float]] = self._client.run(_caution_here, str(model), *what)
        return max(found.values())

    def everywhere(self, function: Callable[..., Value], *what: Any) -> list[Value]:
        """What a function gives on each worker."""
        found: dict[str, Value] = self._client.run(function, *what)
        return list(found.values())

    def somewhere(self, function: Callable[..., Value], *what: Any) -> Value:
        """What a function gives on one of the workers."""
        found: Value = self._client.submit(function, *what, pure=False).result()
        return found

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See `Executor`."""
        from distributed import CancelledError, KilledWorker, as_completed

        def submit(count: int) -> list[Any]:
            # Impure: a block writes files, and must run again when it is asked for again.
            return [
                self._client.submit(run_task, task, pure=False)
                for task in itertools.islice(tasks, max(count, 0))
            ]

        pending = as_completed(submit(self._slots * WINDOW), loop=self._client.loop)
        stopped = False
        for future in pending:
            try:
                outcome: Outcome | None = future.result()
            except (KilledWorker, CancelledError) as error:
                raise JobStopped(
                    "the cluster lost the workers that ran a block; look into their logs, and "
                    "run the same command again"
                ) from error
            future.release()
            stopped = stopped or outcome is None
            if not stopped:
                pending.update(submit(self._slots * WINDOW - pending.count()))
            if outcome is not None:
                yield outcome


def _caution_here(model: str, *what: Any) -> tuple[Caution, float]:
    return least_caution(open_model(model), *what)


def _least(found: Sequence[DeviceMemory | None]) -> DeviceMemory | None:
    """The least that a worker has of its device's memory, which it may share; None if unknown."""
    known = [memory for memory in found if memory is not None]
    if not known or len(known) < len(found):
        return None
    sharing = Counter(memory.device for memory in known)
    shares = [replace(memory, free=memory.free // sharing[memory.device]) for memory in known]
    return min(shares, key=lambda memory: memory.free)


@contextmanager
def dask_in_process(workers: int) -> Iterator[DaskExecutor]:
    """Dask threads of this process; its pages listen on the loopback address alone."""
    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)

    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=1,
            threads_per_worker=workers,
            processes=False,
            protocol="inproc://",
            dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            worker_dashboard_address=f"{LOOPBACK}:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield DaskExecutor(client)


@contextmanager
def cluster_of(settings: JobSettings) -> Iterator[DaskExecutor | None]:
    """The workers of other processes that settings ask for; None where this one does the work."""
    if settings.scheduler:
        with dask_cluster(settings.scheduler) as executor:
            yield executor
    elif settings.device == ALL_DEVICES:
        devices = visible_devices()
        if not devices:
            raise UsageError(
                f"--device {ALL_DEVICES}: there is no GPU here; check the driver, or use "
                "--device cpu"
            )
        threads = settings.workers or max(cores() // len(devices), 1)
        with dask_by_device(devices, threads) as executor:
            yield executor
    else:
        yield None


@contextmanager
def dask_by_device(devices: Sequence[str], threads: int) -> Iterator[DaskExecutor]:
    """A process of this machine for each device, which sees that one alone; blocks on `threads`.

    `devices` are named as `engine.runtimes.cuda.VISIBLE` has them.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    pages = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}
    options = pages | {"nthreads": threads, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    workers = {
        number: {"cls": Nanny, "options": options | {"env": {VISIBLE: device}}}
        for number, device in enumerate(devices)
    }
    scheduler = {"cls": Scheduler, "options": pages | {"port": 0, "dashboard": False}}
    with (
        dask.config.set(QUIET),
        SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(len(devices))
        executor = DaskExecutor(client)
        executor.everywhere(_leave_interrupts)
        yield executor


def _leave_interrupts() -> None:
    """A Ctrl-C at the terminal is for the job, which lets the blocks of its workers finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def dask_cluster(address: str) -> Iterator[DaskExecutor]:
    """The workers of a running scheduler, by its address or its scheduler file."""
    from distributed import Client

    refusal = (
        f"--scheduler {address}: no Dask scheduler answers there; "
        "give its address, such as tcp://host:8786, or its scheduler file"
    )
    target = address
    if Path(address).is_file():
        try:
            target = str(json.loads(Path(address).read_bytes())["address"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(f"--scheduler {address}: is no scheduler file") from error
    if "://" not in target:
        raise UsageError(refusal)
    try:
        client = Client(target, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(refusal) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise UsageError(
                f"--scheduler {address}: has had no worker for {CONNECT_SECONDS} s; start some"
            ) from error
        yield DaskExecutor(client)
