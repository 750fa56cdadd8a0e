"""What the log shows, ready for any of its formats: unpacked, explained, and without secrets."""

from __future__ import annotations

from typing import Literal, NamedTuple

from lxdtap.content import Content
from lxdtap.lxd import Seen
from lxdtap.transaction import Direction, Frame, Moment, Transaction

State = Literal["finished", "upgraded", "open"]


class TransactionEntry(NamedTuple):
    """A transaction, at one of the moments when it is worth showing.

    Attributes:
        transaction: its target and headers without secrets; its bodies are not to be shown.
        state: at its end, when it left HTTP, or while it goes on.
        now: monotonic nanoseconds; for ``open``, up to when its duration counts.
        request: what the request's body says.
        response: what the response's body says.
        error: the daemon's error, wherever it hides; empty if there is none.
        operation: the operation that the answer describes.
        stream: which of exec's streams an upgraded connection is; empty if none.
    """

    transaction: Transaction
    state: State = "finished"
    now: int | None = None
    request: Content = None
    response: Content = None
    error: str = ""
    operation: Seen | None = None
    stream: str = ""

    @property
    def seconds(self) -> float:
        """How long it has taken until this moment."""
        timing = self.transaction.timing
        return timing.duration(timing.answered if self.state == "upgraded" else self.now)


class FrameEntry(NamedTuple):
    """A frame on the upgraded connection of ``transaction``; ``content`` is what it says."""

    transaction: Transaction
    direction: Direction
    frame: Frame
    content: Content
    at: Moment
    stream: str = ""
    error: str = ""


class OperationEntry(NamedTuple):
    """An operation ended, as an event told."""

    seen: Seen
    at: Moment


class NoteEntry(NamedTuple):
    """A word about the tap itself."""

    text: str
    at: Moment


Entry = TransactionEntry | FrameEntry | OperationEntry | NoteEntry
