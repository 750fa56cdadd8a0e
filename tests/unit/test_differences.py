"""Two recordings compared: the same commands are the same, and each edit is found and named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from lxdtap.cassette.differences import SHOWN, differences
from lxdtap.cassette.model import Cassette, Interaction, Server
from lxdtap.content import Json
from lxdtap.log.journal import Selection
from lxdtap.transaction import Body, Headers, Opcode, Request, Response, Tunnel

from . import cassettes
from .builders import BASE, body, cut_body, envelope, event, operation_document, response
from .recordings import SFTP, SWITCHED, WEBSOCKET, asked, cassette, received, seen, sent

ONE = "70eb42bf-5e79-42de-8230-2162e9e8b612"
TWO = "11111111-5e79-42de-8230-2162e9e8b612"
STATE = "/1.0/instances/c1/state"
NOTHING = asked("GET", "/1.0")


def told(ours: Cassette, theirs: Cassette, *, everything: bool = False) -> list[str]:
    """All lines."""
    found = differences(ours, theirs, everything=everything)
    return [line for difference in found for line in difference.lines()]


def changes(ours: Interaction, theirs: Interaction, *, everything: bool = False) -> list[str]:
    """The changes of an interaction that is in both."""
    lines = told(cassette(ours), cassette(theirs), everything=everything)
    assert all(line.startswith("  ") for line in lines[1:])
    return [line.strip() for line in lines[1:]]


def answered(metadata: Json, status: int = 200, headers: Headers = ()) -> Interaction:
    """``GET /1.0`` with this answer."""
    return seen(1, NOTHING, response(status, {"metadata": metadata}, headers))


def apart(ours: Json, theirs: Json, *, everything: bool = False) -> list[str]:
    """How two answers differ."""
    return changes(answered(ours), answered(theirs), everything=everything)


def stop(
    uuid: str, code: int = 200, *, at: int = 1, created: int = 103, metadata: Json = None
) -> list[Interaction]:
    """A change, and its operation waited for."""
    made = operation_document(created, uuid=uuid, metadata=metadata)
    end = operation_document(code, uuid=uuid, err="no" if code >= 400 else "")
    path = f"/1.0/operations/{uuid}"
    return [
        seen(
            at,
            asked("PUT", STATE, {"action": "stop"}),
            response(
                202, envelope(made, "async", 100) | {"operation": path}, (("Location", path),)
            ),
        ),
        seen(at + 1, asked("GET", f"{path}/wait?timeout=7"), response(200, envelope(end))),
    ]


def events(number: int, *documents: Json) -> Interaction:
    """A listener, and what it was told."""
    pieces = [received(5, json.dumps(each).encode(), Opcode.TEXT) for each in documents]
    return seen(number, asked("GET", "/1.0/events", b"", WEBSOCKET), SWITCHED, pieces=pieces)


# -- what is the same


def test_nothing_is_the_same() -> None:
    """As nothing."""
    assert told(cassette(), cassette()) == []


def test_operations_are_known_by_what_made_them() -> None:
    """Whatever their ids are, everywhere; a wait for another one is another request."""
    assert told(cassette(*stop(ONE)), cassette(*stop(TWO))) == []
    twice = cassette(*stop(ONE), *stop(TWO, at=3))
    assert told(twice, cassette(*stop(TWO), *stop(ONE, at=3))) == []
    one, wait, two, _ = twice.interactions
    other = wait._replace(transaction=wait.transaction._replace(number=4))
    missed = f"only in A: #4 GET /1.0/operations/{TWO}/wait?timeout=7"
    assert missed in told(twice, cassette(one, wait, two, other))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"created_at": "2026-01-01T00:00:00Z"}, {"created_at": "x"}),
        ({"config": {"volatile.uuid": "a"}}, {"config": {}}),
        ({"download_progress": "1%"}, {}),
        ({"x": "made at 2026-01-01T00:00:00.5Z"}, {"x": "made at 2026-02-01T00:00:00+01:00"}),
        ({"x": [ONE, {"pid": 1}]}, {"x": [TWO, {"pid": 2}]}),
        ({"x": "REDACTED-1"}, {"x": "REDACTED-2"}),
        ({"x": "REDACTED-1"}, {"x": "hunter2"}),
        ({"x": "hunter2"}, {"x": "REDACTED-1"}),
        ({"x": "a" * 64, "y": "veth0123abcd"}, {"x": "b" * 64, "y": "vethabcd0123"}),
    ],
)
def test_what_differs_from_run_to_run(ours: Json, theirs: Json) -> None:
    """Does not count, unless it is asked for."""
    assert apart(ours, theirs) == []
    assert apart(ours, theirs, everything=True) != []


def test_headers_and_addresses() -> None:
    """Only those that tell something count."""
    one = answered(1, headers=(("Date", "now"), ("ETag", "x"), ("X-LXD-mode", "0644")))
    two = answered(1, headers=(("Date", "then"), ("X-LXD-mode", "0600")))
    assert changes(one, two) == ['response.header.x-lxd-mode: "0644" -> "0600"']
    assert changes(one, two, everything=True) == [
        'response.header.date: "now" -> "then"',
        'response.header.etag: only in A: "x"',
        'response.header.x-lxd-mode: "0644" -> "0600"',
    ]


def test_boundaries() -> None:
    """Are made up by the client; the parts count."""

    def posted(boundary: str, text: str) -> Interaction:
        data = f"--{boundary}\r\nA: b\r\n\r\n{text}\r\n--{boundary}--\r\n"
        kind = (("Content-Type", f"multipart/form-data; boundary={boundary}"),)
        return seen(1, asked("POST", "/1.0/images", data, kind))

    assert changes(posted("x", "hello"), posted("y", "hello")) == []
    assert changes(posted("x", "hello"), posted("y", "bye")) == [
        'request[0].body: "hello" -> "bye"'
    ]


def test_progress() -> None:
    """How far an operation was when the answer was written is chance."""
    progress: Json = {"create_progress": "1%"}
    early, late = stop(ONE), stop(TWO, created=200, metadata={"x": 1})
    assert told(cassette(*early), cassette(*late)) == []
    assert told(cassette(*early), cassette(*stop(ONE, metadata=progress))) == []
    pending = operation_document(103) | {"status": "Pending", "status_code": 105}
    running, odd = operation_document(103), operation_document(103) | {"status": "Stopped"}
    one, two, three = (
        seen(1, NOTHING, response(202, envelope(each, "async"))) for each in (pending, running, odd)
    )
    assert changes(one, two) == []
    assert changes(two, three) == ['response.metadata.status: "Running" -> "Stopped"']


def test_polls() -> None:
    """Their count is chance: the last answer is compared."""
    path = f"/1.0/operations/{ONE}"
    made = stop(ONE)[0]

    def polled(number: int, code: int) -> Interaction:
        said = response(200, envelope(operation_document(code, uuid=ONE)))
        return seen(number, asked("GET", path), said)

    once, thrice = (polled(2, 200),), (polled(2, 103), polled(3, 103), polled(4, 200))
    assert told(cassette(made, *once), cassette(made, *thrice)) == []
    lines = told(cassette(made, *once), cassette(made, *thrice), everything=True)
    assert lines[-2:] == [f"only in B: #3 GET {path}", f"only in B: #4 GET {path}"]


@settings(max_examples=30)
@given(cassettes.cassettes(2), cassettes.cassettes(2))
def test_any_recordings(ours: Cassette, theirs: Cassette) -> None:
    """Each is itself, whatever counts; what is told of two is one line, and safe to print."""
    for everything in (False, True):
        assert told(ours, ours, everything=everything) == []
        lines = "".join(told(ours, theirs, everything=everything))
        assert not set(lines) & set("\n\r\t\0\x1b\x7f\x85\u2028\ufeff")


# -- what is found


def test_missing_and_added() -> None:
    """The rest is still aligned."""
    whole = [seen(number, asked("GET", f"/1.0/{number}"), response()) for number in range(1, 6)]
    less = cassette(*whole[:2], *whole[3:])
    assert told(cassette(*whole), less) == ["only in A: #3 GET /1.0/3"]
    assert told(less, cassette(*whole)) == ["only in B: #3 GET /1.0/3"]


def test_another_order() -> None:
    """It counts, unless the two overlapped."""
    one, two = asked("PUT", "/1.0/a"), asked("PUT", "/1.0/b")
    there = cassette(seen(1, one, response()), seen(2, two, response()))
    back = cassette(seen(1, two, response()), seen(2, one, response()))
    assert told(there, back) in (
        ["#1 ~ #2 PUT /1.0/a", "  order: before #2 PUT /1.0/b, after it in B"],
        ["#2 ~ #1 PUT /1.0/b", "  order: after #1 PUT /1.0/a, before it in B"],
    )
    assert told(back, there)[1].startswith("  order: ")
    three = [asked("PUT", f"/1.0/{name}") for name in "abc"]
    rows = [
        [seen(n, three[i], response()) for n, i in enumerate(o, 1)] for o in ((0, 1, 2), (1, 2, 0))
    ]
    assert told(cassette(*rows[0]), cassette(*rows[1])) == [
        "#1 ~ #3 PUT /1.0/a",
        "  order: before #2 PUT /1.0/b, after it in B",
    ]
    assert told(cassette(*rows[1]), cassette(*rows[0])) == [
        "#3 ~ #1 PUT /1.0/a",
        "  order: after #1 PUT /1.0/b, before it in B",
    ]
    both = cassette(seen(1, one, response(), took=99), seen(2, two, response()))
    assert told(both, back) == []
    assert told(back, both) == []
    first = back.interactions[0]
    timing = first.transaction.timing._replace(ended=None)
    open_ = first._replace(transaction=first.transaction._replace(timing=timing))
    assert told(there, cassette(open_, back.interactions[1])) == []


def test_status_and_fields() -> None:
    """By their JSON path."""
    assert changes(answered(1), answered(1, 404)) == ["response.status: 200 -> 404"]
    ours: Json = {"a": 1, "limits.cpu": "2", "c": {"d": None}, "only": []}
    theirs: Json = {"a": True, "limits.cpu": "3", "c": {"d": "x"}, "new": {}}
    assert apart(ours, theirs) == [
        "response.metadata.a: 1 -> true",
        'response.metadata["limits.cpu"]: "2" -> "3"',
        'response.metadata.c.d: null -> "x"',
        "response.metadata.only: only in A: []",
        "response.metadata.new: only in B: {}",
    ]


def test_lists() -> None:
    """An element that was put in does not make others differ."""
    assert apart(["a", "b", "c"], ["a", "x", "b", "c"]) == ['response.metadata[1]: only in B: "x"']
    assert apart(["a", "b", "c"], ["a", "c"]) == ['response.metadata[1]: only in A: "b"']
    assert apart([{"n": 1}, 2], [{"n": 3}, 2]) == ["response.metadata[0].n: 1 -> 3"]


def test_long_values() -> None:
    """Are shown from where they begin to differ, and cut."""
    (line,) = apart("a" * 500 + "b" * 500, "a" * 500 + "c" * 500)
    assert len(line) < 2 * SHOWN + 50
    assert "…aaa" in line
    assert "bbb" in line
    assert "ccc" in line
    (line,) = apart("b" + "a" * 500, "c")
    assert '"baaa' in line


def test_bodies() -> None:
    """Of requests and answers, whatever they are."""
    plain: Headers = (("Content-Type", "text/plain"),)

    def put(data: bytes) -> Interaction:
        return seen(1, asked("PUT", "/1.0/x", data, plain), response(200, data, plain))

    assert changes(put(b"a"), put(b"b")) == ['request: "a" -> "b"', 'response: "a" -> "b"']
    assert changes(put(b""), put(b"b")) == ['request: only in B: "b"', 'response: only in B: "b"']
    assert changes(put(b"\xff"), put(b"\xfe"))[0].startswith('request: "1 bytes, sha256 ')
    parts = (("Content-Type", "multipart/form-data; boundary=x"),)
    empty = seen(1, asked("PUT", "/1.0/x", "--x\r\n\r\n\r\n--x--\r\n", parts))
    full = seen(1, asked("PUT", "/1.0/x", "--x\r\n\r\na\r\n--x--\r\n", parts))
    assert changes(empty, full) == ['request[0].body: null -> "a"']


def test_no_answer() -> None:
    """Is a difference to one."""
    assert changes(seen(1, NOTHING), answered(1))[0] == "response.status: only in B: 200"


def test_what_is_shown_is_safe() -> None:
    """To print."""
    line = apart("\x1b[2J", "\n")[0]
    assert line == 'response.metadata: "\\u001b[2J" -> "\\n"'
    lines = told(cassette(seen(1, asked("GET", "/1.0/\x1b"))), cassette())
    assert lines == ["only in A: #1 GET /1.0/\\x1b"]


def test_the_server() -> None:
    """Its kind and version; where it is, only if all counts."""
    ours, theirs = Cassette(Server("lxd", BASE, "5.0.2")), Cassette(Server("incus", "x", "6.0.4"))
    lines = ['  server.kind: "lxd" -> "incus"', '  server.version: "5.0.2" -> "6.0.4"']
    assert told(ours, theirs) == ["the recordings", *lines]
    assert len(told(ours, theirs, everything=True)) == 4


def test_a_selection() -> None:
    """Others are not compared; they still tell of operations."""
    ours, theirs = cassette(*stop(ONE)), cassette(*stop(TWO, 400))
    for selection, count in ((Selection(only=["PUT *"]), 0), (Selection(), 1)):
        assert len(list(differences(ours, theirs, wanted=selection.wanted()))) == count


# -- streams and events


def test_streams() -> None:
    """Are what they carried, however it was cut into frames."""
    target = f"/1.0/operations/{ONE}/websocket?secret=x"

    def stream(name: str, *texts: bytes, way=received, opcode=Opcode.BINARY) -> Interaction:  # type: ignore[no-untyped-def]  # noqa: ANN001
        pieces = [way(5, text, opcode) for text in texts] + [way(6, b"", Opcode.CLOSE)]
        switch = asked("GET", target, b"", WEBSOCKET)
        return seen(1, switch, SWITCHED, pieces=pieces, stream=name)

    for name in ("stdout", "stderr"):
        assert changes(stream(name, b"a", b"b"), stream(name, b"ab")) == []
        assert changes(stream(name, b"a"), stream(name, b"b")) == [f'{name}: "a" -> "b"']
    typed, other = stream("stdin", b"a", way=sent), stream("stdin", b"b", way=sent)
    assert changes(typed, other) == ['stdin: "a" -> "b"']
    echoed = stream("terminal", b"a")
    assert changes(echoed, stream("terminal", b"c")) == ['terminal.received: "a" -> "c"']
    sizes = [
        stream("control", f'{{"x": {n}}}'.encode(), way=sent, opcode=Opcode.TEXT) for n in (1, 2)
    ]
    assert len(changes(*sizes)) == 1
    moving = [stream("control", bytes([n]), way=sent) for n in (1, 2)]
    assert changes(*moving) == []
    assert changes(*moving, everything=True) == ['sent: "\\u0001" -> "\\u0002"']
    assert changes(stream("stdout", b"\xff"), stream("stdout", b"\xfe"))
    assert told(cassette(stream("stdout")), cassette(stream("stderr"))) == [
        f"only in A: #1 GET {target}",
        f"only in B: #1 GET {target}",
    ]
    cut = received(5)._replace(payload=Body(7, b"", "0" * 64))
    unknown = stream("stdout")._replace(pieces=(cut,))
    assert changes(unknown, stream("stdout", b"a")) == [
        'stdout: "7 bytes, not all of them kept" -> "a"'
    ]


def test_how_an_operation_ended_by_events() -> None:
    """It is compared where both recordings know; the events themselves only if all counts."""
    made = stop(ONE)[0]

    def ending(uuid: str, code: int, results: Json = None) -> Interaction:
        return events(2, event(operation_document(code, uuid=uuid, metadata=results)), event({}))

    fine = cassette(made, ending(ONE, 200, {"return": 0}))
    assert told(fine, cassette(stop(TWO)[0], ending(TWO, 200, {"return": 0}))) == []
    assert told(fine, cassette(stop(TWO)[0], ending(TWO, 200, {"return": 7}))) == [
        f"#1 ~ #1 PUT {STATE}",
        "  operation.return: 0 -> 7",
    ]
    failed = cassette(*stop(TWO, 400))
    lines = told(fine, failed)
    assert '  operation.status: "Success" -> "Failure"' in lines
    assert told(fine, cassette(made, events(2))) == []
    found = told(fine, cassette(made, events(2)), everything=True)
    assert any(line.startswith("  events[0]: only in A: ") for line in found)


def test_all_of_a_tunnel() -> None:
    """How it ended, and its bytes, count only if all does."""
    one = seen(1, asked("GET", "/1.0/x/sftp", b"", SFTP), SWITCHED, pieces=[sent(1, b"a", None)])
    two = seen(1, asked("GET", "/1.0/x/sftp", b"", SFTP), SWITCHED, pieces=[sent(1, b"b", None)])
    ended = two.transaction._replace(tunnel=Tunnel("sftp", close_code=1000))
    assert changes(one, two._replace(transaction=ended)) == []
    assert changes(one, two._replace(transaction=ended), everything=True) == [
        "tunnel.close_code: null -> 1000",
        'tunnel.ended: "the client closed the connection" -> ""',
        'sent: "a" -> "b"',
    ]


def test_bodies_that_were_not_kept() -> None:
    """Are known by size and hash."""
    pair = [
        seen(1, Request("PUT", "/1.0/x", body=cut_body(data, 1)), Response(200, body=body(b"")))
        for data in (b"\xffa", b"\xffb")
    ]
    assert len(changes(*pair)) == 1
