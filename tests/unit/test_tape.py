"""A cassette made ready: what answers what, and what is known of operations."""

from __future__ import annotations

import json

import pytest

from lxdtap.cassette.model import Interaction
from lxdtap.content import Json
from lxdtap.replay import match
from lxdtap.replay.tape import EVENTS, Entry, State, Tape, document, messages, operation_asked
from lxdtap.transaction import Opcode, Response
from tests.unit.builders import UUID, cut_body, response
from tests.unit.recordings import (
    SFTP,
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

TEXT, CONTINUATION = Opcode.TEXT, Opcode.CONTINUATION
SECRETS = {letter: letter * 64 for letter in "abc"}
FDS: Json = {"fds": {"0": SECRETS["a"], "1": SECRETS["b"], "control": SECRETS["c"]}}
POST = asked("POST", "/1.0/instances/c1/exec")


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.number for entry in entries]


def find(tape: Tape, target: str, method: str = "GET") -> list[int]:
    return numbers(tape.find(match.key(asked(method, target))))


def test_changes_are_counted() -> None:
    """What may leave another state is one: a change, and a session that is no websocket's."""
    tape = Tape(
        cassette(
            seen(1, asked("GET", "/1.0"), response()),
            seen(2, asked("PUT", "/1.0"), response()),
            seen(3, asked("GET", "/1.0/instances/c1/sftp", headers=SFTP), SWITCHED),
            seen(4, asked("GET", EVENTS, headers=WEBSOCKET), SWITCHED),
            seen(5, asked("DELETE", "/1.0"), response()),
        )
    )
    assert numbers(tape.changes) == [2, 3, 5]
    assert [entry.made for entry in tape.entries] == [0, 0, 1, 2, 2]
    assert numbers(tape.events) == [4]
    assert [tape.made(at * 10_000_000) for at in (1, 3, 4, 6)] == [0, 1, 2, 3]
    assert [tape.change_begun(change) for change in (-1, 0)] == [0, 20_000_000]


def test_only_the_last_word_of_a_state_is_kept() -> None:
    """But for what answers a condition, and where the last was not recorded."""
    tape = Tape(
        cassette(
            seen(1, asked("GET", "/1.0"), response(200, "1")),
            seen(2, asked("GET", "/1.0"), response(200, "2")),
            seen(3, asked("GET", "/1.0"), response(206, "3")),
            seen(4, asked("GET", "/1.0"), response(200, "4")),
            seen(5, asked("GET", "/1.0"), Response(200, body=cut_body(b"55", 1))),
            seen(6, asked("GET", "/1.0")),
            seen(7, asked("PUT", "/1.0"), response()),
            seen(8, asked("PUT", "/1.0"), response()),
            seen(9, asked("GET", "/1.0"), response(200, "9")),
        )
    )
    assert find(tape, "/1.0") == [2, 3, 4, 5, 6, 9]
    assert find(tape, "/1.0", "PUT") == [7, 8]
    assert len(tape.places) == 4  # of each state, and each change; not of what was not recorded
    assert tape.slot(tape.entries[5]) is None
    assert tape.slot(tape.entries[0]) == tape.slot(tape.entries[1])


def test_generated_and_redacted_names_are_found() -> None:
    """But operations are themselves alone."""
    tape = Tape(
        cassette(
            seen(1, asked("GET", f"/1.0/instances/{UUID}"), response()),
            seen(2, asked("GET", f"/1.0/operations/{UUID}"), response()),
            seen(3, asked("GET", "/1.0/images/x/export?secret=REDACTED-1"), response()),
        )
    )
    other = UUID[::-1].replace("-", "")[:8] + UUID[8:]
    assert find(tape, f"/1.0/instances/{other}") == [1]
    assert find(tape, f"/1.0/operations/{other}") == []
    assert find(tape, "/1.0/images/x/export?secret=geheim") == [3]
    assert find(tape, "/1.0/images/x/export?other=x") == []
    assert find(tape, "/1.0/images/x/export") == []


def test_streams_are_known_by_their_secrets() -> None:
    """The 202 tells of them; what names an unknown one names its operation."""
    state = operation("o", 103, FDS, "websocket")
    path = "/1.0/operations/o/websocket"
    tape = Tape(
        cassette(
            seen(1, POST, created(state)),
            seen(2, asked("GET", f"{path}?secret={SECRETS['b']}", headers=WEBSOCKET), SWITCHED),
            seen(3, asked("GET", f"{path}?secret=x", headers=WEBSOCKET), SWITCHED),
            seen(4, asked("GET", path, headers=WEBSOCKET), SWITCHED, stream="control"),
            seen(5, asked("GET", path, headers=WEBSOCKET), response(500)),
        )
    )
    assert tape.websocket(f"{path}?secret={SECRETS['a']}") == ("o", "stdin")
    assert tape.websocket(f"{path}?x=1&secret=no%20one") == ("o", "")
    assert tape.websocket(path) == ("o", "")
    assert tape.websocket("/1.0/operations/o/wait") is None
    assert tape.websocket("/1.0") is None
    streams = {name: numbers(found) for name, found in tape.operations["o"].streams.items()}
    assert streams == {"stdout": [2], "socket 3": [3], "control": [4]}


def test_how_an_operation_ended() -> None:
    """The last final state counts, in the daemon's own answer where there is one."""
    ended = told(operation("o", 200))
    event = json.dumps({"type": "operation", "metadata": operation("o", 200)}).encode()
    tape = Tape(
        cassette(
            seen(
                1,
                asked("GET", EVENTS, headers=WEBSOCKET),
                SWITCHED,
                pieces=[sent(30, b'"operation"'), received(31, event, Opcode.TEXT)],
            ),
            seen(2, POST, created(operation("o", 103))),
            seen(3, asked("GET", "/1.0/operations/o"), told(operation("o", 103))),
            seen(4, asked("GET", "/1.0/operations/o/wait"), ended),
            seen(5, asked("GET", "/1.0/operations/o"), response(404, {"type": "error"})),
        )
    )
    known = tape.operations["o"]
    assert (known.maker, known.cancel, known.asked) == (0, None, True)
    state = known.state(cancelled=False)
    assert state is not None
    assert state.response == ended
    assert tape.operations["none"].state(cancelled=False) is None


def test_an_end_that_only_an_event_told() -> None:
    """It counts too; events of other kinds, and what is no JSON, tell nothing."""
    final = json.dumps({"type": "operation", "metadata": operation("o", 400)}).encode()
    tape = Tape(
        cassette(
            seen(
                1,
                asked("GET", EVENTS, headers=WEBSOCKET),
                SWITCHED,
                pieces=[
                    received(30, b'"operation"', Opcode.TEXT),
                    received(31, b'{"type":"lifecycle","x":"operation"}', Opcode.TEXT),
                    received(32, b'{"type":"operation","x":1}', Opcode.TEXT),
                    received(33, b"else", Opcode.TEXT),
                    received(34, final, Opcode.TEXT),
                ],
            ),
            seen(2, asked("GET", "/1.0/operations/o"), told(operation("o", 103))),
        )
    )
    state = tape.operations["o"].state(cancelled=False)
    assert state is not None
    assert (state.final, state.response) == (True, None)
    assert tape.operations["o"].maker is None


FAILED = response(200, {"type": "error", "error": "UNIQUE", "error_code": 500, "metadata": None})
LATE = response(200, {"type": "error", "error": "context deadline exceeded", "error_code": 500})
GONE = response(404, {"type": "error", "error": "Operation not found", "error_code": 404})
MADE = seen(1, POST, created(operation("o", 103)))
POLL, WAIT = asked("GET", "/1.0/operations/o"), asked("GET", "/1.0/operations/o/wait?timeout=9")


def how_it_ended(*interactions: Interaction) -> State | None:
    return Tape(cassette(*interactions)).operations["o"].state(cancelled=False)


def heard(code: int, at: int) -> Interaction:
    """An event that tells of the operation."""
    event = json.dumps({"type": "operation", "metadata": operation("o", code)}).encode()
    listener = asked("GET", EVENTS, headers=WEBSOCKET)
    return seen(9, listener, SWITCHED, at=0, pieces=[received(at, event, Opcode.TEXT)])


@pytest.mark.parametrize(
    ("interactions", "end"),
    [
        pytest.param([seen(2, WAIT, FAILED)], FAILED, id="a wait"),
        pytest.param([seen(2, WAIT, FAILED), heard(400, at=40)], FAILED, id="an event of it too"),
        pytest.param([seen(2, WAIT, FAILED), seen(3, POLL, GONE)], FAILED, id="then it vanished"),
        pytest.param([seen(2, WAIT, GONE), seen(3, POLL, GONE)], GONE, id="it had vanished"),
        pytest.param(
            [seen(2, POLL, told(operation("o", 103))), seen(3, POLL, GONE)], GONE, id="it vanished"
        ),
        pytest.param([seen(2, WAIT, response(502, "no"))], response(502, "no"), id="no JSON"),
        pytest.param(
            [seen(2, WAIT, LATE), seen(3, WAIT, told(operation("o", 200)))],
            told(operation("o", 200)),
            id="a wait that was too short",
        ),
        pytest.param(
            [seen(2, WAIT, LATE), seen(3, WAIT, FAILED)], FAILED, id="too short, then failed"
        ),
        pytest.param(
            [seen(2, WAIT, LATE), seen(3, POLL, told(operation("o", 103)))],
            told(operation("o", 103)),
            id="too short, and it goes on",
        ),
        pytest.param([seen(2, WAIT, LATE), heard(200, at=40)], None, id="too short, then told"),
        pytest.param([heard(400, at=15), seen(2, POLL, GONE)], None, id="told, then vanished"),
        pytest.param(
            [seen(2, WAIT, response(200, {"metadata": 1}))], None, id="neither state nor error"
        ),
    ],
)
def test_an_end_that_an_error_told(interactions: list[Interaction], end: Response | None) -> None:
    """An answer that describes no operation is its end, unless more is known of that."""
    state = how_it_ended(MADE, *interactions)
    assert state is not None
    assert state.response == end


def test_an_error_that_was_not_kept_is_no_end() -> None:
    """Nobody could be told it."""
    whole = FAILED.body.captured
    state = how_it_ended(MADE, seen(2, WAIT, Response(200, body=cut_body(whole, len(whole) - 1))))
    assert state is not None
    assert not state.final


def test_before_it_is_cancelled() -> None:
    """An operation that its client ends goes on until then."""
    tape = Tape(
        cassette(
            seen(1, POST, created(operation("o", 103))),
            seen(2, asked("GET", "/1.0/operations/o"), told(operation("o", 103))),
            seen(3, asked("DELETE", "/1.0/operations/o"), response(200, {})),
            seen(4, asked("GET", "/1.0/operations/o/wait"), told(operation("o", 401))),
        )
    )
    known = tape.operations["o"]
    before, after = known.state(cancelled=False), known.state(cancelled=True)
    assert before is not None
    assert after is not None
    assert (before.final, after.final) == (False, True)


def test_a_state_without_an_end() -> None:
    """The last that is known is all there is."""
    tape = Tape(
        cassette(
            seen(1, POST, created(operation("o", 103))),
            seen(2, POST, created("nothing")),
            seen(3, asked("DELETE", "/1.0/operations/p"), response(400, {"type": "error"})),
            seen(4, asked("GET", "/1.0/operations/p"), told(operation("p", 401))),
        )
    )
    state = tape.operations["o"].state(cancelled=False)
    assert state is not None
    assert not state.final
    assert tape.operations["p"].state(cancelled=False) is not None


def test_timing_that_is_not_known() -> None:
    """An answer without a time counts as of its request's."""
    interaction = seen(1, asked("GET", "/1.0/operations/o"), told(operation("o", 200)))
    bare = interaction.transaction.timing._replace(answered=None)
    tape = Tape(
        cassette(interaction._replace(transaction=interaction.transaction._replace(timing=bare)))
    )
    assert [state.offset for state in tape.operations["o"].states] == [10_000_000]


def test_messages() -> None:
    """Fragments are joined; control frames, and ends without a beginning, are passed over."""
    start, more = (received(1, b"a", each)._replace(final=False) for each in (TEXT, CONTINUATION))
    end = received(2, b"b", CONTINUATION)
    pieces = [end, start, received(1, b"", Opcode.PING), sent(1, b"x"), more, end, start]
    found = messages([*pieces, received(3, b"c", TEXT), end, received(4, b"d", None)])
    assert [(each.payload.captured, each.final) for each in found] == [(b"aab", True), (b"c", True)]


def test_operation_asked() -> None:
    """Polls and waits ask for an operation's state; nothing else does."""
    found = [
        operation_asked(match.key(asked(method, path)))
        for method, path in (
            ("GET", "/1.0/operations/o"),
            ("GET", "/1.0/operations/o/wait?timeout=1"),
            ("GET", "/1.0/operations/o/websocket"),
            ("DELETE", "/1.0/operations/o"),
            ("GET", "/1.0/operations"),
        )
    ]
    assert found == ["o", "o", None, None, None]


def test_documents() -> None:
    """What is no JSON is none, however deep it is."""
    assert document(b'{"a": 1}') == {"a": 1}
    assert document(b"\xff") is None
    assert document(b"[" * 100_000) is None
