"""What is recorded of a body: all of it, or its beginning, its size and its hash."""

from __future__ import annotations

import hashlib

from lxdtap.record.trim import LIMITS, Trimmer
from lxdtap.transaction import Body, Direction, Frame, Moment, Opcode
from lxdtap.wire.events import Closed, Data, Digest, FrameData, MessageEnd, Said, Skipped, Switched

SENT, RECEIVED = Direction.SENT, Direction.RECEIVED
AT = Moment(1, 2)


def trimmer() -> Trimmer:
    return Trimmer({SENT: 4, RECEIVED: 8})


def data(text: bytes, direction: Direction = SENT, exchange: int = 0) -> Data:
    return Data(1, exchange, AT, direction, text)


def frame(text: bytes, opcode: Opcode = Opcode.BINARY) -> FrameData:
    return FrameData(1, 0, AT, RECEIVED, Frame(opcode, Body(len(text), text)))


def test_what_fits_is_kept() -> None:
    """Bytes up to the limit pass, whatever pieces they come in, and the end says nothing more."""
    here, end = trimmer(), MessageEnd(1, 0, AT, SENT)
    for event in (data(b"ab"), data(b"cd"), data(b"12345678", RECEIVED), end):
        assert here.add(event) == [event]


def test_what_is_beyond_is_counted_and_hashed() -> None:
    """From the first piece that does not fit on, they are counted; the end has the whole hash."""
    here, end = trimmer(), MessageEnd(1, 0, AT, SENT)
    assert here.add(data(b"abc")) == [data(b"abc")]
    assert here.add(data(b"de")) == [Skipped(1, 0, AT, SENT, 2)]
    assert here.add(data(b"f")) == [Skipped(1, 0, AT, SENT, 1)]
    assert here.add(end) == [Digest(1, 0, AT, SENT, hashlib.sha256(b"abcdef").hexdigest()), end]


def test_each_body_has_its_own_limit() -> None:
    """Neither the other direction nor another exchange nor another connection counts."""
    here = trimmer()
    others = (data(b"abcd"), data(b"abcd", RECEIVED), data(b"abcd", exchange=1))
    for event in (*others, data(b"abcd", exchange=2)._replace(connection=2)):
        assert here.add(event) == [event]


def test_a_tunnel_may_be_as_long_either_way() -> None:
    """What is sent on an upgraded connection is needed to play it again."""
    here = trimmer()
    switched = Switched(1, 0, AT, "sftp")
    assert here.add(switched) == [switched]
    assert here.add(data(b"12345678")) == [data(b"12345678")]
    assert here.add(data(b"9")) == [Skipped(1, 0, AT, SENT, 1)]


def test_frames_beyond_are_described() -> None:
    """A frame stays, without its payload; control frames always stay."""
    here = trimmer()
    here.add(Switched(1, 0, AT, "websocket"))
    whole, ping = frame(b"12345678"), frame(b"ping", Opcode.PING)
    assert here.add(whole) == [whole]
    (described,) = here.add(frame(b"9"))
    payload = Body(1, b"", hashlib.sha256(b"9").hexdigest())
    assert described == FrameData(1, 0, AT, RECEIVED, Frame(Opcode.BINARY, payload))
    assert here.add(ping) == [ping]


def test_a_connection_that_closed_is_forgotten() -> None:
    """Another one of the same number begins anew."""
    here, closed = trimmer(), Closed(1, AT, "gone")
    here.add(Switched(1, 0, AT, "sftp"))
    here.add(data(b"1234567"))
    assert here.add(closed) == [closed]
    assert here.add(data(b"12345")) == [Skipped(1, 0, AT, SENT, 5)]


def test_what_broke_off_has_the_hash_of_what_came() -> None:
    """Of each body that was not kept whole; those that were need none."""
    here, closed = trimmer(), Closed(1, AT, "gone")
    here.add(data(b"abc", exchange=1))
    here.add(data(b"abc"))
    here.add(data(b"de"))
    assert here.add(closed) == [
        Digest(1, 0, AT, SENT, hashlib.sha256(b"abcde").hexdigest()),
        closed,
    ]
    assert here.add(closed) == [closed]


def test_all_else_passes() -> None:
    """What is no payload is recorded as it is."""
    said = Said(AT, "odd")
    assert trimmer().add(said) == [said]


def test_the_limits_are_those_of_a_cassette() -> None:
    """4 MiB of what is sent, 64 MiB of what is answered."""
    assert LIMITS == {SENT: 4 << 20, RECEIVED: 64 << 20}
