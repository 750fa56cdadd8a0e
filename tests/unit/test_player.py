"""The daemon that a recording plays, as conversations: what comes, and what must be said."""

from __future__ import annotations

import json
import struct

import pytest

from lxdtap.cassette.model import Interaction, Piece
from lxdtap.content import Json
from lxdtap.replay import answer
from lxdtap.replay.playback import QUIET, SETTLE
from lxdtap.replay.player import Action, Answer, Close, Miss, Player, Send, Tell, Upgrade
from lxdtap.replay.tape import EVENTS
from lxdtap.transaction import EMPTY, Body, Direction, Frame, Headers, Opcode, Request, Response
from tests.unit.builders import cut_body, response
from tests.unit.recordings import (
    MS,
    SFTP,
    SWITCHED,
    WEBSOCKET,
    asked,
    cassette,
    created,
    operation,
    piece,
    received,
    seen,
    sent,
    told,
)

NOW = 1_000 * MS
C1 = "/1.0/instances/c1"
SECRETS = {letter: letter * 64 for letter in "abc"}
FDS: Json = {"fds": {"0": SECRETS["a"], "1": SECRETS["b"], "control": SECRETS["c"]}}


def play(*interactions: Interaction, paced: bool = False) -> Player:
    return Player(cassette(*interactions), paced=paced)


def ask(player: Player, request: Request, connection: int = 1, now: int = NOW) -> list[Action]:
    return player.asked(connection, request, now)


def said(actions: list[Action]) -> str:
    """The body of the one answer among actions."""
    (found,) = [each for each in actions if isinstance(each, Answer | Miss)]
    return found.response.body.captured.decode()


def get(player: Player, target: str, headers: Headers = ()) -> str:
    return said(ask(player, asked("GET", target, headers=headers)))


def put(player: Player, target: str, data: bytes = b"") -> str:
    return said(ask(player, asked("PUT", target, data)))


def frame(payload: bytes, opcode: Opcode = Opcode.BINARY) -> Frame:
    return Frame(opcode, Body(len(payload), payload) if payload else EMPTY)


def numbers(player: Player) -> list[int]:
    return [each.transaction.number for each in player.never_played()]


# Plain requests.


def test_states() -> None:
    """The same question is answered by what was changed, not by how often it is asked."""
    player = play(
        seen(1, asked("GET", C1), response(200, "before")),
        seen(2, asked("PUT", C1), response(200, "changed")),
        seen(3, asked("GET", C1), response(200, "after")),
    )
    assert [get(player, C1), get(player, C1)] == ["before", "before"]
    assert numbers(player) == [2, 3]
    assert put(player, C1) == "changed"
    assert [get(player, C1), get(player, C1)] == ["after", "after"]
    assert numbers(player) == []


def test_the_body_breaks_ties() -> None:
    """Of changes with one key the one with this body is made, else the nearest, which is told."""
    player = play(
        seen(1, asked("PUT", C1, {"a": 1}), response(200, "one")),
        seen(2, asked("PUT", C1, {"a": 2}), response(200, "two")),
        seen(3, asked("PUT", C1, {"b": 3, "c": 4}), response(200, "three")),
        seen(4, asked("PUT", C1, {"a": 1}), response(200, "four")),
    )
    assert put(player, C1, b'{"a": 2}') == "two"
    assert put(player, C1, b'{"a":1}') == "one"
    actions = ask(player, asked("PUT", C1, {"b": 3, "c": 5}))
    assert actions[0] == Tell(f"PUT {C1} is answered by #3, which differs in body.c")
    assert said(actions) == "three"
    assert [put(player, C1, b'{"a":1}') for _ in range(2)] == ["four", "one"]


def test_a_change_again() -> None:
    """Before all have been made, the last of its kind stays; then it begins anew from there."""
    player = play(
        seen(1, asked("PUT", C1), response(200, "one")),
        seen(2, asked("PUT", C1), response(200, "two")),
        seen(3, asked("GET", C1), response(200, "between")),
        seen(4, asked("DELETE", C1), response(200, "gone")),
        seen(5, asked("GET", C1), response(404, "none")),
    )
    assert [put(player, C1) for _ in range(4)] == ["one", "two", "two", "two"]
    assert said(ask(player, asked("DELETE", C1))) == "gone"
    assert get(player, C1) == "none"
    assert [put(player, C1), put(player, C1), get(player, C1)] == ["one", "two", "between"]


def test_a_command_again() -> None:
    """It changes little, and may be run often: only when all is over does it begin anew."""
    command = f"{C1}/exec"
    player = play(
        seen(1, asked("POST", command), response(200, "one")),
        seen(2, asked("PUT", C1), response(200, "changed")),
        seen(3, asked("POST", command), response(200, "two")),
        seen(4, asked("GET", C1), response(200, "after")),
    )
    post = asked("POST", command)
    assert said(ask(player, post)) == "one"
    assert put(player, C1) == "changed"
    assert [said(ask(player, post)) for _ in range(3)] == ["two"] * 3
    assert get(player, C1) == "after"
    assert said(ask(player, post)) == "one"


def test_a_second_run() -> None:
    """The first request, when all is over, begins anew."""
    player = play(
        seen(1, asked("GET", C1), response(404, "none")),
        seen(2, asked("POST", C1), response(200, "made")),
        seen(3, asked("GET", C1), response(200, "there")),
        seen(4, asked("GET", "/1.0"), response(200, "server")),
    )
    for _ in range(2):
        assert get(player, C1) == "none"
        assert said(ask(player, asked("POST", C1))) == "made"
        assert get(player, C1) == "there"
        assert get(player, C1) == "there"
        assert get(player, "/1.0") == "server"


def test_not_before_all_is_over() -> None:
    """What was answered alike before is not taken for the end."""
    player = play(
        seen(1, asked("GET", "/1.0"), response(200, "server")),
        seen(2, asked("GET", C1), response(200, "one")),
        seen(3, asked("PUT", C1), response(200, "changed")),
        seen(4, asked("GET", C1), response(200, "two")),
        seen(5, asked("DELETE", C1), response(200, "gone")),
        seen(6, asked("GET", "/1.0"), response(200, "server")),
        seen(7, asked("GET", C1), response(200, "one")),
    )
    for _ in range(2):
        assert [get(player, "/1.0"), get(player, C1)] == ["server", "one"]
        assert [put(player, C1), get(player, C1)] == ["changed", "two"]
        assert said(ask(player, asked("DELETE", C1))) == "gone"
        assert [get(player, "/1.0"), get(player, C1)] == ["server", "one"]
    assert numbers(player) == []


def test_the_last_question_again() -> None:
    """Where the first is the last too, it is taken for the last: a poll that goes on."""
    player = play(
        seen(1, asked("GET", C1), response(404, "none")),
        seen(2, asked("POST", C1), response(200, "made")),
        seen(3, asked("GET", C1), response(200, "there")),
    )
    assert get(player, C1) == "none"
    ask(player, asked("POST", C1))
    assert [get(player, C1) for _ in range(3)] == ["there"] * 3


def test_a_miss() -> None:
    """The client is told in LXD's way, and a person too."""
    player = play(seen(1, asked("GET", C1), response(200, "c1")))
    actions = ask(player, asked("GET", "/1.0/instances/c2"))
    text = (
        "no recorded interaction answers GET /1.0/instances/c2; nearest recorded: #1 GET"
        f" {C1}, differs in path"
    )
    assert actions == [Miss(1, text)]
    assert isinstance(actions[0], Miss)
    assert actions[0].response == answer.envelope(501, text)
    assert json.loads(said(actions))["error"] == f"lxdtap: {text}"


def test_a_miss_of_everything() -> None:
    """An empty recording answers nothing."""
    player = play()
    assert "nothing is recorded" in get(player, "/1.0")
    assert (numbers(player), player.due(), player.tick(NOW)) == ([], None, [])


def test_what_was_not_kept_is_not_played() -> None:
    """It is a miss that says so; and nobody is blamed for not having asked for it."""
    player = play(
        seen(1, asked("GET", C1), Response(200, body=cut_body(b"abc", 1))),
        seen(2, asked("GET", "/1.0")),
    )
    assert "differs in its answer, of which not all 3 bytes were recorded" in get(player, C1)
    assert "its answer, which was not recorded" in get(player, "/1.0")
    assert numbers(player) == []


def test_conditions() -> None:
    """What answers another condition is passed over; a part is cut from the whole."""
    wide: Headers = (("Range", "bytes=0-1"),)
    player = play(
        seen(1, asked("GET", C1), response(200, "whole")),
        seen(2, asked("GET", C1, headers=wide), response(206, "part")),
        seen(3, asked("PUT", C1, headers=(("If-Match", "x"),)), response(412, "refused")),
        seen(4, asked("PUT", C1, headers=(("If-Match", "y"),)), response(200, "changed")),
    )
    assert get(player, C1) == "whole"
    assert get(player, C1, wide) == "part"
    assert get(player, C1, (("Range", "bytes=1-2"),)) == "ho"
    assert said(ask(player, asked("PUT", C1, headers=(("If-Match", "y"),)))) == "changed"
    assert said(ask(player, asked("PUT", C1, headers=(("If-Match", "x"),)))) == "refused"


def test_head() -> None:
    """It is answered as recorded, else as GET was, without the body."""
    player = play(
        seen(1, asked("GET", C1), response(200, "body", (("X-Lxd-Uid", "7"),))),
        seen(2, asked("HEAD", "/1.0"), response(501, "recorded")),
    )
    (found,) = ask(player, asked("HEAD", C1))
    assert isinstance(found, Answer)
    assert (found.response.headers, found.response.body) == ((("X-Lxd-Uid", "7"),), EMPTY)
    assert said(ask(player, asked("HEAD", "/1.0"))) == "recorded"


def test_connections_are_counted() -> None:
    """Each has a number of its own, whoever serves it."""
    player = play()
    assert [player.opened(), player.opened()] == [1, 2]


# Operations.


LAUNCH = (
    seen(1, asked("POST", "/1.0/instances"), created(operation("o", 103))),
    seen(2, asked("GET", "/1.0/operations/o"), told(operation("o", 103))),
    seen(3, asked("GET", "/1.0/operations/o/wait"), told(operation("o", 200)), at=500),
)


@pytest.mark.parametrize("target", ["/1.0/operations/o", "/1.0/operations/o/wait?timeout=30"])
def test_polls_and_waits_are_one(target: str) -> None:
    """Either finds how it ended, at once; and then all of them have been played."""
    player = play(*LAUNCH)
    ask(player, asked("POST", "/1.0/instances"))
    assert json.loads(get(player, target))["metadata"]["status"] == "Success"
    assert numbers(player) == []


def test_an_end_that_an_event_told() -> None:
    """It is given in the envelope of an answer."""
    event = json.dumps({"type": "operation", "metadata": operation("o", 200)}).encode()
    heard = seen(
        1,
        asked("GET", EVENTS, headers=WEBSOCKET),
        SWITCHED,
        pieces=[received(15, event, Opcode.TEXT)],
    )
    document = json.loads(get(play(heard), "/1.0/operations/o"))
    assert (document["type"], document["metadata"]["id"]) == ("sync", "o")


def test_an_operation_that_is_known_by_name_only() -> None:
    """What was answered for it is."""
    player = play(seen(1, asked("GET", "/1.0/operations/o"), response(404, "not found")))
    assert get(player, "/1.0/operations/o") == "not found"
    cancel = seen(1, asked("DELETE", "/1.0/operations/o"), response(200, "cancelled"))
    assert "nearest recorded: #1 DELETE" in get(play(cancel), "/1.0/operations/o")
    assert "nearest recorded: #1 DELETE" in get(play(cancel), "/1.0/operations/p/wait")


def test_a_wait_that_was_answered_by_an_error() -> None:
    """Its client gets that very answer: Incus says so within an HTTP 200 that an operation failed.

    So does a poll; and after the operation vanished, both still do.
    """
    error: Json = {"type": "error", "error": "UNIQUE", "error_code": 500, "metadata": None}
    failed = response(200, error, (("X-Content-Type-Options", "nosniff"),))
    wait, poll = asked("GET", "/1.0/operations/o/wait"), asked("GET", "/1.0/operations/o")
    player = play(
        seen(1, asked("POST", "/1.0/instances"), created(operation("o", 103))),
        seen(2, wait, failed),
        seen(3, poll, response(404, {"type": "error", "error_code": 404})),
    )
    ask(player, asked("POST", "/1.0/instances"))
    assert ask(player, wait) == [Answer(1, failed)]
    assert ask(player, poll) == [Answer(1, failed)]
    assert numbers(player) == []


def test_cancelled() -> None:
    """Before it is cancelled it goes on."""
    player = play(
        seen(1, asked("POST", "/1.0/instances"), created(operation("o", 103))),
        seen(2, asked("GET", "/1.0/operations/o"), told(operation("o", 103))),
        seen(3, asked("DELETE", "/1.0/operations/o"), response(200, "{}")),
        seen(4, asked("GET", "/1.0/operations/o"), told(operation("o", 401))),
    )
    assert "Running" in get(player, "/1.0/operations/o")
    ask(player, asked("DELETE", "/1.0/operations/o"))
    assert "Cancelled" in get(player, "/1.0/operations/o")


def test_a_wait_for_what_is_cancelled() -> None:
    """It is kept until the cancelling comes, or, where it does not, for about as long as it took.

    A poll is told at once that it goes on.
    """
    recorded = (
        seen(1, asked("POST", "/1.0/instances"), created(operation("o", 103))),
        seen(2, asked("GET", "/1.0/operations/o/wait"), told(operation("o", 401))),
        seen(3, asked("DELETE", "/1.0/operations/o"), response(200, "{}")),
    )
    wait = asked("GET", "/1.0/operations/o/wait")
    player = play(*recorded)
    ask(player, asked("POST", "/1.0/instances"))
    assert ask(player, wait, 2) == []
    assert "Running" in get(player, "/1.0/operations/o")
    deleted, ended = ask(player, asked("DELETE", "/1.0/operations/o"), 3)
    assert isinstance(deleted, Answer)
    assert isinstance(ended, Answer)
    assert (deleted.connection, ended.connection) == (3, 2)
    assert "Cancelled" in said([ended])

    player = play(*recorded)
    ask(player, asked("POST", "/1.0/instances"))
    assert ask(player, wait, 2) == []
    until = player.due()
    assert until is not None
    assert until - NOW > QUIET
    assert player.tick(until - 1) == []
    assert "Running" in said(player.tick(until))

    player = play(*recorded[1:])
    assert ask(player, wait) == []
    assert "Cancelled" in said(ask(player, asked("DELETE", "/1.0/operations/o"), 2)[1:])


# Pace.


def test_recorded_pace() -> None:
    """Answers come when they did; an operation ends when it did, counted from its request."""
    player = play(
        *LAUNCH, seen(4, asked("GET", "/1.0"), response(200, "server"), took=70), paced=True
    )
    assert ask(player, asked("POST", "/1.0/instances")) == []
    assert player.due() == NOW + MS
    (made,) = player.tick(NOW + MS)
    assert isinstance(made, Answer)
    assert ask(player, asked("GET", "/1.0/operations/o/wait"), now=NOW + 2 * MS) == []
    assert ask(player, asked("GET", "/1.0"), 2, NOW + 2 * MS) == []
    assert player.due() == NOW + 72 * MS
    assert said(player.tick(NOW + 72 * MS)) == "server"
    assert player.due() == NOW + 491 * MS
    assert "Success" in said(player.tick(NOW + 491 * MS))
    late = ask(player, asked("GET", "/1.0/operations/o"), now=NOW + 500 * MS)
    assert "Success" in said(late)


def test_who_leaves_is_not_answered() -> None:
    """What was to be said later is forgotten with the connection."""
    player = play(seen(1, asked("GET", "/1.0"), response(200, "x"), took=70), paced=True)
    ask(player, asked("GET", "/1.0"), 1)
    ask(player, asked("GET", "/1.0"), 2)
    assert player.left(1, NOW) == []
    assert [each.connection for each in player.tick(NOW + 70 * MS) if isinstance(each, Answer)] == [
        2
    ]


# exec.


def websocket(secret: str) -> Request:
    return asked("GET", f"/1.0/operations/o/websocket?secret={secret}", headers=WEBSOCKET)


def socket_seen(number: int, letter: str, *pieces: Piece) -> Interaction:
    return seen(number, websocket(SECRETS[letter]), SWITCHED, pieces=pieces)


EXEC = (
    seen(1, asked("POST", f"{C1}/exec"), created(operation("o", 103, FDS, "websocket"))),
    socket_seen(2, "c"),
    socket_seen(3, "a", sent(40, b"abc"), sent(41, b"", Opcode.TEXT)),
    socket_seen(4, "b", received(50, b"ABC"), received(51, b"", Opcode.TEXT)),
    seen(5, asked("GET", "/1.0/operations/o"), told(operation("o", 200))),
)


def test_exec() -> None:
    """Streams are told by their secrets, in any order; what was said comes after what was heard."""
    player = play(*EXEC)
    ask(player, asked("POST", f"{C1}/exec"))
    for connection, letter in ((7, "b"), (8, "a"), (9, "c")):
        (upgrade,) = ask(player, websocket(SECRETS[letter]), connection)
        assert isinstance(upgrade, Upgrade)
        assert (upgrade.connection, upgrade.websocket) == (connection, True)
    assert player.heard_frame(8, frame(b"abc"), NOW) == []
    assert player.heard_frame(8, frame(b"", Opcode.TEXT), NOW) == [
        Send(7, b"ABC", Opcode.BINARY),
        Send(7, b"", Opcode.TEXT),
    ]
    assert player.left(7, NOW) == []
    assert player.heard_frame(7, frame(b"late"), NOW) == []
    player.left(8, NOW)
    player.left(9, NOW)
    assert player.due() is None
    assert "Success" in get(player, "/1.0/operations/o")
    assert numbers(player) == []


def test_an_end_is_told_after_the_streams() -> None:
    """Who asks for it while they go on waits until all was said, or they were left."""
    player = play(*EXEC)
    poll = asked("GET", "/1.0/operations/o")
    for connection, letter in ((7, "b"), (8, "a")):
        ask(player, websocket(SECRETS[letter]), connection)
    assert ask(player, poll, 20) == []
    assert ask(player, poll, 21) == []
    assert player.due() == NOW + QUIET + MS
    player.left(20, NOW)
    heard = player.heard_frame(8, frame(b"", Opcode.TEXT), NOW)
    assert [type(each) for each in heard] == [Send, Send, Answer]
    assert [each.connection for each in heard if isinstance(each, Answer)] == [21]


def test_an_end_is_told_after_what_has_no_end() -> None:
    """A console's streams have none: its client is left time to read."""
    player = play(EXEC[0], socket_seen(2, "b", received(21, b"shown")), EXEC[4])
    ask(player, websocket(SECRETS["b"]), 5)
    assert ask(player, asked("GET", "/1.0/operations/o"), 6) == []
    assert player.due() == NOW + SETTLE
    assert "Success" in said(player.tick(NOW + SETTLE))


def test_two_of_one_exec() -> None:
    """Where all of its streams are taken, another client has streams of its own."""
    player = play(*EXEC)
    for connection, letter in ((7, "a"), (8, "b"), (17, "a"), (18, "b")):
        ask(player, websocket(SECRETS[letter]), connection)
    heard = player.heard_frame(17, frame(b"", Opcode.TEXT), NOW)
    assert [each.connection for each in heard if isinstance(each, Send)] == [18, 18]
    player.left(17, NOW)
    player.left(18, NOW)
    (again,) = ask(player, websocket(SECRETS["c"]), 9)
    assert isinstance(again, Upgrade)


def test_unknown_secrets() -> None:
    """They are for the streams that are left, in order, and then for a new client's."""
    player = play(*EXEC)
    for connection in range(2, 6):
        (upgrade,) = ask(player, websocket("unknown"), connection)
        assert isinstance(upgrade, Upgrade)
    heard = player.heard_frame(3, frame(b"", Opcode.TEXT), NOW)
    assert heard == [Send(4, b"ABC", Opcode.BINARY), Send(4, b"", Opcode.TEXT)]


def test_streams_that_were_not_recorded() -> None:
    """They are missed, as those of operations without any are."""
    player = play(*EXEC[:3])
    assert "no recorded interaction" in said(ask(player, websocket(SECRETS["b"])))
    other = asked("GET", "/1.0/operations/p/websocket?secret=x", headers=WEBSOCKET)
    assert "no recorded interaction" in said(ask(player, other))


def test_a_control_stream_that_was_not_recorded() -> None:
    """It is taken and says nothing: not all clients have it, and none hears anything on it."""
    player = play(EXEC[0], *EXEC[2:])
    ask(player, asked("POST", f"{C1}/exec"))
    for connection, letter in ((7, "b"), (8, "a"), (9, "c"), (19, "c")):
        (upgrade,) = ask(player, websocket(SECRETS[letter]), connection)
        assert isinstance(upgrade, Upgrade)
    assert player.heard_frame(9, frame(b"{}", Opcode.TEXT), NOW) == []
    heard = player.heard_frame(8, frame(b"", Opcode.TEXT), NOW)
    assert [each.connection for each in heard if isinstance(each, Send)] == [7, 7]
    player.left(19, NOW)  # that was another client's
    assert "Success" in get(player, "/1.0/operations/o")
    assert numbers(player) == []


def test_a_stream_that_was_not_kept() -> None:
    """It is missed."""
    lost = piece(Direction.RECEIVED, 50, b"ABC", kept=False)
    player = play(EXEC[0], socket_seen(2, "b", lost))
    assert "no recorded interaction" in said(ask(player, websocket(SECRETS["b"])))


def test_many_sockets_of_one_stream() -> None:
    """A console's screen has a channel each."""
    player = play(
        EXEC[0],
        socket_seen(2, "a", received(21, b"first")),
        socket_seen(3, "a", received(31, b"second")),
    )
    heard = [ask(player, websocket(SECRETS["a"]), connection)[1:] for connection in (2, 3)]
    assert heard == [[Send(2, b"first", Opcode.BINARY)], [Send(3, b"second", Opcode.BINARY)]]


def test_ping_and_close() -> None:
    """A ping is answered; a close too, and then the connection ends."""
    player = play(*EXEC)
    ask(player, websocket(SECRETS["c"]), 9)
    assert player.heard_frame(9, frame(b"hi", Opcode.PING), NOW) == [Send(9, b"hi", Opcode.PONG)]
    assert player.heard_frame(9, frame(b"\x03\xe8", Opcode.CLOSE), NOW) == [
        Send(9, b"\x03\xe8", Opcode.CLOSE),
        Close(9),
    ]


def test_a_websocket_that_is_not_asked_for_as_one() -> None:
    """It is answered as a plain request, where one was recorded."""
    path = "/1.0/operations/o/websocket"
    player = play(*EXEC, seen(6, asked("GET", path), response(400, "Bad Request")))
    assert get(player, f"{path}?secret=x") == "Bad Request"


# Events.


def listener(*pieces: Piece, number: int = 1, target: str = EVENTS) -> Interaction:
    return seen(number, asked("GET", target, headers=WEBSOCKET), SWITCHED, pieces=pieces)


def event(code: int) -> bytes:
    return json.dumps({"type": "operation", "metadata": operation("o", code)}).encode()


LISTEN = asked("GET", EVENTS, headers=WEBSOCKET)
LAUNCHED = (
    listener(received(25, event(103), Opcode.TEXT), received(45, event(200), Opcode.TEXT)),
    seen(2, asked("POST", "/1.0/instances"), created(operation("o", 103))),
    seen(3, asked("GET", "/1.0/operations/o"), told(operation("o", 103))),
)


def test_events_come_after_their_causes() -> None:
    """The first after the request that made the operation, the last after it was asked for."""
    player = play(*LAUNCHED)
    (upgrade,) = ask(player, LISTEN, 5)
    assert isinstance(upgrade, Upgrade)
    made = ask(player, asked("POST", "/1.0/instances"), 6)
    assert made[1:] == [Send(5, event(103), Opcode.TEXT)]
    polled = ask(player, asked("GET", "/1.0/operations/o"), 7)
    assert polled[1:] == [Send(5, event(200), Opcode.TEXT)]
    assert player.left(5, NOW) == []
    assert (player.due(), numbers(player)) == (None, [])


def test_a_listener_that_comes_late() -> None:
    """What was caused before is heard at once."""
    player = play(*LAUNCHED)
    ask(player, asked("POST", "/1.0/instances"), 6)
    ask(player, asked("GET", "/1.0/operations/o"), 7)
    assert len(ask(player, LISTEN, 5)) == 3


def test_events_without_a_cause() -> None:
    """They are not waited for longer than a quiet and the time that it took."""
    player = play(*LAUNCHED)
    ask(player, LISTEN, 5)
    due = player.due()
    assert due == NOW + QUIET + 10 * MS
    assert player.tick(due) == [Send(5, event(103), Opcode.TEXT)]


def test_each_listener_has_its_own() -> None:
    """The second hears what the second did, and then the last again; others what was for all."""
    player = play(
        listener(received(11, b"1", Opcode.TEXT)),
        listener(received(21, b"2", Opcode.TEXT), number=2),
        listener(received(31, b"3", Opcode.TEXT), number=3, target=f"{EVENTS}?type=lifecycle"),
    )
    heard = [ask(player, LISTEN, connection)[1:] for connection in (5, 6, 7)]
    assert heard == [
        [Send(at, data, Opcode.TEXT)] for at, data in ((5, b"1"), (6, b"2"), (7, b"2"))
    ]
    typed = asked("GET", f"{EVENTS}?type=lifecycle", headers=WEBSOCKET)
    assert ask(player, typed, 8)[1:] == [Send(8, b"3", Opcode.TEXT)]
    other = asked("GET", f"{EVENTS}?type=logging", headers=WEBSOCKET)
    assert ask(player, other, 9)[1:] == [Send(9, b"2", Opcode.TEXT)]


def test_listeners_are_always_taken() -> None:
    """Where none was recorded they hear nothing."""
    player = play(seen(1, asked("GET", "/1.0"), response()))
    (upgrade,) = ask(player, LISTEN)
    assert isinstance(upgrade, Upgrade)
    assert player.due() is None


def test_a_second_run_waits_for_what_is_under_way() -> None:
    """While a connection lives on, nothing begins anew."""
    first = seen(1, asked("GET", C1), response(404, "none"))
    made = seen(2, asked("POST", C1), response(200, "made"))
    player = play(
        first,
        made,
        seen(3, asked("GET", C1), response(200, "there")),
        listener(number=4),
        seen(5, asked("GET", "/1.0"), response(200, "server")),
    )
    get(player, C1)
    ask(player, asked("POST", C1))
    get(player, C1)
    get(player, "/1.0")
    ask(player, LISTEN, 5)
    assert get(player, C1) == "there"
    player.left(5, NOW)
    assert get(player, C1) == "none"


# SFTP and other connections.


def packet(kind: int, number: int, content: bytes = b"") -> bytes:
    return struct.pack(">IBI", 5 + len(content), kind, number) + content


def path(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


SESSION = asked("GET", f"{C1}/sftp", headers=SFTP)


def session(number: int, *pieces: Piece) -> Interaction:
    return seen(number, SESSION, SWITCHED, pieces=pieces)


def test_sftp() -> None:
    """A session is played by what is asked in it; what nobody asked in any fails, and is told."""
    player = play(
        session(
            1, sent(11, packet(17, 1, path(b"/x")), None), received(12, packet(105, 1, b"x"), None)
        ),
        session(
            2, sent(21, packet(17, 1, path(b"/y")), None), received(22, packet(105, 1, b"y"), None)
        ),
        seen(3, SESSION, response(400, "refused")),
    )
    (upgrade,) = ask(player, SESSION, 5)
    assert isinstance(upgrade, Upgrade)
    assert not upgrade.websocket
    assert player.heard(5, packet(17, 9, path(b"/x"))[:7], NOW) == []
    assert player.heard(5, packet(17, 9, path(b"/x"))[7:], NOW) == [Send(5, packet(105, 9, b"x"))]
    assert player.heard(5, packet(17, 9, path(b"/y")), NOW) == [Send(5, packet(105, 9, b"y"))]
    missed = player.heard(5, packet(17, 9, path(b"/z")), NOW)
    assert missed[0] == Tell("no recorded SFTP request is STAT /z")
    assert player.heard(5, packet(17, 9, path(b"/x")), NOW) == [Send(5, packet(105, 9, b"x"))]
    broken = player.heard(5, b"\xff" * 9, NOW)
    assert isinstance(broken[0], Tell)
    assert broken[1] == Close(5)
    player.left(5, NOW)
    assert player.heard(5, b"late", NOW) == []
    (second,) = ask(player, SESSION, 6)
    assert isinstance(second, Upgrade)
    assert said(ask(player, SESSION, 7)) == "refused"


def test_sftp_that_was_kept_in_part() -> None:
    """What was asked of it until then is known."""
    player = play(
        session(
            1,
            sent(11, packet(17, 1, path(b"/x")), None),
            piece(Direction.SENT, 12, b"lost", None, kept=False),
            sent(13, packet(17, 2, path(b"/y")), None),
            received(14, packet(105, 1, b"x"), None),
        )
    )
    ask(player, SESSION, 5)
    assert player.heard(5, packet(17, 9, path(b"/x")), NOW) == [Send(5, packet(105, 9, b"x"))]
    assert isinstance(player.heard(5, packet(17, 9, path(b"/y")), NOW)[0], Tell)


def test_bytes_of_another_kind() -> None:
    """They come after as many as had been said."""
    disk: Headers = (("Upgrade", "nbd"),)
    question = asked("GET", f"{C1}/nbd", headers=disk)
    player = play(
        seen(1, question, SWITCHED, pieces=[sent(11, b"ab", None), received(12, b"cd", None)])
    )
    (upgrade,) = ask(player, question, 5)
    assert isinstance(upgrade, Upgrade)
    assert player.heard(5, b"a", NOW) == []
    assert player.heard(5, b"b", NOW) == [Send(5, b"cd")]


def test_a_stream_ends_when_its_client_does_not() -> None:
    """After its end it is held, and then ended."""
    player = play(EXEC[0], socket_seen(2, "b", received(21, b"", Opcode.TEXT)))
    ask(player, websocket(SECRETS["b"]), 5)
    due = player.due()
    assert due is not None
    assert player.tick(due) == [Close(5)]


def test_frames_and_bytes_of_nobody() -> None:
    """What comes on a connection that has not left HTTP is passed over; SFTP has no frames."""
    player = play(session(1))
    ask(player, SESSION, 5)
    assert player.heard_frame(5, frame(b"x"), NOW) == []
    assert player.heard(6, b"x", NOW) == []
