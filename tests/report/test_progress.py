"""Progress: live on a terminal, lines elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from engine.job.progress import LineProgress, counter
from engine.steps.task import Outcome

DONE = Outcome("s", "segment", 0, frames=2, failed=((4, 0, "its file is damaged"),), objects=7)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as stderr, to which the log goes as well; pytest puts its own before each test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    return stream


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_terminal_has_a_live_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    caplog.set_level(level, "stackseg")
    stderr = terminal(monkeypatch)
    with counter("picture") as count:
        count(1, 3)
        time.sleep(0.5)
    shown = stderr.getvalue()
    assert ("1 of 3 pictures" in shown and "━" in shown) == (level == logging.INFO)


def test_what_is_logged_goes_above_the_live_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stackseg")
    stderr = terminal(monkeypatch)
    progress = LineProgress()
    with progress.showing(total=5, done=1, objects=3):
        progress.advance(DONE)
    lines = stderr.getvalue().splitlines()
    (above,) = [n for n, line in enumerate(lines) if "set aside: its file is damaged" in line]
    assert "left" not in lines[above].rpartition("\x1b[2K")[2], "the live line is gone first"
    assert lines[-1].endswith("left, 10 objects, 1 frame set aside")
    (handler,) = logging.getLogger().handlers[:1]
    assert isinstance(handler, logging.StreamHandler) and handler.stream is stderr


def test_class_maps_have_no_objects(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stackseg")
    progress = LineProgress()
    with progress.showing(total=5, done=1, objects=None):
        progress.advance(DONE)
    assert caplog.messages[-1].endswith(" left, 1 frame set aside")


def test_lines_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stackseg")
    with counter("file", every=0.02) as count:
        count(1, 1)
        time.sleep(0.2)
    assert "1 of 1 file" in caplog.messages
    caplog.clear()
    with counter("file", every=None) as count:
        count(1, 1)
        time.sleep(0.1)
    assert not caplog.messages
    with LineProgress().showing(total=1, done=1, objects=1):
        pass
    assert [line.split(",")[0] for line in caplog.messages] == ["1 of 1 frame"]


def test_a_job_with_nothing_left_tells_no_speed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stackseg")
    with LineProgress().showing(total=5, done=5, objects=3):
        pass
    assert caplog.messages[-1] == "5 of 5 frames, 3 objects"
