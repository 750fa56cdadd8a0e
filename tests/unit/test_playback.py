"""Frames after their causes: when what was sent is sent again."""

from __future__ import annotations

import json

import pytest

from lxdtap.cassette.model import Piece
from lxdtap.content import Json
from lxdtap.replay import playback
from lxdtap.replay.playback import HOLD, OVER, PATIENCE, QUIET, SETTLE, Group, Track
from lxdtap.replay.tape import EVENTS, Entry, Tape
from lxdtap.transaction import EMPTY, Body, Opcode
from tests.unit.recordings import (
    MS,
    SWITCHED,
    WEBSOCKET,
    asked,
    cassette,
    created,
    operation,
    received,
    seen,
    sent,
    told,
)

BARRIER = b""
NOW = 1_000 * MS


def entry(*pieces: Piece, ended: str = "the client closed the connection") -> Entry:
    """A recorded websocket."""
    question = asked("GET", "/1.0/operations/o/websocket", headers=WEBSOCKET)
    return Tape(cassette(seen(1, question, SWITCHED, pieces=pieces, ended=ended))).entries[0]


def group(*, paced: bool = False, **streams: Entry) -> Group:
    return Group(playback.group_tracks(streams), paced=paced)


def say(group: Group, now: int) -> list[tuple[int, bytes | None]]:
    """What is sent on which connection; None: that one is ended."""
    due = group.advance(now)
    return [(d.connection, d.piece.payload.captured if d.piece else None) for d in due]


def test_output_without_a_cause() -> None:
    """It is sent at once, in its order over all streams, without pings."""
    played = group(
        stdout=entry(received(1, b"k", Opcode.PING), received(2, b"a"), received(4, b"c")),
        stderr=entry(received(3, b"b")),
    )
    played.join(1, "stdout", NOW)
    played.join(2, "stderr", NOW)
    assert say(played, NOW) == [(1, b"a"), (2, b"b"), (1, b"c")]
    assert played.due() is None


def test_output_after_input() -> None:
    """It waits until as much was said as had been said then."""
    played = group(
        stdin=entry(sent(10, b"abc"), sent(20, b"def")),
        stdout=entry(received(15, b"ABC"), received(25, b"DEF")),
    )
    played.join(1, "stdin", NOW)
    played.join(2, "stdout", NOW)
    assert say(played, NOW) == []
    played.hear("stdin", 2, NOW)
    assert say(played, NOW) == []
    played.hear("stdin", 1, NOW)
    assert say(played, NOW) == [(2, b"ABC")]
    played.hear("stdin", OVER, NOW)
    assert say(played, NOW) == [(2, b"DEF")]


def test_input_that_does_not_come() -> None:
    """It is waited for as long as it took, and a quiet; then no more."""
    played = group(
        stdin=entry(sent(10, b"abc")),
        stdout=entry(received(5, b"?"), received(15, b"ABC"), received(16, b"D")),
    )
    played.join(1, "stdin", NOW)
    played.join(2, "stdout", NOW)
    assert say(played, NOW) == [(2, b"?")]
    later = NOW + QUIET + 5 * MS
    assert played.due() == later
    assert say(played, later - 1) == []
    assert say(played, later) == [(2, b"ABC"), (2, b"D")]


def test_patience_has_an_end() -> None:
    """However long it took."""
    played = group(
        stdin=entry(sent(99_999, b"x")), stdout=entry(received(1, b"?"), received(999_999, b"X"))
    )
    played.join(2, "stdout", NOW)
    assert say(played, NOW) == [(2, b"?")]
    assert played.due() == NOW + QUIET + PATIENCE


def test_work_goes_on() -> None:
    """While the client is at work, there is no quiet."""
    played = group(stdin=entry(sent(10, b"abc")), stdout=entry(received(10_000, b"ABC")))
    played.join(2, "stdout", NOW)
    before = played.due()
    played.touch(NOW + MS)
    assert before is not None
    assert played.due() == before + MS


def test_a_client_that_leaves_has_said_all() -> None:
    """What its stream was to say is not waited for."""
    played = group(stdin=entry(sent(10, b"abc")), stdout=entry(received(20, b"ABC")))
    played.join(1, "stdin", NOW)
    played.join(2, "stdout", NOW)
    played.leave(1, NOW)
    assert say(played, NOW) == [(2, b"ABC")]


def test_recorded_pace() -> None:
    """The pauses since what passed before come back."""
    played = group(paced=True, stdout=entry(received(10, b"a"), received(110, b"b")))
    played.join(1, "stdout", NOW)
    assert say(played, NOW) == [(1, b"a")]
    assert played.due() == NOW + 100 * MS
    assert say(played, NOW + 99 * MS) == []
    assert say(played, NOW + 100 * MS) == [(1, b"b")]


def test_recorded_pace_after_a_cause() -> None:
    """The pause counts from the cause; what else the client does has no part in it."""
    played = group(paced=True, stdin=entry(sent(50, b"abc")), stdout=entry(received(60, b"ABC")))
    played.join(1, "stdin", NOW)
    played.join(2, "stdout", NOW)
    played.hear("stdin", 3, NOW + 100 * MS)
    played.hear("stdin", 3, NOW + 105 * MS)
    played.touch(NOW + 106 * MS)
    assert played.due() == NOW + 110 * MS
    assert say(played, NOW + 110 * MS) == [(2, b"ABC")]


def test_after_the_barrier() -> None:
    """The stream is held open for its client to close, but not for ever."""
    played = group(stdout=entry(received(1, b"a"), received(2, BARRIER, Opcode.TEXT)))
    played.join(1, "stdout", NOW)
    assert say(played, NOW) == [(1, b"a"), (1, BARRIER)]
    assert played.due() == NOW + HOLD
    assert say(played, NOW + HOLD - 1) == []
    assert say(played, NOW + HOLD) == [(1, None)]
    assert (say(played, NOW + HOLD), played.due()) == ([], None)


def test_a_stream_that_the_daemon_ended() -> None:
    """It ends after a quiet, once all other streams have said all."""
    ended = "the daemon closed the connection"
    played = group(control=entry(ended=ended), stdout=entry(received(2, b"a")))
    played.join(1, "control", NOW)
    assert say(played, NOW + QUIET) == []
    assert played.due() is None
    played.join(2, "stdout", NOW)
    assert say(played, NOW) == [(2, b"a")]
    assert say(played, NOW + QUIET) == [(1, None)]


def test_a_close_of_the_daemons_own() -> None:
    """It is sent; one that answered the client's is not, nor what came after."""
    own = group(stdout=entry(received(1, b"\x03\xe8", Opcode.CLOSE), received(2, b"late")))
    own.join(1, "stdout", NOW)
    assert say(own, NOW) == [(1, b"\x03\xe8")]
    answer = group(stdout=entry(sent(1, b"", Opcode.CLOSE), received(2, b"", Opcode.CLOSE)))
    answer.join(1, "stdout", NOW)
    assert say(answer, NOW + QUIET + MS) == []


def test_when_all_has_been_said() -> None:
    """At once after ends of streams, else when it can have been read; or where nobody listens."""
    ended = group(stdout=entry(received(1, b"a"), received(2, BARRIER, Opcode.TEXT)))
    endless = group(stdout=entry(received(1, b"a")), stderr=entry(received(2, b"b")))
    assert [ended.over(), endless.over()] == [0, 0]
    for played in (ended, endless):
        played.join(1, "stdout", NOW)
        assert played.over() is None
        played.advance(NOW)
    assert [ended.over(), endless.over()] == [0, NOW + QUIET]
    endless.join(2, "stderr", NOW)
    endless.advance(NOW)
    assert endless.over() == NOW + SETTLE


def test_a_stream_that_was_not_recorded() -> None:
    """It is silent."""
    played = group()
    played.join(1, "stdout", NOW)
    assert (say(played, NOW), played.due()) == ([], None)


@pytest.mark.parametrize(
    ("stream", "opcode", "payload", "much"),
    [
        ("stdin", Opcode.BINARY, b"abc", 3),
        ("stdin", None, b"abc", 3),
        ("stdin", Opcode.TEXT, b"", OVER),
        ("stdin", Opcode.CLOSE, b"", OVER),
        ("stdin", Opcode.PONG, b"abc", 0),
        ("control", Opcode.TEXT, b"{}", 1),
        ("stdin", None, b"", 0),
    ],
)
def test_measure(stream: str, opcode: Opcode | None, payload: bytes, much: int) -> None:
    """Data counts by its bytes, control messages by their number; and an end is more than all."""
    body = Body(len(payload), payload) if payload else EMPTY
    assert playback.measure(stream, opcode, body) == much


# Events.


def event(kind: str, metadata: Json = None) -> bytes:
    return json.dumps({"type": kind, "metadata": metadata}).encode()


def track(*frames: tuple[int, bytes], asks: bool = True) -> Track:
    """What a listener hears that opened at 10 ms; changes are made at 5, 20 and 30 ms."""
    made = asked("POST", "/1.0/instances")
    poll = [seen(9, asked("GET", "/1.0/operations/o"), told(operation("o", 200)))] if asks else []
    tape = Tape(
        cassette(
            seen(1, made, at=5),
            seen(
                2,
                asked("GET", EVENTS, headers=WEBSOCKET),
                SWITCHED,
                at=10,
                pieces=[received(at, data, Opcode.TEXT) for at, data in frames]
                + [received(99, b"", Opcode.CLOSE)],
            ),
            seen(3, made, created(operation("o", 103)), at=20),
            seen(4, made, at=30),
            *poll,
        )
    )
    return playback.events_track(tape.events[0], tape)


def needs(*frames: tuple[int, bytes], asks: bool = True) -> list[playback.Needs]:
    return [step.needs for step in track(*frames, asks=asks).steps]


MADE = (playback.change_cause(1), 1)
ASKED = (playback.asked_cause("o"), 1)


def test_events_of_operations() -> None:
    """They wait for the request that made it; its end for the question how it ended."""
    frames = (
        (25, event("operation", operation("o", 103))),
        (35, event("operation", operation("o", 200))),
    )
    assert needs(*frames) == [(MADE,), (MADE, ASKED)]
    assert needs(*frames, asks=False) == [(MADE,), (MADE,)]


def test_other_events() -> None:
    """They wait for the last change before them, if that was made while they were listened for."""
    lifecycle = event("lifecycle", {"action": "x"})
    assert needs((15, lifecycle), (25, lifecycle), (35, lifecycle)) == [
        (),
        (MADE,),
        ((playback.change_cause(2), 1),),
    ]


def test_events_of_unknown_operations() -> None:
    """As any other."""
    unknown = event("operation", operation("p", 103))
    assert needs((25, unknown), (26, event("operation", "x"))) == [(MADE,), (MADE,)]


def test_events_are_never_ended() -> None:
    """Not even by the Close that was recorded."""
    heard = track((15, b"{}"))
    assert (len(heard.steps), heard.hold) == (1, None)


def test_how_long_a_change_took() -> None:
    """It is waited for so long, counted from what was heard before it; and so is a pause."""
    steps = track((15, b"{}"), (16, b"{}"), (25, b"{}")).steps
    assert [step.patience // MS for step in steps] == [0, 0, 4]
    assert [step.gap // MS for step in steps] == [5, 1, 5]


def test_the_news_of_an_end_does_not_wait() -> None:
    """Who asked for it has just been told when it was time for that."""
    steps = track((35, event("operation", operation("o", 200)))).steps
    assert [step.gap for step in steps] == [0]
