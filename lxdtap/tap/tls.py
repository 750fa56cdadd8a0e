"""A daemon behind https: how to get there, and that it is the one that was meant.

The server is known by its certificate: the pinned one, as lxc keeps it in servercerts/NAME.crt,
else one that an authority vouches for, with the host's name in it. It is verified within the
handshake, before our own certificate is shown, and nothing is sent to a server that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from lxdtap.endpoint import Kind, https_address, https_base, kind_by_organization
from lxdtap.errors import UpstreamError
from lxdtap.tap.pump import Pump, Shared, Stream
from lxdtap.tap.readiness import Readiness
from lxdtap.tap.relay import BUFFER
from lxdtap.transaction import Peer

_NEXT_ADDRESS = 0.3
"""Seconds until a host's next address is tried too, as Go's net.Dialer has it (RFC 6555)."""
_ALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 9))
"""By default Go's net package asks so whether a silent peer is still there."""
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

Tell = Callable[[str], None]


class HttpsUpstream:
    """A daemon behind https, to which everybody is the owner of one client certificate.

    Args:
        url: ``https://host:8443``.
        certificate: the client's, a PEM file.
        key: of the client's certificate, a PEM file without a password.
        server_certificate: the server's, a PEM file; empty: an authority has to vouch for it.
        authority: who may do that, a PEM file; empty: those that this system trusts.
        tell: is told of connections that were cut.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        certificate: str,
        key: str,
        server_certificate: str = "",
        authority: str = "",
        tell: Tell | None = None,
    ) -> None:
        self._host, self._port = https_address(url)
        self._base = https_base(self._host, self._port)
        self._own = (certificate, key)
        self._pinned_file = server_certificate
        self._authority = authority
        self._tell = tell
        self._context: ssl.SSLContext | None = None
        self._pinned = b""
        self._shared: Shared | None = None
        self._pumps: set[Pump] = set()

    @property
    def base(self) -> str:
        """The address as ``https://host:8443``."""
        return self._base

    async def check(self) -> Kind | None:
        """Connect and leave again; which daemon it is, where its certificate says so.

        Raises:
            UpstreamError: nothing answers there, or not the server that was meant.
        """
        stream = await self._open(asyncio.get_running_loop())
        with contextlib.suppress(OSError), stream.sock:
            with contextlib.suppress(ssl.SSLError):
                stream.tls.unwrap()
            stream.sock.send(stream.outgoing.read())
        return kind_by_organization(_organization(stream.tls.getpeercert()))

    async def connect(self, peer: Peer | None) -> socket.socket:
        """One end of a pair of sockets whose other end is pumped to the daemon.

        Raises:
            UpstreamError: nothing answers there, or not the server that was meant, or ``peer``
                is not who the certificate is for.
        """
        if peer is not None and peer.uid not in (0, os.geteuid()):
            text = f"over https all requests are made with {self._own[0]}, which is not yours"
            raise UpstreamError(f"{text}: start a tap of your own", 403)
        loop = asyncio.get_running_loop()
        stream = await self._open(loop)
        if self._shared is None:
            self._shared = Shared(Readiness(loop), memoryview(bytearray(BUFFER)))
        far, near = socket.socketpair()
        for sock in (far, near):
            sock.setblocking(False)
        pump = Pump(self._shared, near, far, stream, self._over)
        self._pumps.add(pump)
        pump.start()
        return far

    def close(self) -> None:
        """Close all connections; what their clients had sent is still passed on if accepted."""
        for pump in list(self._pumps):
            pump.stop()
        if self._shared is not None:
            self._shared.readiness.close()
            self._shared = None

    def _over(self, pump: Pump, cut: str) -> None:
        self._pumps.discard(pump)
        if cut and self._tell is not None:
            hint = "; does it trust the client certificate?" if " alert " in cut else ""
            self._tell(f"a connection to {self._base} was cut: {cut}{hint}")

    # -- connecting

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Stream:
        """A TLS connection to the server that was meant."""
        if self._context is None:
            self._context = self._make_context()
        sock = await self._dial(loop)
        try:
            stream = _stream(sock, self._context, self._host)
            try:
                await _shake_hands(loop, stream)
            except ssl.SSLCertVerificationError as error:
                await self._not_the_one(loop, error)
            except (OSError, ssl.SSLError) as error:
                raise self._no_handshake(error) from error
            if self._pinned and stream.tls.getpeercert(binary_form=True) != self._pinned:
                await self._not_the_one(loop, None)  # it was issued by the one that is pinned
        except BaseException:
            sock.close()
            raise
        return stream

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        try:
            transport, _ = await loop.create_connection(
                _Quiet, self._host, self._port, happy_eyeballs_delay=_NEXT_ADDRESS
            )
        except socket.gaierror as error:
            text = f"no daemon at {self._base}: {self._host}: {error.strerror}; check the name"
            raise UpstreamError(text) from error
        except ConnectionRefusedError as error:
            text = (
                f"no daemon listens at {self._base}: check the port, and core.https_address there"
            )
            raise UpstreamError(text) from error
        except OSError as error:
            text = (
                f"cannot connect to {self._base}: {_why(error)}; check the address and the network"
            )
            raise UpstreamError(text) from error
        sock: socket.socket = transport.get_extra_info("socket").dup()
        transport.abort()  # asyncio's part was to find the address that answers
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _ALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return sock

    def _no_handshake(self, error: OSError) -> UpstreamError:
        if getattr(error, "reason", "") in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return UpstreamError(f"{self._base} does not speak TLS: name the daemon's https port")
        text = f"{self._base} ended the TLS handshake: {_why(error)}"
        return UpstreamError(f"{text}; is that LXD's or Incus' port, and the certificate trusted?")

    # -- who it is

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # a cut is no end
        context.set_alpn_protocols(["http/1.1"])
        if self._pinned_file:
            self._pinned = _certificate(self._pinned_file)
            context.load_verify_locations(cadata=self._pinned)
            # It need not be an authority's, nor its own (OpenSSL's X509_V_FLAG_PARTIAL_CHAIN).
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.check_hostname = False
        elif self._authority:
            context.load_verify_locations(cadata=_certificate(self._authority))
        else:
            context.load_default_certs()
        _load_own(context, *self._own)
        return context

    async def _not_the_one(
        self, loop: asyncio.AbstractEventLoop, error: ssl.SSLCertVerificationError | None
    ) -> NoReturn:
        """Say whom we met there instead."""
        seen = await self._shown(loop)
        add = f"lxc remote add NAME {self._base}"
        if self._pinned and seen != self._pinned:
            raise UpstreamError(
                f"{self._base} is not the server that was meant: {self._pinned_file} has SHA-256"
                f" {_fingerprint(self._pinned)}, the server shows {_fingerprint(seen)}; if its"
                f" certificate was renewed, name the new one with --server-cert, or"
                f" `lxc remote remove NAME` and `{add}`"
            ) from error
        why = error.verify_message if error is not None else "it is not the pinned one"
        raise UpstreamError(
            f"{self._base} is not trusted: {why} (SHA-256 {_fingerprint(seen)}); if it is yours,"
            f" name its certificate with --server-cert, or `{add}` and use --remote NAME"
        ) from error

    async def _shown(self, loop: asyncio.AbstractEventLoop) -> bytes:
        """The certificate that is shown to a stranger, for a message; empty where none is."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(OSError, UpstreamError), await self._dial(loop) as sock:
            stream = _stream(sock, context, self._host)
            await _shake_hands(loop, stream)
            return stream.tls.getpeercert(binary_form=True) or b""
        return b""


class _Quiet(asyncio.Protocol):
    """Reads nothing: what comes is for the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()


def _stream(sock: socket.socket, context: ssl.SSLContext, host: str) -> Stream:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = host.partition("%")[0]  # without an IPv6 address' zone
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    return Stream(sock, tls, incoming, outgoing)


async def _shake_hands(loop: asyncio.AbstractEventLoop, stream: Stream) -> None:
    """The handshake, without a timeout: who connects may give up.

    Raises:
        OSError: the connection was lost.
        ssl.SSLError: it is not TLS, or not the server that was meant.
    """
    done = False
    while not done:
        try:
            stream.tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                stream.sock.send(stream.outgoing.read())  # the alert that says so
            raise
        if data := stream.outgoing.read():
            await loop.sock_sendall(stream.sock, data)
        if not done:
            received = await loop.sock_recv(stream.sock, BUFFER)
            if not received:
                raise ConnectionResetError("it hung up")
            stream.incoming.write(received)


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Let our certificate be shown.

    Raises:
        UpstreamError: it or its key cannot be used.
    """
    make = "`lxc remote add` or `incus remote generate-certificate` makes one"
    for what, name in (("certificate", certificate), ("key", key)):
        if not name:
            option = "--cert" if what == "certificate" else "--key"
            raise UpstreamError(f"no client {what} for https: name it with {option} FILE; {make}")
        _read(name, f"client {what}", make)
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except _PasswordError as error:
        text = f"the client key {key} has a password: name one without (openssl pkey) with --key"
        raise UpstreamError(text) from error
    except (ssl.SSLError, OSError) as error:
        text = f"cannot use the client certificate {certificate} with the key {key}: {_why(error)}"
        raise UpstreamError(f"{text}; both have to be PEM files, and belong together") from error


class _PasswordError(Exception):
    """A key is encrypted."""


def _no_password() -> NoReturn:
    """Else OpenSSL would ask on the terminal."""
    raise _PasswordError


def _certificate(path: str) -> bytes:
    """The first certificate of a PEM file, as DER.

    Raises:
        UpstreamError: there is none.
    """
    found = _PEM.search(_read(path, "server certificate", "`lxc remote add` stores it"))
    try:
        if found:
            return ssl.PEM_cert_to_DER_cert(found[0])
    except ValueError:
        pass
    raise UpstreamError(f"{path} holds no certificate: name a PEM file with --server-cert")


def _read(path: str, what: str, hint: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        text = f"cannot read the {what} {path}: {error.strerror}; check the name; {hint}"
        raise UpstreamError(text) from error


def _organization(certificate: Mapping[str, Any] | None) -> str:
    """Of its subject; empty where it has none."""
    names = dict(field for part in (certificate or {}).get("subject", ()) for field in part)
    return str(names.get("organizationName", ""))


def _fingerprint(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest() if certificate else "none"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)
