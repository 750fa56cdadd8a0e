"""From what passed to the interactions of a cassette."""

from __future__ import annotations

import json

from lxdtap.cassette.model import Interaction
from lxdtap.record.collect import Collector
from lxdtap.transaction import Direction, Moment, Opcode
from lxdtap.wire.events import Opened, Said

from .conversation import BASE, GET, OK, PEER, SECOND, SWITCHING, talk

OPERATION = "4171ecd5-9c88-45c4-9a80-db3f4c858bed"
SECRET = "0123456789abcdef" * 4


def answered(metadata: object, status: str = "200 OK") -> bytes:
    """An envelope around some metadata, as a response."""
    body = json.dumps({"type": "sync", "metadata": metadata}).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def exec_started() -> bytes:
    """The answer to an exec."""
    operation = {
        "id": OPERATION,
        "class": "websocket",
        "status": "Running",
        "status_code": 103,
        "metadata": {"fds": {"0": "f" * 64, "1": SECRET, "control": "e" * 64}},
    }
    return answered(operation, "202 Accepted")


def collected(*words: str | bytes) -> tuple[Collector, list[Interaction]]:
    """What a conversation is, recorded."""
    collector = Collector()
    told = talk(*words)
    events = [Opened(1, told.events[0].at, BASE, PEER), *told.events]
    return collector, [found for event in events for found in collector.add(event)]


def test_times_count_from_the_beginning() -> None:
    """The first event is the beginning; durations and order are kept, who asked is not."""
    collector, (first, second) = collected(">>", GET, "<<", OK, ">>", GET, "<<", OK, "||")
    assert collector.began is not None
    assert collector.began.wall > collector.began.monotonic == SECOND
    assert collector.base == BASE
    (one, two) = (first.transaction.timing, second.transaction.timing)
    assert (one.begun, one.sent, one.answered, one.ended) == (0, 0, 2 * SECOND, 2 * SECOND)
    assert (two.begun, two.ended) == (4 * SECOND, 6 * SECOND)
    assert first.transaction.peer is None


def test_the_daemon_says_its_version() -> None:
    """By the answer to GET /1.0; any other answer's is something else's."""
    says = {"environment": {"server_version": "5.0.2"}}
    assert collected(">>", GET, "<<", answered(says), "||")[0].version == "5.0.2"
    assert collected(">>", GET, "<<", OK, "||")[0].version == ""
    other = GET.replace(b"/1.0", b"/1.0/cluster")
    assert collected(">>", other, "<<", answered(says), "||")[0].version == ""


def test_an_operation_and_its_streams() -> None:
    """A request is told by the operation that it made, a websocket by the stream that it is."""
    ask = b"POST /1.0/instances/c1/exec HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    path = f"/1.0/operations/{OPERATION}/websocket?secret={SECRET}".encode()
    socket = b"GET %s HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" % path
    words = (">>", ask, "<<", exec_started(), ">>", socket, "<<", SWITCHING + b"\x82\x02hi")
    _, (made, stream) = collected(*words, ">>", b"\x81\x80\0\0\0\0", "||")
    assert (made.operation, made.stream) == (OPERATION, "")
    assert (stream.operation, stream.stream) == (OPERATION, "stdout")
    said, barrier = stream.pieces
    assert (said.direction, said.opcode, said.payload.captured) == (
        Direction.RECEIVED,
        Opcode.BINARY,
        b"hi",
    )
    assert (barrier.direction, barrier.opcode, barrier.final) == (Direction.SENT, Opcode.TEXT, True)
    assert barrier.offset - said.offset == 2 * SECOND


def test_bytes_without_frames_are_pieces_too() -> None:
    """A tunnel of another protocol is its bytes."""
    ask = b"GET /1.0/instances/c1/sftp HTTP/1.1\r\nUpgrade: sftp\r\n\r\n"
    says = b"HTTP/1.1 101 S\r\nUpgrade: sftp\r\n\r\n"
    _, (sftp,) = collected(">>", ask, "<<", says, ">>", b"abc", "||")
    (piece,) = sftp.pieces
    assert (piece.opcode, piece.payload.captured) == (None, b"abc")


def test_what_is_under_way_at_the_end() -> None:
    """Where the recording ends first, what has come of it is kept."""
    collector, none = collected(">>", GET)
    assert none == []
    (cut,) = collector.end(Moment(9 * SECOND, 0), "the recording ended")
    assert cut.transaction.broken == "the recording ended before the answer"


def test_nothing_is_no_recording() -> None:
    """An end without a beginning, and words about the tap itself, make no interaction."""
    assert list(Collector().end(Moment(0, 0), "x")) == []
    assert list(Collector().add(Said(Moment(1, 2), "odd"))) == []
