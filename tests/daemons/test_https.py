"""Real daemons behind https: the client's own remote, its certificates, and what can go wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lxdtap import API, APIConnectionError, APIException, APINotFoundException
from tests.process.tlsdaemon import papers

from .throwaway import INCUS, LXD, Brand, Daemon, throwaway, until

PATIENCE = 60
"""Seconds that a command may take."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Https:
    """A daemon that listens on https, and trusts a client of its own kind.

    Attributes:
        daemon: the daemon.
        url: where it listens.
        conf: the client's configuration, in which the daemon is the remote ``far``.
    """

    daemon: Daemon
    url: str
    conf: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.daemon.environment | {
            self.daemon.brand.config_variable: str(self.conf),
            "LX": self.daemon.brand.client,
        }

    @property
    def shown(self) -> list[str]:
        """Our certificate, on the command line."""
        return ["--cert", str(self.conf / "client.crt"), "--key", str(self.conf / "client.key")]

    @property
    def pinned(self) -> str:
        return str(self.conf / "servercerts" / "far.crt")

    def tapped(self, *arguments: str, log: Path | None = None) -> subprocess.CompletedProcess[str]:
        """``lxdtap run`` with these arguments."""
        logged = ["-q"] if log is None else ["--format", "json", "--show-secrets", "-o", str(log)]
        return subprocess.run(
            [sys.executable, "-m", "lxdtap", "run", *logged, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )


def entries(log: Path, event: str = "transaction") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry for entry in found if entry["event"] == event]


def over_https(daemon: Daemon, directory: Path) -> Https:
    """Let the daemon listen, and its client add it as a remote by a token."""
    conf = directory / "conf"
    conf.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon.run("config", "set", "core.https_address", f"127.0.0.1:{port}")
    named = ["--name", "tapped"] if daemon.kind == "lxd" else ["tapped"]
    token = daemon.run("config", "trust", "add", *named, "-q").stdout.split()[-1].decode()
    daemon.run("remote", "add", "far", token, env={daemon.brand.config_variable: str(conf)})
    return Https(daemon, f"https://127.0.0.1:{port}", conf)


@pytest.fixture
def https(daemon: Daemon, tmp_path: Path) -> Iterator[Https]:
    """Over https, and as it was afterwards."""
    try:
        yield over_https(daemon, tmp_path)
    finally:
        for each in daemon.ask("GET", "/1.0/certificates?recursion=1"):
            daemon.ask("DELETE", f"/1.0/certificates/{each['fingerprint']}")
        daemon.run("config", "unset", "core.https_address")
        daemon.reset()


FLOW = """\
$LX list --format csv --columns ns
echo to stdin | $LX exec c1 -- cat
$LX exec c1 -- sh -c 'echo to stderr >&2; exit 3' || echo "status $?"
$LX file push --quiet pushed c1/root/pushed
$LX file pull --quiet c1/root/pushed pulled
cmp pushed pulled
$LX file delete c1/root/pushed
"""


@pytest.mark.parametrize("by", ["remote", "url"])
def test_everything_works(https: Https, tmp_path: Path, by: str) -> None:
    """Lists, exec's websockets and files; the log has what the daemon has, with https URLs.

    Even where the remote is the client's default, which leads to it directly.
    """
    https.daemon.run("remote", "switch", "far", env=https.environment)
    log, pushed = tmp_path / "log", tmp_path / "pushed"
    pushed.write_bytes(os.urandom(100_000))
    given = {
        "remote": ["--remote", "far"],
        "url": ["--upstream", https.url, *https.shown, "--server-cert", https.pinned],
    }[by]
    mark = https.daemon.mark()
    done = https.tapped(*given, "--", "sh", "-euc", f"cd {tmp_path}\n{FLOW}", log=log)
    assert (done.returncode, done.stderr) == (0, "to stderr\n")
    assert done.stdout.splitlines() == ["c1,RUNNING", "to stdin", "status 3"]
    transactions = entries(log)
    ours = Counter((each["method"], each["target"]) for each in transactions)
    assert ours == Counter(https.daemon.requests(mark))
    assert {each["url"].removesuffix(each["target"]) for each in transactions} == {https.url}
    assert not [each for each in transactions if each["broken"]]
    assert not entries(log, "note")


def test_a_file_of_200_mb(https: Https, tmp_path: Path) -> None:
    """Goes up and comes down with the same SHA-256."""
    digest = hashlib.sha256()
    with (tmp_path / "large").open("wb") as large:
        for _ in range(200):
            piece = os.urandom(MIB)
            digest.update(piece)
            large.write(piece)
    script = (
        "$LX file push --quiet large c1/root/large; $LX exec c1 -- sha256sum /root/large\n"
        "$LX file pull --quiet c1/root/large - | sha256sum; $LX exec c1 -- rm /root/large"
    )
    done = https.tapped("--remote", "far", "--", "sh", "-euc", f"cd {tmp_path}\n{script}")
    assert done.stderr == ""
    assert [line.split()[0] for line in done.stdout.splitlines()] == [digest.hexdigest()] * 2


def test_another_server_than_the_pinned_one(https: Https, tmp_path: Path) -> None:
    """The daemon is sent nothing where its certificate is not the pinned one."""
    theirs = papers(tmp_path / "theirs")
    mark = https.daemon.mark()
    done = https.tapped("--remote", "far", "--server-cert", theirs.server, "--", "false")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{https.url} is not the server that was meant: {theirs.server} has SHA-256 " in line
    assert https.daemon.requests(mark) == []


def test_an_untrusted_client(https: Https, tmp_path: Path) -> None:
    """That the daemon does not trust us is the daemon's own 403."""
    nobody, log = papers(tmp_path / "nobody"), tmp_path / "log"
    shown = ["--cert", nobody.client, "--key", nobody.client_key, "--server-cert", https.pinned]
    curl = 'curl -sS --unix-socket "${LXD_SOCKET:-$INCUS_SOCKET}" http://x/1.0/instances'
    done = https.tapped("--upstream", https.url, *shown, "--", "sh", "-c", curl, log=log)
    assert json.loads(done.stdout)["error_code"] == 403
    assert "lxdtap" not in done.stdout
    (transaction,) = entries(log)
    assert (transaction["status"], transaction["own"]) == (403, False)


def test_calls_of_our_own(https: Https, tmp_path: Path) -> None:
    """API over https: the same results, DEBUG text with the daemon's address, and its verdicts."""
    certificate = (str(https.conf / "client.crt"), str(https.conf / "client.key"))
    told = io.StringIO()
    with API.factory(
        https.url, cert=certificate, verify=https.pinned, debug=True, output=told
    ) as api:
        assert api.get("/1.0").metadata["auth"] == "trusted"
        with pytest.raises(APINotFoundException) as caught:
            api.get("instances/nope")
        assert str(caught.value).startswith(f"GET {https.url}/1.0/instances/nope ")
        api.post("profiles", json={"name": "far"})
        api.delete("profiles/far")
        with api.get("/1.0", stream=True) as streamed:
            assert json.loads(b"".join(streamed.iter_content()))["type"] == "sync"
    assert told.getvalue().startswith(f"GET {https.url}/1.0 HTTP/200\n{{\n")

    other = papers(tmp_path / "other")
    with API.factory(https.url, cert=certificate, verify=other.server) as api:
        with pytest.raises(APIConnectionError, match="certificate"):
            api.get("/1.0")
    with API.factory(https.url, cert=(other.client, other.client_key), verify=https.pinned) as api:
        assert api.get("/1.0").metadata["auth"] == "untrusted"
        with pytest.raises(APIException, match=r"not authorized|Forbidden"):
            api.get("instances")


@pytest.mark.parametrize("brand", [LXD, INCUS], ids=["lxd", "incus"])
def test_a_daemon_that_is_killed(brand: Brand, tmp_path: Path) -> None:
    """The client sees the cut in the answer, and the log calls it one."""
    if why := brand.missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    log, got = tmp_path / "log", tmp_path / "got"
    with throwaway(brand) as daemon:
        https = over_https(daemon, tmp_path)
        daemon.run("exec", "c1", "--", "dd", "if=/dev/zero", "of=/root/large", "bs=1M", "count=64")
        pid = daemon.ask("GET", "/1.0")["environment"]["server_pid"]

        def kill() -> None:
            until(lambda: got.exists() and got.stat().st_size > 0, "some of the answer")
            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        curl = (
            f"curl -sS --limit-rate 1M --output {got}"
            ' --unix-socket "${LXD_SOCKET:-$INCUS_SOCKET}"'
            " 'http://x/1.0/instances/c1/files?path=/root/large'"
        )
        done = https.tapped("--remote", "far", "--", "sh", "-c", curl, log=log)
        killer.join()
    assert done.returncode == 18, done.stderr  # curl(1): "Partial file"
    (transaction,) = entries(log)
    assert transaction["broken"]
    assert "was cut: " in entries(log, "note")[0]["text"]
