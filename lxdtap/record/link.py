"""The tap's end of the recorder: events are sent to its process, which nobody waits for long."""

from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from lxdtap.errors import NO_MEMORY
from lxdtap.record.output import complain
from lxdtap.record.worker import DROP, END, EVENTS, HEAD, LARGE, LOST, MANY, SAVE, Worker, work
from lxdtap.wire.events import Event, Whole
from lxdtap.wire.records import before, parts

if TYPE_CHECKING:
    from lxdtap.record.placing import Place
    from lxdtap.record.trim import Trimmer

WAITING = 32 << 20
"""Bytes of events that may wait for the recorder before they are lost."""
BEHIND = 8 << 20
"""Bytes that may wait before whoever brings more is to be made to wait."""
STUCK = 1.0
"""Seconds without progress after which nobody is to wait for the recorder any more."""
BLOCK = 256 << 10
"""Bytes of events that are sent at once, without waiting for more."""
ALONE = 64 << 10
"""Bytes of an event from which on it is a block of its own: then a copy is worth to be spared."""
SOON = 0.02
"""Seconds for which events wait for others: one frame of a film, and the log is read by people. To
wake the recorder for each would cost the tap as much as the rest of its work, and the daemon, which
has the next request by then, a part of its processor."""
EASE = 0.05
"""Seconds without much to do, after which the tap goes wherever there is room."""
_TICK = 0.1
PATIENCE = 5.0
"""Seconds without progress after which the recorder is taken to be stuck."""


class Recorder:
    """A process for the log and the recording. Make one before there are threads or a loop.

    Args:
        make: makes what works there; called in that process.
        trimmer: leaves out what a recording does not keep; None: there is none, and a log has all.
        place: this one's own, to stay while it is busy; None: it works wherever there is room.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        trimmer: Trimmer | None = None,
        place: Place | None = None,
    ) -> None:
        here, there = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            here.close()
            work(there, make)
        there.close()
        here.setblocking(False)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._sock = here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._block = io.BytesIO()  # events that wait for others
        self._write = self._block.write
        self._filled = 0  # bytes of it
        self._trimmer = trimmer
        self._waiting: deque[bytes | memoryview] = deque()  # what the socket did not take yet
        self._size = 0  # of that
        self._moved = 0.0  # when the socket last took something, or had nothing to take
        self._place = place
        self._leaving: asyncio.TimerHandle | None = None
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = False  # the socket is full
        self._dead = False
        self._status: int | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send from now on by this loop."""
        self._loop = loop

    def behind(self) -> bool:
        """Whether the recorder is at work and has much to do: more should come more slowly."""
        return self._size > BEHIND and time.monotonic() - self._moved < STUCK

    def hear(self, event: Event) -> None:
        """Take an event; never waits.

        What is beyond the recording's limits is hashed here, and only its size is told: to hand it
        over for that took longer than to hash it.
        """
        for kept in [event] if self._trimmer is None else self._trimmer.add(event):
            self._take(*parts(kept))

    def hear_whole(self, message: Whole) -> None:
        """Take a message that came whole, as its event would be taken by :meth:`hear`."""
        self._take(before(message), message[-1])

    def _take(self, record: bytes, data: bytes | memoryview) -> None:
        if self._dead:
            return
        if self._size > WAITING:
            self._lost = True
            return
        if self._lost:
            self._lost = False
            self._put(LOST)
        size = len(record) + len(data)
        if size > ALONE:
            self._add_large(record, data)
            return
        self._write(record)
        self._write(data)
        self._filled += size
        if self._filled >= BLOCK:
            self._flush()
        elif self._timer is None:
            self._flush_soon()

    def save(self) -> None:
        """Ask for the cassette of what there is so far."""
        self._put(SAVE)

    def finish(self, *, begun: bool = True, forced: Callable[[], bool] = lambda: False) -> bool:
        """Send what waits, and wait for the recorder's end; whether all was well there.

        It is waited for as long as it works: a long recording takes its time to save, and says so.

        Args:
            begun: whether the tap came to be; if not, a recording of nothing is not kept.
            forced: whether not to wait any longer; what was recorded is left in the spool then.
        """
        if self._loop is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._loop = None
        if self._lost:
            self._put(LOST)
        self._put(END if begun else DROP)
        while self._waiting and not self._dead:
            _, ready, _ = select.select([], [self._sock], [], PATIENCE)
            if not ready:
                complain("the end of the log and of the recording is missing: too slow to take it")
                break
            self._send()
        self._sock.close()
        self._await(forced)
        return self._ended() == 0

    def _await(self, forced: Callable[[], bool]) -> None:
        """Wait until its process has ended, or end it."""
        if self._status is not None:
            return
        over = os.pidfd_open(self._pid)
        while not select.select([over], [], [], _TICK)[0]:
            if forced():
                os.kill(self._pid, signal.SIGKILL)
        os.close(over)

    # -- sending

    def _add_large(self, record: bytes, data: bytes | memoryview) -> None:
        """Make it a block of its own, without a copy of what it holds."""
        self._close_block()
        size = len(record) + len(data)
        self._waiting += (HEAD.pack(LARGE, size), record)
        if data:
            self._waiting.append(data)
        self._size += HEAD.size + size
        self._flush()

    def _close_block(self, *, copy: bool = True) -> None:
        """Have it wait to be sent; without a copy only until its place is taken by the next."""
        if self._filled:
            head = HEAD.pack(EVENTS, self._filled)
            block = self._block.getbuffer()[: self._filled]
            self._waiting += (head, bytes(block) if copy else block)
            self._size += len(head) + self._filled
            self._block.seek(0)
            self._filled = 0

    def _put(self, kind: int) -> None:
        """Say something that is no event."""
        self._close_block()
        self._waiting.append(HEAD.pack(kind, 0))
        self._size += HEAD.size
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._loop is not None and self._timer is None and not self._blocked:
            self._timer = self._loop.call_later(SOON, self._flush)

    def _flush(self) -> None:
        """Send what the socket takes; go on when it takes more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._settle()
        filled = self._filled
        self._close_block(copy=False)
        full = self._send()
        if filled and self._waiting:
            self._waiting[-1] = bytes(self._waiting[-1])
        self._watch(blocked=full)
        if self._waiting:
            self._flush_soon()

    def _watch(self, *, blocked: bool) -> None:
        """Be told when the socket takes more, or not any longer."""
        if self._loop is None or blocked is self._blocked:
            return
        self._blocked = blocked
        if blocked:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _settle(self) -> None:
        """Stay on this processor while much comes: what is in its caches is needed again soon."""
        if self._place is None or self._loop is None or self._filled < MANY:
            return
        self._place.follow()
        if self._leaving is not None:
            self._leaving.cancel()
        # By a clock, for nobody says that nothing more comes.
        self._leaving = self._loop.call_later(EASE, self._place.leave)

    def _send(self) -> bool:
        """Send what waits, as far as that can be; whether the socket is full, and will take more.

        If it is not, but something still waits, the kernel has no memory for it just now.
        """
        if not self._blocked:
            self._moved = time.monotonic()
        while self._waiting:
            try:
                sent = self._sock.sendmsg(
                    [self._waiting[i] for i in range(min(64, len(self._waiting)))]
                )
            except (BlockingIOError, InterruptedError):
                return True
            except OSError as error:
                if error.errno not in NO_MEMORY:
                    self._die()
                return False
            self._drop(sent)
        return False

    def _die(self) -> None:
        self._dead = True
        self._waiting.clear()
        self._size = self._filled = 0
        self._ended()

    def _ended(self) -> int:
        """Wait for its process; its exit status. If it could not say itself why it ended, do so."""
        if self._status is None:
            _, status = os.waitpid(self._pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
            if self._status < 0:
                complain(
                    f"the log's and the recording's process was ended by signal {-self._status}:"
                    " nothing more is logged or recorded, traffic goes on; what was recorded is in"
                    " the spool, see `lxdtap recover --help`"
                )
        return self._status

    def _drop(self, sent: int) -> None:
        self._size -= sent
        self._moved = time.monotonic()
        while sent:
            first = self._waiting.popleft()
            if sent < len(first):
                self._waiting.appendleft(memoryview(first)[sent:])
                return
            sent -= len(first)
