"""The same conversation twice: straight to a daemon, and through the real ``lxdtap run -w``.

A conversation is a list of words, as in ``tests/unit/conversation.py``::

    (">>", GET, "<<", OK, "<x")

``>>`` lets the client speak, ``<<`` the daemon; each piece of bytes is one write. ``>|`` and
``<|`` end a side's sending, ``>x`` and ``<x`` close its socket, ``>~`` and ``<~`` have it read
nothing more. Where both ends are ours, words are said in lockstep (``lockstep``); a daemon that is
not ours is told the client's part (``hearing``), and what it answers is compared.

What is not compared, said here once:

- a reset (``ECONNRESET``) counts as an end. Only bytes left unread make one on a unix socket
  (unix(7)), and the tap leaves none unread, so it can pass the end on and not the reset;
- how long it takes: a client that is gone is listened for half a second more (``tap.relay``);
- the Date of a real daemon's answers. One whose answers differ is asked again: what the tap
  always does is always found.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lxdtap.cassette import files
from lxdtap.cassette.model import Interaction, Piece
from lxdtap.transaction import Body, Timing, Transaction
from tests.process.tap import Sidecar, environment, sidecar
from tests.unit.conversation import Talk

from .corpus.pieces import Word, Words
from .lockstep import PATIENCE, Difference, Lockstep, Seen, directly

Told = tuple[str, ...]
"""Transactions, a line each; see :func:`line`."""
Result = int | Difference
"""The number of a connection through the tap, or what was noticed on it."""

SAVING = 300.0
"""Seconds that a tap may take to save what passed in a campaign."""
SOON = 0.2
"""Seconds after which it is asked whether more is to come."""
LATER: Words = (">>", b"GET /later HTTP/1.0\r\n\r\n", "<<", b"HTTP/1.0 204 No Content\r\n\r\n")
BACKLOG = 512
LIMIT = 1 << 20
"""Bytes of a body that are kept by the reader by itself."""


# -- the tap


class Tap:
    """A tap with ``-w``, for many conversations.

    Args:
        sidecar: the running tap.
        cassette: where the recording will be.
    """

    def __init__(self, sidecar: Sidecar, cassette: Path) -> None:
        self._sidecar = sidecar
        self._cassette = cassette
        self._lock = threading.Lock()
        self._connections = 0
        self._tail = 0
        self._told: dict[int, list[dict[str, Any]]] = {}

    @contextlib.contextmanager
    def connect(self) -> Iterator[tuple[socket.socket, int]]:
        """A client, and the number that its connection has in the log.

        Nobody else connects in the block, so that it is known whose a daemon's connection is.
        """
        with self._lock:
            client = socket.socket(socket.AF_UNIX)
            client.connect(self._sidecar.path)
            self._connections += 1
            yield client, self._connections

    def told(self, connection: int) -> Told:
        """What the log has of a connection until now."""
        return tuple(map(logged, self._log(connection)))

    def tells(self, connection: int, count: int, seconds: float) -> bool:
        """Whether so many transactions of a connection come to be in the log in time."""
        deadline = time.monotonic() + seconds
        while len(self._log(connection)) < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def _log(self, connection: int) -> list[dict[str, Any]]:
        with self._lock, self._sidecar.log.open("rb") as log:
            log.seek(self._tail)
            for text in log:
                if not text.endswith(b"\n"):
                    break
                self._tail += len(text)
                entry = json.loads(text)
                if entry["event"] == "transaction":
                    self._told.setdefault(entry["connection"], []).append(entry)
            return sorted(self._told.get(connection, []), key=lambda each: int(each["id"]))

    def finish(self) -> dict[int, tuple[Interaction, ...]]:
        """End the tap; what its cassette has of each connection.

        A tap that was at fault anywhere has said so, and is refused here.
        """
        process = self._sidecar.process
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=SAVING)
        status, said = process.returncode, "".join(self._sidecar.said) + stderr
        notes = [entry["text"] for entry in self._sidecar.entries("note")]
        assert status == 0, f"exit status {status}: {said}"
        for text in (said, *notes):
            assert "fault" not in text, text
            assert "Traceback" not in text, text
        recording = files.load(str(self._cassette))
        assert recording.complete
        found: dict[int, list[Interaction]] = {}
        for interaction in recording.interactions:
            found.setdefault(interaction.transaction.connection, []).append(interaction)
        for connection, interactions in found.items():
            told = tuple(map(logged, self._log(connection)))
            assert recorded(interactions) == told, "the cassette is not the log"
        return {number: tuple(interactions) for number, interactions in found.items()}


@contextlib.contextmanager
def tap_before(directory: Path, daemon: str) -> Iterator[Tap]:
    """A tap in front of a daemon."""
    cassette = directory / "cassette.yaml"
    options = ("-w", str(cassette), "--keep-secrets", "--show-secrets")
    # The lxdtap that the tests import, and not one that the directory they run in may hold.
    env = environment(PYTHONSAFEPATH="1")
    with sidecar(directory / "tap", daemon, *options, env=env) as running:
        assert running.said[0].startswith("export "), running.said
        yield Tap(running, cassette)


class Tapped:
    """A tap in front of a daemon that is ours: conversations in lockstep."""

    def __init__(self, tap: Tap, listening: socket.socket) -> None:
        self.tap = tap
        self._listening = listening

    def follow(self, words: Sequence[Word], trace: Sequence[Seen]) -> int:
        """Hold a conversation; the number that its connection has in the log."""
        with self.tap.connect() as (client, number):
            daemon, _ = self._listening.accept()
        here = Lockstep(client, daemon)
        try:
            here.follow(words, trace)
        finally:
            here.close()
        return number

    def compare(self, words: Sequence[Word]) -> int:
        """Hold a conversation directly and through the tap; its connection's number."""
        return self.follow(words, directly(words))

    def told(self, connection: int, count: int) -> Told:
        """What the log has of a connection, once so many transactions can be in it."""
        if not self.tap.tells(connection, count, SOON):
            self.tap.tells(self.compare(LATER), 1, PATIENCE)  # then all before it is in the log
        return self.tap.told(connection)


@contextlib.contextmanager
def tapped(directory: Path) -> Iterator[Tapped]:
    """A tap in front of a daemon that is ours."""
    directory.mkdir(exist_ok=True)
    path = str(directory / "daemon.socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(BACKLOG)
        listening.settimeout(PATIENCE)
        with tap_before(directory, path) as tap:
            knock, _ = listening.accept()  # the tap's own: is there a daemon?
            knock.close()
            yield Tapped(tap, listening)


def every(tapped: Tapped, conversations: Sequence[Words], at_once: int = 16) -> list[Result]:
    """Compare them all, several at a time; each connection's number, or what was noticed.

    Most of the time is the tap's, waiting for a client that is gone.
    """

    def one(words: Words) -> Result:
        try:
            return tapped.compare(words)
        except Difference as difference:
            return difference

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, conversations))


# -- what was recorded


_STRAY = re.compile("[\ud800-\udfff]")
"""Bytes that are not UTF-8, which the log shows as U+FFFD."""


def line(method: str, status: int | None, *more: str) -> str:
    """A transaction in short: ``GET 200``, ``POST - broken``, ``GET 101 websocket``."""
    words = [method, "-" if status is None else str(status), *filter(None, more)]
    return _STRAY.sub("\ufffd", " ".join(words))


def short(told: Transaction) -> str:
    """A transaction in short."""
    return line(
        told.request.method,
        told.response.status if told.response else None,
        told.tunnel.protocol if told.tunnel else "",
        "garbled" if told.request.garbled else "",
        "broken" if told.broken else "",
    )


def logged(entry: dict[str, Any]) -> str:
    """A transaction in short, from the log's object."""
    tunnel = entry["tunnel"]
    return line(
        entry["method"],
        entry["status"],
        tunnel["protocol"] if tunnel else "",
        "garbled" if entry["garbled"] else "",
        "broken" if entry["broken"] else "",
    )


def recorded(interactions: Iterable[Interaction]) -> Told:
    """Transactions in short, from the cassette."""
    return tuple(short(each.transaction) for each in interactions)


def timeless(interaction: Interaction) -> Interaction:
    """An interaction without what is another's when it is held again, in other pieces."""
    told = interaction.transaction
    # Whether an end was a reset is told once by the kernel, and not every time (seen in 1 of 5).
    broken = told.broken.replace(
        "the daemon's connection was cut", "the daemon closed the connection"
    )
    told = told._replace(
        timing=Timing(0, 0), number=0, connection=0, peer=None, base="", broken=broken
    )
    return interaction._replace(transaction=told, pieces=_merged(interaction.pieces))


def _merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Pieces that are not frames, put together; each side's by itself, for sides do not wait."""
    merged: list[Piece] = []
    for piece in sorted(pieces, key=lambda each: each.direction.value):
        last = merged[-1] if merged else None
        if last and piece.opcode is None is last.opcode and last.direction is piece.direction:
            payload = last.payload.captured + piece.payload.captured
            merged[-1] = last._replace(payload=Body(len(payload), payload))
        else:
            merged.append(piece._replace(offset=0))
    return tuple(merged)


# -- without a process


def read(words: Sequence[Word]) -> Talk:
    """What the reader by itself makes of a conversation, told of its ends as the relay does."""
    talk = Talk(LIMIT)
    for word in _ends(words):
        talk.say(word)
    return talk


def _ends(words: Sequence[Word]) -> Iterator[Word]:
    gone: set[str] = set()
    for word in words:
        if isinstance(word, str) and word[1] in "|x":
            gone.add(word[0])
            yield word[0] + "|"
            if word[1] == "x" or len(gone) == 2:
                break
        elif word not in (">~", "<~"):
            yield word
    else:
        yield "<|"
    yield "||"
