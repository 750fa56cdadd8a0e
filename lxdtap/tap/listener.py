"""lxdtap's own socket: put in its place whole, never more open than meant, and taken away again.

It is bound in a fresh directory that nobody else can enter, given its mode there, and then
linked to its name, which fails where the name exists. ``bind()`` in place would leave it open
to others for a moment, whatever the umask; asyncio's own server would also remove a live socket
that it finds there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Callable

from lxdtap.endpoint import LONGEST_PATH, SOCKET
from lxdtap.errors import ListenError
from lxdtap.transaction import Peer

_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 64
_PAUSE = 0.2
"""Seconds without accepting after the process or the machine ran out of file descriptors."""
_UCRED = struct.Struct("3i")

Serve = Callable[[socket.socket, Peer], object]


class Listener:
    """A listening unix socket that has its name; :meth:`close` takes both away."""

    def __init__(self, sock: socket.socket, path: str, made: str = "") -> None:
        self.path = path
        self._sock = sock
        self._identity = _identity(os.lstat(path))
        self._made = made  # a directory to remove with it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serve: Serve | None = None
        self._complain: Callable[[str], None] | None = None

    def start(
        self, loop: asyncio.AbstractEventLoop, serve: Serve, complain: Callable[[str], None]
    ) -> None:
        """Hand every client to ``serve``; trouble in accepting goes to ``complain``."""
        self._loop, self._serve, self._complain = loop, serve, complain
        self._sock.setblocking(False)
        loop.add_reader(self._sock.fileno(), self._ready)

    def is_at(self, path: str) -> bool:
        """Whether this very socket is what stands at ``path``."""
        with contextlib.suppress(OSError):
            return _identity(os.stat(path)) == self._identity
        return False

    def close(self) -> None:
        """Accept no more; remove the name if it is still ours."""
        if self._sock.fileno() < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
        with contextlib.suppress(OSError):
            if _identity(os.lstat(self.path)) == self._identity:
                os.unlink(self.path)
        self._sock.close()
        if self._made:
            with contextlib.suppress(OSError):
                os.rmdir(self._made)

    def _ready(self) -> None:
        assert self._serve is not None
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            self._serve(client, peer(client))

    def _cannot_accept(self, error: OSError) -> None:
        """Out of descriptors, mostly: rest a little, so as not to spin, and try again."""
        assert self._loop is not None
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self._loop.remove_reader(self._sock.fileno())
            self._loop.call_later(_PAUSE, self._resume)
        if self._complain is not None:
            reason = error.strerror or str(error)
            self._complain(f"cannot accept a client: {reason}; raise the limit (ulimit -n)")
            self._complain = None  # once is enough

    def _resume(self) -> None:
        if self._loop is not None and self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._ready)


def peer(sock: socket.socket) -> Peer:
    """Who is at the other end (unix(7), SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(raw))


def private(environ: dict[str, str]) -> Listener:
    """A socket that nobody else knows of, in a directory of its own.

    Raises:
        ListenError: it cannot be made.
    """
    parent = environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if not os.path.isdir(parent) or len(os.fsencode(parent)) > LONGEST_PATH - 40:
        parent = "/tmp"
    try:
        directory = tempfile.mkdtemp(prefix="lxdtap-", dir=parent)
    except OSError as error:
        text = f"cannot make a directory for lxdtap's socket in {parent}: {error.strerror}"
        raise ListenError(f"{text}; set XDG_RUNTIME_DIR to one where that is possible") from error
    return publish(f"{directory}/{SOCKET}", made=directory)


def stable_path(environ: dict[str, str], uid: int) -> str:
    """Where a sidecar listens unless told otherwise."""
    if uid == 0:
        return f"/run/lxdtap/{SOCKET}"
    runtime = environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise ListenError(
            "no place for lxdtap's socket: XDG_RUNTIME_DIR is not set; name one with --listen PATH"
        )
    return f"{runtime}/lxdtap/{SOCKET}"


def listen_path(text: str) -> str:
    """The socket's path for ``--listen``: clients want it to be called ``unix.socket``.

    Raises:
        ListenError: it is neither a directory nor a path that ends so.
    """
    if os.path.basename(text) == SOCKET:
        return os.path.abspath(text)
    if os.path.isdir(text) or text.endswith("/"):
        return os.path.join(os.path.abspath(text), SOCKET)
    raise ListenError(
        f"cannot listen at {text}: it is not a directory, and does not end in /{SOCKET},"
        f" which clients look for; try --listen {text}/{SOCKET}"
    )


def publish(path: str, *, made: str = "") -> Listener:
    """Listen at ``path``, for this user (and root) alone.

    A stale socket there is replaced; a live one, and anything else, is left alone. A missing
    directory is made, one level of it.

    Raises:
        ListenError: the name is taken, too long, or cannot be made.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ListenError(
            f"cannot listen at {path}: a unix socket's path has at most {LONGEST_PATH} bytes,"
            f" this one has {len(os.fsencode(path))}; name a shorter one with --listen"
        )
    directory = os.path.dirname(path)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        _check_directory(directory)
        sock = _bound(directory, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenError(
            f"cannot listen at {path}: {reason}; name another place with --listen"
        ) from error
    return Listener(sock, path, made)


def _check_directory(directory: str) -> None:
    """Whoever can replace the name can pose as the daemon to our clients."""
    status = os.stat(directory)
    others = stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    sticky = status.st_mode & stat.S_ISVTX
    if (others and not sticky) or status.st_uid not in (0, os.geteuid()):
        raise ListenError(
            f"cannot listen in {directory}: others may write there, and could take lxdtap's place;"
            " name a directory of your own with --listen"
        )


def _bound(directory: str, path: str) -> socket.socket:
    nest = tempfile.mkdtemp(prefix=".lxdtap-", dir=directory)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By the directory's descriptor: the nest's own path might be too long for a socket.
        nest_fd = os.open(nest, os.O_PATH | os.O_DIRECTORY)
        try:
            name = f"/proc/self/fd/{nest_fd}/s"
            sock.bind(name)
            os.chmod(name, 0o600)
        finally:
            os.close(nest_fd)
        sock.listen(_BACKLOG)
        _link(f"{nest}/s", path)
    except BaseException:
        sock.close()
        raise
    finally:
        shutil.rmtree(nest, ignore_errors=True)
    return sock


def _link(source: str, path: str) -> None:
    try:
        os.link(source, path)
    except FileExistsError:
        _remove_stale(path)
        os.link(source, path)


def _remove_stale(path: str) -> None:
    status = os.lstat(path)
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(
            f"cannot listen at {path}: there is something that is not a socket, which lxdtap"
            " leaves alone; move it away, or name another place with --listen"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refusal = probe.connect_ex(path)
    if refusal != errno.ECONNREFUSED:
        raise ListenError(
            f"cannot listen at {path}: somebody does already, another lxdtap or the daemon itself;"
            " end it, or name another place with --listen"
        )
    if _identity(os.lstat(path)) == _identity(status):
        os.unlink(path)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
