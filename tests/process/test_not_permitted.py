"""``lxdtap run`` by somebody whom the daemon's socket does not let in: the whole command."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .tap import LXDTAP, PATIENCE, FakeDaemon, always, answer, environment, fake_daemon

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
