"""The daemon that a recording plays: what it is asked and hears, to what it says, and when.

Pure: it knows no sockets and no clock. Whoever serves it tells of connections and requests, with
the time, and does what it is told by :data:`Action`; and calls :meth:`Player.tick` at
:meth:`Player.due`.

A change that is asked for again when all have been made begins the recording anew from there, a
command only when everything has been played; and so does the first request of the recording, when
besides nothing is under way.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lxdtap.cassette.model import Cassette, Interaction, Piece
from lxdtap.replay import answer, match, playback
from lxdtap.replay.match import Key, Mismatch
from lxdtap.replay.playback import Due, Group
from lxdtap.replay.progress import Progress, runs_something
from lxdtap.replay.sftp import Played, Session
from lxdtap.replay.tape import EVENTS, Entry, State, Tape, operation_asked
from lxdtap.transaction import Direction, Frame, Opcode, Request, Response


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the request of a connection."""

    connection: int
    response: Response


@dataclass(frozen=True, slots=True)
class Miss:
    """Answer the request of a connection that nothing recorded answers it; tell a person too."""

    connection: int
    text: str

    @property
    def response(self) -> Response:
        """What its client is told."""
        return answer.envelope(answer.MISSED, self.text)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Answer the request of a connection by 101; what follows are frames, or bytes."""

    connection: int
    response: Response
    websocket: bool


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame, or bytes where ``opcode`` is None."""

    connection: int
    payload: bytes
    opcode: Opcode | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class Close:
    """End a connection, after what was to be sent on it."""

    connection: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Something that a person should know."""

    text: str


_NEVER = 1 << 63
_CONTROL = "control"

Action = Answer | Miss | Upgrade | Send | Close | Tell


class _Waiting(NamedTuple):
    """Somebody asked for an operation's end; until that time, what ends it may come."""

    operation: str
    until: int


@dataclass(slots=True)
class _Tunnel:
    """A connection that has left HTTP."""

    group: Group | None = None
    name: str = ""
    sftp: Played | None = None
    operation: str = ""


@dataclass(order=True, slots=True)
class _Later:
    """An action for later."""

    at: int
    order: int
    actions: list[Action] = field(compare=False)
    connection: int = field(compare=False, default=0)


class Player:
    """Plays one recording to any number of clients.

    Args:
        cassette: the recording.
        paced: whether the recorded pauses come back.
    """

    def __init__(self, cassette: Cassette, *, paced: bool = False) -> None:
        self.tape = Tape(cassette)
        self._paced = paced
        self._progress = Progress(self.tape.changes)
        self._played: set[Hashable] = set()  # places, since it began anew
        self._ever: set[Hashable] = set()  # slots
        entries = self.tape.entries
        plain = [entry.key for entry in entries if not entry.upgraded]
        self._first = entries[0].key if entries and plain[-1:] != [entries[0].key] else None
        self._asked: set[str] = set()
        self._made_at: dict[int, int] = {}  # when each change was made
        self._tunnels: dict[int, _Tunnel] = {}
        self._execs: dict[str, list[Group]] = {}
        self._listeners: list[Group] = []
        self._sessions: dict[int, Session] = {}
        self._later: list[_Later] = []
        self._waiting: dict[int, _Waiting] = {}  # who asked for the end of what goes on
        self._connections = 0
        self._count = 0

    # -- what clients do

    def opened(self) -> int:
        """A client connected; the number of its connection."""
        self._connections += 1
        return self._connections

    def asked(self, connection: int, request: Request, now: int) -> list[Action]:
        """A request has come, whole."""
        key = match.key(request)
        self._begin_anew(key)
        for group in self._listeners:
            group.touch(now)
        actions = self._answer(connection, request, key, now)
        return [*actions, *self.tick(now)]

    def heard_frame(self, connection: int, frame: Frame, now: int) -> list[Action]:
        """A client sent a frame on an upgraded connection."""
        tunnel = self._tunnels.get(connection)
        if tunnel is None:
            return []
        actions: list[Action] = []
        payload = frame.payload.captured
        if frame.opcode is Opcode.PING:
            actions.append(Send(connection, payload, Opcode.PONG))
        if frame.opcode is Opcode.CLOSE:
            actions += [Send(connection, payload, Opcode.CLOSE), Close(connection)]
        self._hear(
            tunnel,
            playback.measure(tunnel.name.partition("#")[0], frame.opcode, frame.payload),
            now,
        )
        return [*actions, *self.tick(now)]

    def heard(self, connection: int, data: bytes, now: int) -> list[Action]:
        """A client sent bytes on an upgraded connection without frames."""
        tunnel = self._tunnels.get(connection)
        if tunnel is None:
            return []
        if tunnel.sftp is not None:
            return self._sftp(connection, tunnel.sftp, data)
        self._hear(tunnel, len(data), now)
        return self.tick(now)

    def left(self, connection: int, now: int) -> list[Action]:
        """A connection is closed."""
        self._later = [each for each in self._later if each.connection != connection]
        heapq.heapify(self._later)
        self._waiting.pop(connection, None)
        tunnel = self._tunnels.pop(connection, None)
        if tunnel is not None and tunnel.group is not None:
            tunnel.group.leave(connection, now)
            if not tunnel.group.open:
                self._forget(tunnel)
        return self.tick(now)

    def tick(self, now: int) -> list[Action]:
        """What is due by now."""
        actions: list[Action] = []
        while self._later and self._later[0].at <= now:
            actions += heapq.heappop(self._later).actions
        actions += self._advance(now)
        for connection, waiting in list(self._waiting.items()):
            if self._answerable(waiting) <= now:
                del self._waiting[connection]
                actions += self._answer_state(connection, waiting.operation, now)
                actions += self._advance(now)
        return actions

    def _advance(self, now: int) -> list[Action]:
        """What is to be sent by now on upgraded connections."""
        return [
            action
            for group in self._groups()
            for due in group.advance(now)
            for action in _done(due)
        ]

    def due(self) -> int | None:
        """When something will be, if nothing happens until then; None: never."""
        times = [due for group in self._groups() if (due := group.due()) is not None]
        times += [at for each in self._waiting.values() if (at := self._answerable(each)) < _NEVER]
        if self._later:
            times.append(self._later[0].at)
        return min(times, default=None)

    def never_played(self) -> list[Interaction]:
        """The recorded interactions that nobody has asked for, or for others in their place."""
        return [
            entry.interaction
            for entry in self.tape.entries
            if entry.playable and self.tape.slot(entry) not in self._ever
        ]

    # -- choosing

    def _answer(self, connection: int, request: Request, key: Key, now: int) -> list[Action]:
        operation = operation_asked(key)
        if operation is not None and self._state(operation) is not None:
            self._waiting[connection] = _Waiting(operation, self._patient(operation, key, now))
            return []  # until the tick that follows, or that in which its streams have ended
        named = self.tape.websocket(request.target)
        if named is not None and key.upgrade == "websocket":
            return self._join(connection, request, *named, now)
        if key.path == EVENTS and key.upgrade == "websocket":
            return self._listen(connection, request, key, now)
        found = self._find(request, key)
        if isinstance(found, Mismatch):
            return self._miss(connection, str(found))
        return self._play(connection, request, found, now)

    def _find(self, request: Request, key: Key) -> Entry | Mismatch:
        candidates = self.tape.find(key)
        if not candidates and key.method == "HEAD":
            candidates = self.tape.find(key._replace(method="GET"))
        if candidates and (quick := self._quick(candidates, request)):
            return quick
        suiting = [entry for entry in candidates if _suits(entry, request)]
        if suiting:
            changing = suiting[0].changing
            return self._change(suiting, request) if changing else self._progress.choose(suiting)
        if candidates:
            return match.explained(candidates[-1].interaction.transaction, request)
        return match.nearest((e.interaction.transaction for e in self.tape.entries), request)

    def _quick(self, candidates: Sequence[Entry], request: Request) -> Entry | None:
        """The one that was recorded in this very place, without looking at all the others."""
        if candidates[0].changing:
            found = self._progress.first_open(candidates)
        else:
            made = self._progress.made
            at = 0 if made is None else bisect_right(candidates, made, key=lambda e: e.made)
            found = candidates[at - 1] if at and candidates[at - 1].made == made else None
        fits = found is not None and _suits(found, request) and not _differs(found, request)
        return found if fits else None

    def _change(self, candidates: Sequence[Entry], request: Request) -> Entry:
        """The first not yet made of those that differ least; where all are made, see the module."""
        differences = [len(_differs(entry, request)) for entry in candidates]
        least = min(differences)
        nearest = [e for e, much in zip(candidates, differences, strict=True) if much == least]
        found = self._progress.first_open(nearest)
        if found is not None:
            return found
        if not self._progress.complete or (runs_something(nearest[0]) and not self._over_all()):
            return nearest[-1]  # once more; a command may be run often, and change nothing
        self._rewind(nearest[0].made)
        return nearest[0]

    def _state(self, operation: str) -> State | None:
        known = self.tape.operations.get(operation)
        if known is None:
            return None
        cancelled = known.cancel is not None and self._progress.has(known.cancel)
        return known.state(cancelled=cancelled)

    # -- beginning anew

    def _begin_anew(self, key: Key) -> None:
        """The first request again, when all is over, begins anew.

        Where the last request was the same, it may well be that one once more.
        """
        under_way = self._tunnels or self._later or self._waiting
        if key == self._first and not under_way and self._over_all():
            self._rewind(0)

    def _over_all(self) -> bool:
        """Whether everything has been played."""
        played, places = self._played, self.tape.places
        return len(played) >= len(places) and played >= places  # the first is soon said

    def _rewind(self, change: int) -> None:
        self._progress.rewind(change)
        self._asked.clear()
        again = (entry for entry in self.tape.entries if entry.made + (not entry.changing) > change)
        self._played.difference_update(entry.place for entry in again)

    # -- playing

    def _play(self, connection: int, request: Request, entry: Entry, now: int) -> list[Action]:
        self._note(entry, now)
        if entry.upgraded:
            return self._open(connection, request, entry, now)
        response = answer.cut(entry.response, request)
        if request.method == "HEAD" and entry.key.method != "HEAD":
            response = answer.without_body(response)
        actions: list[Action] = [Answer(connection, response)]
        if entry.changing and (differs := _differs(entry, request)):
            where = f"{request.method} {request.path}"
            text = f"{where} is answered by #{entry.number}, which differs in {', '.join(differs)}"
            actions.insert(0, Tell(text))
        timing = entry.interaction.transaction.timing
        waited = (timing.answered or timing.begun) - timing.begun
        return self._when(now + waited, now, connection, actions)

    def _over(self, operation: str) -> int:
        """When all streams of an operation have ended, as it looks now."""
        times = [group.over() for group in self._execs.get(operation, ())]
        return max((_NEVER if at is None else at for at in times), default=0)

    def _patient(self, operation: str, key: Key, now: int) -> int:
        """Until when a wait is kept for the cancelling that ended it when it was recorded."""
        known = self.tape.operations[operation]
        if known.cancel is None or not key.path.endswith("/wait"):
            return now
        maker = -1 if known.maker is None else known.maker
        took = self.tape.change_begun(known.cancel) - self.tape.change_begun(maker)
        return now + playback.QUIET + min(took, playback.PATIENCE)

    def _answerable(self, waiting: _Waiting) -> int:
        """When somebody who waits for an operation's end is to be answered, as it looks now."""
        known = self.tape.operations[waiting.operation]
        cancelled = known.cancel is not None and self._progress.has(known.cancel)
        return max(self._over(waiting.operation), 0 if cancelled else waiting.until)

    def _answer_state(self, connection: int, operation: str, now: int) -> list[Action]:
        """Waits are over, and polls find what they wait for: how it ended is known."""
        state = self._state(operation)
        assert state is not None  # else nobody would wait for it
        self._asked.add(operation)
        for group in self._listeners:
            group.hear(playback.asked_cause(operation), 1, now)
        self._played.add(operation)
        self._ever.add(operation)
        response = state.response or answer.operation(state.metadata)
        known = self.tape.operations[operation]
        at = now
        if known.maker is not None and known.maker in self._made_at:
            at = self._made_at[known.maker] + state.offset - self.tape.change_begun(known.maker)
        return self._when(at, now, connection, [Answer(connection, response)])

    def _when(self, at: int, now: int, connection: int, actions: list[Action]) -> list[Action]:
        """Do it now, or, where the recorded pauses are to come back, then."""
        if not self._paced or at <= now:
            return actions
        self._count += 1
        heapq.heappush(self._later, _Later(at, self._count, actions, connection))
        return []

    def _note(self, entry: Entry, now: int) -> None:
        """An entry is played."""
        self._played.add(entry.place)
        self._ever.add(self.tape.slot(entry))
        if not entry.changing:
            return
        self._progress.play(entry.made)
        self._made_at[entry.made] = now
        for group in self._listeners:
            group.hear(playback.change_cause(entry.made), 1, now)

    def _miss(self, connection: int, text: str) -> list[Action]:
        return [Miss(connection, text)]

    # -- upgraded connections

    def _listen(self, connection: int, request: Request, key: Key, now: int) -> list[Action]:
        """A listener for events is always taken; it hears what was recorded for such a one."""
        alike = [entry for entry in self.tape.events if entry.key == key] or [
            entry for entry in self.tape.events if entry.key.query == ()
        ]
        unplayed = [entry for entry in alike if entry.place not in self._played]
        entry = next(iter(unplayed or alike[-1:]), None)
        track = playback.Track()
        if entry is not None:
            self._note(entry, now)
            track = playback.events_track(entry, self.tape)
        group = Group({"events": track}, paced=self._paced)
        for change in self.tape.changes:
            if self._progress.has(change.made):
                group.hear(playback.change_cause(change.made), 1, now)
        for operation in self._asked:
            group.hear(playback.asked_cause(operation), 1, now)
        self._listeners.append(group)
        recorded = entry.response if entry is not None else None
        return self._enter(connection, request, recorded, _Tunnel(group, "events"), now)

    def _join(
        self, connection: int, request: Request, operation: str, stream: str, now: int
    ) -> list[Action]:
        """A websocket of an operation: the stream that its secret names."""
        known = self.tape.operations.get(operation)
        if known is None or not known.streams:
            return self._miss(connection, str(self._unknown(request)))
        group = self._exec(operation, stream)
        name = next((n for n in _labels(stream, group) if n not in group.used), None)
        if name is None:
            return self._miss(connection, str(self._unknown(request)))
        entry = _entry(known.streams, name)
        if entry is not None and not entry.playable:
            found = match.explained(entry.interaction.transaction, request)
            return self._miss(connection, str(found))
        if entry is not None:
            self._note(entry, now)
        tunnel = _Tunnel(group, name, operation=operation)
        recorded = entry.response if entry is not None else None
        return self._enter(connection, request, recorded, tunnel, now)

    def _unknown(self, request: Request) -> Mismatch:
        return match.nearest((e.interaction.transaction for e in self.tape.entries), request)

    def _exec(self, operation: str, stream: str) -> Group:
        """The one that this stream is missing in; a new one where it is in all."""
        groups = self._execs.setdefault(operation, [])
        for group in groups:
            if any(name not in group.used for name in _labels(stream, group)):
                return group
        streams = self.tape.operations[operation].streams
        entries = {
            _label(name, index): entry
            for name, found in streams.items()
            for index, entry in enumerate(found)
        }
        groups.append(Group(playback.group_tracks(entries), paced=self._paced))
        return groups[-1]

    def _open(self, connection: int, request: Request, entry: Entry, now: int) -> list[Action]:
        """A connection of its own kind: SFTP, or something else that is played as it was."""
        if entry.key.upgrade == "sftp":
            own = [entry, *(e for e in self.tape.find(entry.key) if e is not entry)]
            sessions = [self._session(each) for each in own if each.upgraded]
            tunnel = _Tunnel(sftp=Played(sessions))
            return self._enter(connection, request, entry.response, tunnel, now)
        group = Group(playback.group_tracks({"": entry}), paced=self._paced)
        return self._enter(connection, request, entry.response, _Tunnel(group), now)

    def _session(self, entry: Entry) -> Session:
        if entry.number not in self._sessions:
            pieces = entry.interaction.pieces
            halves = (_joined(pieces, direction) for direction in Direction)
            self._sessions[entry.number] = Session(*halves)
        return self._sessions[entry.number]

    def _enter(
        self,
        connection: int,
        request: Request,
        recorded: Response | None,
        tunnel: _Tunnel,
        now: int,
    ) -> list[Action]:
        self._tunnels[connection] = tunnel
        if tunnel.group is not None:
            tunnel.group.join(connection, tunnel.name, now)
        response = answer.upgraded(recorded, request)
        websocket = any(n == "Sec-WebSocket-Accept" for n, _ in response.headers)
        return [Upgrade(connection, response, websocket)]

    def _sftp(self, connection: int, session: Played, data: bytes) -> list[Action]:
        try:
            said = session.feed(data)
        except ValueError as error:
            return [Tell(f"{error}: the session is ended"), Close(connection)]
        actions: list[Action] = [Tell(text) for text in session.missed]
        session.missed.clear()
        return [*actions, Send(connection, said)] if said else actions

    def _hear(self, tunnel: _Tunnel, much: int, now: int) -> None:
        if tunnel.group is not None:
            tunnel.group.hear(tunnel.name, much, now)

    def _groups(self) -> list[Group]:
        return list({id(t.group): t.group for t in self._tunnels.values() if t.group}.values())

    def _forget(self, tunnel: _Tunnel) -> None:
        """Nobody is left in a group."""
        group = tunnel.group
        self._listeners = [each for each in self._listeners if each is not group]
        if tunnel.operation:
            groups = self._execs[tunnel.operation]
            self._execs[tunnel.operation] = [each for each in groups if each is not group]


def _done(due: Due) -> list[Action]:
    if due.piece is None:
        return [Close(due.connection)]
    piece = due.piece
    return [Send(due.connection, piece.payload.captured, piece.opcode, piece.final)]


def _suits(entry: Entry, request: Request) -> bool:
    """Whether an entry can answer a request with its key."""
    return entry.playable and not match.answers(entry.interaction.transaction, request)


def _differs(entry: Entry, request: Request) -> tuple[str, ...]:
    return match.ties(entry.interaction.transaction.request, request)


def _label(stream: str, index: int) -> str:
    """The name of the n-th connection of a stream: a VGA console makes many."""
    return f"{stream}#{index}" if index else stream


def _labels(stream: str, group: Group) -> list[str]:
    """The connections of a stream; of all, where the stream is not known.

    An exec's control stream need not have been recorded: pylxd has none, and nothing is said on it.
    """
    found = [name for name in group.tracks if not stream or name.partition("#")[0] == stream]
    return found or [stream] * (stream == _CONTROL)


def _entry(streams: dict[str, list[Entry]], name: str) -> Entry | None:
    stream, _, index = name.partition("#")
    return streams[stream][int(index or 0)] if stream in streams else None


def _joined(pieces: Sequence[Piece], direction: Direction) -> bytes:
    """What passed one way, as far as all of it was kept."""
    found = []
    for piece in pieces:
        if piece.direction is direction:
            if not piece.payload.whole:
                break
            found.append(piece.payload.captured)
    return b"".join(found)
