"""The daemon's side of a connection: where it is, how to get there, what it means if we cannot."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Protocol

from lxdtap.endpoint import Endpoint
from lxdtap.errors import UpstreamError
from lxdtap.transaction import Peer

_RETRY = 0.005


class Upstream(Protocol):
    """A daemon to connect to."""

    @property
    def base(self) -> str:
        """Its address as URLs show it, without a slash at the end."""

    async def connect(self, peer: Peer | None) -> socket.socket:
        """A connected stream socket, for what ``peer`` has to say; None: for ourselves.

        Raises:
            UpstreamError: nothing answers there, or we may not connect.
        """

    def close(self) -> None:
        """Give up what was needed to connect; what is connected stays so."""


class UnixUpstream:
    """A daemon behind a unix socket, to which everybody is us."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    def base(self) -> str:
        """The address as ``http+unix://…``."""
        return self.endpoint.base

    async def connect(self, peer: Peer | None) -> socket.socket:  # noqa: ARG002 - all are us
        """A connection, waited for while the daemon's backlog is full, as a blocking one would be.

        Raises:
            UpstreamError: nothing answers there, or we may not connect.
        """
        while (sock := connect(self.endpoint)) is None:  # noqa: ASYNC110 - nobody tells of room
            await asyncio.sleep(_RETRY)
        return sock

    def close(self) -> None:
        """Nothing was needed."""


def connect(endpoint: Endpoint) -> socket.socket | None:
    """Connect to a unix socket, without waiting; None where it has no room for now.

    The socket has no name: a client with one is not trusted by LXD (lxd/daemon.go, Authenticate).

    Raises:
        UpstreamError: nothing answers there, or we may not connect.
    """
    sock = None
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect(endpoint.path)
    except OSError as error:
        if sock is not None:
            sock.close()
        if isinstance(error, BlockingIOError):  # unix(7), EAGAIN: its backlog is full
            return None
        raise unreachable(endpoint, error) from error
    return sock


def unreachable(endpoint: Endpoint, error: OSError) -> UpstreamError:
    """What it means that a connection failed so, and what to do."""
    where = f"{endpoint.path} (from {endpoint.found_by})"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            text = (
                f"no daemon at {where}: there is no such socket; start the daemon or see --upstream"
            )
        case errno.ECONNREFUSED:
            text = f"no daemon listens at {where}: start it, or name another with --upstream"
        case errno.EACCES | errno.EPERM:
            text = f"not permitted to connect to {where}: join the socket's group, or use sudo"
            return UpstreamError(text, 403)
        case _:
            text = f"cannot connect to {where}: {error.strerror or error}; see --upstream"
    return UpstreamError(text)
