"""Where what can be made again is kept for this user."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The folder of stackseg in the user's cache; it need not be there."""
    return _of_user() / "stackseg"


def _of_user() -> Path:
    # The XDG specification has relative paths ignored.
    if (given := os.environ.get("XDG_CACHE_HOME", "")) and Path(given).is_absolute():
        return Path(given)
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA", "")):
        return Path(local)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
