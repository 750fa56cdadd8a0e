"""SFTP sessions played again: each request is answered as the same one was, whatever its number.

Pure. Version 3 of the protocol (draft-ietf-secsh-filexfer-02), which pkg/sftp speaks for LXD and
Incus. Clients have several requests under way and number them as they go, so what is asked decides,
not when. Handles are the recorded ones: the client has them from the recorded answers.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

INIT, VERSION = 1, 2
OPEN, READ, WRITE, SETSTAT, FSETSTAT, MKDIR, EXTENDED = 3, 5, 6, 9, 10, 14, 200
STATUS, DATA = 101, 103
END_OF_FILE, FAILURE = 1, 4
LONGEST = 1 << 22
"""Bytes of a packet; pkg/sftp's are 32 KiB, and no more than 256."""

_NAMES = (  # noqa: SIM905 - a list literal of them is twenty lines
    "INIT VERSION OPEN CLOSE READ WRITE LSTAT FSTAT SETSTAT FSETSTAT OPENDIR READDIR"
    " REMOVE MKDIR RMDIR REALPATH STAT RENAME READLINK SYMLINK"
).split()
"""Of the kinds from 1 on."""
_LOOSE = frozenset({OPEN, WRITE, SETSTAT, FSETSTAT, MKDIR, EXTENDED})
"""Requests that are recognised by their file alone: the rest may be times, or was not kept."""


class Packet(NamedTuple):
    """A packet: its kind, its number (0 where it has none), and what follows."""

    kind: int
    number: int
    content: bytes

    @property
    def subject(self) -> bytes:
        """The first string in it: a path or a handle."""
        if len(self.content) < 4:
            return b""
        (size,) = struct.unpack_from(">I", self.content)
        return self.content[4 : 4 + size]

    def encode(self) -> bytes:
        """Its bytes."""
        number = b"" if self.kind in (INIT, VERSION) else struct.pack(">I", self.number)
        size = 1 + len(number) + len(self.content)
        return struct.pack(">IB", size, self.kind) + number + self.content


class Unpacker:
    """Bytes in, packets out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Take the next bytes; yield the packets they complete.

        Raises:
            ValueError: it is no SFTP.
        """
        self._buffer += data
        while len(self._buffer) >= 5:
            size, kind = struct.unpack_from(">IB", self._buffer)
            head = 5 if kind in (INIT, VERSION) else 9
            if not head - 4 <= size <= LONGEST:
                raise ValueError(f"an SFTP packet of {size} bytes")
            if len(self._buffer) < 4 + size:
                return
            number = struct.unpack_from(">I", self._buffer, 5)[0] if head == 9 else 0
            content = bytes(self._buffer[head : 4 + size])
            del self._buffer[: 4 + size]
            yield Packet(kind, number, content)


class Session:
    """A recorded session.

    Args:
        sent: all that its client said, or the beginning of it.
        received: all that it was told.
    """

    def __init__(self, sent: bytes, received: bytes) -> None:
        self.answers: dict[tuple[int, bytes], list[Packet]] = defaultdict(list)
        self.loose: dict[tuple[int, bytes], Packet] = {}
        self._parts: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
        self._files: dict[bytes, bytes] = {}
        due: dict[int, list[Packet]] = defaultdict(list)
        for packet in _packets(sent):
            due[packet.number].append(packet)
        for answer in _packets(received):
            if due[answer.number]:
                self._pair(due[answer.number].pop(0), answer)

    def _pair(self, asked: Packet, answer: Packet) -> None:
        self.answers[asked.kind, asked.content].append(answer)
        if asked.kind in _LOOSE:
            self.loose[asked.kind, asked.subject] = answer
        if asked.kind == READ and answer.kind == DATA:
            self._parts[asked.subject].append((_extent(asked)[0], answer.subject))

    def read(self, asked: Packet) -> Packet | None:
        """A part of a file of which other parts were read; clients read in parts as they like."""
        if asked.kind != READ or asked.subject not in self._parts:
            return None
        content = self._file(asked.subject)
        start, size = _extent(asked)
        data = content[start : start + size]
        if not data:
            return status(END_OF_FILE, "EOF")
        return Packet(DATA, 0, _string(data))

    def _file(self, handle: bytes) -> bytes:
        if handle not in self._files:
            content = bytearray()
            for start, data in sorted(self._parts[handle]):
                if start <= len(content):
                    content[start : start + len(data)] = data
            self._files[handle] = bytes(content)
        return self._files[handle]


def _packets(data: bytes) -> Iterator[Packet]:
    """The packets in a recording, as far as they can be read."""
    try:
        yield from Unpacker().feed(data)
    except ValueError:
        return


def _extent(asked: Packet) -> tuple[int, int]:
    """Offset and length of a READ."""
    at = 4 + len(asked.subject)
    if len(asked.content) < at + 12:
        return 0, 0
    start, size = struct.unpack_from(">QI", asked.content, at)
    return start, size


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def status(code: int, message: str) -> Packet:
    """A STATUS."""
    return Packet(STATUS, 0, struct.pack(">I", code) + _string(message.encode()) + _string(b""))


class Played:
    """A session that is being played.

    Args:
        sessions: the recorded one, and after it the others that may know what this one does not.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.missed: list[str] = []
        self._sessions = sessions
        self._unpacker = Unpacker()
        self._asked: dict[tuple[int, bytes], int] = defaultdict(int)

    def feed(self, data: bytes) -> bytes:
        """Take what the client says; what it is told.

        Raises:
            ValueError: it is no SFTP.
        """
        return b"".join(self._answer(packet).encode() for packet in self._unpacker.feed(data))

    def _answer(self, asked: Packet) -> Packet:
        found = self._exact(asked) or self._nearly(asked)
        if found is None:
            name = _NAMES[asked.kind - 1] if asked.kind <= len(_NAMES) else str(asked.kind)
            subject = asked.subject.decode("utf-8", "backslashreplace")
            text = f"no recorded SFTP request is {name} {subject}"
            self.missed.append(text)
            found = status(FAILURE, f"lxdtap: {text}")
        return found._replace(number=asked.number)

    def _exact(self, asked: Packet) -> Packet | None:
        """As the same request was answered: the second time as its second, and the last sticks."""
        wanted = asked.kind, asked.content
        for session in self._sessions:
            if answers := session.answers.get(wanted):
                turn = self._asked[wanted]
                self._asked[wanted] += 1
                return answers[min(turn, len(answers) - 1)]
        return None

    def _nearly(self, asked: Packet) -> Packet | None:
        for session in self._sessions:
            found = session.loose.get((asked.kind, asked.subject)) or session.read(asked)
            if found is not None:
                return found
        return None
