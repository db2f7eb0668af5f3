"""Which files of a folder are DICOM, and which of their series are stacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engine.errors import StackError, plural
from engine.stacks.dicom.header import PREAMBLE, DicomFile, NoPixels, is_dicom, read_header
from engine.stacks.guard import some
from engine.stacks.images.files import KINDS

ALL = "all"


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files of a folder, whatever they are called; none where other images are its stack.

    Raises StackError where there are several of both.
    """
    files, images = [], 0
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.suffix.lower() in KINDS:
            images += 1
        elif entry.is_file():
            with entry.open("rb") as stream:
                if is_dicom(stream.read(PREAMBLE + 4)):
                    files.append(entry)
    if images > 1 and len(files) > 1:
        raise StackError(
            f"{folder}: holds {len(files)} DICOM files and {images} other images; put each kind in "
            "its own folder"
        )
    return [] if images > 1 else files


def series_of(files: Sequence[Path], path: str) -> tuple[dict[str, list[DicomFile]], str]:
    """Images by series, each under the name that `--series` takes, and a note on other objects."""
    images, others = [], 0
    for file in files:
        try:
            images.append(read_header(str(file)))
        except NoPixels:
            others += 1
    if not images:
        raise StackError(
            f"{path}: holds {plural(len(files), 'DICOM file')}, none of which has pixels; give "
            "the folder of a series of images"
        )
    by_uid: dict[str, list[DicomFile]] = {}
    for image in images:
        by_uid.setdefault(image.series_uid, []).append(image)
    note = ""
    if others:
        are = "is" if others == 1 else "are"
        note = f"{plural(others, 'DICOM file')} without pixels {are} not read"
    return _named(by_uid), note


def chosen(
    series: dict[str, list[DicomFile]], path: str, choice: str | None
) -> dict[str, list[DicomFile]]:
    """The series that `choice` picks; StackError where it picks none, or there are several.

    `choice` is a name of `series`, a description, the end of a SeriesInstanceUID, or "all".
    """
    if choice == ALL or (choice is None and len(series) == 1):
        return series
    listed = some([f"{name} ({_described(files)})" for name, files in series.items()], "; ", 8)
    if choice is None:
        raise StackError(
            f"{path}: holds {len(series)} series: {listed}; choose one with --series, or all with "
            "--series all"
        )
    if choice in series:
        return {choice: series[choice]}
    found = {
        name: files for name, files in series.items()
        if files[0].description == choice or files[0].series_uid.endswith(choice)
    }  # fmt: skip
    if len(found) == 1:
        return found
    several = (
        f"{len(found)} of its series are called {choice}" if found else f"has no series {choice}"
    )
    raise StackError(f"{path}: {several}; it has {listed}")


def _named(by_uid: dict[str, list[DicomFile]]) -> dict[str, list[DicomFile]]:
    """Series under their numbers, which are made distinct where several have the same."""
    order = sorted(
        by_uid.values(), key=lambda files: (files[0].series_number or 0, files[0].series_uid)
    )
    numbers = [str(files[0].series_number or 0) for files in order]
    count, used = Counter(numbers), Counter[str]()
    names = []
    for number in numbers:
        used[number] += 1
        names.append(number if count[number] == 1 else f"{number}.{used[number]}")
    return dict(zip(names, order, strict=True))


def _described(files: Sequence[DicomFile]) -> str:
    """A series in a sentence: nothing of it that may name a person."""
    form = files[0].format
    frames = plural(sum(len(file.planes) for file in files), "frame")
    return f"{files[0].modality or 'image'}, {frames} of {form.rows} x {form.columns} px"
