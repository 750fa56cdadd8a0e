"""The spool: events in a file as they come, so that no more than the last is ever lost.

A line that says what it is, then records: length and CRC-32, four bytes each, little-endian, then
a block of events (see :mod:`lxdtap.wire.records`). What is written is written whole or not at all:
where the disk fails, the file is cut back to its last record. It needs no end; a reader stops at
the first record that is not right, and what is before that is intact.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lxdtap.errors import SpoolError
from lxdtap.wire.events import Event
from lxdtap.wire.records import UnreadableRecordError, decode

try:
    from isal.isal_zlib import crc32
except ImportError:  # it is not made for every processor
    from zlib import crc32

MAGIC = b"lxdtap spool 1\n"
LONGEST = 32 << 20
"""Bytes of a record: more than the longest block there is."""
HEAD = struct.Struct("<II")
"""Of a record: its length in bytes, and its CRC-32."""
CUT = "it ends within a record"
"""The damage of a spool whose last record is not whole."""
_READ = 1 << 20
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""No link is followed, and no FIFO's other end waited for."""


class Spool:
    """A spool that is being written; it is locked (flock(2)) as long as it is.

    Args:
        path: where; nothing may be there yet.

    Raises:
        SpoolError: something is, or it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o600)
            os.fchmod(self._file, 0o600)  # the umask may have taken even more away
        except FileExistsError as error:
            raise SpoolError(
                f"there is a recording under way, or one that was interrupted, at {path}: end it,"
                f" or save it by `lxdtap recover {path}`"
            ) from error
        except OSError as error:
            raise SpoolError(
                f"cannot record to {path}: {error.strerror}; name another place with -w"
            ) from error
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._size = 0
        self._write(MAGIC)

    @property
    def size(self) -> int:
        """Bytes that it has, all of them whole records."""
        return self._size

    @property
    def empty(self) -> bool:
        """Whether it has no record."""
        return self._size == len(MAGIC)

    def add(self, block: bytes | memoryview) -> None:
        """Write events after the others, in one record.

        Raises:
            OSError: the disk failed; none of these was kept, the file is as it was before.
        """
        self._write(HEAD.pack(len(block), crc32(block)), block)

    def close(self, *, remove: bool) -> None:
        """Give it up; what it holds stays on the disk unless it is to be removed."""
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        os.close(self._file)

    def _write(self, *parts: bytes | memoryview) -> None:
        try:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += sum(map(len, parts))


@dataclass(slots=True)
class Reading:
    """What a spool holds; ``damage`` says where and why it ended early, once it has been read.

    Attributes:
        damage: empty while all is well.
        offset: bytes read and found right.
        size: of the file.
    """

    size: int
    damage: str = ""
    offset: int = 0


def read(path: str | int, reading: Reading, until: int | None = None) -> Iterator[Event]:
    """The events of a spool, as far as they are intact; see :func:`blocks`."""
    for block in blocks(path, reading, until):
        yield from block


def blocks(path: str | int, reading: Reading, until: int | None = None) -> Iterator[list[Event]]:
    """The events of a spool, as far as they are intact, a record's at a time.

    Args:
        path: of the spool.
        reading: is told how far it is, and of damage.
        until: bytes of it to look at, the end of a record; None: all.

    Raises:
        SpoolError: there is no spool at ``path``.
    """
    try:
        file = open(path, "rb", buffering=_READ, opener=_no_link)  # noqa: SIM115 - closed below
    except OSError as error:
        raise SpoolError(f"cannot read the spool {path}: {error.strerror}") from error
    with file:
        reading.size = os.fstat(file.fileno()).st_size if until is None else until
        if file.read(len(MAGIC)) != MAGIC:
            raise SpoolError(f"{path} is not a spool of lxdtap's; name the FILE.spool of a -w FILE")
        reading.offset = len(MAGIC)
        while reading.offset < reading.size and (head := file.read(HEAD.size)):
            if len(head) < HEAD.size:
                reading.damage = CUT
                return
            length, checksum = HEAD.unpack(head)
            record = file.read(length) if length <= LONGEST else b""
            reading.damage = _flaw(record, length, checksum)
            if reading.damage:
                return
            try:
                events = decode(record)
            except UnreadableRecordError as error:
                reading.damage = str(error)
                return
            reading.offset += len(head) + length
            yield events


def _flaw(record: bytes, length: int, checksum: int) -> str:
    if length > LONGEST:
        return "a record that is longer than any"
    if len(record) < length:
        return CUT
    return "" if crc32(record) == checksum else "a record whose checksum is wrong"


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | _PLAIN)


def busy(path: str) -> bool:
    """Whether somebody is writing this spool."""
    try:
        number = os.open(path, os.O_RDONLY | _PLAIN)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
