"""A client of a daemon that is not ours, directly or through the tap: what does it hear?"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .corpus.pieces import Word
from .lockstep import PATIENCE, End


class Turn(NamedTuple):
    """What a client says before it waits for an answer."""

    pieces: tuple[bytes, ...]
    half_close: bool


def turns(words: Sequence[Word]) -> list[Turn]:
    """The client's part of a conversation. In the end it half-closes, if it has not."""
    result: list[Turn] = []
    pieces: list[bytes] = []
    speaker, over = ">>", False
    for word in (*words, "<<"):
        if isinstance(word, bytes):
            pieces += [word] if speaker == ">>" else []
            continue
        over = over or word in (">|", ">x")
        speaker = word if word in (">>", "<<") else speaker
        if word == "<<" and (pieces or not result):
            result.append(Turn(tuple(pieces), over))
            pieces = []
    return [*result[:-1], result[-1]._replace(half_close=over)]


class Heard(NamedTuple):
    """What a client heard after each of its turns, and in the end; and whether there was one.

    After a turn, a busy daemon may not have said all of it yet: what counts is the end.
    """

    after: tuple[bytes, ...]
    ended: bool

    @property
    def received(self) -> bytes:
        return self.after[-1]

    def unlike(self, again: Heard) -> str:
        """How it was otherwise when it was heard again; empty: not at all."""
        direct, through = settled(self.received), settled(again.received)
        if direct != through:
            return f"directly {direct!r}, tapped {through!r}"
        return "" if self.ended == again.ended else f"ended: {self.ended}, tapped {again.ended}"


QUIET = 0.06
"""Seconds of silence after which a daemon is taken to have said what it had to say."""
END = 10.0
"""Seconds for which its end is waited for, once the client has ended its side."""


class Client:
    """Says its part of a conversation to a daemon that is not ours.

    Args:
        like: what was heard without a tap, which is waited for through one.
    """

    def __init__(self, sock: socket.socket, like: Heard | None = None) -> None:
        self._end = End(sock)
        self._like = like

    def say(self, part: Sequence[Turn]) -> Heard:
        """Say it all, turn by turn, and hear the daemon out."""
        after = []
        for number, turn in enumerate(part):
            for piece in turn.pieces:
                self._end.say(piece)
                self._until(lambda: self._end.said, PATIENCE)
            if turn.half_close:
                self._end.half_close()
            self._hear(number)
            after.append(self._end.view.received)
        self._end.half_close()
        self._until(lambda: self._end.view.ended, END)
        self._end.close()
        return Heard((*after, self._end.view.received), self._end.view.ended)

    def _hear(self, number: int) -> None:
        if self._like is None:
            self._until(lambda: self._end.view.ended, QUIET)
        else:
            wanted = len(self._like.after[number])
            self._until(lambda: len(self._end.view.received) >= wanted, PATIENCE)

    def _until(self, holds: Callable[[], bool], patience: float) -> None:
        """Until it holds, or nothing has happened for so long."""
        deadline = time.monotonic() + patience
        while not holds() and time.monotonic() < deadline:
            if self._end.step():
                deadline = time.monotonic() + patience
            elif not self._end.view.ended:
                poll = select.poll()
                poll.register(self._end.sock, self._end.interest)
                poll.poll(min(patience, 0.02) * 1000)
            else:
                return


_DATE = re.compile(rb"^Date: [^\r]*", re.MULTILINE)
_FINAL = re.compile(rb"^HTTP/1\.[01] ([2-9]\d\d|101)\b", re.MULTILINE)


def settled(received: bytes) -> bytes:
    """What a daemon said, without what no two answers have in common."""
    return _DATE.sub(b"Date: *", received)


def statuses(received: bytes) -> tuple[int, ...]:
    """The answers in what a daemon said, but interim ones. No body of a case's looks like one."""
    return tuple(int(status) for status in _FINAL.findall(received))
