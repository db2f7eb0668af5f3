"""Everything that stackseg raises on purpose.

    StacksegError            one clear sentence for the user; the command exits with `exit_status`
      UsageError             options that contradict each other or the input
      StackError             a stack that cannot be opened, or whose axes are ambiguous
      ModelError             a model without a valid spec, or that the runtime refuses
      OutputError            an output folder that cannot be written, or belongs to another job
        WriteError           a write that the system refused; the same command repeats it
      JobStopped             a job that had to stop midway; the same command resumes it
        OutOfMemory          the runtime or NumPy found no memory; a smaller tile may fit
      MissingExtra           a command whose optional dependencies are not installed
      NothingFound           a result without what was asked for
      FrameError             one frame that cannot be read or computed; costs that frame only

All arguments go up to `Exception`, so that errors survive pickling between processes.
"""

from __future__ import annotations

INTERRUPTED = 130  # exit status


def printable(path: str) -> str:
    """A path that can be written anywhere: what in it is not UTF-8 is escaped."""
    return path.encode("utf-8", "backslashreplace").decode()


class StacksegError(Exception):
    """An error whose text is one sentence: what, where, and what to do."""

    exit_status = 2


class UsageError(StacksegError):
    """Options that contradict each other or the input."""


class StackError(StacksegError):
    """A stack that cannot be opened, or whose axes are ambiguous."""


class ModelError(StacksegError):
    """A model without a valid spec, or one that the runtime refuses."""


class OutputError(StacksegError):
    """An output folder that cannot be written, or that belongs to another job."""


class WriteError(OutputError):
    """A write that the system refused, as on a full disk.

    Its sentence ends in "run the same command again".
    """


class JobStopped(StacksegError):
    """A job that had to stop midway. What is committed stays; the same command resumes the job."""

    exit_status = 3


class OutOfMemory(JobStopped):
    """The runtime or NumPy found no memory. What was being computed may fit in smaller tiles."""


class MissingExtra(StacksegError):
    """A command whose optional dependencies are not installed."""


def install_command(extra: str) -> str:
    """The way out of a `MissingExtra`. The package is on no index, so pip needs its source."""
    return f"run pip install '.[{extra}]' in stackseg's source folder"


class NothingFound(StacksegError):
    """A result without what was asked for, such as a class that is nowhere."""

    exit_status = 1


class FrameError(StacksegError):
    """One frame that cannot be read or computed; the job sets it aside and continues."""

    exit_status = 1


def plural(count: int, noun: str) -> str:
    """A count of something, as a sentence has it: "1 frame", "3,000 frames"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none: part of a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
