"""pydicom, set up once: quiet, and without its checks of what the pixels do not depend on."""

from __future__ import annotations

import warnings
from functools import lru_cache
from types import ModuleType

from engine.errors import MissingExtra, install_command

INSTALL = install_command("dicom")


class Damaged(ValueError):
    """The rest of the sentence about a file, without its path: "is truncated; copy it again".

    What pydicom raises may quote the file, and with it a patient: it is replaced by sentences of
    our own, which quote nothing but numbers.
    """


@lru_cache(maxsize=1)
def pydicom() -> ModuleType:
    """The library; MissingExtra where it is not installed."""
    try:
        import pydicom
        from pydicom import config
    except ModuleNotFoundError as error:
        if error.name != "pydicom":
            raise
        raise MissingExtra(f"DICOM needs pydicom: {INSTALL}") from None
    config.settings.reading_validation_mode = config.IGNORE
    # What it warns of, on values that break the standard, is examined in `header.py`. The filter
    # is global, since `warnings.catch_warnings` is not safe where several threads read frames.
    warnings.filterwarnings("ignore", module=r"pydicom|engine\.stacks\.dicom")
    config.logger.propagate = False
    return pydicom
