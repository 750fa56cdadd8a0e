"""The relay beside its peers, in one run: requests a second, added latency, bulk throughput.

An nginx on a unix socket serves a body of the size of a real instance (2.4 KB) and a large file.
In front of it, in turn: nothing, haproxy, socat, and the tap, without a log and with one. Rounds
alternate between them; medians and ratios to haproxy are what to quote.

Needs nginx, haproxy, socat and h2load (Debian: nginx-light haproxy socat nghttp2-client).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("nginx", "haproxy", "socat", "h2load")
BODY = 2400
BULK = 256 << 20
GET = b"GET /instance HTTP/1.1\r\nHost: lxd\r\n\r\n"

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log stderr crit;
{user}
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; sendfile on; default_type application/json;
  server {{ listen unix:{dir}/nginx.sock; root {dir}/www; }} }}
"""
HAPROXY = """
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind unix@{dir}/haproxy.sock
  server upstream unix@{dir}/nginx.sock
"""


@dataclass
class Contender:
    """Something that carries requests, and what was measured of it."""

    name: str
    path: str
    rates: list[float] = field(default_factory=list)
    """Requests a second, 8 connections."""
    latencies: list[float] = field(default_factory=list)
    """Microseconds, the median of one connection's requests."""
    bulks: list[float] = field(default_factory=list)
    """Megabytes a second, one large download."""


@contextlib.contextmanager
def process(command: Sequence[str], sock: str) -> Iterator[None]:
    """A server that runs until we are done with it."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not os.path.exists(sock):
            if time.monotonic() > deadline or running.poll() is not None:
                raise SystemExit(f"bench: {command[0]} did not start")
            time.sleep(0.02)
        yield
    finally:
        running.terminate()
        running.wait(15)


def taps(directory: Path) -> dict[str, list[str]]:
    """The tap, without a log and with each kind."""
    log = ["-o", str(directory / "tap.log"), "--format"]
    return {"tap -q": ["-q"], "tap debug log": [*log, "debug"], "tap line log": [*log, "line"]}


@contextlib.contextmanager
def contenders(directory: Path) -> Iterator[list[Contender]]:
    """All of them, running."""
    upstream = str(directory / "nginx.sock")
    found = [Contender("direct", upstream)]
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(NGINX.format(dir=directory, user=user))
    (directory / "haproxy.cfg").write_text(HAPROXY.format(dir=directory))
    with contextlib.ExitStack() as stack:
        nginx = ["nginx", "-c", str(directory / "nginx.conf"), "-e", "stderr"]
        stack.enter_context(process(nginx, upstream))
        others = {
            "haproxy": ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")],
            "socat": [
                "socat",
                f"UNIX-LISTEN:{directory}/socat.sock,fork,backlog=128",
                f"UNIX-CONNECT:{upstream}",
            ],
        }
        for name, command in others.items():
            path = f"{directory}/{name}.sock"
            stack.enter_context(process(command, path))
            found.append(Contender(name, path))
        for name, options in taps(directory).items():
            place = directory / name.replace(" ", "")
            path = f"{place}/unix.socket"
            command = [sys.executable, "-m", "lxdtap", "run", "--upstream", upstream]
            stack.enter_context(process([*command, "--listen", f"{place}/", *options], path))
            found.append(Contender(name, path))
        yield found


def rate(path: str, seconds: int) -> float:
    """Requests a second on 8 connections."""
    command = ["h2load", "--h1", "-c", "8", "-D", str(seconds), "-B", f"unix:{path}"]
    done = subprocess.run([*command, "http://lxd/instance"], capture_output=True, text=True)
    match = re.search(r"([\d.]+) req/s", done.stdout)
    return float(match[1]) if match else 0.0


def latency(path: str, count: int = 2000) -> float:
    """The median time of a request on one connection, in microseconds."""
    times = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        for _ in range(count):
            started = time.perf_counter_ns()
            sock.sendall(GET)
            received = sock.recv(65536)
            while len(received) < BODY:
                received += sock.recv(65536)
            times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1000


def bulk(path: str) -> float:
    """Megabytes a second of one large download."""
    size, buffer = 0, bytearray(1 << 20)
    started = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET /bulk HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n")
        while count := sock.recv_into(buffer):
            size += count
    return size / (time.perf_counter() - started) / 1e6


def start_up(times: int = 7) -> float:
    """Seconds that ``lxdtap run -q -- true`` takes more than ``true``; the median."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{place}/unix.socket")
        sock.listen(64)
        tap = [sys.executable, "-m", "lxdtap", "run", "-q", "--upstream", place, "--", "true"]
        pairs = [(_timed(tap), _timed(["true"])) for _ in range(times)]
    return statistics.median(tapped - plain for tapped, plain in pairs)


def _timed(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def table(found: Sequence[Contender]) -> Iterator[str]:
    """The results, a line each."""
    yield f"{'':15}{'req/s':>9}{'/haproxy':>9}{'median us':>11}{'added':>7}{'MB/s':>7}"
    direct, haproxy = found[0], found[1]
    base, peer = statistics.median(direct.latencies), statistics.median(haproxy.rates)
    for one in found:
        speed, wait = statistics.median(one.rates), statistics.median(one.latencies)
        through = statistics.median(one.bulks)
        row = f"{one.name:15}{speed:9.0f}{speed / peer:9.2f}{wait:11.0f}{wait - base:7.0f}"
        yield f"{row}{through:7.0f}"


def main() -> None:
    """Measure, with progress on stderr; the table on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="also write all measurements here")
    options = parser.parse_args()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        packages = "nginx-light haproxy socat nghttp2-client"
        raise SystemExit(f"bench: {', '.join(missing)} not found; apt-get install {packages}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        (directory / "www").mkdir()
        (directory / "www" / "instance").write_bytes(b"{" + b" " * (BODY - 2) + b"}")
        (directory / "www" / "bulk").write_bytes(bytes(BULK))
        with contenders(directory) as found:
            for number in range(1, options.rounds + 1):
                for one in found:
                    print(
                        f"round {number}/{options.rounds}: {one.name}   ", end="\r", file=sys.stderr
                    )
                    one.rates.append(rate(one.path, options.seconds))
                    one.latencies.append(latency(one.path))
                    one.bulks.append(bulk(one.path))
                    (directory / "tap.log").write_bytes(b"")
            print("\n".join(table(found)))
    print(f"start-up: {start_up() * 1000:.0f} ms more than the command")
    if options.json:
        Path(options.json).write_text(json.dumps([vars(one) for one in found], indent=2))


if __name__ == "__main__":
    main()
