"""The command's own streams: text that cannot be shown, or is not read, stops no job."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO


class LastingStream(io.TextIOBase):
    """A text stream that can always be written to.

    Characters that its encoding lacks are escaped. If writing fails, because the reader is gone or
    the disk is full, the rest is discarded; `lost` says why, unless the reader is gone (`| head`).
    """

    # No `buffer`: click would write past this stream into it.

    def __init__(self, stream: TextIO) -> None:
        self.lost: OSError | None = None
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream behind this one."""
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How characters beyond the encoding are written."""
        return self._stream.errors or "backslashreplace"

    def fileno(self) -> int:
        """See `io.IOBase`."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """See `io.IOBase`."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._go_on(error)
        return len(text)

    def flush(self) -> None:
        """See `io.IOBase`."""
        try:
            self._stream.flush()
        except OSError as error:
            self._go_on(error)

    def _go_on(self, error: OSError) -> None:
        if not reader_has_gone(error):
            self.lost = self.lost or error
        # The buffer still holds what it could not write, and would fail again at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def reader_has_gone(error: OSError, system: str = os.name) -> bool:
    """Whether the reader of a pipe is gone. Windows calls that an invalid argument."""
    return isinstance(error, BrokenPipeError) or (system == "nt" and error.errno == errno.EINVAL)


def keep_streams() -> LastingStream:
    """Replace the standard streams of this process by such; returns that of stdout."""
    for number in range(3):  # else the next open file would get such a number
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    out = LastingStream(sys.stdout or _nowhere())
    sys.stdout = out
    sys.stderr = LastingStream(sys.stderr or _nowhere())
    return out


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
