"""Cut the region of interest of a class out of results: one box for each stack, or each slice."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import NothingFound, OutputError, UsageError, plural
from engine.results.crop.boxes import Box, Margin, find_boxes, parse_margin, together, widened
from engine.results.result import ResultStack, choose_stack, open_result
from engine.results.source import open_source
from engine.stacks.zarr.metadata import is_zarr, read_node
from engine.store.claim import check_writable
from engine.store.files import frame_name
from engine.store.folder import PRIVATE
from engine.store.local_store import write_error

log = logging.getLogger("stackseg")

FOREGROUND = "foreground"
Progress = Callable[[int, int], None]  # how many parts are done, and how many there are


def crop(
    path: Path | str,
    class_name: str,
    margin: str,
    output: Path,
    *,
    per_slice: bool = False,
    stack: str | None = None,
    labels: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the region of interest of a class of each stack as an OME-Zarr below `output`.

    Parameters
    ----------
    path
        A job's folder, or a NAME.zarr in it; the source is read again.
    class_name
        A class of a class map, the class of a model's objects, or "foreground" for all of them.
    margin
        "10px" along Y and X, or "5mm" or "20um", which also count along Z.
    per_slice
        A box for each plane that has the class, NAME_t0000_z000.zarr; else one for all planes and
        time points of a stack, NAME.zarr.

    Returns what was written. Stacks without the class are named in the log; NothingFound where no
    stack has it. Raises UsageError, StackError, FrameError or OutputError, one sentence.
    """
    stacks = open_result(path, labels)
    if stack is not None:
        stacks = [choose_stack(stacks, stack, path)]
    wide = parse_margin(margin)
    if any((folder / PRIVATE).is_dir() for folder in (output, *output.absolute().parents)):
        raise UsageError(f"--output {output}: lies in a job's folder; give another")
    parts: list[tuple[ResultStack, Path, tuple[int, ...], Box]] = []
    for one in stacks:
        found = _parts(one, class_name, wide, output, per_slice=per_slice)
        if not found:
            log.warning("%s: has no pixel of %s", one.store, class_name)
        parts += found
    if not parts:
        raise NothingFound(f"{path}: no pixel of it is {class_name}; nothing was written")
    for _, where, _, _ in parts:
        _check_free(where, overwrite=overwrite)
    for n, (one, where, ts, box) in enumerate(parts, 1):
        about = {"class": class_name, "margin": margin, "t": list(ts), **box._asdict()}
        _write(one, where, ts, box, about)
        if progress is not None:
            progress(n, len(parts))
    return [where for _, where, _, _ in parts]


def _parts(
    stack: ResultStack, class_name: str, margin: Margin, output: Path, *, per_slice: bool
) -> list[tuple[ResultStack, Path, tuple[int, ...], Box]]:
    """What to write of a stack: where to, time points, and the box; none where it has no such."""
    boxes = find_boxes(stack.labels, _values(stack, class_name))
    if not boxes:
        return []
    if per_slice:
        return [
            (
                stack,
                output / f"{stack.file_name}_{frame_name(stack.labels.axes, t, z)}.zarr",
                (t,),
                widened(box, margin, stack.labels, along_z=False),
            )
            for (t, z), box in boxes.items()
        ]
    box = widened(together(boxes.values()), margin, stack.labels, along_z=True)
    return [(stack, output / f"{stack.file_name}.zarr", tuple(stack.labels.ts), box)]


def _values(stack: ResultStack, class_name: str) -> set[int] | None:
    """The labels of a class; None: all but background. UsageError where there is no such class."""
    classes = {c.name: c.value for c in stack.classes if c.value}
    known = [*(classes or (stack.objects.name,)), FOREGROUND]
    if class_name not in known:
        raise UsageError(
            f"--class {class_name}: {stack.store} has no such class; it has {', '.join(known)}"
        )
    return {classes[class_name]} if class_name in classes else None


def _write(
    stack: ResultStack, where: Path, ts: tuple[int, ...], box: Box, about: dict[str, object]
) -> None:
    from engine.results.crop.store import write_crop  # takes a while to load

    with open_source(stack) as source, _whole(where) as partial:
        lost = write_crop(partial, stack, source, ts, box, about)
    if lost:
        log.warning("%s: the image of %s cannot be read, and is 0", where, plural(lost, "frame"))


def _check_free(where: Path, *, overwrite: bool) -> None:
    """OutputError where something else is there, or may not be replaced."""
    if where.exists():
        if not overwrite:
            raise OutputError(f"{where}: is there already; give another --output, or --overwrite")
        made = read_node(where).attributes.get("stackseg") if is_zarr(where) else None
        if where.is_symlink() or not isinstance(made, dict) or "crop" not in made:
            raise OutputError(f"{where}: is not an earlier crop; give another --output")
    check_writable(where.parent)


@contextmanager
def _whole(where: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of an earlier one once it is whole."""
    partial = where.with_name(f".{where.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if where.exists():
            shutil.rmtree(where)
        partial.replace(where)
    except OSError as error:
        raise write_error(error, where) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
