"""Both ends of a connection, ours, in lockstep: what each has seen after each word.

A unix socket passes on at once what is done to it, so without a tap it is known after each word
what both ends have seen. Through a tap they must come to see exactly that, after the same word.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from .corpus.pieces import Word, Words

PATIENCE = 10.0
"""Seconds after which the tap is taken not to pass on what it should have."""


class View(NamedTuple):
    """What one end has seen of the other."""

    received: bytes = b""
    ended: bool = False
    """No more will come."""
    gone: bool = False
    """Nor is anything read there: the whole connection is closed."""
    refused: bool = False
    """What was written was refused."""

    def __str__(self) -> str:
        flags = [name for name in ("ended", "gone", "refused") if getattr(self, name)]
        shown = repr(self.received) if len(self.received) < 400 else f"…{self.received[-300:]!r}"
        return " ".join([f"{len(self.received)} bytes", *flags, shown])


class End:
    """A connected socket that is written to and read from as far as it goes, never waiting."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reset = False
        self._received = bytearray()
        self._waiting = memoryview(b"")
        self._ended = self._gone = self._refused = self._deaf = self._half = False

    @property
    def view(self) -> View:
        return View(bytes(self._received), self._ended, self._gone, self._refused)

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    @property
    def said(self) -> bool:
        """Whether all that is to be written has been."""
        return not self._waiting

    @property
    def interest(self) -> int:
        """What is worth waiting for (poll(2)); POLLHUP comes unasked."""
        reading = 0 if self._ended or self._deaf else select.POLLIN
        return reading | (select.POLLOUT if self._waiting else 0)

    def say(self, data: bytes) -> None:
        self._waiting = memoryview(data)

    def deafen(self) -> None:
        """Read nothing more."""
        self._deaf = True

    def half_close(self) -> None:
        self._half = True
        with contextlib.suppress(OSError):  # it is gone: that is seen anyway
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._waiting = memoryview(b"")
        self.sock.close()

    def step(self) -> bool:
        """Write, read and look, as far as it goes at once; whether anything happened."""
        if self.closed:
            return False
        before = (len(self._received), self._ended, self._gone, self._refused, len(self._waiting))
        self._write()
        if not (self._deaf or self._ended):
            self._read()
        self._look()
        after = (len(self._received), self._ended, self._gone, self._refused, len(self._waiting))
        return before != after

    def _write(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[self.sock.send(self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self._refused, self._waiting = True, memoryview(b"")

    def _read(self) -> None:
        while not self._ended:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                self.reset, data = True, b""
            self._received += data
            self._ended = not data

    def _look(self) -> None:
        poll = select.poll()
        poll.register(self.sock, 0)
        self._gone = self._gone or bool(poll.poll(0))


class Seen(NamedTuple):
    """What both ends have seen."""

    client: View
    daemon: View


class Difference(AssertionError):  # noqa: N818 - it is one, and no error of the test's
    """The tap could be noticed."""


class Lockstep:
    """A conversation between two ends that are both ours."""

    def __init__(self, client: socket.socket, daemon: socket.socket) -> None:
        self._ends = {">": End(client), "<": End(daemon)}
        self._speaker = self._ends[">"]

    @property
    def seen(self) -> Seen:
        return Seen(self._ends[">"].view, self._ends["<"].view)

    @property
    def daemon(self) -> End:
        return self._ends["<"]

    def hold(self, words: Sequence[Word]) -> list[Seen]:
        """Hold it without a tap: what both ends have seen after each word."""
        trace = []
        for word in _closing(words):
            self._do(word)
            while any(end.step() for end in self._ends.values()):
                pass
            trace.append(self.seen)
        return trace

    def follow(
        self, words: Sequence[Word], trace: Sequence[Seen], patience: float = PATIENCE
    ) -> None:
        """Hold it through a tap, and see that both ends come to see the same after each word."""
        for number, (word, wanted) in enumerate(zip(_closing(words), trace, strict=True)):
            self._do(word)
            if not self._reach(wanted, patience):
                raise Difference(self._report(number, word, wanted))

    def close(self) -> None:
        for end in self._ends.values():
            end.close()

    def _do(self, word: Word) -> None:
        if isinstance(word, bytes):
            if not self._speaker.closed:
                self._speaker.say(word)
            return
        end, what = self._ends[word[0]], word[1]
        if what in "><":
            self._speaker = end
        elif not end.closed:
            {"|": end.half_close, "x": end.close, "~": end.deafen}[what]()

    def _reach(self, wanted: Seen, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while True:
            for end in self._ends.values():
                end.step()
            if self.seen == wanted and all(end.said for end in self._ends.values()):
                return True
            if not self._wait(deadline - time.monotonic()):
                return False

    def _wait(self, seconds: float) -> bool:
        """Until one of the ends may have something; whether there is time left."""
        poll = select.poll()
        for end in self._ends.values():
            if not (end.closed or end.view.gone):
                poll.register(end.sock, end.interest)
        poll.poll(max(0, min(seconds, 0.05)) * 1000)
        return seconds > 0

    def _report(self, number: int, word: Word, wanted: Seen) -> str:
        lines = [f"after word {number}, {word[:200]!r}:"]
        for side, direct, tapped in zip(Seen._fields, wanted, self.seen, strict=True):
            if direct != tapped:
                lines += [f"  the {side} directly: {direct}", f"  the {side}, tapped: {tapped}"]
        return "\n".join(lines)


def _closing(words: Sequence[Word]) -> Words:
    """Whoever is left in the end goes: first the daemon, so that its last word is heard."""
    return (*words, "<x", ">x")


def directly(words: Sequence[Word]) -> list[Seen]:
    """Hold a conversation without a tap."""
    here = Lockstep(*socket.socketpair())
    try:
        return here.hold(words)
    finally:
        here.close()
