"""lxdtap's own socket: put in its place whole, never more open than meant, and taken away again.

It is bound in a fresh directory that nobody else can enter, given its group and mode there, and
then linked to its name, which fails where the name exists. ``bind()`` in place would leave it open
to others for a moment, whatever the umask; asyncio's own server would also remove a live socket
that it finds there.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import grp
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
_UCRED = struct.Struct("iII")
_SO_PEERGROUPS = 59  # socket(7); Python's module has no name for it
_LONGEST_OPTION = 1024  # what Python's getsockopt() takes
_NO_ID = 0xFFFFFFFF  # chown(2): "-1" leaves a group as it is

Serve = Callable[[socket.socket, Peer], object]


class Listener:
    """A listening unix socket that has its name; :meth:`close` takes both away.

    Of one that was handed over, the name stays with whoever made it.
    """

    def __init__(
        self, sock: socket.socket, path: str, made: str = "", *, handed_over: bool = False
    ) -> None:
        self.path = path
        self._sock = sock
        self._identity = _identity(os.lstat(path))
        self._made = made  # a directory to remove with it
        self._handed_over = handed_over
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
            if not self._handed_over and _identity(os.lstat(self.path)) == self._identity:
                os.unlink(self.path)
        self._sock.close()
        if self._made:
            with contextlib.suppress(OSError):
                os.rmdir(self._made)

    def _ready(self) -> None:
        """Take clients. Each has a descriptor kept for its way to the daemon: else it can wait."""
        assert self._serve is not None
        taken: list[tuple[socket.socket, int]] = []
        try:
            while len(taken) < _ACCEPTED_AT_ONCE:
                taken.append(self._accept())
        except BlockingIOError:
            pass
        except OSError as error:
            self._cannot_accept(error)
        for client, kept in taken:
            os.close(kept)
            self._serve(client, peer(client))

    def _accept(self) -> tuple[socket.socket, int]:
        """A client, and a descriptor that nobody else has meanwhile."""
        kept = os.dup(self._sock.fileno())
        try:
            return self._sock.accept()[0], kept
        except BaseException:
            os.close(kept)
            raise

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
    """Who is at the other end, as of its connect() (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Peer(pid, uid, gid, _groups(sock))


def _groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LONGEST_OPTION)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raw = _many_groups(sock)
    return tuple(array.array("I", raw))


def _many_groups(sock: socket.socket) -> bytes:
    """More than Python's own ``getsockopt()`` has room for."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    raw = ctypes.create_string_buffer(4 * os.sysconf("SC_NGROUPS_MAX"))
    size = ctypes.c_uint32(len(raw))
    if libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, raw, ctypes.byref(size)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return raw.raw[: size.value]


def group_id(text: str) -> int:
    """The group for ``--group``, by its name or number; a tap that runs as root may serve one.

    Raises:
        ListenError: there is no such group, or we are not root.
    """
    if os.geteuid() != 0:
        raise ListenError(
            f"cannot serve group {text}: without root, all of it would reach the daemon as you;"
            " use sudo, or leave --group out"
        )
    with contextlib.suppress(KeyError, UnicodeError, ValueError):
        return grp.getgrnam(text).gr_gid
    if text.isascii() and text.isdigit() and int(text) < _NO_ID:
        return int(text)
    raise ListenError(f"no group {text!r} here: `getent group` lists them; a gid will do too")


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def private(environ: dict[str, str], group: int | None = None) -> Listener:
    """A socket that nobody else knows of, in a directory of its own; ``group`` may enter.

    Raises:
        ListenError: it cannot be made.
    """
    runtime = environ.get("XDG_RUNTIME_DIR") if group is None else None  # its user's alone
    parent = runtime or tempfile.gettempdir()
    if not os.path.isdir(parent) or len(os.fsencode(parent)) > LONGEST_PATH - 40:
        parent = "/tmp"
    try:
        directory = tempfile.mkdtemp(prefix="lxdtap-", dir=parent)
    except OSError as error:
        text = f"cannot make a directory for lxdtap's socket in {parent}: {error.strerror}"
        raise ListenError(f"{text}; set XDG_RUNTIME_DIR to one where that is possible") from error
    return _publish(f"{directory}/{SOCKET}", group, made=True)


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


def publish(path: str, *, group: int | None = None) -> Listener:
    """Listen at ``path``, for this user (and root) alone, or for ``group`` too.

    A stale socket there is replaced; a live one, and anything else, is left alone. A missing
    directory is made, one level of it, and removed in the end; one that exists is not changed.

    Raises:
        ListenError: the name is taken, too long, cannot be made, or not be reached by the group.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ListenError(
            f"cannot listen at {path}: a unix socket's path has at most {LONGEST_PATH} bytes,"
            f" this one has {len(os.fsencode(path))}; name a shorter one with --listen"
        )
    try:
        os.mkdir(os.path.dirname(path), 0o700)
    except FileExistsError:
        return _publish(path, group, made=False)
    except OSError as error:
        raise _cannot_listen(path, error) from error
    return _publish(path, group, made=True)


def _publish(path: str, group: int | None, *, made: bool) -> Listener:
    directory = os.path.dirname(path)
    try:
        if made and group is not None:
            _admit(directory, group)
        _check_directory(directory)
        if group is not None:
            _check_way(directory, group)
        sock = _bound(directory, path, group)
    except BaseException as error:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if isinstance(error, OSError):
            raise _cannot_listen(path, error) from error
        raise
    return Listener(sock, path, directory if made else "")


def _cannot_listen(path: str, error: OSError) -> ListenError:
    reason = error.strerror or str(error)
    return ListenError(f"cannot listen at {path}: {reason}; name another place with --listen")


def _admit(directory: str, group: int) -> None:
    """Let a group enter a directory of ours that is fresh and 0700."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _drop_acl(number)
        os.fchown(number, -1, group)
        os.fchmod(number, 0o750)
    finally:
        os.close(number)


def _drop_acl(target: str | int) -> None:
    """Undo what a parent's default ACL gave (acl(5)): a mode for the group makes that count."""
    for name in os.listxattr(target):
        if name.startswith("system.posix_acl_"):
            os.removexattr(target, name)


def _check_way(directory: str, group: int) -> None:
    """A group that cannot get to the socket is not served."""
    real = os.path.realpath(directory)
    ways = [real]
    while ways[-1] != "/":
        ways.append(os.path.dirname(ways[-1]))
    for way in ways:
        status = os.stat(way)
        needed = stat.S_IXGRP if status.st_gid == group else stat.S_IXOTH
        if not status.st_mode & needed:
            raise ListenError(
                f"cannot serve group {_group_name(group)} in {directory}: it may not enter {way},"
                " which lxdtap leaves as it is; let it (chgrp, chmod g+x), or name another place"
                " with --listen"
            )


def handed_over(number: int, *, as_callers: bool) -> Listener:
    """Listen on a socket that the service manager made, listening already; its mode is as made.

    Args:
        number: its descriptor.
        as_callers: whether the daemon is connected to as each caller; else nobody but us is served.

    Raises:
        ListenError: it is no listening unix stream socket with a name that clients look for, or
            it is open to others who would be taken for us.
    """
    sock = None
    try:
        sock = socket.socket(fileno=number)
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise OSError("it is not a unix stream socket (ListenStream=/...)")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it does not listen (Accept= is to be no)")
        path = sock.getsockname()
        if not isinstance(path, str) or os.path.basename(path) != SOCKET:
            raise OSError(f"its name {path!r} does not end in /{SOCKET}, which clients look for")
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not as_callers:
            raise OSError(f"with mode {mode:04o} others could use it, and act as you (SocketMode=)")
        return Listener(sock, path, handed_over=True)
    except OSError as error:
        if sock is not None:
            sock.close()
        reason = error.strerror or str(error)
        raise ListenError(
            f"cannot listen on the socket that was handed over (descriptor {number}): {reason};"
            " mend its .socket unit, and restart that"
        ) from error


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


def _bound(directory: str, path: str, group: int | None) -> socket.socket:
    nest = tempfile.mkdtemp(prefix=".lxdtap-", dir=directory)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By the directory's descriptor: the nest's own path might be too long for a socket.
        nest_fd = os.open(nest, os.O_PATH | os.O_DIRECTORY)
        try:
            name = f"/proc/self/fd/{nest_fd}/s"
            sock.bind(name)
            os.chmod(name, 0o600)
            if group is not None:
                _drop_acl(name)
                os.chown(name, -1, group)
                os.chmod(name, 0o660)
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
