"""The real ``lxdtap`` process in front of a fake daemon, and raw clients for both."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 20.0
"""Seconds after which something that was to happen is taken not to."""

LXDTAP = (sys.executable, "-m", "lxdtap")


def eventually(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds, and fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{holds} did not come to hold in {seconds} s"
        time.sleep(0.01)


def environment(**more: str) -> dict[str, str]:
    """The environment without what would steer lxdtap or its colours."""
    steering = ("LXD_", "INCUS_", "LXDTAP_", "NO_COLOR", "FORCE_COLOR", "XDG_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    return kept | more


def run(
    *arguments: str, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``lxdtap`` to its end."""
    return subprocess.run(
        [*LXDTAP, *arguments],
        env=environment() if env is None else env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


# -- a fake daemon


@dataclass
class Served:
    """One connection that the fake daemon had."""

    received: bytearray = field(default_factory=bytearray)
    over: bool = False
    """Whether the client's side ended."""


Script = Callable[[socket.socket, Served], None]


class FakeDaemon:
    """Listens on a unix socket, and plays a script on each connection, in a thread of its own."""

    def __init__(self, directory: Path, script: Script) -> None:
        self.directory = directory
        self.path = str(directory / "unix.socket")
        self.served: list[Served] = []
        self._script = script
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(self.path)
        self._sock.listen(512)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and leave a stale socket, as a daemon that crashed does."""
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
        served = Served()
        self.served.append(served)
        sock.settimeout(PATIENCE)
        with sock, contextlib.suppress(OSError):
            self._script(sock, served)


@contextlib.contextmanager
def fake_daemon(directory: Path, script: Script) -> Iterator[FakeDaemon]:
    """A fake daemon, listening in a directory of its own."""
    directory.mkdir(exist_ok=True)
    daemon = FakeDaemon(directory, script)
    try:
        yield daemon
    finally:
        daemon.close()


def read_until(sock: socket.socket, served: Served, end: bytes) -> bytes:
    """Read until these bytes came, or the client's side ended; what came."""
    start = len(served.received)
    while end not in served.received[start:]:
        data = sock.recv(1 << 16)
        if not data:
            served.over = True
            break
        served.received += data
    return bytes(served.received[start:])


def read_to_end(sock: socket.socket, served: Served) -> None:
    """Read until the client's side ends."""
    while data := sock.recv(1 << 16):
        served.received += data
    served.over = True


def answer(body: bytes, status: str = "200 OK", *, close: bool = True, kind: str = "") -> bytes:
    """A response with a Content-Length."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {kind or 'application/json'}\r\n"
    return (head + ("Connection: close\r\n" if close else "") + "\r\n").encode() + body


def always(response: bytes) -> Script:
    """A script that answers every request head so, until the client leaves."""

    def script(sock: socket.socket, served: Served) -> None:
        while b"\r\n\r\n" in read_until(sock, served, b"\r\n\r\n"):
            sock.sendall(response)
            if b"Connection: close" in response:
                return

    return script


# -- a client


def connect(path: str) -> socket.socket:
    """A connected client."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


def rest(sock: socket.socket) -> bytes:
    """All that comes until the other side ends; a reset counts as an end."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            received += data
    return bytes(received)


def ask(path: str, request: bytes) -> bytes:
    """Send, and read to the end."""
    with connect(path) as sock:
        sock.sendall(request)
        return rest(sock)


GET = b"GET /1.0 HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n"


# -- a sidecar


class Sidecar:
    """``lxdtap run`` without a command, its log in a file unless told otherwise."""

    def __init__(
        self,
        directory: Path,
        upstream: str,
        *options: str,
        form: str = "json",
        stdout: int | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.path = str(directory / "unix.socket")
        self.log = directory.parent / f"{directory.name}.log"
        where = () if stdout is not None else ("-o", str(self.log))
        arguments = ("--listen", f"{directory}/", "--format", form)
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [*LXDTAP, "run", *arguments, *where, *options],
            # By the variable it is known to be LXD; by --upstream it would be asked what it is.
            env=(environment() if env is None else env) | {"LXD_SOCKET": upstream},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = [self.line()]
        if self.said[0].startswith("export "):
            self.said.append(self.line())  # or communicate() would miss what is buffered

    def line(self) -> str:
        """The next line on stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; its exit status. What it said is in ``said`` then."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=PATIENCE)
        self.said += stderr.splitlines(keepends=True)
        return self.process.returncode

    def entries(self, event: str = "") -> list[dict[str, Any]]:
        """The log's objects until now, of one event if it is named."""
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last may still be on its way
        found = [json.loads(line) for line in whole.splitlines()]
        return [entry for entry in found if not event or entry["event"] == event]

    def transactions(self) -> list[dict[str, Any]]:
        """The transactions that have finished, in order of their beginning."""
        return sorted(self.entries("transaction"), key=lambda entry: int(entry["id"]))

    @property
    def descriptors(self) -> int:
        """How many file descriptors the process has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextlib.contextmanager
def sidecar(
    directory: Path,
    upstream: str,
    *options: str,
    form: str = "json",
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[Sidecar]:
    """A running sidecar; ended if the test has not."""
    tap = Sidecar(directory, upstream, *options, form=form, stdout=stdout, env=env)
    try:
        yield tap
    finally:
        if tap.process.poll() is None:
            tap.process.kill()
            tap.process.communicate()
