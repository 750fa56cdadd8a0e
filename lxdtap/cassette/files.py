"""Cassettes as files: whole, or not there at all; never in another's place unless that was asked.

A cassette is written under a name of its own, made durable, and only then put in its place. What
does not stand in its text lies beside it, in ``NAME.files``, under its SHA-256.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from lxdtap.cassette import reading
from lxdtap.cassette.model import REPLAYABLE, Cassette, CassetteError, Interaction, Server
from lxdtap.cassette.writing import Writer
from lxdtap.transaction import Body

_CHUNK = 256 << 10
_ATTACHED = re.compile(rb"""\bfile: ["']?([0-9a-f]{64})\b""")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def beside(path: str) -> str:
    """The directory of what lies beside the cassette at ``path``."""
    stem, suffix = os.path.splitext(path)
    return f"{stem if suffix in ('.yaml', '.yml') else path}.files"


def load(path: str, *, attachments: bool = True) -> Cassette:
    """Read the cassette at ``path``.

    Args:
        path: of the cassette.
        attachments: whether to read what lies beside it too; else such bodies are known by their
            size and hash alone.

    Raises:
        CassetteError: there is none, or it is damaged.
    """
    try:
        with contextlib.closing(_chunks(path)) as chunks:
            return reading.read(chunks, _Attachments(beside(path)) if attachments else None)
    except OSError as error:
        raise CassetteError(f"cassette {path} cannot be read: {error.strerror}") from error
    except CassetteError as error:
        raise CassetteError(f"{path}, {error}") from None


def save(cassette: Cassette, path: str, *, overwrite: bool = False) -> None:
    """Write a cassette to ``path``.

    Args:
        cassette: what to write.
        path: where to; its directory must be there.
        overwrite: whether what is there may be replaced.

    Raises:
        CassetteError: there is one already, or it cannot be written; nothing has changed then.
    """
    head = cassette.server, cassette.recorded_with, cassette.recorded_at
    with Saving(path, *head, overwrite=overwrite) as saving:
        saving.complete = cassette.complete
        for interaction in cassette.interactions:
            saving.add(interaction)


class Saving:
    """Writes a cassette, one interaction after the other; leaving its context puts it in place.

    Args:
        path: where to.
        server: who was recorded.
        recorded_with: the program that did.
        recorded_at: Unix time of its beginning, in nanoseconds.
        overwrite: whether what is there may be replaced.

    Attributes:
        complete: whether nothing that passed is missing.

    Raises:
        CassetteError: there is one already, or it cannot be written; nothing has changed then.
    """

    def __init__(
        self,
        path: str,
        server: Server,
        recorded_with: str = "",
        recorded_at: int = 0,
        *,
        overwrite: bool = False,
    ) -> None:
        self.complete = True
        self._path = path
        self._overwrite = overwrite
        self._placed = False
        self._shelf = _Shelf(beside(path))
        self._writer = Writer(self._attach)
        self._buffer = bytearray(self._writer.begin(server, recorded_with, recorded_at).encode())
        with self._explained():
            _may_take(path, overwrite=overwrite)
            directory, name = os.path.split(path)
            self._directory = directory or "."
            self._fd, self._draft = tempfile.mkstemp(".part", f".{name}.", self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with self._explained():
                    self._finish()
        finally:
            self._close()

    def add(self, interaction: Interaction) -> None:
        """Write the next interaction."""
        with self._explained():
            self._write(self._writer.interaction(interaction))

    def _write(self, text: str) -> None:
        self._buffer += text.encode()
        if len(self._buffer) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        _write_all(self._fd, self._buffer)
        self._buffer.clear()

    def _attach(self, body: Body) -> None:
        self._shelf.put(body)

    def _finish(self) -> None:
        self._write(self._writer.end(complete=self.complete))
        self._flush()
        os.fsync(self._fd)
        self._shelf.settle()
        _may_take(self._path, overwrite=self._overwrite)
        if self._overwrite:
            self._shelf.obsolete = _attached(self._path)
            os.replace(self._draft, self._path)
        else:
            _publish(self._draft, self._path)
        self._placed = True
        _sync_directory(self._directory)

    def _close(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):  # a rename took it
            os.unlink(self._draft)
        if not self._placed:
            self._shelf.undo()
        elif self._overwrite:
            self._shelf.tidy()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise CassetteError(_taken(self._path)) from None
        except OSError as error:
            raise CassetteError(
                f"cassette {self._path} cannot be written: {error.strerror}: name another place,"
                " or make room for it there"
            ) from error


class _Shelf:
    """What lies beside a cassette that is being written."""

    def __init__(self, path: str) -> None:
        self.obsolete: set[str] = set()
        """What another cassette needed that is to be replaced."""
        self._path = path
        self._put: set[str] = set()
        self._new: list[str] = []  # what was not there before
        self._made = False

    def put(self, body: Body) -> None:
        """Keep a body under its hash; its name tells whether it is there already."""
        name = body.sha256
        if name in self._put:
            return
        with self._directory() as directory:
            if not _holds(directory, name):
                self._add(directory, name, body.captured)
        self._put.add(name)

    def _add(self, directory: int, name: str, data: bytes) -> None:
        draft = f".{name}.part"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)
        fd = os.open(draft, _NEW, 0o600, dir_fd=directory)
        try:
            os.fchmod(fd, 0o600)  # whatever the umask
            _write_all(fd, data)
            os.fsync(fd)
            os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(draft, dir_fd=directory)
            raise
        finally:
            os.close(fd)
        self._new.append(name)

    def settle(self) -> None:
        """Have it survive a loss of power."""
        if self._put:
            _sync_directory(self._path)

    def undo(self) -> None:
        """Take away what was put here."""
        if not self._new and not self._made:
            return
        with self._directory() as directory:
            for name in self._new:
                os.unlink(name, dir_fd=directory)
        if self._made:
            with contextlib.suppress(OSError):  # others put something there
                os.rmdir(self._path)

    def tidy(self) -> None:
        """Take away what belonged to the cassette that was replaced: no more than that."""
        with contextlib.suppress(OSError):
            directory = os.open(self._path, _DIRECTORY)
            try:
                for name in self.obsolete - self._put:
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=directory)
            finally:
                os.close(directory)
            os.rmdir(self._path)  # fails unless it is empty

    @contextlib.contextmanager
    def _directory(self) -> Iterator[int]:
        try:
            os.mkdir(self._path, 0o700)
            self._made = True
        except FileExistsError:
            pass
        directory = os.open(self._path, _DIRECTORY)
        try:
            yield directory
        finally:
            os.close(directory)


class _Attachments:
    """What lies beside a cassette that is being read."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, sha256: str) -> bytes:
        """The bytes under this hash; whether they are the right ones, the reader sees.

        Raises:
            LookupError: there are none.
        """
        try:
            fd = os.open(f"{self._path}/{sha256}", _FILE)
        except FileNotFoundError:
            raise LookupError(sha256) from None
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > REPLAYABLE:
                raise LookupError(sha256)
            return file.read(REPLAYABLE)


def _chunks(path: str) -> Generator[bytes, None, None]:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _may_take(path: str, *, overwrite: bool) -> None:
    """See whether a cassette may come to be at ``path``.

    Raises:
        CassetteError: something is there that is to be left alone.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not overwrite:
        raise CassetteError(_taken(path))
    if not stat.S_ISREG(mode):
        raise CassetteError(f"{path} is not a file, and left alone: name another")


def _attached(path: str) -> set[str]:
    """The names of what a cassette says lies beside it, be it whole or not."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        lines = iter(lambda: file.readline(_CHUNK), b"")
        return {match[1].decode() for line in lines for match in _ATTACHED.finditer(line)}
    return set()


def _publish(draft: str, path: str) -> None:
    """Put a file in its place, if there is nothing.

    Raises:
        FileExistsError: there is.
    """
    try:
        # Unlike a rename, a link is never made where there is something.
        os.link(draft, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        # A file system without links. What is renamed over is then an empty file of our own.
        os.close(os.open(path, _NEW, 0o600))
        os.replace(draft, path)


def _taken(path: str) -> str:
    return f"there is something at {path}, which is left alone: name another, or allow overwriting"


def _holds(directory: int, name: str) -> bool:
    """Whether the bytes of this hash are there already."""
    try:
        fd = os.open(name, _FILE, dir_fd=directory)
    except OSError:
        return False
    with open(fd, "rb") as file:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return regular and hashlib.file_digest(file, "sha256").hexdigest() == name


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    view.release()


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
