"""What links a DICOM stack to its patient and study: read only where a user asks to keep it.

The header that stacks come from (`engine.stacks.dicom.header`) holds none of these elements, so
that nothing else can leak them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.errors import StackError
from engine.stacks.dicom.library import pydicom
from engine.stacks.guard import opening

# The patient's name is not among them: the PatientID says who it is to those who may know.
KEPT = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")


def identifiers_of(paths: Iterable[str], stack: str) -> dict[str, str]:
    """The identifiers that the files of a stack have in common, by keyword; none that is empty.

    StackError where files are of several patients, studies or series, or cannot be read.
    """
    known: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        with opening(path):
            header = _header(path)
        found = {keyword: str(header.get(keyword) or "").strip() for keyword in KEPT}
        known = known or found
        for keyword in KEPT:
            if found[keyword] != known[keyword]:
                raise StackError(
                    f"{stack}: its files differ in {keyword}, so that --keep-identifiers cannot "
                    "say whose it is; omit it, or put them into folders of their own"
                )
    return {keyword: value for keyword, value in known.items() if value}


def _header(path: str) -> Any:
    try:
        return pydicom().dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whose words may quote the file
        raise StackError(f"{path}: its header is damaged; copy it again") from error
