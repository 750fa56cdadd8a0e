"""A root tap in front of real daemons: each caller is to them who they are without it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.callers import Caller, content
from tests.process.tap import Sidecar, sidecar

from .throwaway import INCUS, LXD, Brand, Daemon, throwaway, until

SERVED = 64_651
"""The gid of those whom the tap serves; like the other, nobody's on this machine."""
ADMINS = 64_652
"""The gid of those whom the daemon lets in."""
NAMES = ("daemon", "bin")
"""Users that every machine has: LXD looks names up."""
BRANDS = {"lxd": LXD, "incus": INCUS}


def user(name: str, *groups: int) -> Caller:
    entry = pwd.getpwnam(name)
    return Caller(entry.pw_uid, entry.pw_gid, groups)


@contextlib.contextmanager
def tapped(home: Path, path: str) -> Iterator[Sidecar]:
    """A tap that serves, in a place that everybody can get to."""
    room = Path(tempfile.mkdtemp(dir=home))
    room.chmod(0o711)
    with sidecar(room / "tap", path, "--group", str(SERVED)) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def admitting(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that lets in a group of its own, as ``lxd --group`` makes it."""
    before = os.stat(daemon.socket)
    os.chown(daemon.socket, 0, ADMINS)
    yield daemon
    os.chown(daemon.socket, 0, before.st_gid)


def client(daemon: Daemon, name: str, directory: Path, *arguments: str) -> str:
    """Run the daemon's own client as a user, through the socket in a directory; its stderr."""
    home = directory.parent / f"home-{name}"
    home.mkdir(exist_ok=True)
    entry = pwd.getpwnam(name)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    brand = daemon.brand
    done = subprocess.run(
        [brand.client, *arguments],
        env=daemon.environment
        | {
            "HOME": str(home),
            brand.config_variable: str(home),
            brand.directory_variable: str(directory),
            brand.socket_variable: str(directory / "unix.socket"),
        },
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[SERVED, *([ADMINS] if name == NAMES[0] else [])],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return f"{done.returncode} {done.stderr}"


@contextlib.contextmanager
def lifecycle(daemon: Daemon) -> Iterator[list[dict[str, str]]]:
    """The requestors of what happens, as the daemon tells it, in order."""
    mark = daemon.mark()
    process = subprocess.Popen(
        [daemon.brand.client, "monitor", "--type", "lifecycle", "--format", "json"],
        env=daemon.environment | daemon.directions,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[dict[str, str]] = []
    try:
        until(lambda: "events" in str(daemon.requests(mark)), "the monitor is to listen")
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=10)
        events = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
        found += [event["metadata"]["requestor"] for event in events]


def usernames(daemon: Daemon, since: int, target: str) -> set[str]:
    """Who asked for what, by the daemon's own log."""
    with daemon.log.open(encoding="utf-8", errors="replace") as log:
        log.seek(since)
        lines = [line for line in log if "Handling API request" in line and target in line]
    return {name for line in lines for name in re.findall(r"\busername=(\S+)", line)}


def test_the_daemon_names_the_user(admitting: Daemon) -> None:
    """Its log and its lifecycle events say who did it: the user, and root where it was root."""
    with tapped(admitting.home, str(admitting.socket)) as tap, lifecycle(admitting) as requestors:
        mark = admitting.mark()
        directory = Path(tap.path).parent
        for step in ("create", "delete"):
            said = client(admitting, NAMES[0], directory, "profile", step, "of-the-user")
            assert said.startswith("0 "), said
        through = {
            admitting.brand.directory_variable: str(directory),
            admitting.brand.socket_variable: tap.path,
        }
        for step in ("create", "delete"):
            admitting.run("profile", step, "of-root", env=through)
        until(lambda: usernames(admitting, mark, "/of-root") != set(), "root's turn")
        assert usernames(admitting, mark, "/of-the-user") == {NAMES[0]}
        assert usernames(admitting, mark, "/of-root") == {"root"}
    assert [each["username"] for each in requestors] == [NAMES[0], NAMES[0], "root", "root"]


def test_whom_the_daemon_refuses(admitting: Daemon) -> None:
    """Who is not in its group is refused by the kernel, with 403; the daemon hears nothing."""
    mark = admitting.mark()
    with tapped(admitting.home, str(admitting.socket)) as tap:
        said = client(admitting, NAMES[1], Path(tap.path).parent, "list")
        refused = content(user(NAMES[1], SERVED).ask(tap.path))
        admitted = content(user(NAMES[0], SERVED, ADMINS).ask(tap.path, "/1.0/profiles"))
    assert admitted["metadata"] == ["/1.0/profiles/default"]
    assert (refused["type"], refused["error_code"]) == ("error", 403)
    assert refused["error"].startswith("lxdtap: not permitted to connect to ")
    assert said.startswith("1 ")
    assert "not permitted to connect" in said
    assert usernames(admitting, mark, "/1.0") == {NAMES[0]}
    answers = {(each["peer"]["uid"], each["status"], each["own"]) for each in tap.transactions()}
    ours, theirs = (pwd.getpwnam(name).pw_uid for name in NAMES)
    assert answers == {(ours, 200, False), (theirs, 403, True)}


# -- the daemons that give each user a project of their own


_SERVER = """\
#!/bin/sh
# In a network of its own, where the bridge that user projects want is nobody else's.
PATH={bin}:$PATH exec unshare --net sh -c 'ip link set lo up && exec "$0" "$@"' {server} "$@"
"""
_DNSMASQ = """\
#!/bin/sh
# Bridges want one; nobody here asks it for an address.
case "$*" in --version) echo "Dnsmasq version 2.90" ;; *) exec sleep infinity ;; esac
"""


def _executable(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture(params=["lxd", "incus"])
def projects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Daemon, str]]:
    """A daemon with all that its user daemon wants to find; and the latter's socket."""
    brand = BRANDS[request.param]
    program = {"lxd": "lxd-user", "incus": "/usr/libexec/incus/incus-user"}[brand.kind]
    if why := (brand.missing() or _missing(program)):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    _executable(tmp_path / "bin" / "dnsmasq", _DNSMASQ)
    text = _SERVER.format(bin=tmp_path / "bin", server=brand.server)
    with throwaway(apart(brand, _executable(tmp_path / "server", text))) as daemon:
        bridge = {"lxd": "lxdbr0", "incus": "incusbr0"}[brand.kind]
        daemon.run("network", "create", bridge, "ipv4.address=none", "ipv6.address=none")
        with user_daemon(daemon, program) as path:
            yield daemon, path


def apart(brand: Brand, server: str) -> Brand:
    return dataclasses.replace(brand, server=server)


def _missing(program: str) -> str | None:
    there = any(
        os.access(os.path.join(directory, program), os.X_OK) for directory in os.get_exec_path()
    )
    return None if there else f"{program}: not installed"


@contextlib.contextmanager
def user_daemon(daemon: Daemon, program: str) -> Iterator[str]:
    """``lxd-user`` listens where it is started, ``incus-user`` beside the daemon's own socket."""
    place = daemon.home / "user"
    place.mkdir()
    names = (place / "unix.socket", daemon.directory / "unix.socket.user")
    with (daemon.home / "user.log").open("wb") as log:
        process = subprocess.Popen(
            [program],
            cwd=place,
            env=daemon.environment | {daemon.brand.directory_variable: str(daemon.directory)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: any(name.exists() for name in names), f"{program} is to listen")
        [path] = [name for name in names if name.exists()]
        os.chmod(path, 0o666)
        yield str(path)
    finally:
        process.terminate()
        process.wait(10)


def test_each_user_has_their_own_project(projects: tuple[Daemon, str]) -> None:
    """The daemon behind sees the caller, not the tap: else all would be in root's project."""
    daemon, path = projects
    with tapped(daemon.home, path) as tap:
        for name in NAMES:
            caller = user(name, SERVED)
            answer = content(caller.ask(tap.path, "/1.0/projects"))
            assert answer["metadata"] == [f"/1.0/projects/user-{caller.uid}"]
