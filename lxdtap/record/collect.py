"""From events to the interactions of a cassette. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxdtap import content, lxd
from lxdtap.cassette.model import REPLAYABLE, Interaction, Piece
from lxdtap.content import Document, Json
from lxdtap.transaction import (
    Body,
    BytesSeen,
    Finished,
    FrameSeen,
    Moment,
    Opcode,
    Timing,
    Transaction,
    Update,
    Upgraded,
)
from lxdtap.wire.events import Event
from lxdtap.wire.fold import Fold

_ROOT = re.compile(r"/1\.0/?")


@dataclass(slots=True)
class _Open:
    """An upgraded connection that goes on."""

    stream: str
    pieces: list[Piece] = field(default_factory=list)


class Collector:
    """Takes the events of a recording, gives its interactions as they are complete."""

    def __init__(self) -> None:
        self.began: Moment | None = None
        """Both clocks when the first event came."""
        self.version = ""
        """Of the daemon, once it has said it."""
        self.base = ""
        """The daemon's address."""
        self._fold = Fold(REPLAYABLE)
        self._operations = lxd.Operations()
        self._open: dict[int, _Open] = {}

    def add(self, event: Event) -> Iterator[Interaction]:
        """Take an event; give what it completes."""
        if self.began is None:
            self.began = event.at
        for update in self._fold.add(event):
            yield from self._take(update, self.began)

    def end(self, at: Moment, why: str) -> Iterator[Interaction]:
        """Nothing more is known: what is under way is given as broken off."""
        for update in self._fold.cut(at, why):
            yield from self._take(update, self.began or at)

    def _take(self, update: Update, began: Moment) -> Iterator[Interaction]:
        match update:
            case Finished():
                yield self._interaction(update.transaction, began)
            case Upgraded():
                stream = self._operations.stream(update.transaction.request.target)
                self._open[update.transaction.number] = _Open(stream)
            case FrameSeen() | BytesSeen() if update.number in self._open:
                self._open[update.number].pieces.append(_piece(update, began))

    def _interaction(self, transaction: Transaction, began: Moment) -> Interaction:
        tunnel = self._open.pop(transaction.number, _Open(""))
        says = _value(transaction)
        seen = self._operations.learn(says)
        operation = lxd.operation_path(transaction.request.path) or ""
        if seen is not None and not operation:
            operation = seen.operation.id
        self._look(transaction, says)
        timed = transaction._replace(timing=_since(transaction.timing, began), peer=None)
        return Interaction(timed, tuple(tunnel.pieces), operation, tunnel.stream)

    def _look(self, transaction: Transaction, says: Json) -> None:
        """What a transaction tells of the daemon itself."""
        self.base = transaction.base
        if not self.version and _ROOT.fullmatch(transaction.request.path) and says:
            self.version = lxd.server_version(says)


def _piece(update: FrameSeen | BytesSeen, began: Moment) -> Piece:
    offset = update.at.monotonic - began.monotonic
    if isinstance(update, BytesSeen):
        body = Body(len(update.data), update.data)
        return Piece(update.direction, offset, body)
    frame = update.frame
    opcode = Opcode(frame.opcode)
    return Piece(update.direction, offset, frame.payload, opcode, frame.final)


def _since(timing: Timing, began: Moment) -> Timing:
    def offset(time: int | None) -> int | None:
        return None if time is None else max(0, time - began.monotonic)

    return Timing(
        timing.wall,
        max(0, timing.begun - began.monotonic),
        offset(timing.sent),
        offset(timing.answered),
        offset(timing.ended),
    )


def _value(transaction: Transaction) -> Json:
    answer = transaction.response
    says = None if answer is None else content.read(answer.body, answer.headers)
    return says.value if isinstance(says, Document) else None
