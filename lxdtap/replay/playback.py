"""What was sent on upgraded connections, sent again after its causes.

Pure. A step is a recorded frame. It waits for what its client had done before it: for an exec,
how much of stdin and how many control messages there were; for an event, the request that made its
operation, and the question how that ended. A cause that does not come is waited for no longer than
it took then and :data:`QUIET`, in which nothing else happens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lxdtap import lxd
from lxdtap.cassette.model import Piece
from lxdtap.content import Json
from lxdtap.replay.tape import Entry, Tape, document, messages
from lxdtap.transaction import Body, Direction, Opcode

QUIET = 250_000_000
"""Nanoseconds without anything from the client after which a cause is no longer waited for."""
PATIENCE = 10_000_000_000
"""The longest that a cause is waited for, however long it took when it was recorded."""
SETTLE = 50_000_000
"""Nanoseconds between the last that is sent on a stream without an end, and the news of its end."""
HOLD = 10_000_000_000
"""Nanoseconds for which a stream that has ended is held open for its client to close."""
OVER = 1 << 62
"""The end of a stream: more than all that can be sent on it, and as good as that."""

Cause = Hashable
Needs = tuple[tuple[Cause, int], ...]
"""What must have come before, and how much of it."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to send.

    Attributes:
        piece: it.
        needs: its causes.
        gap: nanoseconds since the last of its causes, or what its connection was sent before it.
        patience: nanoseconds that its last cause took.
    """

    piece: Piece
    needs: Needs = ()
    gap: int = 0
    patience: int = 0


@dataclass(frozen=True, slots=True)
class Track:
    """What one connection is sent; and how it then ends."""

    steps: tuple[Step, ...] = ()
    hold: int | None = None
    """Nanoseconds after which the daemon ends it; None: that is for its client."""


@dataclass(slots=True)
class _Tunnel:
    """A connection to which a track is played."""

    track: Track
    next: int = 0
    met: int | None = None  # when all causes of the next step had come
    ended: bool = False

    def end(self) -> int | None:
        """How long after the last that happened it is to be ended; None: not, or it has been."""
        return None if self.ended else self.track.hold


@dataclass(frozen=True, slots=True)
class Due:
    """Something to do on a connection: send a piece, or end it where there is none."""

    connection: int
    piece: Piece | None = None


class Group:
    """Connections that belong together, as the streams of one exec do.

    Args:
        tracks: what each of its streams is sent, by the stream's name.
        paced: whether the recorded pauses come back.
    """

    def __init__(self, tracks: Mapping[str, Track], *, paced: bool = False) -> None:
        self.tracks = tracks
        self.open: dict[int, str] = {}
        self.used: set[str] = set()
        self._paced = paced
        self._tunnels: dict[int, _Tunnel] = {}
        self._heard: dict[Cause, int] = defaultdict(int)
        self._last = 0  # when something happened

    def join(self, connection: int, name: str, now: int) -> None:
        """A connection for this stream was made."""
        self.open[connection] = name
        self.used.add(name)
        self._tunnels[connection] = _Tunnel(self.tracks.get(name, Track()))
        self._happened(now)

    def leave(self, connection: int, now: int) -> None:
        """A connection is closed: no more will be sent on it."""
        self.hear(self.open.pop(connection), OVER, now)
        del self._tunnels[connection]

    def hear(self, cause: Cause, much: int, now: int) -> None:
        """So much of a cause has come."""
        self._heard[cause] += much
        self._happened(now)

    def touch(self, now: int) -> None:
        """The client is at work."""
        self._last = now

    def advance(self, now: int) -> list[Due]:
        """What is due now; it counts as done."""
        done: list[Due] = []
        while (found := self._ready(now)) is not None:
            connection, tunnel, step = found
            tunnel.next, tunnel.met = tunnel.next + 1, None
            for cause, much in step.needs:  # what was given up is not waited for again
                self._heard[cause] = max(self._heard[cause], much)
            self._happened(now)
            done.append(Due(connection, step.piece))
        if self._all_played():
            done += [Due(connection) for connection in self._to_end(now)]
        return done

    def due(self) -> int | None:
        """When something will be, if nothing happens until then; None: never."""
        times = [self._time(tunnel, step) for _, tunnel, step in self._next_steps()]
        if self._all_played():
            holds = [tunnel.end() for tunnel in self._tunnels.values()]
            times += [self._last + hold for hold in holds if hold is not None]
        return min(times, default=None)

    def over(self) -> int | None:
        """When all has been said, as it looks now; None: not before more is.

        A stream that its client does not connect is not waited for after a quiet.
        """
        if not self.open:
            return 0
        if self._all_played():
            said = [track for track in self.tracks.values() if track.steps]
            # After an end of stream its client knows that it has all; else leave it time to read.
            return 0 if all(track.hold == HOLD for track in said) else self._last + SETTLE
        return None if self._next_steps() else self._last + QUIET

    def _next_steps(self) -> list[tuple[int, _Tunnel, Step]]:
        return [
            (connection, tunnel, tunnel.track.steps[tunnel.next])
            for connection, tunnel in self._tunnels.items()
            if tunnel.next < len(tunnel.track.steps)
        ]

    def _ready(self, now: int) -> tuple[int, _Tunnel, Step] | None:
        """What is to be sent next, in recorded order; None: nothing as yet."""
        ready = [each for each in self._next_steps() if self._time(each[1], each[2]) <= now]
        return min(ready, key=lambda each: each[2].piece.offset, default=None)

    def _time(self, tunnel: _Tunnel, step: Step) -> int:
        """When a step is to be sent, as it looks now."""
        if tunnel.met is None:
            return self._last + QUIET + min(step.patience, PATIENCE)
        return tunnel.met + step.gap if self._paced else 0

    def _happened(self, now: int) -> None:
        """Something did, by which causes may have come."""
        self._last = now
        for _, tunnel, step in self._next_steps():
            if tunnel.met is None and all(self._heard.get(c, 0) >= much for c, much in step.needs):
                tunnel.met = now

    def _all_played(self) -> bool:
        """Whether nothing is left to be sent, also to streams that are not connected yet."""
        to_come = any(t.steps for name, t in self.tracks.items() if name not in self.used)
        return not to_come and not self._next_steps()

    def _to_end(self, now: int) -> list[int]:
        """The connections that are to be ended; they are, once."""
        found = []
        for connection, tunnel in self._tunnels.items():
            hold = tunnel.end()
            if hold is not None and self._last + hold <= now:
                tunnel.ended = True
                found.append(connection)
        return found


# Making tracks.


def measure(stream: str, opcode: Opcode | None, payload: Body) -> int:
    """How much a client's frame adds to what it has sent on a stream."""
    if opcode is Opcode.CLOSE or (opcode is Opcode.TEXT and not payload.size):
        return OVER
    if opcode is not None and opcode.control:
        return 0
    return 1 if stream == "control" else payload.size


@dataclass(slots=True)
class _Sent:
    """What a client had sent on one stream, by the time."""

    offsets: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)

    def add(self, offset: int, much: int) -> None:
        self.offsets.append(offset)
        self.totals.append(min((self.totals[-1] if self.totals else 0) + much, OVER))

    def before(self, offset: int) -> tuple[int, int]:
        """How much, and when the last of it."""
        at = bisect_left(self.offsets, offset)
        return (self.totals[at - 1], self.offsets[at - 1]) if at else (0, 0)


def group_tracks(streams: Mapping[str, Entry]) -> dict[str, Track]:
    """The tracks of connections that belong together, by name."""
    times = sorted(p.offset for entry in streams.values() for p in entry.interaction.pieces)
    sent = {name: _sent(name, entry.interaction.pieces) for name, entry in streams.items()}
    return {name: _track(entry, sent, times) for name, entry in streams.items()}


def _sent(name: str, pieces: Iterable[Piece]) -> _Sent:
    sent = _Sent()
    for piece in pieces:
        if piece.direction is Direction.SENT and (
            much := measure(name, piece.opcode, piece.payload)
        ):
            sent.add(piece.offset, much)
    return sent


def _track(entry: Entry, sent: Mapping[str, _Sent], times: Sequence[int]) -> Track:
    steps = []
    before = entry.interaction.transaction.timing.begun
    for piece in _to_send(entry.interaction.pieces):
        causes = {name: each.before(piece.offset) for name, each in sent.items()}
        needs = tuple((name, much) for name, (much, _) in causes.items() if much)
        last = max((when for much, when in causes.values() if much), default=before)
        gap = max(piece.offset - max(before, last), 0)
        steps.append(Step(piece, needs, gap, _gap(times, last)))
        before = piece.offset
    return Track(tuple(steps), _hold(entry))


def _to_send(pieces: Sequence[Piece]) -> list[Piece]:
    """What of a recording is sent again: no pings, and no answer to a client's Close.

    A client whose pong finds the connection closed drops what it was sent before.
    """
    found = []
    for piece in pieces:
        if piece.opcode is Opcode.CLOSE:
            if piece.direction is Direction.RECEIVED:
                found.append(piece)
            break
        if piece.direction is Direction.RECEIVED and piece.opcode not in (Opcode.PING, Opcode.PONG):
            found.append(piece)
    return found


def _gap(times: Sequence[int], offset: int) -> int:
    """How long before this nothing had passed."""
    at = bisect_left(times, offset)
    return offset - times[at - 1] if at else 0


def _hold(entry: Entry) -> int | None:
    """After an end of stream its client closes; else whoever did when it was recorded."""
    received = [p for p in entry.interaction.pieces if p.direction is Direction.RECEIVED]
    if any(measure("", piece.opcode, piece.payload) == OVER for piece in received):
        return HOLD
    tunnel = entry.interaction.transaction.tunnel
    return QUIET if tunnel is not None and "daemon" in tunnel.ended else None


def change_cause(change: int) -> Cause:
    """That a change was made."""
    return ("change", change)


def asked_cause(operation: str) -> Cause:
    """That the state of an operation was asked for."""
    return ("asked", operation)


def events_track(entry: Entry, tape: Tape) -> Track:
    """What a listener for events is sent. It is never ended: clients wait for more."""
    opened = entry.interaction.transaction.timing.begun
    steps, before = [], opened
    for piece in messages(entry.interaction.pieces):
        last = tape.made(piece.offset) - 1
        needs = _event_needs(document(piece.payload.captured), entry, last, tape)
        patience = max(tape.change_begun(last) - max(before, opened), 0)
        gap = 0 if len(needs) > 1 else piece.offset - max(before, tape.change_begun(last))
        steps.append(Step(piece, needs, gap, patience))
        before = piece.offset
    return Track(tuple(steps))


def _event_needs(event: Json, entry: Entry, last: int, tape: Tape) -> Needs:
    """The causes of an event: of an operation's what made it, of others the last change before."""
    operation = lxd.operation(event) if lxd.event_type(event) == "operation" else None
    known = tape.operations.get(operation.id) if operation else None
    if operation is None or known is None or known.maker is None:
        return ((change_cause(last), 1),) if last >= entry.made else ()
    made = (change_cause(known.maker), 1)
    if operation.final and known.asked:
        return (made, (asked_cause(operation.id), 1))
    return (made,)
