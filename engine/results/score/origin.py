"""The stack behind the labels of a result, as its job recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import StackError
from engine.results.planes import Number
from engine.results.result import Job
from engine.stacks.images.files import list_images
from engine.stacks.zarr.metadata import is_zarr
from engine.store.reports import ReportedInput


@dataclass(frozen=True)
class Origin:
    """A stack, and the job that labelled it."""

    input: ReportedInput
    job: Job

    @property
    def failed(self) -> frozenset[Number]:
        """(t, z) of frames that the job set aside."""
        return self.job.failed.get(self.input.name, frozenset())

    def file_names(self, numbers: Sequence[Number]) -> dict[Number, str]:
        """The file of each frame, where the stack was an image or a folder of them."""
        path = Path(self.input.path)
        if not path.is_dir():
            return {numbers[0]: path.name} if len(numbers) == 1 else {}
        if is_zarr(path):
            return {}
        try:
            files = list_images(str(path))
        except StackError:
            return {}
        sizes = dict(zip(self.input.axes, self.input.shape, strict=True))
        if len(files) != (before := sizes.get("T", sizes.get("Z", 1))):
            raise StackError(
                f"{path}: has {len(files)} images now and had {before} when it was segmented, so "
                "frames cannot be matched with files; restore the folder"
            )
        return {n: files[n[0]].name for n in numbers if n[0] < len(files) and n[1] == 0}


def origin_of(image: Path, job: Job | None) -> Origin | None:
    """The stack behind a label image; None outside a job.

    Raises UsageError where it was added by a relabelling that is not complete.
    """
    if job is None:
        return None
    where, root = image.resolve(), job.folder.resolve()
    for one in job.report.inputs:
        store = root / f"{one.name}.zarr"
        if where.is_relative_to(store):
            group, name = (*where.relative_to(store).parts, "", "")[:2]
            return Origin(one, (job.maker_of(name) if group == "labels" else None) or job)
    return None
