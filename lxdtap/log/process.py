"""The log's own process: updates go in, text comes out, and nobody waits for it.

Making text of traffic costs more than carrying it, and the log's reader may be slow or gone. So
the tap forks a process for it before it does anything else, and sends it the updates over a
socket, pickled: both ends are this program. What does not fit is left out and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import select
import signal
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Callable

from lxdtap.errors import LogError
from lxdtap.tap.core import moment
from lxdtap.transaction import Finished, Note, Open, Update, Upgraded

WAITING = 16 << 20
"""Bytes of updates that may wait for the log before they are left out."""
PATIENCE = 5.0
"""Seconds to wait at the end for the log to be written."""
_LENGTH = struct.Struct("<I")

Render = Callable[[Update], str]


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


class LogProcess:
    """The tap's end of it. Make one before there are threads or a loop."""

    def __init__(self, output: int, render: Render) -> None:
        here, there = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            here.close()
            _work(there, output, render)
        there.close()
        here.setblocking(False)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._sock = here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[bytes | memoryview] = deque()
        self._size = 0
        self._left_out = 0
        self._flushing = False
        self._dead = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send from now on by this loop."""
        self._loop = loop

    def hear(self, update: Update) -> None:
        """Take an update; never waits."""
        if self._dead:
            return
        if self._size > WAITING:
            self._left_out += isinstance(update, (Finished, Upgraded, Open))
            return
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            text = f"{left_out} transactions were left out: the log's reader is too slow"
            self._put(Note(text, moment()))
        self._put(update)
        if not self._flushing and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def finish(self) -> str:
        """Send what waits, and wait for the text to be written, for :data:`PATIENCE` at most.

        Returns:
            What went wrong, in one line; empty if nothing did.
        """
        deadline = time.monotonic() + PATIENCE
        if self._loop is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._loop = None
        while self._waiting and not self._dead and time.monotonic() < deadline:
            select.select([], [self._sock], [], max(0.0, deadline - time.monotonic()))
            self._send()
        self._sock.close()
        if not _wait_for(self._pid, deadline):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return "the end of the log is missing: its reader was too slow"
        if self._left_out:
            return f"the log lacks the last {self._left_out} transactions: its reader was too slow"
        return ""

    # -- sending

    def _put(self, update: Update) -> None:
        data = pickle.dumps(update, protocol=pickle.HIGHEST_PROTOCOL)
        self._waiting.append(_LENGTH.pack(len(data)))
        self._waiting.append(data)
        self._size += len(data) + _LENGTH.size

    def _flush(self) -> None:
        """Send what the socket takes; go on when it takes more."""
        self._send()
        assert self._loop is not None
        if self._waiting and not self._dead:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._sock.fileno())
            self._flushing = False

    def _send(self) -> None:
        while self._waiting:
            try:
                sent = self._sock.sendmsg(
                    [self._waiting[i] for i in range(min(64, len(self._waiting)))]
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # Its process is gone, having said why. Traffic goes on.
                self._dead = True
                self._waiting.clear()
                return
            self._drop(sent)

    def _drop(self, sent: int) -> None:
        self._size -= sent
        while sent:
            first = self._waiting.popleft()
            if sent < len(first):
                self._waiting.appendleft(memoryview(first)[sent:])
                return
            sent -= len(first)


def _wait_for(pid: int, deadline: float) -> bool:
    """Whether the process ended in time; it is reaped then."""
    number = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([number], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(number)
    if ready:
        os.waitpid(pid, 0)
    return bool(ready)


# -- in the log's process


def _work(sock: socket.socket, output: int, render: Render) -> None:
    """Write until the tap's end is closed; never returns."""
    # A signal to the whole group is for the tap and its child: what they still do must be logged.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    status = 0
    try:
        with sock.makefile("rb", buffering=1 << 18) as updates:
            _write_all(updates.read, output, render)
    except BrokenPipeError:
        pass  # its reader left, as `head` does
    except OSError as error:
        _complain(f"the log cannot be written any more: {error.strerror}; traffic goes on")
        status = 1
    finally:
        os._exit(status)


def _write_all(read: Callable[[int], bytes], output: int, render: Render) -> None:
    while len(head := read(_LENGTH.size)) == _LENGTH.size:
        data = read(_LENGTH.unpack(head)[0])
        update: Update = pickle.loads(data)
        try:
            text = render(update)
        except Exception as error:  # noqa: BLE001 - one bad transaction must not end the log
            _complain(f"a transaction cannot be shown: {error!r}; please report it")
            continue
        if text:
            _write(output, text.encode("utf-8", "backslashreplace"))


def _write(output: int, data: bytes) -> None:
    while data:
        data = data[os.write(output, data) :]


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"lxdtap: {text}\n".encode("utf-8", "backslashreplace"))
