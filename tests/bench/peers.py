"""lxdtap and what does similar things, each in front of the same daemon."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.process.tap import environment

from . import packages
from .processes import Address, Running, free_port, running, wait
from .stage import ROOT, Stage

DIRECT = "direct"
HAPROXY = "haproxy"
NGINX = "nginx proxy_pass"
SOCAT = "socat"
SOCAT_V = "socat -v"
LEAST = "asyncio alone"
MITM = "mitmdump, TCP"
MITM_W = "mitmdump -w, TCP"
MITM_LOG = "mitmdump flow_detail=3 -w, TCP"
RECORDING = "lxdtap -q -w"
LOGGING = "lxdtap -o LOG -w"

ANEW = frozenset({LEAST, RECORDING, LOGGING})
"""These begin anew each round: what they wrote before costs them nothing then, and fills no disk.
"""
OVER_TCP = frozenset({MITM, MITM_W, MITM_LOG})
"""mitmproxy has no unix sockets: it and the nginx behind it speak TCP on the loopback."""

HAPROXY_CONFIG = """
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 600s
  timeout server 600s
listen relay
  bind unix@{place}/unix.socket
  server upstream unix@{upstream}
"""
NGINX_CONFIG = """
worker_processes 1; daemon off; pid {place}/nginx.pid; error_log stderr crit; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;
  uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
  upstream daemon {{ server unix:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen unix:{place}/unix.socket;
    location / {{
      proxy_pass http://daemon; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
  }}
}}
"""

Open = Callable[[], AbstractContextManager[Running]]


@dataclass(slots=True)
class Peers:
    """Those of one row: running, but for some that begin anew each round."""

    stage: Stage
    upstream: Address
    upstream_tcp: Address | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def choose(self, *names: str) -> dict[str, Open]:
        """How to run each of these that can be."""
        found: dict[str, Open] = {}
        for name in names:
            tool = name.split()[0].rstrip(",")
            if tool in packages.TOOLS and (why := packages.missing(tool)):
                self.absent[name] = why
            elif name in OVER_TCP and self.upstream_tcp is None:
                self.absent[name] = "no unix sockets"
            else:
                found[name] = self._how(name)
        return found

    @contextlib.contextmanager
    def alternating(self, *names: str) -> Iterator[dict[str, Open]]:
        """How to have each at hand, again and again; all but those of ANEW run all the time."""
        with contextlib.ExitStack() as stack:
            found: dict[str, Open] = {}
            for name, open_ in self.choose(*names).items():
                if name in ANEW:
                    found[name] = open_
                else:
                    found[name] = _kept(stack.enter_context(open_()))
            yield found

    def _how(self, name: str) -> Open:
        simple: dict[str, Open] = {
            HAPROXY: self._haproxy,
            NGINX: self._nginx,
            SOCAT: self._socat,
            SOCAT_V: partial(self._socat, "-v"),
            LEAST: self._least,
            RECORDING: partial(tap, self.stage, self.upstream, "-q", recording=True),
            LOGGING: partial(tap, self.stage, self.upstream, logging=True, recording=True),
        }
        if name in simple:
            return simple[name]
        options = {MITM: ["-q"], MITM_W: ["-q", "-w"], MITM_LOG: ["--set", "flow_detail=3", "-w"]}
        assert self.upstream_tcp is not None
        return partial(mitmdump, self.stage, self.upstream_tcp, *options[name])

    @contextlib.contextmanager
    def _haproxy(self) -> Iterator[Running]:
        place = self.stage.place("haproxy")
        place.mkdir()
        config = place / "haproxy.cfg"
        config.write_text(HAPROXY_CONFIG.format(place=place, upstream=self.upstream.where))
        command = ["haproxy", "-db", "-f", str(config)]
        with running(command, Address(f"{place}/unix.socket"), place) as found:
            yield found

    @contextlib.contextmanager
    def _nginx(self) -> Iterator[Running]:
        place = self.stage.place("proxy")
        place.mkdir()
        config = place / "nginx.conf"
        user = "user root;" if packages.is_root() else ""
        text = NGINX_CONFIG.format(place=place, upstream=self.upstream.where, user=user)
        config.write_text(text)
        command = ["nginx", "-c", str(config), "-e", "stderr"]
        with running(command, Address(f"{place}/unix.socket"), place) as found:
            yield found

    @contextlib.contextmanager
    def _socat(self, *options: str) -> Iterator[Running]:
        place = self.stage.place("socat")
        listen = f"UNIX-LISTEN:{place}/unix.socket,fork,backlog=128"
        command = ["socat", *options, listen, f"UNIX-CONNECT:{self.upstream.where}"]
        with running(command, Address(f"{place}/unix.socket"), place) as found:
            yield found

    @contextlib.contextmanager
    def _least(self) -> Iterator[Running]:
        place = self.stage.place("least")
        paths = [str(self.upstream.where), f"{place}/unix.socket", f"{place}/written"]
        command = [sys.executable, "-m", "tests.bench.least", *paths]
        env = environment(PYTHONPATH=str(ROOT))
        with running(command, Address(f"{place}/unix.socket"), place, env=env) as found:
            yield found


def _kept(running: Running) -> Open:
    """One that runs, and goes on when a round is over."""
    return lambda: contextlib.nullcontext(running)


@contextlib.contextmanager
def tap(
    stage: Stage,
    upstream: Address,
    *options: str,
    logging: bool = False,
    recording: bool = False,
    stdout: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """``lxdtap run``, by its command line and nothing else.

    Args:
        stage: the run.
        upstream: the daemon.
        options: of ``lxdtap run``.
        logging: whether the DEBUG log goes to a file.
        recording: whether a cassette is recorded.
        stdout: where the log goes that is not in a file.
        env: more of the environment.
    """
    place = stage.place("tap")
    log = place / "log" if logging else None
    cassette = place / "cassette.yaml"
    arguments = [*options, *(["-o", str(log)] if log else [])]
    arguments += ["-w", str(cassette)] if recording else []
    command = [sys.executable, "-m", "lxdtap", "run", "--listen", f"{place}/", *arguments]
    with running(
        command,
        Address(f"{place}/unix.socket"),
        place,
        # By the variable it is known to be LXD; by --upstream it would be asked what it is.
        env=environment(LXD_SOCKET=str(upstream.where), PYTHONPATH=str(ROOT)) | dict(env or {}),
        stdout=stdout,
        log=log,
        spool=Path(f"{cassette}.spool") if recording else None,
    ) as found:
        # It answers before it says where it is; that is no trouble.
        wait(lambda: "ends it" in found.said.read_text(), "a tap is to say where it listens")
        found.begun = found.said.stat().st_size
        yield found


@contextlib.contextmanager
def mitmdump(stage: Stage, upstream: Address, *options: str) -> Iterator[Running]:
    """``mitmdump`` in reverse mode; a last ``-w`` is given a file; what it prints goes to one."""
    place, port = stage.place("mitm"), free_port()
    place.mkdir()
    command = [
        *(str(packages.MITMDUMP), "--mode", f"reverse:http://127.0.0.1:{upstream.where}"),
        *("--listen-host", "127.0.0.1", "--listen-port", str(port)),
        *("--set", f"confdir={place}/conf", *options),
        *([str(place / "flows")] if options and options[-1] == "-w" else []),
    ]
    with (place / "printed").open("wb") as printed:
        with running(command, Address(port), place, stdout=printed.fileno()) as found:
            yield found
