"""What all rows share: the options, a directory, the daemons behind, and word of how far it is."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.daemons.throwaway import LXD, Daemon, DaemonError, throwaway

from . import load
from .processes import Address, free_port, running

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
BODY = (Path(__file__).parent / "instance.json").read_bytes()
"""What LXD 5.0.2 answered to ``GET /1.0/instances/c1``."""
NAMES = 1000
"""How many instances nginx has."""
LARGE = 2 << 20
"""Bytes of a large JSON body."""

NGINX = """
worker_processes 1; worker_rlimit_nofile {files}; daemon off; pid {dir}/nginx.pid;
error_log stderr crit; {user}
events {{ worker_connections {files}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  open_file_cache max=2000; default_type application/json;
  server {{
    listen unix:{dir}/unix.socket backlog=4096; listen 127.0.0.1:{port}; root {dir}/www;
    location = /1.0 {{ return 200 '{{"type":"sync","metadata":{{"auth":"trusted"}}}}'; }}
  }}
}}
"""


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    rounds: int = 5
    seconds: int = 3
    bulk: int = 1 << 30
    body: int = 10 << 30
    transactions: int = 1_000_000
    interactions: int = 100_000


@dataclass(slots=True)
class Stage:
    """One run of the bench."""

    options: Options
    directory: Path
    tell: Callable[[str], None]
    nginx: Address = field(init=False)
    nginx_tcp: Address = field(init=False)
    sink: Address = field(init=False)
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    kept: dict[str, object] = field(default_factory=dict)
    """What one row measured and another wants too."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _daemon: Daemon | None = None

    def place(self, name: str) -> Path:
        """A new place for something that runs."""
        return self.directory / f"{name}{next(self._numbers)}"

    def rounds(self, what: str, rounds: int = 0) -> Iterator[int]:
        """The rounds, told as they come."""
        many = rounds or self.options.rounds
        for number in range(1, many + 1):
            self.tell(f"{what}: round {number} of {many}")
            yield number

    def daemon(self) -> Daemon | str:
        """A throwaway LXD with a container c1, started where it is first wanted; or why none."""
        if self._daemon is None:
            if why := LXD.missing():
                return f"{why} (see .ci/install-daemons)"
            self.tell("starting a throwaway LXD")
            try:
                self._daemon = self.ending.enter_context(throwaway(LXD))
            except DaemonError as error:
                return " ".join(str(error).split())[:200]
        return self._daemon


@contextlib.contextmanager
def stage(options: Options, directory: Path) -> Iterator[Stage]:
    """Set up what all rows share."""
    made = Stage(options, directory, _Teller().tell)
    with made.ending:
        port = free_port()
        place = directory / "nginx"
        _furnish(place / "www")
        user = "user root;" if os.geteuid() == 0 else ""
        files = load.connections_at_most() * 2
        config = place / "nginx.conf"
        config.write_text(NGINX.format(dir=place, user=user, port=port, files=files))
        made.nginx, made.nginx_tcp = Address(f"{place}/unix.socket"), Address(port)
        nginx = ["nginx", "-c", str(config), "-e", "stderr"]
        made.ending.enter_context(running(nginx, made.nginx, place))
        place = made.place("sink")
        made.sink = Address(f"{place}/unix.socket")
        sink = [sys.executable, "-m", "tests.bench.sink", f"{place}/unix.socket"]
        env = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
        made.ending.enter_context(running(sink, made.sink, place, env=env))
        yield made


def _furnish(www: Path) -> None:
    """The files that nginx serves."""
    instances = www / "1.0" / "instances"
    instances.mkdir(parents=True)
    (www / "instance").write_bytes(BODY)
    for number in range(1, NAMES + 1):
        os.link(www / "instance", instances / f"c{number}")
    entry = BODY.strip()
    (www / "large").write_bytes(b"[" + b",".join([entry] * (LARGE // len(entry))) + b"]\n")


class _Teller:
    """Says on stderr what is being done: a line each, or one that changes on a terminal."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._width = 0

    def tell(self, text: str) -> None:
        line = f"bench: {time.monotonic() - self._begun:4.0f} s  {text}"
        if sys.stderr.isatty():
            print(
                f"\r{line:{self._width}}", end="\n" if not text else "", file=sys.stderr, flush=True
            )
            self._width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)
