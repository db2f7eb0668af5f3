"""`verify`: everything that a job left, read again and held against what it recorded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import OutputError
from engine.job.added import label_names
from engine.plan.resources import cores
from engine.results.verify import reports
from engine.results.verify.final import FinalTables
from engine.results.verify.frames import GroupCheck
from engine.results.verify.levels import check_levels
from engine.results.verify.metadata import check_metadata
from engine.results.verify.problems import Problem, Problems
from engine.results.verify.shards import SeenBlock, check_provisional, see_block
from engine.results.verify.strays import check_strays, leftovers
from engine.results.verify.view import Group, StackView, view_of
from engine.store.claim import lock
from engine.store.folder import PRIVATE, RELABELLED, JobFolder

T = TypeVar("T")


@dataclass
class Verdict:
    """What was found, and how much was looked at."""

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
        """How much was looked at, in words."""
        words = [
            f"{self.blocks:,} block{'s' * (self.blocks != 1)}",
            f"{self.frames:,} frame{'s' * (self.frames != 1)}",
        ]
        if self.failed:
            words[-1] += f" ({self.failed:,} set aside)"
        if self.objects is not None:
            words.append(f"{self.objects:,} object{'s' * (self.objects != 1)}")
        return ", ".join(words)


def verify_job(root: Path) -> Verdict:
    """Hold a job's folder against its records and checksums; inputs and model may be gone.

    Raises OutputError where there is no job, or where one is running.
    """
    folder = JobFolder(root, _stores(root))
    if not folder.identity_path.is_file():
        raise OutputError(
            f"{root}: holds no job (there is no .stackseg/identity.json); give the --output of one"
        )
    with ExitStack() as stack:
        if os.access(folder.private, os.W_OK):  # else nobody writes here, and a lock is a file
            stack.enter_context(lock(folder))
        return _Verification(folder).carry_out()


def _stores(root: Path) -> Path | None:
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
        self.totals = reports.Totals()
        self.unknown: set[tuple[str, int]] = set()  # groups of which rows or objects are lost

    def carry_out(self) -> Verdict:
        """Look at everything."""
        try:
            identity = self.folder.identity() or {}
        except OutputError:
            what = "is damaged, so that nobody can tell what the labels should be"
            path = self.folder.identity_path.relative_to(self.folder.root).as_posix()
            self.problems.add(Problem("record", path, what))
            return self.verdict
        found = [view_of(self.folder, identity, name) for name in identity["stacks"]]
        views = [one for one in found if isinstance(one, StackView)]
        self.problems.extend(one for one in found if isinstance(one, Problem))
        names = self._label_names()
        ended, wrong = reports.read_ended(self.folder.root)
        self.problems.extend(wrong)
        # A job.json that is damaged was written all the same: the job came to its end.
        has_ended = ended is not None or bool(wrong)
        with ThreadPoolExecutor(cores()) as pool:
            for view in views:
                listed = names.get(view.name, ())
                self.problems.extend(check_metadata(view, identity, ended, listed))
                self._check_labels(view, pool, has_ended)
                self.problems.extend(check_levels(view, has_ended=has_ended))
                self.problems.extend(check_strays(view))
        if has_ended:
            self._check_end(identity, ended, views, is_known=len(views) == len(found))
        else:
            for view in views:
                self.problems.extend(check_provisional(view))
            self._tell_unfinished(views)
        totals = self.totals
        self.verdict.frames, self.verdict.failed = totals.frames, totals.failed
        some = any(view.gives_instances for view in views)
        self.verdict.objects = totals.objects if some else None
        return self.verdict

    def _label_names(self) -> dict[str, list[str]]:
        """What the lists of label images have to name."""
        try:
            return label_names(self.folder)
        except OutputError:  # a relabelling's identity is damaged: a problem of its own
            return {}

    # -- labels and records -------------------------------------------------------------------

    def _check_labels(self, view: StackView, pool: ThreadPoolExecutor, has_ended: bool) -> None:
        """Every block in order, group by group."""
        numbers = ((group, index) for group in view.groups() for index in group.blocks)
        check: GroupCheck | None = None
        group: Group | None = None
        for (now, _), seen in _ahead(pool, lambda one: see_block(view, one[1]), numbers):
            if group is None or now.index != group.index:
                if check is not None and group is not None:
                    self._close(view, group, check)
                group, check = now, self._open(view, now, seen, has_ended)
            assert check is not None
            self._count(view, seen, has_ended)
            check.add(seen)
        if check is not None and group is not None:
            self._close(view, group, check)

    def _open(self, view: StackView, group: Group, seen: SeenBlock, has_ended: bool) -> GroupCheck:
        if group.kind == "block":
            return GroupCheck(view, group, seen.record)
        record = view.folder.read_json(group.record)
        path = view.relative(group.record)
        what = ""
        if record is None and group.record.exists():
            what = "the record cannot be read"
        elif record is None and has_ended:
            what = "the record is gone"
        elif record is not None and record.get("stitch_group") != group.index:
            what, record = f"the record is that of stitch group {record.get('stitch_group')}", None
        if what:
            self.problems.add(Problem("record", path, what, group.where, view.name, group.index))
        return GroupCheck(view, group, record)

    def _count(self, view: StackView, seen: SeenBlock, has_ended: bool) -> None:
        self.problems.extend(seen.problems)
        if not seen.is_missing:
            self.verdict.blocks += 1
            return
        self.verdict.missing += 1
        if has_ended:
            block = seen.block
            where, path = view.of_block(block), view.relative(view.record(block))
            problem = Problem("record", path, "the record is gone", where, view.name, block.index)
            self.problems.add(problem)
            if not view.shard(block).exists():
                path = view.relative(view.shard(block))
                what = "the labels are gone"
                self.problems.add(Problem("shard", path, what, where, view.name, block.index))

    def _close(self, view: StackView, group: Group, check: GroupCheck) -> None:
        check.close()
        self.problems.extend(check.problems)
        if not check.is_known:
            self.unknown.add((view.name, group.index))
        for row in check.rows:
            self.totals.add(view.name, row)
        self.totals.objects += check.recorded_objects

    def _check_end(
        self, identity: dict[str, Any], ended: dict[str, Any] | None, views: list[StackView],
        *, is_known: bool,
    ) -> None:  # fmt: skip
        """What is written at the end of a job; `is_known`: of no stack the identity is damaged."""
        root, problems = self.folder.root, self.problems
        totals = self.totals if is_known and not self.unknown else None
        tables = FinalTables(self.folder, views, self.unknown, self.totals.classes or [])
        problems.extend(tables.check())
        if ended is not None:
            problems.extend(reports.check_ended(ended, identity, views, totals))
        problems.extend(reports.check_failures(root, ended, totals))
        if ended is not None:
            problems.extend(reports.check_checksums(root, ended, problems))
        self.verdict.leftovers = list(leftovers(self.folder))

    def _tell_unfinished(self, views: list[StackView]) -> None:
        total = sum(view.layout.n_blocks for view in views)
        what = (
            f"{self.verdict.missing} of {total} blocks are not done" if self.verdict.missing
            else "all blocks are done, and the tables are not written"
        )  # fmt: skip
        what += "; the job is not complete, the same command goes on with it"
        self.problems.add(Problem("unfinished", "job.json", f"is not there: {what}"))


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], SeenBlock], items: Iterator[T]
) -> Iterator[tuple[T, SeenBlock]]:
    """Items with what `function` makes of them, in order; a bounded number is on its way."""
    waiting: deque[tuple[T, Future[SeenBlock]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > 2 * cores():
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()
