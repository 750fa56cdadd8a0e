"""SFTP sessions: what is asked decides, not its number nor its turn."""

from __future__ import annotations

import struct

import pytest

from lxdtap.replay import sftp
from lxdtap.replay.sftp import (
    DATA,
    INIT,
    OPEN,
    READ,
    STATUS,
    VERSION,
    WRITE,
    Packet,
    Played,
    Session,
)

STAT = 17
HANDLE = 102


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def opened(path: bytes, flags: int = 1) -> bytes:
    return string(path) + struct.pack(">II", flags, 0)


def part(handle: bytes, start: int, size: int) -> bytes:
    return string(handle) + struct.pack(">QI", start, size)


def ask(kind: int, number: int, content: bytes = b"") -> bytes:
    return Packet(kind, number, content).encode()


def one(data: bytes) -> Packet:
    (packet,) = sftp.Unpacker().feed(data)
    return packet


SESSION = Session(
    ask(INIT, 0, b"\0\0\0\3")
    + ask(STAT, 1, string(b"/x"))
    + ask(OPEN, 2, opened(b"/x"))
    + ask(STAT, 3, string(b"/x"))
    + ask(READ, 4, part(b"1", 0, 4))
    + ask(READ, 5, part(b"1", 4, 4))
    + ask(READ, 6, part(b"1", 9, 4))
    + ask(WRITE, 7, string(b"1") + b"data"),
    ask(VERSION, 0, b"\0\0\0\3")
    + sftp.status(2, "no such file")._replace(number=1).encode()
    + ask(HANDLE, 2, string(b"1"))
    + ask(105, 3, b"attributes")
    + ask(DATA, 5, string(b"4567"))  # not in the order in which they were asked
    + ask(DATA, 4, string(b"0123"))
    + ask(DATA, 6, string(b"lost"))
    + sftp.status(0, "")._replace(number=7).encode()
    + sftp.status(0, "nobody asked")._replace(number=99).encode(),
)


def test_a_session() -> None:
    """Each request is answered as it was, under the number that it has now."""
    played = Played([SESSION])
    assert one(played.feed(ask(INIT, 0, b"\0\0\0\3"))) == Packet(VERSION, 0, b"\0\0\0\3")
    assert one(played.feed(ask(OPEN, 70, opened(b"/x")))) == Packet(HANDLE, 70, string(b"1"))
    assert one(played.feed(ask(READ, 71, part(b"1", 4, 4)))) == Packet(DATA, 71, string(b"4567"))
    assert one(played.feed(ask(READ, 72, part(b"1", 0, 4)))) == Packet(DATA, 72, string(b"0123"))
    assert played.missed == []


def test_packets_in_pieces() -> None:
    """However the bytes come."""
    played = Played([SESSION])
    asked = ask(INIT, 0, b"\0\0\0\3") + ask(OPEN, 5, opened(b"/x"))
    said = b"".join(played.feed(asked[at : at + 1]) for at in range(len(asked)))
    assert [packet.kind for packet in sftp.Unpacker().feed(said)] == [VERSION, HANDLE]


def test_the_same_request_again() -> None:
    """It is answered as its next one was; the last answer stays."""
    played = Played([SESSION])
    kinds = [one(played.feed(ask(STAT, 1, string(b"/x")))).kind for _ in range(3)]
    assert kinds == [STATUS, 105, 105]


def test_what_differs_from_run_to_run() -> None:
    """Data, times and modes do not count: a file that is opened or written to is that file."""
    played = Played([SESSION])
    assert one(played.feed(ask(OPEN, 1, opened(b"/x", 26)))).kind == HANDLE
    assert one(played.feed(ask(WRITE, 2, string(b"1") + b"other"))).kind == STATUS
    assert played.missed == []


@pytest.mark.parametrize(
    ("start", "size", "said"),
    [(0, 2, b"01"), (2, 4, b"2345"), (6, 99, b"67"), (8, 4, None), (100, 4, None)],
)
def test_parts_that_were_not_read(start: int, size: int, said: bytes | None) -> None:
    """They are cut from those that were; beyond these the file ends."""
    answer = one(Played([SESSION]).feed(ask(READ, 1, part(b"1", start, size))))
    if said is None:
        assert answer.kind == STATUS
        assert answer.content[:4] == struct.pack(">I", sftp.END_OF_FILE)
    else:
        assert answer == Packet(DATA, 1, string(said))


def test_reads_are_cut_from_one_file() -> None:
    """The file is put together once."""
    played = Played([SESSION])
    for _ in range(2):
        assert one(played.feed(ask(READ, 1, part(b"1", 1, 1)))).content == string(b"1")


def test_another_session_knows() -> None:
    """What this session was not asked, another may have been."""
    assert (
        one(Played([Session(b"", b""), SESSION]).feed(ask(STAT, 1, string(b"/x")))).kind == STATUS
    )


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (ask(STAT, 1, string(b"/y")), "STAT /y"),
        (ask(200, 1, string(b"statvfs")), "200 statvfs"),
        (ask(READ, 1, part(b"9", 0, 1)), "READ 9"),
        (ask(STAT, 1, b""), "STAT "),
    ],
)
def test_a_miss(asked: bytes, name: str) -> None:
    """It fails, and says what nobody asked before."""
    played = Played([SESSION])
    answer = one(played.feed(asked))
    assert (answer.kind, answer.content[:4]) == (STATUS, struct.pack(">I", sftp.FAILURE))
    assert played.missed == [f"no recorded SFTP request is {name}"]


def test_a_malformed_read() -> None:
    """It asks for nothing, so there is none of it."""
    asked = ask(READ, 1, string(b"1"))
    assert one(Played([SESSION]).feed(asked)).kind == STATUS


@pytest.mark.parametrize("data", [b"\0\0\0\0\3", b"\xff\xff\xff\xff\3", b"GET / HTTP/1.1\r\n"])
def test_what_is_no_sftp(data: bytes) -> None:
    """It is refused."""
    with pytest.raises(ValueError, match="an SFTP packet of"):
        Played([SESSION]).feed(data)


def test_a_recording_that_cannot_be_read() -> None:
    """What is before the fault is known."""
    session = Session(ask(STAT, 1, string(b"/x")) + b"\xff" * 9, ask(105, 1, b"a") + b"\xff" * 9)
    assert one(Played([session]).feed(ask(STAT, 3, string(b"/x")))).kind == 105
