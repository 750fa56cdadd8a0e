"""A cassette made ready to be played: what answers what, who made which operation, and its end.

Pure; made once, and not changed by being played.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from lxdtap import lxd
from lxdtap.cassette.model import Cassette, Interaction, Piece
from lxdtap.content import Json
from lxdtap.replay import match
from lxdtap.replay.match import Key
from lxdtap.transaction import Body, Direction, Opcode, Response

EVENTS = "/1.0/events"
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_OPERATION = re.compile(r"/1\.0/operations/([^/]+)(/wait|/websocket)?")
_SECRET = re.compile(r"[?&]secret=([^&]*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded interaction in its place.

    Attributes:
        interaction: it.
        key: of its request.
        made: how many changes had begun before it.
        changing: whether it is a change itself: the one with the number ``made``, from 0.
    """

    interaction: Interaction
    key: Key
    made: int
    changing: bool

    @property
    def number(self) -> int:
        """Its transaction's."""
        return self.interaction.transaction.number

    @property
    def response(self) -> Response:
        """Its answer; there is one."""
        response = self.interaction.transaction.response
        assert response is not None
        return response

    @property
    def playable(self) -> bool:
        """Whether its answer was recorded, and all of it."""
        return self.interaction.transaction.response is not None and self.interaction.replayable

    @property
    def place(self) -> Hashable:
        """Where it stands in the recording: what is asked, and in which state."""
        operation = operation_asked(self.key)
        if operation is not None:
            return operation
        return self.number if self.changing or self.upgraded else (self.key, self.made)

    @property
    def conditional(self) -> bool:
        """Whether it answers none but the same question."""
        response = self.interaction.transaction.response
        return response is None or response.status in match.DECIDING

    @property
    def upgraded(self) -> bool:
        """Whether the connection left HTTP with it."""
        response = self.interaction.transaction.response
        return response is not None and response.status == 101


@dataclass(frozen=True, slots=True)
class State:
    """What was seen of an operation at one time.

    Attributes:
        offset: when.
        made: how many changes had begun by then.
        final: whether it is the end, as far as this tells.
        metadata: the operation itself; None: it was asked for, and the answer was an error.
        response: the answer that said it; None: an event did, or the 202.
    """

    offset: int
    made: int
    final: bool
    metadata: Json
    response: Response | None = None


@dataclass(slots=True)
class Known:
    """What a recording knows of an operation.

    Attributes:
        maker: the change that made it, counted from 0; None: that was not recorded.
        cancel: the change that asked for its end; None: there is none.
        asked: whether its client asked for its state.
        states: in the order in which they were seen.
        streams: the websockets of each of its streams.
    """

    maker: int | None = None
    cancel: int | None = None
    asked: bool = False
    states: list[State] = field(default_factory=list)
    streams: dict[str, list[Entry]] = field(default_factory=dict)

    def state(self, *, cancelled: bool) -> State | None:
        """The last that is known of it; before it is cancelled, the last that was known then."""
        states = self.states
        if self.cancel is not None and not cancelled:
            states = [s for s in states if s.made <= self.cancel and not s.final] or states
        return max(reversed(states), key=_weight, default=None)  # of equals the last


class Tape:
    """A cassette, by what can be asked of it."""

    def __init__(self, cassette: Cassette) -> None:
        self.entries: list[Entry] = []
        self.changes: list[Entry] = []
        self.events: list[Entry] = []
        self.operations: dict[str, Known] = defaultdict(Known)
        self._slots: dict[int, Hashable] = {}
        self._secrets: dict[str, str] = {}
        self._by_key: dict[Key, list[Entry]] = defaultdict(list)
        self._by_generic: dict[Key, list[Entry]] = defaultdict(list)
        self._by_path: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for interaction in cassette.interactions:
            self._add(interaction)
        self._begun = [change.interaction.transaction.timing.begun for change in self.changes]
        for entry in self.entries:
            self._learn(entry)
        for known in self.operations.values():
            known.states = _believed(sorted(known.states, key=lambda state: state.offset))
        for entry in self.entries:
            self._place(entry)
        last = {(entry.key, entry.made): entry for entry in self.entries if entry.playable}
        self._slots = {e.number: _slot(e, last) for e in self.entries if e.playable}
        self.places = frozenset(entry.place for entry in self.entries if entry.playable)
        for table in (self._by_key, self._by_generic, self._by_path):
            for found in table.values():
                found[:] = _last_words(found)

    def find(self, asked: Key) -> list[Entry]:
        """What was recorded for this, in order; the names that were generated may be others."""
        if found := self._by_key.get(asked):
            return found
        if lxd.operation_path(asked.path) is None and (
            found := self._by_generic.get(match.generic(asked))
        ):
            return found
        return [entry for entry in self._by_path.get(asked[:2], ()) if _alike(entry.key, asked)]

    def websocket(self, target: str) -> tuple[str, str] | None:
        """Operation and stream that a websocket's target names; None: it is no such target.

        The stream is empty where the secret is not known.
        """
        found = _OPERATION.fullmatch(urllib.parse.unquote(target.partition("?")[0]))
        if found is None or found[2] != "/websocket":
            return None
        secret = _SECRET.search(target)
        return found[1], self._secrets.get(_unquoted(secret[1]), "") if secret else ""

    def slot(self, entry: Entry) -> Hashable:
        """What it stands for: one of two with the same slot is as good as the other."""
        return self._slots.get(entry.number)

    def made(self, offset: int) -> int:
        """How many changes had begun by then."""
        return bisect_left(self._begun, offset)

    def change_begun(self, change: int) -> int:
        """When this change began; before the recording, where ``change`` is negative."""
        return self._begun[change] if change >= 0 else 0

    # -- making it

    def _add(self, interaction: Interaction) -> None:
        request = interaction.transaction.request
        key = match.key(request)
        entry = Entry(interaction, key, len(self.changes), _changes(key))
        self.entries.append(entry)
        if entry.changing:
            self.changes.append(entry)
        if key.path == EVENTS and entry.upgraded:
            self.events.append(entry)
        self._by_key[key].append(entry)
        self._by_generic[match.generic(key)].append(entry)
        self._by_path[key[:2]].append(entry)

    def _learn(self, entry: Entry) -> None:
        """What an interaction tells of operations."""
        if entry in self.events:
            for piece in messages(entry.interaction.pieces):
                if b'"operation"' in piece.payload.captured:
                    self._learn_event(piece.payload.captured, piece.offset)
            return
        response = entry.interaction.transaction.response
        about = lxd.operation_path(entry.key.path)
        if response is None or not (response.status == 202 or about):
            return
        timing = entry.interaction.transaction.timing
        offset = timing.begun if timing.answered is None else timing.answered
        said = None if response.status == 202 else response
        envelope = document(response.body.captured)
        self._learn_state(envelope, offset, entry, said)
        if entry.playable and _says_but_an_error(response, envelope):
            self._learn_error(entry, offset)
        if about and entry.key.method == "DELETE":
            self.operations[about].cancel = entry.made

    def _learn_event(self, raw: bytes, offset: int) -> None:
        event = document(raw)
        if lxd.event_type(event) == "operation":
            self._learn_state(event, offset, None, None)

    def _learn_state(
        self, envelope: Json, offset: int, entry: Entry | None, response: Response | None
    ) -> None:
        operation = lxd.operation(envelope)
        if operation is None:
            return
        assert isinstance(envelope, dict)
        metadata = envelope["metadata"]
        known = self.operations[operation.id]
        if entry is not None and entry.changing and known.maker is None:
            known.maker = entry.made
        if entry is not None and not entry.changing:
            known.asked = True
        made = self.made(offset)
        known.states.append(State(offset, made, operation.final, metadata, response))
        self._secrets.update(lxd.operation_streams(metadata))

    def _learn_error(self, entry: Entry, offset: int) -> None:
        """An operation was asked for, and the answer does not describe it."""
        operation = operation_asked(entry.key)
        if operation is None:
            return
        known = self.operations[operation]
        known.asked = True
        known.states.append(State(offset, self.made(offset), True, None, entry.response))

    def _place(self, entry: Entry) -> None:
        """A websocket belongs to its operation."""
        named = self.websocket(entry.interaction.transaction.request.target)
        if named is None or not entry.upgraded:
            return
        operation, stream = named
        name = entry.interaction.stream or stream or f"socket {entry.number}"
        self.operations[operation].streams.setdefault(name, []).append(entry)


def _says_but_an_error(response: Response, envelope: Json) -> bool:
    """Whether an answer describes no operation but is an error, perhaps within an HTTP 200."""
    if lxd.operation(envelope) is not None:
        return False
    return response.status >= lxd.FAILED or bool(lxd.failure(envelope))


def _believed(states: Sequence[State]) -> list[State]:
    """These without the errors after which an operation was answered to go on.

    Incus answers a wait that was too short by one (its cmd/incusd/operations.go).
    """
    going = [s.offset for s in states if s.response is not None and not s.final]
    until = max(going, default=-1)
    return [state for state in states if state.metadata is not None or state.offset > until]


def _weight(state: State) -> int:
    """How much a state tells of an operation's end: what tells most is what is played.

    Of one that failed, Incus answers a wait by the error alone, and an event tells more of it; but
    what its client was answered counts. Where the event tells of a success, the error was that of
    a wait that was too short. What has ended is gone after 5 s (LXD's lxd/operations): a 404
    counts where nothing else is known of the end.
    """
    if not state.final:
        return 0
    if state.response is None:
        return 2 if lxd.failure({"metadata": state.metadata}) else 4
    if state.metadata is None:
        return 1 if state.response.status == 404 else 3
    return 5


def _slot(entry: Entry, last: Mapping[tuple[Key, int], Entry]) -> Hashable:
    if not isinstance(entry.place, tuple):
        return entry.place
    said = last[entry.key, entry.made].response
    return entry.key, said.status, said.body.captured


def _last_words(entries: Sequence[Entry]) -> list[Entry]:
    """These without those after which the same was asked in the same state, and answered."""
    return [
        entry
        for entry, then in zip_longest(entries, entries[1:])
        if then is None
        or (entry.made, entry.key) != (then.made, then.key)
        or entry.changing
        or entry.conditional
        or then.conditional
        or not then.playable
    ]


def _changes(key: Key) -> bool:
    """Whether an interaction may leave another state: a change, or a session that may make some."""
    return key.method in _CHANGING or bool(key.upgrade and key.upgrade != "websocket")


def document(raw: bytes) -> Json:
    """The JSON that bytes hold; None where they hold none."""
    try:
        value: Json = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value


def _unquoted(text: str) -> str:
    return urllib.parse.unquote_plus(text)


def _alike(recorded: Key, asked: Key) -> bool:
    return (
        recorded.upgrade == asked.upgrade
        and len(recorded.query) == len(asked.query)
        and all(
            one[0] == other[0] and match.alike(one[1], other[1])
            for one, other in zip(recorded.query, asked.query, strict=True)
        )
    )


def messages(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """What a listener was sent: whole messages, of whatever fragments (RFC 6455, 5.4).

    LXD's are fragmented from 4 KiB on. One of which the beginning is missing is none.
    """
    parts: list[Piece] = []
    for piece in pieces:
        if piece.direction is Direction.SENT or piece.opcode is None or piece.opcode.control:
            continue
        if piece.opcode is not Opcode.CONTINUATION:
            parts = [piece]
        elif parts:
            parts.append(piece)
        else:
            continue
        if piece.final:
            data = b"".join(part.payload.captured for part in parts)
            yield parts[0]._replace(payload=Body(len(data), data), final=True)
            parts = []


def operation_asked(key: Key) -> str | None:
    """The operation whose state a request asks for, at once or when it has ended."""
    found = _OPERATION.fullmatch(key.path)
    if found is None or key.method != "GET" or found[2] == "/websocket":
        return None
    return found[1]
