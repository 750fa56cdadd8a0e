"""Connecting as each caller: so that the daemon knows and admits them as without the tap.

LXD trusts whoever can connect, and names the requester by SO_PEERCRED (lxd/daemon.go,
Authenticate). So a tap that runs as root and serves others has to be each of them while it
connects. What a process may do is libc's to change in all of its threads at once; therefore a
process with a single thread is forked for it at the start. It becomes the caller, connects, is
root again, and hands the connected socket over (unix(7), SCM_RIGHTS).

Only the *effective* ids and the supplementary groups are taken on: they are what the kernel
checks and what SO_PEERCRED and SO_PEERGROUPS tell. The real and saved ids stay root's, which
keeps the caller from sending the process signals or tracing it meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import signal
import socket
import struct
from collections.abc import Iterator
from typing import NoReturn

from lxdtap.errors import UpstreamError
from lxdtap.transaction import Peer

AT_ONCE = 8
"""Connections that are asked for at once; below net.unix.max_dgram_qlen, which is 10."""
_REQUEST = struct.Struct("=QIII")  # number, uid, gid, count of groups; then these, then the path
_ANSWER = struct.Struct("=QBi")  # number, what failed, errno; the socket beside it if nothing
_FD = struct.Struct("i")
_LONGEST = 1 << 19  # bytes of a request: 65,536 groups (NGROUPS_MAX) and a path, and room
_NOBODY = 0xFFFFFFFF  # setresuid(2): "-1" leaves an id as it is, which would be root's
_DONE, _CONNECT, _BECOME = range(3)
_OVERFLOW = 65534  # user_namespaces(7): an id that stands for nobody in particular
_GONE = (
    "the process of lxdtap's that connects for others than root has ended: only root is served"
    " now; restart lxdtap"
)


def dial(path: str | bytes) -> socket.socket:
    """Connect to a unix socket, without waiting; what comes of it does not block either.

    It has no name: a client with one is not trusted by LXD (lxd/daemon.go, Authenticate).

    Raises:
        BlockingIOError: it has no room for now (unix(7), EAGAIN: its backlog is full).
        OSError: nothing answers there, or we may not connect.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


class Connector:
    """Connects as others. For a tap that runs as root; make it before there are threads.

    Raises:
        UpstreamError: its process cannot be started.
    """

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = _fork()
        if self.pid == 0:
            _work(theirs)
        theirs.close()
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[socket.socket]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone = False

    async def connect(self, path: str, peer: Peer) -> socket.socket:
        """What :func:`dial` gives to ``peer``.

        Raises:
            OSError: as ``dial`` does for ``peer``.
            UpstreamError: nobody can connect as ``peer``.
        """
        async with self._turns:
            answer = self._ask(path, peer)
            try:
                return await answer
            except asyncio.CancelledError:
                if answer.done() and not answer.cancelled() and answer.exception() is None:
                    answer.result().close()
                raise

    def close(self) -> None:
        """End its process; what is connected stays so."""
        if self._sock.fileno() < 0:
            return
        self._lose()
        self._sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # it may be stopped, and has nothing to finish
        os.waitpid(self.pid, 0)

    # -- asking

    def _ask(self, path: str, peer: Peer) -> asyncio.Future[socket.socket]:
        if self._gone:
            raise UpstreamError(_GONE)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._sock.fileno(), self._heard)
        number = next(self._numbers)
        try:
            self._sock.send(request(number, path, peer))
        except ConnectionError as error:
            self._lose()
            raise UpstreamError(_GONE) from error
        answer = self._loop.create_future()
        self._asked[number] = answer
        return answer

    def _heard(self) -> None:
        try:
            data, rights, _flags, _address = self._sock.recvmsg(
                _ANSWER.size, socket.CMSG_SPACE(_FD.size), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, rights = b"", []
        if len(data) != _ANSWER.size:
            self._lose()
            return
        number, failed, code = _ANSWER.unpack(data)
        sock = _received(rights)
        answer = self._asked.pop(number)
        if answer.done():  # cancelled: its client has left
            if sock is not None:
                sock.close()
        elif sock is not None:
            answer.set_result(sock)
        else:
            answer.set_exception(_refused(failed, code))

    def _lose(self) -> None:
        """Its process is gone, or about to be: nobody is to wait for it."""
        self._gone = True
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(UpstreamError(_GONE))
        self._asked.clear()


def _received(rights: list[tuple[int, int, bytes]]) -> socket.socket | None:
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) >= _FD.size:
            sock = socket.socket(fileno=_FD.unpack_from(data)[0])
            sock.setblocking(False)
            return sock
    return None


def _refused(failed: int, code: int) -> Exception:
    """What it means that a step failed so; none did where the socket found no room with us."""
    if failed == _BECOME:
        return UpstreamError(
            f"cannot connect as the caller: {os.strerror(code)}; lxdtap needs CAP_SETUID and"
            " CAP_SETGID to serve others than root"
        )
    code = code if failed == _CONNECT else errno.EMFILE
    return OSError(code, os.strerror(code))


# -- what is said to the process


def request(number: int, path: str, peer: Peer) -> bytes:
    """A request to connect to ``path`` as ``peer``."""
    head = _REQUEST.pack(number, peer.uid, peer.gid, len(peer.groups))
    return head + struct.pack(f"={len(peer.groups)}I", *peer.groups) + os.fsencode(path)


def requested(data: memoryview) -> tuple[int, bytes, Peer]:
    """The number, the path and the peer of what :func:`request` made."""
    number, uid, gid, count = _REQUEST.unpack_from(data)
    groups = struct.unpack_from(f"={count}I", data, _REQUEST.size)
    path = bytes(data[_REQUEST.size + 4 * count :])
    return number, path, Peer(0, uid, gid, groups)


# -- the process


def _fork() -> int:
    """Fork; in the child all signals stay blocked.

    Those for the whole group are no business of its: it ends when the tap has, not before.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
    except OSError as error:
        text = f"cannot start the process that connects for others: {error.strerror}"
        raise UpstreamError(f"{text}; raise the limit (ulimit -u)") from error
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _work(sock: socket.socket) -> None:
    """Connect as asked until the tap's end is closed; never returns."""
    try:
        _keep_only(sock.fileno())
        os.setresuid(0, 0, 0)
        groups = os.getgroups()
        if _stays_mighty(groups):
            _give_up("cannot lay down root's capabilities (securebits)")
        _serve(sock, groups)
    except ConnectionError:
        pass  # the tap was killed: there is nobody to answer
    except BaseException as error:  # noqa: BLE001 - there is nobody above us
        _give_up(f"a fault of lxdtap's, please report it: {error!r}")
    finally:
        os._exit(0)


def _give_up(why: str) -> NoReturn:
    """Rather be gone than serve one as another."""
    with contextlib.suppress(OSError):
        os.write(2, f"lxdtap: {why}; only root is served from here on\n".encode())
    os._exit(1)


def _keep_only(number: int) -> None:
    """Hold nothing open for others: the log ends when the tap closes its end of it.

    stderr stays, to say what went wrong.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1} - {number}:  # it is one of them if the tap was started without
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, number):
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))


def _stays_mighty(groups: list[int]) -> bool:
    """Whether root's capabilities outlive its uid here (capabilities(7), NO_SETUID_FIXUP).

    The kernel would then permit the caller what it permits root.
    """
    with contextlib.suppress(OSError), _being(Peer(0, _OVERFLOW, _OVERFLOW), groups):
        with open("/proc/self/status", "rb") as status:
            effective = next(line for line in status if line.startswith(b"CapEff:"))
        return int(effective.split()[1], 16) != 0
    return False


def _serve(sock: socket.socket, groups: list[int]) -> None:
    buffer = memoryview(bytearray(_LONGEST))
    while size := sock.recv_into(buffer):
        number, path, peer = requested(buffer[:size])
        failed, code, made = _connected(path, peer, groups)
        rights = [] if made is None else [_right(made)]
        sock.sendmsg([_ANSWER.pack(number, failed, code)], rights)
        if made is not None:
            made.close()


def _right(sock: socket.socket) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(sock.fileno())


def _connected(path: bytes, peer: Peer, groups: list[int]) -> tuple[int, int, socket.socket | None]:
    failed = _BECOME
    try:
        with _being(peer, groups):
            failed = _CONNECT
            return _DONE, 0, dial(path)
    except OSError as error:
        return failed, error.errno or errno.ENAMETOOLONG, None


@contextlib.contextmanager
def _being(peer: Peer, groups: list[int]) -> Iterator[None]:
    """Be ``peer``; then root again, in these groups, or nothing at all."""
    if _NOBODY in (peer.uid, peer.gid):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    os.setgroups(peer.groups)  # first, for it takes root; where it fails nothing has changed
    try:
        os.setresgid(-1, peer.gid, -1)
        os.setresuid(-1, peer.uid, -1)
        if (os.geteuid(), os.getegid()) != (peer.uid, peer.gid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        yield
    finally:
        try:
            os.setresuid(-1, 0, -1)
            os.setresgid(-1, 0, -1)
            os.setgroups(groups)
        except BaseException as error:  # noqa: BLE001 - whatever it is
            _give_up(f"cannot be root again: {error!r}")
