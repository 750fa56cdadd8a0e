"""A fake daemon behind https, and the certificates for it and its clients."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from .tap import PATIENCE, Script, Served


@dataclass(frozen=True, slots=True)
class Papers:
    """PEM files: an authority's certificate, a server's and a client's with its key."""

    authority: str
    server: str
    server_key: str
    client: str
    client_key: str


def papers(directory: Path, *names: str) -> Papers:
    """New ones, the server's for these names."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()

    def issue(name: str, certificate: trustme.LeafCert) -> tuple[str, str]:
        paths = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.cert_chain_pems[0].write_to_path(paths[0])
        certificate.private_key_pem.write_to_path(paths[1])
        return str(paths[0]), str(paths[1])

    server = issue("server", authority.issue_cert(*(names or ("127.0.0.1", "::1", "localhost"))))
    client = issue("client", authority.issue_cert("client@example.org"))
    authority.cert_pem.write_to_path(directory / "authority.crt")
    return Papers(str(directory / "authority.crt"), *server, *client)


@dataclass
class TlsServed(Served):
    """One connection that the fake daemon had.

    Attributes:
        shown: the certificate that the client showed, as DER; None: the handshake was not
            completed.
        protocol: what was agreed on by ALPN.
    """

    shown: bytes | None = None
    protocol: str | None = None


@dataclass
class TlsDaemon:
    """Plays a script on each connection, in a thread of its own."""

    papers: Papers
    script: Script
    host: str = "127.0.0.1"
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    served: list[TlsServed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.papers.server, self.papers.server_key)
        self._context.load_verify_locations(self.papers.authority)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.maximum_version = self.newest
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._sock = socket.create_server((self.host, 0), family=family, backlog=64)
        self.port: int = self._sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://[{self.host}]:{self.port}" if ":" in self.host else self._plain

    @property
    def _plain(self) -> str:
        return f"https://{self.host}:{self.port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        served = TlsServed()
        self.served.append(served)
        sock.settimeout(PATIENCE)
        try:
            tls = self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        except OSError:
            sock.close()
            return
        served.shown = tls.getpeercert(binary_form=True)
        served.protocol = tls.selected_alpn_protocol()
        with tls, contextlib.suppress(OSError):
            self.script(tls, served)
            with contextlib.suppress(ValueError):  # the script has cut it
                tls.unwrap()


@contextlib.contextmanager
def tls_daemon(
    papers: Papers,
    script: Script,
    host: str = "127.0.0.1",
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Iterator[TlsDaemon]:
    """A fake daemon behind https."""
    daemon = TlsDaemon(papers, script, host, newest)
    try:
        yield daemon
    finally:
        daemon.close()
