"""The daemon's side of a connection: where it is, how to get there, what it means if we cannot."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import Protocol

from lxdtap.endpoint import Endpoint
from lxdtap.errors import UpstreamError
from lxdtap.tap.identity import Connector, dial
from lxdtap.transaction import Peer

_RETRY = 0.005
_LONGEST_RETRY = 0.04


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
    """A daemon behind a unix socket.

    Args:
        endpoint: where it is.
        connector: connects as each caller; without it only we are served, and root as us.
    """

    def __init__(self, endpoint: Endpoint, connector: Connector | None = None) -> None:
        self.endpoint = endpoint
        self._connector = connector

    @property
    def base(self) -> str:
        """The address as ``http+unix://…``."""
        return self.endpoint.base

    async def connect(self, peer: Peer | None) -> socket.socket:
        """A connection, waited for while the daemon's backlog is full, as a blocking one would be.

        Raises:
            UpstreamError: nothing answers there, or we may not connect.
        """
        wait = _RETRY
        while True:
            try:
                return await self._dial(peer)
            except BlockingIOError:  # nobody tells of room
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_RETRY)

    def close(self) -> None:
        """Connect as nobody else any more."""
        if self._connector is not None:
            self._connector.close()

    async def _dial(self, peer: Peer | None) -> socket.socket:
        """A connection: as us where ``peer`` is us or root, else as ``peer`` or not at all."""
        other = None if peer is None or peer.uid in (0, os.geteuid()) else peer
        try:
            if other is None:
                return dial(self.endpoint.path)
            if self._connector is None:
                raise _not_served(other)
            return await self._connector.connect(self.endpoint.path, other)
        except BlockingIOError:
            raise
        except OSError as error:
            raise unreachable(self.endpoint, error, other) from error


def _not_served(peer: Peer) -> UpstreamError:
    """Somebody has opened our socket to others, whom the daemon would take for us."""
    us = os.geteuid()
    text = f"uid {peer.uid} is not served: what passes here reaches the daemon as uid {us}"
    return UpstreamError(f"{text}; run lxdtap as root, with --group", 403)


def is_socket(path: str) -> bool:
    """Whether there is a socket at this path."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def connect(endpoint: Endpoint) -> socket.socket | None:
    """Connect to a unix socket as ourselves, without waiting; None where it has no room for now.

    Raises:
        UpstreamError: nothing answers there, or we may not connect.
    """
    try:
        return dial(endpoint.path)
    except BlockingIOError:
        return None
    except OSError as error:
        raise unreachable(endpoint, error) from error


def unreachable(endpoint: Endpoint, error: OSError, peer: Peer | None = None) -> UpstreamError:
    """What it means that a connection failed so, as ``peer`` if named, and what to do."""
    where = f"{endpoint.path} (from {endpoint.found_by})"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            text = (
                f"no daemon at {where}: there is no such socket; start the daemon or see --upstream"
            )
        case errno.ECONNREFUSED:
            text = f"no daemon listens at {where}: start it, or name another with --upstream"
        case errno.EACCES | errno.EPERM:
            who = f" as uid {peer.uid}" if peer is not None else ""
            text = f"not permitted to connect to {where}{who}"
            text += ": join the socket's group, or use sudo"
            return UpstreamError(text, 403)
        case _:
            text = f"cannot connect to {where}: {error.strerror or error}; see --upstream"
    return UpstreamError(text)
