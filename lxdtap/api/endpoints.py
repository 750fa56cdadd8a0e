"""Which daemon an API talks to."""

from __future__ import annotations

import functools
import os
import urllib.parse
from collections.abc import Callable, Mapping

from lxdtap import endpoint
from lxdtap.endpoint import Endpoint
from lxdtap.errors import MissingSocketError, NoDaemonError
from lxdtap.tap.upstream import UnixUpstream, Upstream, is_socket

HOST = "unix.socket"
"""The Host header over a unix socket, as the Go client has it (LXD's client/connection.go)."""


def find(given: str | None, environ: Mapping[str, str]) -> str:
    """The address of the daemon that is meant, as a URL without a slash at its end.

    Raises:
        MissingSocketError: a socket's path was given that does not exist.
        NoDaemonError: nothing was given, and there is none in the usual places.
    """
    if given is None:
        given = os.path.abspath(endpoint.discover(environ, is_socket).path)
    address = given if given.endswith("://") else given.rstrip("/") or given
    if not address.startswith(("/", "unix:")):
        return address
    path = endpoint.with_socket_name(os.path.abspath(_path(address)), os.path.isdir)
    if not os.path.exists(path):
        raise MissingSocketError(path)
    return endpoint.base_url(path)


def way(
    endpoint: str | None, cert: tuple[str, str] | None, verify: str | None, cassette: str | None
) -> tuple[Callable[[], Upstream], str]:
    """What connects to the daemon that is meant, and what to say in the Host header.

    Raises:
        NoDaemonError: there is none.
        CassetteError: the cassette cannot be played.
    """
    if cassette is None:
        address = find(endpoint, os.environ)
        return functools.partial(upstream, address, cert, verify), host(address)
    if endpoint is not None:
        raise ValueError("give an endpoint or a cassette, not both")
    from lxdtap.cassette import files
    from lxdtap.replay.server import CassetteUpstream

    recording = CassetteUpstream(files.load(cassette))
    return lambda: recording, host(recording.base)


def upstream(address: str, cert: tuple[str, str] | None, verify: str | None) -> Upstream:
    """The daemon at a URL.

    Raises:
        NoDaemonError: no daemon can be at such an address.
    """
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme == "https":
        from lxdtap.tap.tls import HttpsUpstream

        certificate, key = cert or ("", "")
        try:
            return HttpsUpstream(address, certificate, key, verify or "")
        except ValueError as error:
            raise NoDaemonError(str(error)) from error
    if scheme == "http+unix":
        return UnixUpstream(Endpoint(_path(address), "the endpoint"))
    raise NoDaemonError(
        f"no daemon is at {address!r}: give the path of a unix socket, http+unix://…,"
        " or https://host:8443"
    )


def _path(address: str) -> str:
    try:
        return endpoint.socket_path(address)
    except ValueError as error:
        raise NoDaemonError(f"no daemon is at {address!r}: it names no socket") from error


def host(address: str) -> str:
    """What to say in the Host header."""
    parts = urllib.parse.urlsplit(address)
    return parts.netloc if parts.scheme == "https" else HOST
