"""Files and folders that are whole or not there; and what was there before is never lost."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import OutputError
from engine.store.files import check_free, whole_file, whole_folder


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder that was made before, beside nothing else."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/a.txt").write_text("old")
    return tmp_path / "made"


def remake(folder: Path) -> None:
    with whole_folder(folder, "*.txt", overwrite=True) as partial:
        (partial / "b.txt").write_text("new")


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_replaced_and_leaves_nothing_else(earlier: Path) -> None:
    remake(earlier)
    assert files(earlier.parent) == {"made/b.txt": "new"}
    assert [p.name for p in earlier.parent.iterdir()] == ["made"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_replaced_stays(
    earlier: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        remake(earlier)
    assert files(earlier.parent) == {"made/a.txt": "old"}
    assert [p.name for p in earlier.parent.iterdir()] == ["made"]


def test_a_link_to_a_folder_is_not_replaced(earlier: Path) -> None:
    link = earlier.with_name("link")
    link.symlink_to(earlier)
    with pytest.raises(OutputError, match="link: is a link"):
        remake(link)
    assert link.is_symlink() and files(earlier) == {"a.txt": "old"}


def test_a_place_that_cannot_be_written_is_found_first(earlier: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be a folder, because .*a.txt is a file"):
        check_free(earlier / "a.txt/scores.csv", overwrite=True)
    with pytest.raises(OutputError, match="is there already; give another name, or --overwrite"):
        check_free(earlier / "a.txt", overwrite=False)
    check_free(earlier / "a.txt", overwrite=True)
    check_free(earlier / "new/scores.csv", overwrite=False)
    assert files(earlier) == {"a.txt": "old"}


def test_a_read_only_file_system_is_told_from_a_lack_of_permission(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was "no permission", which one looks for in vain."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match=r"made/new: cannot be written \(no permission in .*made"):
        check_free(earlier / "new/scores.csv", overwrite=False)
    flags = SimpleNamespace(f_flag=getattr(os, "ST_RDONLY", 1))
    monkeypatch.setattr(os, "statvfs", lambda _: flags, raising=False)
    monkeypatch.setattr(os, "ST_RDONLY", 1, raising=False)
    with pytest.raises(OutputError, match=r"\(the file system of .*made is read-only\)"):
        check_free(earlier / "new/scores.csv", overwrite=False)


def test_what_is_no_file_is_not_replaced_by_one(earlier: Path) -> None:
    for path in (earlier, Path("/dev/null")):
        with pytest.raises(OutputError, match="is a folder or a device"), whole_file(path):
            pass
    assert Path("/dev/null").is_char_device() and files(earlier) == {"a.txt": "old"}
