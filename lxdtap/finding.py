"""Which daemon is meant: by options, by the environment, by lxc's and incus' own configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lxdtap import endpoint
from lxdtap.endpoint import Endpoint, HttpsEndpoint
from lxdtap.errors import NoDaemonError
from lxdtap.tap import listener, upstream
from lxdtap.tap.identity import Connector
from lxdtap.tap.upstream import UnixUpstream, Upstream

if TYPE_CHECKING:
    from lxdtap.tap.tls import HttpsUpstream


class Wanted(NamedTuple):
    """Which daemon was asked for.

    Attributes:
        upstream: the daemon's socket or https address; empty: the one that clients here would use.
        remote: the daemon, by the name that lxc or incus has for it; empty: by ``upstream``.
        certificate: what is shown to a daemon behind https; empty: what lxc or incus would show.
        key: of that certificate; empty: as above.
        server_certificate: what that daemon has to show; empty: as above.
    """

    upstream: str = ""
    remote: str = ""
    certificate: str = ""
    key: str = ""
    server_certificate: str = ""


def find(options: Wanted, environ: dict[str, str]) -> Endpoint | HttpsEndpoint:
    """The daemon to tap, which is seen to answer the door.

    Raises:
        NoDaemonError: there is none.
        UpstreamError: it cannot be connected to.
    """
    if not options.remote and not options.upstream.startswith("https:"):
        return _at_socket(options.upstream, environ)
    from lxdtap.remotes import Machine  # for most the daemon is a socket here

    machine = Machine(environ, os.path.expanduser("~"), _content, upstream.is_socket)
    found = machine.named(options.remote) if options.remote else machine.at(options.upstream)
    if isinstance(found, Endpoint):
        return _seen(found)
    found = found._replace(
        certificate=options.certificate or found.certificate,
        key=options.key or found.key,
        server_certificate=options.server_certificate or found.server_certificate,
    )
    shown = asyncio.run(https(found).check())
    return found._replace(kind=found.kind or shown)


def _content(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        text = f"cannot read {path}: {error.strerror}; check whose it is"
        raise NoDaemonError(text) from error


def https(found: HttpsEndpoint, tell: Callable[[str], None] | None = None) -> HttpsUpstream:
    """The way to a daemon behind https."""
    from lxdtap.tap.tls import HttpsUpstream

    own = (found.certificate, found.key)
    return HttpsUpstream(found.base, *own, found.server_certificate, found.authority, tell)


def _at_socket(given: str, environ: dict[str, str]) -> Endpoint:
    if given:
        path = endpoint.with_socket_name(endpoint.socket_path(given), os.path.isdir)
        return _seen(Endpoint(os.path.abspath(path), "--upstream or LXDTAP_UPSTREAM"))
    return _seen(endpoint.discover(environ, upstream.is_socket))


def _seen(found: Endpoint) -> Endpoint:
    """The same, after it has answered the door; and of which kind it is."""
    sock = upstream.connect(found)
    if sock is None or found.kind is not None:
        kind = found.kind or endpoint.kind_of("", found.path)
    else:
        kind = endpoint.kind_of(_program(listener.peer(sock).pid), found.path)
    if sock is not None:
        sock.close()
    return found._replace(kind=kind)


def _program(pid: int) -> str:
    """The name of a process (proc(5), comm); empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return ""


def way(
    found: Endpoint | HttpsEndpoint, tell: Callable[[str], None], connector: Connector | None = None
) -> Upstream:
    """How to connect to a daemon that was found.

    Args:
        found: where it is.
        tell: is told in words of connections that were cut.
        connector: connects as each caller; None: as us.
    """
    if isinstance(found, Endpoint):
        return UnixUpstream(found, connector)
    return https(found, tell)
