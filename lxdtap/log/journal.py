"""From updates to what the log shows: what is chosen, explained and redacted.

Pure, with a memory: operations, secrets and the upgraded connections that are open.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, assert_never

from lxdtap import content, lxd
from lxdtap.content import Content, Document, Json
from lxdtap.log.entries import Entry, FrameEntry, NoteEntry, OperationEntry, State, TransactionEntry
from lxdtap.redact import Redactor
from lxdtap.transaction import (
    Body,
    BytesSeen,
    Capture,
    Direction,
    Finished,
    Frame,
    FrameSeen,
    Note,
    Opcode,
    Open,
    Request,
    Response,
    Transaction,
    Tunnel,
    Update,
    Upgraded,
)


def pattern(text: str) -> Callable[[Request], bool]:
    """A test on requests from ``[METHOD ]PATH``, both with ``*``, ``?`` and ``[…]``.

    ``/1.0/events``, ``GET *``, ``POST /1.0/instances/*/exec``. A path is matched without its query,
    unless the pattern has a query's ``=``.
    """
    method, space, path = text.strip().rpartition(" ")
    method = method.strip().upper() if space else "*"
    with_query = "=" in path

    def matches(request: Request) -> bool:
        subject = request.target if with_query else request.path
        return fnmatch.fnmatchcase(request.method, method) and fnmatch.fnmatchcase(subject, path)

    return matches


@dataclass(frozen=True, slots=True)
class Selection:
    """What is shown.

    Attributes:
        only: patterns of which one must match; none: everything.
        ignore: patterns of which none may.
        verbose: also exec's data, logging events and control frames.
        secrets: credentials as they are.
    """

    only: Sequence[str] = ()
    ignore: Sequence[str] = ()
    verbose: bool = False
    secrets: bool = False

    def wanted(self) -> Callable[[Request], bool]:
        """The test that ``only`` and ``ignore`` amount to."""
        only = [pattern(text) for text in self.only]
        ignore = [pattern(text) for text in self.ignore]

        def test(request: Request) -> bool:
            if only and not any(matches(request) for matches in only):
                return False
            return not (ignore and any(matches(request) for matches in ignore))

        return test


_Head = TypeVar("_Head", Request, Response)


@dataclass(slots=True)
class _Message:
    """A message of which a fragment has passed, but not the last."""

    opcode: Opcode
    capture: Capture = field(default_factory=lambda: Capture(content.UNPACKED_LIMIT))

    def add(self, payload: Body) -> None:
        self.capture.add(payload.captured)

    @property
    def frame(self) -> Frame:
        return Frame(self.opcode, self.capture.body())


@dataclass(slots=True)
class _Watched:
    """An upgraded connection that is open."""

    transaction: Transaction  # already redacted
    stream: str
    wanted: bool
    untold: bool  # whether something is to be told of it, when it goes on
    messages: dict[Direction, _Message] = field(default_factory=dict)

    @property
    def is_operation(self) -> bool:
        """Whether it carries an operation's data, such as exec's, rather than the daemon's word."""
        return lxd.operation_path(self.transaction.request.path) is not None

    def whole(self, direction: Direction, frame: Frame) -> Frame | None:
        """The whole message that ends with this frame; None where it goes on."""
        if frame.opcode.control:
            return frame
        if frame.opcode is not Opcode.CONTINUATION:
            if frame.final:
                return frame
            self.messages[direction] = _Message(frame.opcode)
        message = self.messages.get(direction)
        if message is None:
            return frame  # the message's beginning was not seen
        message.add(frame.payload)
        if not frame.final:
            return None
        return self.messages.pop(direction).frame


class Journal:
    """Makes entries of updates.

    Args:
        selection: what is shown.
        frames: whether the log's format has a place for single frames.
        redactor: gives placeholders; None: one of its own.
    """

    def __init__(
        self, selection: Selection, *, frames: bool = True, redactor: Redactor | None = None
    ) -> None:
        self._frames = frames
        self._verbose = selection.verbose
        self._wanted = selection.wanted()
        self._redactor = None if selection.secrets else redactor or Redactor()
        self._operations = lxd.Operations()
        self._watched: dict[int, _Watched] = {}

    def hear(self, update: Update) -> list[Entry]:
        """What an update is worth to the log."""
        match update:
            case Finished():
                return self._transaction(update.transaction, "finished")
            case Upgraded():
                return self._upgraded(update.transaction)
            case Open():
                return self._open(update)
            case FrameSeen():
                return self._frame(update)
            case BytesSeen():
                return []  # the tunnel's counts tell of them
            case Note():
                return [NoteEntry(update.text, update.at)]
            case _:
                assert_never(update)

    def _transaction(
        self, transaction: Transaction, state: State, now: int | None = None
    ) -> list[Entry]:
        watched = self._watched.pop(transaction.number, None) if state == "finished" else None
        target = transaction.request.target
        stream = watched.stream if watched else self._operations.stream(target)
        asked, answer = _says(transaction, state)
        seen, error = self._learn(answer, transaction), lxd.failure(_value(answer))
        # Redacted even where it is not wanted: its secrets may turn up in what is. And in this
        # order: an answer may echo what its target holds, and a body tell what that is.
        self._redact_text(target)
        request, response = self._redact(asked), self._redact(answer)
        clean = self._clean_transaction(transaction)
        error, seen = self._redact_text(error), seen and self._clean_seen(seen)
        if not self._wanted(transaction.request):
            return []
        return [TransactionEntry(clean, state, now, request, response, error, seen, stream)]

    def _learn(self, response: Content, transaction: Transaction) -> lxd.Seen | None:
        answer = transaction.response
        created = answer is not None and answer.status == 202
        return self._operations.learn(
            _value(response), made_by=transaction.number if created else None
        )

    def _upgraded(self, transaction: Transaction) -> list[Entry]:
        stream = self._operations.stream(transaction.request.target)
        wanted = self._wanted(transaction.request)
        clean = self._clean_transaction(transaction)
        self._watched[transaction.number] = _Watched(clean, stream, wanted, not self._frames)
        return [TransactionEntry(clean, "upgraded", stream=stream)] if wanted else []

    def _open(self, update: Open) -> list[Entry]:
        watched = self._watched.get(update.transaction.number)
        if watched is None:
            return self._transaction(update.transaction, "open", update.now)
        if not (watched.wanted and (watched.untold or _raw(update.transaction.tunnel))):
            return []
        watched.untold = False
        clean = self._clean_transaction(update.transaction)
        return [TransactionEntry(clean, "open", update.now, stream=watched.stream)]

    def _frame(self, update: FrameSeen) -> list[Entry]:
        watched = self._watched.get(update.number)
        if watched is None:
            return []  # its beginning was left out
        # What a message says is told with its last frame: half a secret cannot be known for one.
        message = watched.whole(update.direction, update.frame)
        says = None if message is None else content.read(message.payload)
        frame = update.frame if self._verbose or message is None else message
        value = _value(says)
        # What a command prints is no word of the daemon's.
        seen = None if watched.is_operation else self._operations.learn(value)
        shown = self._redact(says)
        entries: list[Entry] = []
        if self._frames and watched.wanted and self._is_shown(message, watched, value):
            entries.append(
                FrameEntry(
                    watched.transaction,
                    update.direction,
                    frame,
                    shown,
                    update.at,
                    watched.stream,
                    self._redact_text(lxd.failure(value)),
                )
            )
        elif not update.frame.opcode.control:
            watched.untold = True
        if seen is not None and seen.news:
            entries.append(OperationEntry(self._clean_seen(seen), update.at))
        return entries

    def _is_shown(self, message: Frame | None, watched: _Watched, value: Json) -> bool:
        if self._verbose:
            return True
        if message is None or message.opcode.control or lxd.event_type(value) == "logging":
            return False
        return not watched.is_operation or (watched.stream == "control" and value is not None)

    # -- redaction

    def _clean_transaction(self, transaction: Transaction) -> Transaction:
        asked, answer = transaction.request, transaction.response
        target = self._redact_text(asked.target)
        request, response = self._clean_headers(asked), answer and self._clean_headers(answer)
        if target is not asked.target:
            request = request._replace(target=target)
        if request is asked and response is answer:  # as mostly: a copy would cost 1 µs
            return transaction
        return transaction._replace(request=request, response=response)

    def _clean_headers(self, message: _Head) -> _Head:
        if self._redactor is None:
            return message
        headers = self._redactor.headers(message.headers)
        trailers = message.trailers and self._redactor.headers(message.trailers)
        if headers is message.headers and trailers is message.trailers:
            return message
        return message._replace(headers=headers, trailers=trailers)

    def _clean_seen(self, seen: lxd.Seen) -> lxd.Seen:
        state = seen.operation
        err, description = self._redact_text(state.err), self._redact_text(state.description)
        return replace(seen, operation=replace(state, err=err, description=description))

    def _redact(self, says: Content) -> Content:
        return says if self._redactor is None else self._redactor.content(says)

    def _redact_text(self, text: str) -> str:
        return text if self._redactor is None else self._redactor.text(text)


def _says(transaction: Transaction, state: State) -> tuple[Content, Content]:
    """What both bodies say; nothing of one that is still on its way, or secrets would be halved."""
    asked, answer, over = transaction.request, transaction.response, state == "finished"
    sent = over or transaction.timing.sent is not None
    return (
        content.read(asked.body, asked.headers) if sent else None,
        content.read(answer.body, answer.headers) if answer is not None and over else None,
    )


def _value(says: Content) -> Json:
    return says.value if isinstance(says, Document) else None


def _raw(tunnel: Tunnel | None) -> bool:
    """Whether bytes passed that were no frames, of which there is no other word."""
    if tunnel is None or tunnel.sent.frames or tunnel.received.frames:
        return False
    return bool(tunnel.sent.size or tunnel.received.size)
