"""What is told where a job's tables cannot be put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.errors import JobStopped
from engine.job import report
from engine.store.folder import JobFolder


@pytest.mark.parametrize(
    ("error", "told"), [(pa.ArrowInvalid(), "ArrowInvalid"), (pa.ArrowInvalid("a\nb"), "a")]
)
def test_a_damaged_part_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def damaged(folder: JobFolder, job: Any) -> None:
        raise error

    monkeypatch.setattr(report, "_write_tables", damaged)
    job: Any = None  # is not looked at before the tables
    with pytest.raises(JobStopped, match=rf"holds a damaged part \({told}\); remove it"):
        report.write_report(JobFolder(tmp_path), job, report.RunTotals(0.0))
