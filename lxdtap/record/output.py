"""Where the log's text goes: a file or a stream whose reader may be slow, or gone."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
from collections import deque

from lxdtap.errors import LogError

WAITING = 16 << 20
"""Bytes of text that may wait for a slow reader before transactions are left out."""
_PATIENCE = 1.0
"""Seconds that whoever reads stderr is waited for."""


def open_file(path: str) -> int:
    """A descriptor to append to a log file, made 0600 if it is new.

    Links and FIFOs are not followed: whoever can plant one must not choose where we write.

    Raises:
        LogError: it cannot be opened, or is no plain file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(path, flags, 0o600)
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise LogError(f"cannot write the log to {path}: {reason}; name a file with -o") from error
    status = os.fstat(number)
    linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    if linked or not (stat.S_ISREG(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        os.close(number)
        kind = "it has other names (hard links)" if linked else "it is not a file"
        raise LogError(f"cannot write the log to {path}: {kind}; name another with -o")
    os.set_blocking(number, True)
    return number


class Output:
    """Writes text from a thread, as fast as its reader takes it; never makes anybody wait.

    Args:
        descriptor: to write to; it may be shared with others, so it stays blocking.
    """

    def __init__(self, descriptor: int) -> None:
        self.failure = ""
        """Why nothing is written any more; empty while it is, and where its reader just left."""
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._over = False
        self._gone = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be put."""
        return self._size > WAITING

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._gone

    def put(self, text: str) -> None:
        """Write this after the rest."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            self._waiting.append(data)
            self._size += len(data)
            self._changed.notify()

    def finish(self, seconds: float) -> bool:
        """Wait until all is written, for so long without progress; whether it is."""
        with self._changed:
            self._over = True
            self._changed.notify()
        left = None
        while self._thread.is_alive() and left != self._size:
            left = self._size
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _write_all(self) -> None:
        try:
            while data := self._next():
                self._write(data)
        except BrokenPipeError:
            pass  # its reader left, as `head` does
        except OSError as error:
            self.failure = error.strerror or str(error)
        finally:
            self._gone = True

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            data = b"".join(self._waiting)
            self._waiting.clear()
            return data

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = os.write(self._descriptor, left)
            left = left[written:]
            self._size -= written


def complain(text: str) -> None:
    """A line of lxdtap's own, on stderr, whatever became of it."""
    put_line(2, f"lxdtap: {text}", _PATIENCE)


def put_line(descriptor: int, line: str, seconds: float) -> None:
    """Write a line. A reader that is gone, or asleep for so long, is no reason to stop."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    with contextlib.suppress(OSError):
        if waiting.poll(1000 * seconds):
            os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))
