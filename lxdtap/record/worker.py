"""The recorder's process: events come in, go to the spool, and from there to the log.

What the log shows has been spooled. Neither can make the tap wait: it is another process, which
leaves out what this one is too slow for, and says so.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lxdtap.clock import moment
from lxdtap.record.output import Output, complain
from lxdtap.terminal import escape
from lxdtap.transaction import CAPTURE, Note, Update
from lxdtap.wire.fold import Fold
from lxdtap.wire.records import decode

if TYPE_CHECKING:
    from lxdtap.record.placing import Place
    from lxdtap.record.save import Saver
    from lxdtap.record.spool import Spool

HEAD = struct.Struct("<BI")
"""Of what comes from the tap: what it is, and its length in bytes."""
EVENTS, LARGE, SAVE, LOST, END, DROP = range(6)
"""What it is: a block of events; a single large one; a wish for the cassette now; events are
missing here; the tap is done; the same, and if nothing came, nothing is to be left."""
INCOMPLETE = 3
"""The exit status where the recording is not whole, or not saved."""
_TICK = 0.2
_READ = 1 << 20
_MUCH = 4 << 20
"""Bytes after which, when nothing comes for a while, memory that is free again is given back."""
MANY = 64 << 10
"""Bytes of events in one block that come when all processors are busy with them."""
_PATIENCE = 5.0

Render = Callable[[Update], str]


@dataclass(frozen=True, slots=True)
class Log:
    """Where the log goes, and what makes its text."""

    descriptor: int
    render: Render


class _Inbox:
    """What comes from the tap."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer, self._filled = bytearray(2 * _READ), 0
        self._came = 0

    @property
    def much(self) -> bool:
        """Whether so much came that memory may have been left behind."""
        return self._came > _MUCH

    def forget(self) -> None:
        """Count from here on."""
        self._came = 0

    def read(self, take: Callable[[memoryview], int]) -> bool:
        """Read, and hand on what there is; whether that was not the end.

        Args:
            take: says how many bytes of it were taken; the others are handed on again.
        """
        with memoryview(self._buffer) as view:
            size = self._sock.recv_into(view[self._filled :])
            taken = take(view[: self._filled + size])
        self._came += size
        self._filled += size - taken
        if taken:
            self._buffer[: self._filled] = self._buffer[taken : taken + self._filled]
        if self._filled == len(self._buffer):  # one event that is longer
            self._buffer += bytes(len(self._buffer))
        return size > 0


class Worker:
    """All that is done with events.

    Args:
        log: None: there is none.
        spool: None: nothing is recorded.
        saver: makes the cassette of the spool.
        place: beside the tap, for what is little work; None: it works wherever there is room.
    """

    def __init__(
        self,
        log: Log | None,
        spool: Spool | None = None,
        saver: Saver | None = None,
        place: Place | None = None,
    ) -> None:
        self._spool = spool
        self._saver = saver
        self._place = place
        self._fold = Fold(CAPTURE)
        self._render = log.render if log is not None else None
        self._output = Output(log.descriptor) if log is not None else None
        self._left_out = 0
        self._complete = True
        self._ended: int | None = None
        self._aside = 0  # the process that saves meanwhile
        self._again = False

    def run(self, sock: socket.socket) -> int:
        """Work until the tap's end is closed; the exit status."""
        inbox, ticked = _Inbox(sock), time.monotonic()
        while True:
            # Nobody is woken for nothing: a sidecar may stand idle for weeks.
            waits = self._aside or self._fold.busy or inbox.much
            ready, _, _ = select.select([sock], [], [], _TICK if waits else None)
            if ready and not inbox.read(self._take):
                break
            if not ready and inbox.much:
                inbox.forget()
                give_back()
            if time.monotonic() - ticked >= _TICK:
                ticked = time.monotonic()
                self._show(self._fold.tick(time.monotonic_ns()))
                self._reap(os.WNOHANG)
        if self._ended is None:
            self._orphaned()
        return self._finish()

    # -- what comes

    def _take(self, came: memoryview) -> int:
        """Take all that is whole; how many bytes that was."""
        at = 0
        while len(came) - at >= HEAD.size:
            kind, length = HEAD.unpack_from(came, at)
            end = at + HEAD.size + length
            if len(came) < end:
                break
            self._settle(kind == EVENTS and length >= MANY)
            if kind in (EVENTS, LARGE):
                self._work(came[at + HEAD.size : end])
            else:
                self._other(kind)
            at = end
        return at

    def _settle(self, beside: bool) -> None:
        """Be beside the tap, or where there is room: for large bodies, or at one's ease."""
        if self._place is None:
            return
        if beside:
            self._place.follow()
        else:
            self._place.leave()

    def _other(self, kind: int) -> None:
        if kind == LOST:
            self._fold.forget()
            self._show([_note("something is missing here: more came than could be taken in")])
            self._stop_recording("more came than could be written")
        elif kind == SAVE:
            self._save_aside()
        else:
            self._ended = kind

    def _work(self, block: memoryview) -> None:
        """Spool events, then show them."""
        if self._spool is not None and self._complete:
            try:
                self._spool.add(block)
            except OSError as error:
                self._stop_recording(error.strerror or str(error))
        if self._output is not None:
            events = decode(block)
            self._show([update for event in events for update in self._fold.add(event)])

    def _stop_recording(self, why: str) -> None:
        if self._spool is None or not self._complete:
            return
        self._complete = False
        complain(f"the recording stops here: {why}; what it has is kept, traffic goes on")

    # -- a cassette on the way

    def _save_aside(self) -> None:
        """Save what there is in a process of its own: what comes meanwhile must not wait."""
        if self._spool is None or self._saver is None:
            return
        if self._aside:
            self._again = True
            return
        self._settle(beside=False)  # which the other process inherits
        self._aside = os.fork()
        if not self._aside:
            saved = False
            try:
                path, until = self._spool.path, self._spool.size
                saved = self._saver.save(path, complete=self._complete, until=until)
            except Exception as error:  # noqa: BLE001 - it must not pass unsaid
                complain(f"cannot save: {escape(repr(error))}; please report it")
            finally:
                os._exit(not saved)

    def _reap(self, how: int) -> None:
        """See whether that process has ended; with 0 wait for it."""
        if not self._aside:
            return
        pid, status = os.waitpid(self._aside, how)
        if not pid:
            return
        self._aside = 0
        if self._saver is not None and status == 0:
            self._saver.overwrite = True  # the one that is there now is ours
        if self._again and how:
            self._again = False
            self._save_aside()

    # -- the log

    def _show(self, updates: list[Update]) -> None:
        """Log what there is to tell. Its writer is woken once, however much that is."""
        if self._output is None or self._output.gone:
            return
        texts = []
        for update in updates:
            if self._output.full:
                self._left_out += not isinstance(update, Note)
                continue
            if self._left_out:
                said = f"{self._left_out} transactions were left out: the log's reader is too slow"
                self._left_out = 0
                texts.append(self._text(_note(said)))
            texts.append(self._text(update))
        if text := "".join(texts):
            self._output.put(text)

    def _text(self, update: Update) -> str:
        assert self._render is not None
        try:
            return self._render(update)
        except Exception as error:  # noqa: BLE001 - one bad transaction must not end the log
            complain(f"a transaction cannot be shown: {escape(repr(error))}; please report it")
            return ""

    # -- the end

    def _orphaned(self) -> None:
        """The tap is gone without a word."""
        self._complete = False
        if self._spool is not None:
            complain(f"the tap was killed: what it saw is saved from {self._spool.path}")

    def _finish(self) -> int:
        self._settle(beside=False)
        saved = True
        if self._output is not None:
            self._finish_log(self._output)
        self._reap(0)
        if self._spool is not None and self._saver is not None:
            if self._ended != DROP or not self._spool.empty:
                saved = self._saver.save(self._spool.path, complete=self._complete)
            self._spool.close(remove=saved)
        return 0 if saved and self._complete else INCOMPLETE

    def _finish_log(self, output: Output) -> None:
        written = output.finish(_PATIENCE)
        if output.failure:
            complain(f"the log could not be written any more: {output.failure}")
        elif not written:
            complain("the end of the log is missing: its reader was too slow")
        elif self._left_out:
            complain(
                f"the log lacks the last {self._left_out} transactions: its reader is too slow"
            )


def _note(text: str) -> Note:
    return Note(text, moment())


def give_back() -> None:
    """Give the kernel the memory that is free again.

    Where large pieces came, malloc keeps up to twice as much as the largest of them, whoever has to
    do without it (glibc's mallopt(3), M_MMAP_THRESHOLD). Other libraries have no such function.
    """
    import ctypes  # it takes as long to load as all else here, and most never need it

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def work(sock: socket.socket, make: Callable[[], Worker]) -> None:
    """Be the recorder's process; never returns."""
    # A signal to the whole group is for the tap and its child: what they still do is recorded.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    status = INCOMPLETE
    try:
        status = make().run(sock)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not pass unsaid
        complain(f"the log and the recording end here: {escape(repr(error))}; please report it")
    finally:
        os._exit(status)
