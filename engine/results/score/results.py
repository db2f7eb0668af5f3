"""The results in a job's folder, and what they were made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.errors import StackError
from engine.results.result import Job
from engine.results.score.frames import Number, RecordedInput
from engine.stacks.zarr.metadata import is_zarr


def stores_in(folder: Path, job: Job | None) -> dict[str, Path]:
    """The results in a folder, that of `job` or any other, by the name of their stack."""
    if job is not None and job.folder == folder:
        names = [one.name for one in job.report.inputs]
    else:
        found = sorted(folder.glob("*.zarr")) or sorted(folder.glob("*/*.zarr"))
        names = [p.relative_to(folder).as_posix().removesuffix(".zarr") for p in found]
    return {name: folder / f"{name}.zarr" for name in names}


def recorded_input(image: Path, job: Job | None) -> RecordedInput | None:
    """What a label image was made from, as far as the job around it says.

    Raises UsageError where it was added by a relabelling that is not complete.
    """
    if job is None:
        return None
    where, root = image.resolve(), job.folder.resolve()
    for one in job.report.inputs:
        store = root / f"{one.name}.zarr"
        if where.is_relative_to(store):
            group, name = (*where.relative_to(store).parts, "", "")[:2]
            maker = (job.maker_of(name) if group == "labels" else None) or job
            settings = maker.report.settings
            sizes = dict(zip(one.axes, one.shape, strict=True))
            return RecordedInput(
                path=one.path,
                axes=settings.axes,
                channel=one.channels[0],
                series=one.series or None,
                connects_z=settings.connect == "z",
                n_images=sizes.get("T", sizes.get("Z", 1)),
                failed=maker.failed.get(one.name, frozenset()),
            )
    return None


def frame_names(recorded: RecordedInput, numbers: Iterable[Number]) -> dict[Number, str]:
    """The file that each frame came from, where the stack was an image or a folder of them."""
    from engine.stacks.images.files import list_images

    path, numbers = Path(recorded.path), list(numbers)
    if not path.is_dir():
        return {numbers[0]: path.name} if len(numbers) == 1 else {}
    if is_zarr(path):
        return {}
    try:
        files = list_images(str(path))
    except StackError:
        return {}
    if len(files) != recorded.n_images:
        raise StackError(
            f"{path}: has {len(files)} images now and had {recorded.n_images} when it was "
            "segmented, so frames cannot be matched with files; restore the folder"
        )
    return {n: files[n[0]].name for n in numbers if n[0] < len(files) and n[1] == 0}
