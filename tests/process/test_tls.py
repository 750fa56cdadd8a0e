"""A daemon behind https: the same bytes, to the server that is meant and to no other.

In front of a fake daemon, through the real process, or through an :class:`HttpsUpstream` alone
where it is the socket's own end that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lxdtap.errors import UpstreamError
from lxdtap.tap.tls import HttpsUpstream, Tell
from lxdtap.transaction import Peer

from .tap import (
    GET,
    PATIENCE,
    Served,
    always,
    answer,
    ask,
    connect,
    environment,
    eventually,
    read_to_end,
    read_until,
    rest,
    run,
    sidecar,
)
from .tlsdaemon import Papers, TlsDaemon, papers, tls_daemon

T = TypeVar("T")
BOTH = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
MIB = 1 << 20


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Certificates of one authority."""
    return papers(tmp_path_factory.mktemp("papers"))


def options(daemon: TlsDaemon, ours: Papers, pinned: str | None = None) -> list[str]:
    """The daemon, on the command line."""
    shown = ["--cert", ours.client, "--key", ours.client_key]
    return ["--upstream", daemon.url, *shown, "--server-cert", pinned or ours.server]


def fingerprint(path: str) -> str:
    der = ssl.PEM_cert_to_DER_cert(Path(path).read_text())
    return hashlib.sha256(der).hexdigest()


def complaint(*arguments: str, **more: str) -> str:
    """The one line that lxdtap ends with before it has begun."""
    done = run("run", *arguments, "--", "false", env=environment(**more))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# Through the process.


@BOTH
def test_requests_pass(tmp_path: Path, ours: Papers, newest: ssl.TLSVersion) -> None:
    """Client and daemon exchange what they would; the log's URLs are the daemon's."""
    with tls_daemon(ours, always(answer(b"{}")), newest=newest) as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            assert ask(tap.path, GET) == answer(b"{}")
            assert os.stat(tap.path).st_mode & 0o777 == 0o600
            assert tap.stop() == 0
    assert bytes(daemon.served[-1].received) == GET
    assert daemon.served[-1].protocol == "http/1.1"
    (transaction,) = tap.transactions()
    assert transaction["url"] == f"{daemon.url}/1.0"
    assert not transaction["broken"]


def test_ipv6(tmp_path: Path, ours: Papers) -> None:
    """An IPv6 address stands in brackets, on the command line and in the log."""
    with tls_daemon(ours, always(answer(b"{}")), host="::1") as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            assert ask(tap.path, GET) == answer(b"{}")
            tap.stop()
    assert tap.transactions()[0]["url"] == f"https://[::1]:{daemon.port}/1.0"


def test_the_kind_is_told_by_the_certificate(tmp_path: Path, ours: Papers) -> None:
    """No request is made to find out; where the certificate does not say, it is LXD."""
    with tls_daemon(ours, read_to_end) as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            assert "LXD_DIR" in tap.said[0]
            assert "in front of LXD at https://127.0.0.1:" in tap.said[1]
    (served,) = daemon.served
    assert served.received == b""


@BOTH
def test_a_large_upload_and_download(tmp_path: Path, ours: Papers, newest: ssl.TLSVersion) -> None:
    """What goes up and what comes down is what was sent, both at the same time."""
    body = os.urandom(24 * MIB)
    head = f"POST /1.0 HTTP/1.1\r\nHost: lxd\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    echoed = answer(body)

    def script(sock: socket.socket, served: Served) -> None:
        sock.sendall(echoed[: -len(body)])
        while len(served.received) < len(head) + len(body):
            before = max(len(served.received), len(head))
            served.received += sock.recv(1 << 16)
            sock.sendall(served.received[before:])

    with tls_daemon(ours, script, newest=newest) as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            with connect(tap.path) as client:
                sending = threading.Thread(target=client.sendall, args=(head + body,))
                sending.start()
                received = rest(client)
                sending.join()
            tap.stop()
    assert received == echoed
    assert bytes(daemon.served[-1].received) == head + body


def test_a_cut_is_no_end(tmp_path: Path, ours: Papers) -> None:
    """A daemon that is killed in an answer is told of, and the answer counts as broken off."""

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(answer(b"x" * 1000)[:-500])
        socket.socket(fileno=sock.detach()).close()  # without close_notify

    with tls_daemon(ours, script) as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            assert ask(tap.path, GET) == answer(b"x" * 1000)[:-500]
            tap.stop()
    assert tap.transactions()[0]["broken"]
    (note,) = tap.entries("note")
    assert f"a connection to {daemon.url} was cut: it ended without" in note["text"]


def test_a_restarted_daemon(tmp_path: Path, ours: Papers) -> None:
    """Where nothing answers the client gets lxdtap's 503, and later the daemon again."""
    with tls_daemon(ours, always(answer(b"{}"))) as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            daemon.close()
            refused = ask(tap.path, GET)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"no daemon listens at https://127.0.0.1:" in refused
            tap.stop()


def test_nothing_is_left(tmp_path: Path, ours: Papers) -> None:
    """Fifty connections leave no file descriptor behind."""
    with tls_daemon(ours, always(answer(b"{}"))) as daemon:
        with sidecar(tmp_path / "t", "", *options(daemon, ours)) as tap:
            ask(tap.path, GET)
            eventually(lambda: daemon.served[-1].over or len(daemon.served) > 1)
            before = tap.descriptors
            for _ in range(50):
                assert ask(tap.path, GET) == answer(b"{}")
            eventually(lambda: tap.descriptors <= before)


# The socket's own end.


def upstream(daemon: TlsDaemon, ours: Papers, tell: Tell | None = None) -> HttpsUpstream:
    shown = (ours.client, ours.client_key)
    return HttpsUpstream(daemon.url, *shown, ours.server, tell=tell)


def held(
    daemon: TlsDaemon,
    ours: Papers,
    client: Callable[[socket.socket], Coroutine[Any, Any, T]],
    tell: Tell | None = None,
) -> T:
    """What a client did with a connection."""

    async def conversation() -> T:
        there = upstream(daemon, ours, tell)
        try:
            sock = await there.connect(None)
            with sock:
                async with asyncio.timeout(PATIENCE):
                    return await client(sock)
        finally:
            there.close()

    return asyncio.run(conversation())


async def received(sock: socket.socket) -> bytes:
    """All that comes until the end."""
    data = b""
    while piece := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        data += piece
    return data


async def sent(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


@BOTH
def test_an_end_is_an_end(ours: Papers, newest: ssl.TLSVersion) -> None:
    """close_notify is the end of the stream, after all that was sent, and whatever was not read."""

    def script(sock: socket.socket, _served: Served) -> None:
        sock.sendall(b"y" * MIB)

    async def client(sock: socket.socket) -> bytes:
        await sent(sock, b"never read")
        return await received(sock)

    with tls_daemon(ours, script, newest=newest) as daemon:
        assert held(daemon, ours, client) == b"y" * MIB


@BOTH
@pytest.mark.parametrize("linger", [False, True])
def test_a_cut_is_a_reset(ours: Papers, newest: ssl.TLSVersion, linger: bool) -> None:
    """An end of the TCP connection without close_notify, or a reset, is never a clean end."""

    def script(sock: socket.socket, served: Served) -> None:
        sock.sendall(b"half an ans")
        read_until(sock, served, b"go")
        plain = socket.socket(fileno=sock.detach())
        if linger:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        plain.close()

    async def client(sock: socket.socket) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(sock, 100)
        await sent(sock, b"go")
        with pytest.raises(ConnectionResetError):
            await received(sock)
        return data

    told: list[str] = []
    with tls_daemon(ours, script, newest=newest) as daemon:
        assert held(daemon, ours, client, tell=told.append) == b"half an ans"
    (text,) = told
    assert text.startswith(f"a connection to {daemon.url} was cut: ")


def test_a_half_close_is_passed_on(ours: Papers) -> None:
    """With TLS 1.3 the daemon sees the client's end, and its answer still arrives, however long."""
    body = os.urandom(8 * MIB)

    def script(sock: socket.socket, served: Served) -> None:
        sock.sendall(body[:MIB])
        read_to_end(sock, served)
        sock.sendall(body[MIB:])

    async def client(sock: socket.socket) -> bytes:
        await sent(sock, b"a question")
        await asyncio.sleep(0.1)  # until more has come than the socket holds
        sock.shutdown(socket.SHUT_WR)
        return await received(sock)

    with tls_daemon(ours, script) as daemon:
        assert held(daemon, ours, client) == body
    assert daemon.served[0].over
    assert daemon.served[0].received == b"a question"


def test_a_half_close_that_tls_cannot_say(ours: Papers) -> None:
    """With TLS 1.2 the answer arrives, and the daemon sees no end before it is given."""

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"a question")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.sendall(b"an answer")

    async def client(sock: socket.socket) -> bytes:
        await sent(sock, b"a question")
        sock.shutdown(socket.SHUT_WR)
        return await asyncio.get_running_loop().sock_recv(sock, 100)

    with tls_daemon(ours, script, newest=ssl.TLSVersion.TLSv1_2) as daemon:
        assert held(daemon, ours, client) == b"an answer"


@BOTH
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_client_that_leaves(ours: Papers, newest: ssl.TLSVersion, half_closed: bool) -> None:
    """The daemon sees a proper end within a second, after all that was sent."""
    seen: list[float] = []

    def script(sock: socket.socket, served: Served) -> None:
        read_to_end(sock, served)  # anything but close_notify would raise
        seen.append(time.monotonic())

    async def client(sock: socket.socket) -> float:
        await sent(sock, b"z" * 100_000)
        if half_closed:
            sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.1)
        sock.close()
        left = time.monotonic()
        await asyncio.to_thread(eventually, lambda: seen)
        return left

    with tls_daemon(ours, script, newest=newest) as daemon:
        left = held(daemon, ours, client)
    assert seen[0] - left < 1
    assert len(daemon.served[0].received) == 100_000


def test_close_passes_on_what_was_sent(ours: Papers) -> None:
    """A client's last words are not lost where the tap ends right after them."""
    with tls_daemon(ours, read_to_end) as daemon:

        async def conversation() -> None:
            there = upstream(daemon, ours)
            sock = await there.connect(None)
            sock.send(b"last words")
            sock.close()
            there.close()

        asyncio.run(conversation())
        eventually(lambda: daemon.served[0].over)
    assert daemon.served[0].received == b"last words"


def test_who_does_not_read_is_not_read_for(ours: Papers) -> None:
    """A daemon that does not read stops the client, and a client that does not, the daemon."""
    stopped = threading.Event()
    poured = 0

    def script(sock: socket.socket, _served: Served) -> None:
        nonlocal poured
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                poured += sock.send(bytes(1 << 14))
        stopped.set()
        time.sleep(1)  # it is not closed before the client has seen it

    async def client(sock: socket.socket) -> int:
        loop, size = asyncio.get_running_loop(), 0
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(loop.sock_sendall(sock, bytes(1 << 16)), 0.5)
                size += 1 << 16
        await asyncio.to_thread(stopped.wait)
        return size

    with tls_daemon(ours, script) as daemon:
        size = held(daemon, ours, client)
    # The kernel's own buffers for TCP are up to 6 MiB and 4 MiB (tcp(7)), on both sides.
    assert 0 < size < 16 * MIB
    assert 0 < poured < 16 * MIB


def test_a_server_that_refuses_our_certificate(tmp_path: Path, ours: Papers) -> None:
    """With TLS 1.3 it says so after the handshake; it is told of then."""
    stranger = papers(tmp_path)

    async def client(sock: socket.socket) -> None:
        with pytest.raises(ConnectionResetError):
            await received(sock)

    told: list[str] = []
    strange = Papers(ours.authority, ours.server, "", stranger.client, stranger.client_key)
    with tls_daemon(ours, read_to_end) as daemon:
        held(daemon, strange, client, tell=told.append)
    assert "alert" in told[0]
    assert "does it trust the client certificate?" in told[0]


def test_others_are_refused(ours: Papers) -> None:
    """All requests would be the certificate's owner's: another user's are not made."""
    with tls_daemon(ours, read_to_end) as daemon:

        async def conversation() -> None:
            with pytest.raises(UpstreamError, match="start a tap of your own") as caught:
                await upstream(daemon, ours).connect(Peer(1, os.geteuid() + 12345, 0))
            assert caught.value.status == 403

        asyncio.run(conversation())
    assert not daemon.served


# Who it is.


def test_another_certificate_than_the_pinned_one(tmp_path: Path, ours: Papers) -> None:
    """It is not talked to: no byte, no certificate of ours; both fingerprints are told."""
    theirs = papers(tmp_path / "theirs")
    with tls_daemon(theirs, read_to_end) as daemon:
        said = complaint(*options(daemon, ours))
    assert fingerprint(ours.server) in said
    assert fingerprint(theirs.server) in said
    assert "--server-cert" in said
    assert "`lxc remote add NAME https://127.0.0.1:" in said
    assert all(not served.shown and not served.received for served in daemon.served)


def test_issued_by_the_pinned_one_is_not_the_pinned_one(ours: Papers) -> None:
    """A pin is one certificate, and no authority."""
    with tls_daemon(ours, read_to_end) as daemon:
        said = complaint(*options(daemon, ours, pinned=ours.authority))
    assert "is not the server that was meant" in said
    assert fingerprint(ours.authority) in said


@pytest.mark.parametrize(("trusted", "names"), [(True, ()), (False, ()), (True, ("lxd.test",))])
def test_without_a_pin_an_authority_vouches(
    tmp_path: Path, trusted: bool, names: tuple[str, ...]
) -> None:
    """Then the system's authorities decide, and the host's name has to be in the certificate."""
    ours = papers(tmp_path, *names)
    more = {"SSL_CERT_FILE": ours.authority} if trusted else {}
    with tls_daemon(ours, always(answer(b"{}"))) as daemon:
        given = options(daemon, ours)[:-2]
        if trusted and not names:
            with sidecar(tmp_path / "t", "", *given, env=environment(**more)) as tap:
                assert ask(tap.path, GET) == answer(b"{}")
            return
        said = complaint(*given, **more)
    assert f"{daemon.url} is not trusted: " in said
    assert ("mismatch" if names else "self-signed certificate") in said
    assert fingerprint(ours.server) in said
    assert all(not served.shown and not served.received for served in daemon.served)


# What can be wrong.


def test_nobody_there(ours: Papers) -> None:
    """A refused port, a name that nobody has."""
    with tls_daemon(ours, read_to_end) as daemon:
        pass
    assert "no daemon listens at https://127.0.0.1:" in complaint(*options(daemon, ours))
    shown = ("--cert", ours.client, "--key", ours.client_key)
    said = complaint("--upstream", "https://nobody.invalid", *shown)
    assert "no daemon at https://nobody.invalid:8443: nobody.invalid: " in said


def test_not_tls(ours: Papers) -> None:
    """A server that speaks plain HTTP, and one that hangs up."""
    for greeting, said in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
        (b"", "ended the TLS handshake: it hung up"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def greet(server: socket.socket = server, greeting: bytes = greeting) -> None:
                sock, _ = server.accept()
                sock.recv(1 << 16)
                sock.sendall(greeting)
                sock.close()

            threading.Thread(target=greet, daemon=True).start()
            url = f"https://127.0.0.1:{server.getsockname()[1]}"
            own = ("--cert", ours.client, "--key", ours.client_key)
            assert said in complaint("--upstream", url, *own)


def test_our_own_certificate(tmp_path: Path, ours: Papers) -> None:
    """What is missing, unreadable, encrypted or belongs to another is told, without a prompt."""
    other = papers(tmp_path / "other")
    locked = tmp_path / "locked.key"
    words = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", ours.client_key]
    subprocess.run([*words, "-out", str(locked)], check=True)
    (tmp_path / "empty").touch()
    with tls_daemon(ours, read_to_end) as daemon:
        at = ("--upstream", daemon.url, "--server-cert", ours.server)
        for cert, key, said in (
            ("/nonexistent", ours.client_key, "cannot read the client certificate /nonexistent"),
            (ours.client, "/nonexistent", "cannot read the client key /nonexistent"),
            (ours.client, other.client_key, "key values mismatch; both have to be PEM"),
            (ours.client, str(locked), "has a password"),
            (str(tmp_path / "empty"), ours.client_key, "cannot use the client certificate"),
        ):
            assert said in complaint(*at, "--cert", cert, "--key", key)
        said = complaint(*at, HOME=str(tmp_path))
        assert "no client certificate for https: name it with --cert FILE" in said
        said = complaint(*options(daemon, ours, pinned=str(tmp_path / "empty")))
        assert "empty holds no certificate" in said
    assert not daemon.served


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--upstream", "https://h", "--remote", "r"], "name two daemons"),
        (["--cert", "c", "--key", "k"], "are for https"),
        (["--upstream", "https://h", "--cert", "c"], "--cert and --key belong together"),
        (["--upstream", "https://h/1.0"], "is not https://HOST"),
        (["--upstream", "http://h"], "name a path, or https://HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other(arguments: list[str], said: str) -> None:
    """Such options are wrong, and nothing is tried."""
    done = run("run", *arguments)
    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stderr)


def test_a_group_has_no_identity_of_its_own(ours: Papers) -> None:
    """--group is refused: to the daemon all would be one."""
    with tls_daemon(ours, read_to_end) as daemon:
        said = complaint(*options(daemon, ours), "--group", "root")
    assert "cannot serve group root: " in said
    assert "one certificate" in said


# By the name that lxc has for it.


def configuration(directory: Path, ours: Papers, address: str, name: str = "far") -> None:
    """What lxc keeps of a remote."""
    (directory / "servercerts").mkdir(parents=True)
    (directory / "config.yml").write_text(
        f"default-remote: local\nremotes:\n  {name}: {{addr: '{address}', protocol: lxd}}\n"
        "  images: {addr: 'https://images.invalid', protocol: simplestreams, public: true}\n"
    )
    for source, name_there in (
        (ours.client, "client.crt"),
        (ours.client_key, "client.key"),
        (ours.server, f"servercerts/{name}.crt"),
    ):
        (directory / name_there).write_bytes(Path(source).read_bytes())


@pytest.mark.parametrize("place", [".config/lxc", "snap/lxd/common/config", ".config/incus"])
def test_a_remote(tmp_path: Path, ours: Papers, place: str) -> None:
    """Address, certificates and kind come from the client's configuration; by the address too."""
    with tls_daemon(ours, always(answer(b"{}"))) as daemon:
        configuration(tmp_path / place, ours, daemon.url)
        for given in (["--remote", "far"], ["--upstream", daemon.url]):
            curl = 'curl -sS --unix-socket "${LXD_SOCKET:-$INCUS_SOCKET}" http://x/1.0'
            script = f'echo "${{INCUS_DIR:+incus}}"; {curl}'
            env = environment(HOME=str(tmp_path))
            done = run("run", "-q", *given, "--", "sh", "-c", script, env=env)
            kind = "incus" if place.endswith("incus") else ""
            assert (done.stdout, done.stderr) == (f"{kind}\n{{}}", "")


def test_a_remote_behind_a_socket(tmp_path: Path, ours: Papers) -> None:
    """A remote may be a unix socket; one that is not there is told of as ever."""
    configuration(tmp_path / ".config/lxc", ours, "unix:///nonexistent/unix.socket")
    said = complaint("--remote", "far", HOME=str(tmp_path))
    assert "no daemon at /nonexistent/unix.socket (from remote far of lxc, " in said


def test_an_unknown_remote(tmp_path: Path, ours: Papers) -> None:
    """The names that there are are told; so is a configuration that cannot be read."""
    configuration(tmp_path / ".config/lxc", ours, "https://h:1")
    said = complaint("--remote", "fra", HOME=str(tmp_path))
    assert "no remote fra: there are far, images, local; see `lxc remote list`" in said
    (tmp_path / ".config/lxc/config.yml").unlink()
    (tmp_path / ".config/lxc/config.yml").mkdir()
    assert "cannot read " in complaint("--remote", "far", HOME=str(tmp_path))
