"""`verify`: everything that a job left, read again and compared with what it recorded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from engine.errors import OutputError
from engine.geometry.arrays import level_layout
from engine.job.added import label_names
from engine.plan.resources import cores
from engine.results.verify import job_report as ended
from engine.results.verify.blocks import check_block, check_level, check_parts
from engine.results.verify.groups import check_group
from engine.results.verify.metadata import check_metadata
from engine.results.verify.problems import Problem, Problems
from engine.results.verify.stack import JobStack, blocks_of, job_stack
from engine.results.verify.strays import check_strays, leftovers
from engine.store.claim import lock
from engine.store.committed import records_hash
from engine.store.folder import IDENTITY, PRIVATE, RELABELLED, REPORT, TABLES, JobFolder
from engine.store.records import RecordVersionError
from engine.store.reports import JobReport

T = TypeVar("T")


@dataclass
class Verdict:
    """What was found, and how much was read."""

    problems: Problems = field(default_factory=Problems)
    leftovers: list[str] = field(default_factory=list)
    blocks: int = 0  # committed
    missing: int = 0  # blocks that are not done, or whose records are lost
    frames: int = 0
    failed: int = 0  # frames that were set aside
    objects: int | None = 0  # None where the labels are class maps

    @property
    def exit_status(self) -> int:
        """0 where everything is as recorded and the job is complete."""
        return 1 if len(self.problems) else 0

    def counts(self) -> str:
        """How much was read, in words."""
        counts = {"block": self.blocks, "frame": self.frames, "object": self.objects}
        words = [f"{n:,} {name}{'s' * (n != 1)}" for name, n in counts.items() if n is not None]
        if self.failed:
            words[1] += f" ({self.failed:,} set aside)"
        return ", ".join(words)


def verify_job(root: Path) -> Verdict:
    """Compare a job's folder with its records and checksums; inputs and model may be gone.

    Raises OutputError where there is no job, where one is running, or where another version of
    stackseg began it.
    """
    folder = JobFolder(root, _results(root))
    if not folder.own.exists(IDENTITY):
        raise OutputError(
            f"{root}: holds no job (there is no {IDENTITY}); give the --output of one"
        )
    can_write = os.access(root / PRIVATE, os.W_OK)  # else nobody does, and a lease is a file
    with lock(folder) if can_write else nullcontext():
        return _Verification(folder).run()


def _results(root: Path) -> Path | None:
    """The result that labels were added to, where `root` is the folder of a relabelling."""
    parent = root.resolve().parent
    is_added = parent.name == RELABELLED and (parent.parent / PRIVATE).is_dir()
    return parent.parent if is_added else None


class _Verification:
    """One look at a job's folder."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.verdict = Verdict()
        self.problems = self.verdict.problems
        # A job.json that is damaged was written all the same: the job came to its end.
        self.is_complete = folder.own.exists(REPORT)

    def run(self) -> Verdict:
        """Read everything."""
        report, damage = ended.read_report(self.folder)
        if damage:
            self._add("report", REPORT, damage)
        stacks = self._stacks(report)
        if stacks is None:
            return self.verdict
        names = self._label_names()
        with ThreadPoolExecutor(cores()) as pool:
            for stack in stacks:
                self.problems.extend(check_metadata(stack, report, names.get(stack.name, ())))
                self._check_labels(stack, pool)
                self._check_levels(stack, pool)
        self.problems.extend(check_strays(self.folder, stacks))
        if not self.is_complete:
            for stack in stacks:
                self.problems.extend(check_parts(stack))
            self._add_unfinished(stacks)
        else:
            self.verdict.leftovers = list(leftovers(self.folder))
        if report is not None:
            self._check_end(report, stacks)
        if not any(stack.has_objects for stack in stacks):
            self.verdict.objects = None
        return self.verdict

    def _stacks(self, report: JobReport | None) -> list[JobStack] | None:
        """All stacks; None where the identity, which describes them, is damaged."""
        try:
            identity = self.folder.identity()
            stacks = identity.stacks.items() if identity else ()
            found = [job_stack(self.folder, name, stack) for name, stack in stacks]
        except RecordVersionError:
            raise
        except (OutputError, ValueError, LookupError):
            damage = "is damaged, so that nobody can tell what the labels should be"
            self._add("record", IDENTITY, damage)
            return None
        changed = list(ended.check_file(self.folder, IDENTITY, report)) if report else []
        self.problems.extend(changed)
        return None if changed else found

    def _label_names(self) -> dict[str, list[str]]:
        """What the lists of label images have to name."""
        try:
            return label_names(self.folder)
        except OutputError:  # a relabelling's identity is damaged: a problem of its own
            return {}

    # -- labels and records -------------------------------------------------------------------

    def _check_labels(self, stack: JobStack, pool: ThreadPoolExecutor) -> None:
        """Every block in order, group by group."""
        numbers = (number for group in stack.groups() for number in blocks_of(group))
        checks = _ahead(pool, partial(check_block, stack), numbers)
        verdict = self.verdict
        for group in stack.groups():
            blocks = list(islice(checks, len(blocks_of(group))))
            for block in blocks:
                verdict.blocks += block.is_committed
                verdict.missing += not block.is_committed
                if block.is_committed or self.is_complete:
                    self.problems.extend(block.problems)
            found = check_group(stack, group, blocks, is_complete=self.is_complete)
            self.problems.extend(found.problems)
            verdict.frames += len(found.frames)
            verdict.failed += sum(frame.failed for frame in found.frames)
            verdict.objects = (verdict.objects or 0) + found.objects

    def _check_levels(self, stack: JobStack, pool: ThreadPoolExecutor) -> None:
        for level in range(1, stack.n_levels):
            check = partial(check_level, stack, level, is_complete=self.is_complete)
            blocks = range(level_layout(stack.layout, level).n_blocks)
            for problems in _ahead(pool, check, blocks):
                self.problems.extend(problems)

    # -- the end of the job -------------------------------------------------------------------

    def _check_end(self, report: JobReport, stacks: list[JobStack]) -> None:
        """What job.json has checksums of."""
        tables = [one for key in TABLES for one in ended.check_file(self.folder, key, report)]
        self.problems.extend(tables)
        if records_hash(self.folder, stacks) == report.records_sha256:
            return
        if not any(problem.path == ended.FRAMES for problem in tables):
            self.problems.extend(ended.changed_frames(self.folder, stacks))
        if not self.problems.of_kind("record"):
            damage = (
                "a record has changed since the end of the job: the SHA-256 over all of them is "
                "not that in job.json; it is unknown which: start over with --fresh"
            )
            self._add("record", f"{PRIVATE}/records", damage)

    def _add_unfinished(self, stacks: list[JobStack]) -> None:
        total, missing = sum(stack.layout.n_blocks for stack in stacks), self.verdict.missing
        damage = (
            f"{missing} of {total} blocks are not done" if missing
            else "all blocks are done, and the tables are not written"
        )  # fmt: skip
        self._add("unfinished", REPORT, f"is not there: {damage}; the same command resumes the job")

    def _add(self, kind: str, path: str, damage: str) -> None:
        self.problems.extend([Problem(kind, path, damage)])


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[int], T], numbers: Iterable[int]
) -> Iterator[T]:
    """What `function` makes of each number, in order; a bounded number is on its way."""
    waiting: deque[Future[T]] = deque()
    for number in numbers:
        waiting.append(pool.submit(function, number))
        if len(waiting) > 2 * cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
