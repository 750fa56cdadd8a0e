"""``lxdtap run`` by somebody whom the daemon's socket does not let in: the whole command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .tap import (
    GET,
    LXDTAP,
    PATIENCE,
    FakeDaemon,
    always,
    answer,
    ask,
    environment,
    fake_daemon,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to become somebody who is refused"
)

STRANGER = 64_641
"""The uid and gid of nobody else on this machine."""
ADMINS = 64_642
"""The gid of the daemon's socket, as ``lxd --group`` sets it."""
_CAP_DAC_READ_SEARCH = 2


def stranger(*arguments: str, groups: Sequence[int] = ()) -> list[str]:
    """``lxdtap``, run by somebody who is in these groups at most.

    The checkout and the interpreter may be where only root can go. So the stranger may read
    anything (capabilities(7), CAP_DAC_READ_SEARCH), which does not open a socket: to connect to
    one takes the permission to write to it (unix(7)). Where not even root has that capability
    the interpreter has to be where everybody can go.
    """
    reading = "+dac_read_search" if _bounded_by(_CAP_DAC_READ_SEARCH) else "-all"
    among = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return [
        *("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", among),
        *(f"--inh-caps={reading}", f"--ambient-caps={reading}", "--no-new-privs"),
        *LXDTAP,
        *arguments,
    ]


def _bounded_by(capability: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    [bounding] = [int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:")]
    return bool(bounding >> capability & 1)


def run(
    *arguments: str, groups: Sequence[int] = (), env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``lxdtap`` as a stranger, to its end."""
    return subprocess.run(
        stranger(*arguments, groups=groups),
        env=environment(**env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@dataclass
class Place:
    """Where a stranger can go: the daemon's directory, and one of the stranger's own."""

    daemon: FakeDaemon
    own: Path

    def admit(self, mode: int) -> None:
        """Say who may connect to the daemon."""
        os.chmod(self.daemon.path, mode)


@pytest.fixture
def place() -> Iterator[Place]:
    """A daemon whose socket is as LXD makes it: 0660, root's and its group's."""
    top = Path(tempfile.mkdtemp(prefix="lxdtap-"))
    try:
        top.chmod(0o711)
        own = top / "own"
        own.mkdir(mode=0o700)
        os.chown(own, STRANGER, STRANGER)
        with fake_daemon(top / "daemon", always(answer(b"{}"))) as daemon:
            os.chown(daemon.path, 0, ADMINS)
            made = Place(daemon, own)
            made.admit(0o660)
            yield made
    finally:
        shutil.rmtree(top)


def one_line(text: str) -> str:
    """The one line that was said."""
    [line] = text.splitlines()
    assert line.startswith("lxdtap: ")
    return line


# -- from the start


@pytest.mark.parametrize("found_by", ["--upstream", "LXD_SOCKET", "LXD_DIR", "INCUS_DIR"])
def test_a_command(place: Place, found_by: str) -> None:
    """It is not run; one line says which socket, from where it is known, and what to do."""
    touched = place.own / "touched"
    path = place.daemon.path
    if found_by == "--upstream":
        done = run("run", "--upstream", path, "--", "touch", str(touched))
    else:
        value = path if found_by == "LXD_SOCKET" else str(place.daemon.directory)
        done = run("run", "--", "touch", str(touched), env={found_by: value})
    assert (done.returncode, done.stdout) == (1, "")
    line = one_line(done.stderr)
    assert line.startswith(f"lxdtap: not permitted to connect to {path} (from {found_by}")
    assert line.endswith(": join the socket's group, or use sudo")
    assert not touched.exists()
    assert place.daemon.served == []


def test_a_sidecar(place: Place) -> None:
    """It does not come up, says the same, and leaves nothing where it would have listened."""
    done = run("run", "--upstream", place.daemon.path, "--listen", f"{place.own}/")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"not permitted to connect to {place.daemon.path}" in one_line(done.stderr)
    assert os.listdir(place.own) == []


def test_a_member_of_the_group(place: Place) -> None:
    """Who is in the socket's group needs no more: this is what the others were refused for."""
    who = ("sh", "-c", "id -u; id -G; stat -c '%u %a' $LXD_SOCKET")
    done = run("run", "-q", "--upstream", place.daemon.path, "--", *who, groups=(ADMINS,))
    assert (done.returncode, done.stderr) == (0, "")
    said = [f"{STRANGER}", f"{STRANGER} {ADMINS}", f"{STRANGER} 600"]
    assert done.stdout.splitlines() == said


# -- later


class Sidecar:
    """A sidecar of a stranger's, in front of a daemon that let it in."""

    def __init__(self, place: Place) -> None:
        self.path = str(place.own / "unix.socket")
        self._log = place.own / "log"
        self.process = subprocess.Popen(
            stranger("run", "--listen", f"{place.own}/", "--format", "json", "-o", str(self._log)),
            env=environment(LXD_SOCKET=place.daemon.path),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith("export ")
        assert self.process.stderr.readline().startswith("lxdtap: in front of ")

    def end(self) -> list[str]:
        """End it in good order; what it said, after what to set and where it is."""
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return stderr.splitlines()

    @property
    def transactions(self) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [entry for entry in found if entry["event"] == "transaction"]


@contextlib.contextmanager
def sidecar(place: Place) -> Iterator[Sidecar]:
    """A running sidecar; ended if the test has not."""
    tap = Sidecar(place)
    try:
        yield tap
    finally:
        if tap.process.poll() is None:
            tap.process.kill()
            tap.process.communicate()


def test_the_socket_is_closed_to_us_while_we_tap(place: Place) -> None:
    """The client gets LXD's envelope with 403, and the log says whose it is; let in, on it goes."""
    place.admit(0o666)
    with sidecar(place) as tap:
        assert ask(tap.path, GET) == answer(b"{}")
        place.admit(0o660)
        head, _, body = ask(tap.path, GET).partition(b"\r\n\r\n")
        place.admit(0o666)
        assert ask(tap.path, GET) == answer(b"{}")
        [said] = tap.end()
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    envelope = json.loads(body)
    assert (envelope["type"], envelope["error_code"]) == ("error", 403)
    refusal = f"lxdtap: not permitted to connect to {place.daemon.path} (from LXD_SOCKET)"
    assert envelope["error"].startswith(refusal)
    assert said.startswith(refusal)
    assert [(each["status"], each["own"]) for each in tap.transactions] == [
        (200, False),
        (403, True),
        (200, False),
    ]
    assert stat.S_IMODE(os.stat(place.daemon.path).st_mode) == 0o666
