"""What a user adds to what is redacted: by options, by the project, by a function."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tap import LXDTAP, FakeDaemon, always, answer, environment, fake_daemon

CLIENT = """\
import os, socket
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(os.environ["LXD_SOCKET"])
    head = "GET /1.0/pins?pin=4711 HTTP/1.1\\r\\nX-Pin: 4712\\r\\nHost: lxd\\r\\n\\r\\n"
    sock.sendall(head.encode())
    sock.recv(65536)
    sock.sendall(b"GET /1.0/images/x HTTP/1.1\\r\\nHost: lxd\\r\\n\\r\\n")
    sock.recv(65536)
"""
SAYS = answer(json.dumps({"type": "sync", "metadata": {"pin": "4713"}}).encode(), close=False)
PINS = ("4711", "4712", "4713")
HOOK = """\
def without_images(interaction):
    return None if "/images/" in interaction.transaction.request.path else interaction

def broken(interaction):
    raise ValueError("oh no")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory where lxdtap is run."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "ours.py").write_text(HOOK)
    return directory


def record(project: Path, daemon: FakeDaemon, *options: str) -> subprocess.CompletedProcess[str]:
    """Record what the client does, from within the project."""
    return subprocess.run(
        [*LXDTAP, "run", "-o", "log", "-w", "c.yaml", *options, "--", sys.executable, "-c", CLIENT],
        cwd=project,
        env=environment(LXD_SOCKET=daemon.path),
        capture_output=True,
        text=True,
        timeout=20,
    )


def left(project: Path) -> list[str]:
    """Which of the secrets stand in the cassette or in the log."""
    text = (project / "c.yaml").read_text() + (project / "log").read_text()
    return [pin for pin in PINS if pin in text]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """It tells a pin, whatever it is asked."""
    with fake_daemon(tmp_path / "d", always(SAYS)) as running:
        yield running


def test_by_options(project: Path, daemon: FakeDaemon) -> None:
    """Members, headers and parameters of these names are placeholders, in cassette and log."""
    options = ("--redact", "key:pin", "--redact", "header:x-pin", "--redact", "query:pin", "-v")
    assert record(project, daemon, *options).returncode == 0
    assert left(project) == []
    (project / "c.yaml").unlink()
    (project / "log").unlink()
    assert record(project, daemon, "-v").returncode == 0
    assert left(project) == list(PINS), "or the test could not fail"


def test_by_the_project(project: Path, daemon: FakeDaemon) -> None:
    """The nearest pyproject.toml counts, and options add to it."""
    below = project / "below"
    below.mkdir()
    (project / "pyproject.toml").write_text('[tool.lxdtap]\nredact = ["key:pin", "query:pin"]\n')
    assert record(below, daemon, "-v").returncode == 0
    assert left(below) == ["4712"]
    (below / "c.yaml").unlink()
    (below / "log").unlink()
    assert record(below, daemon, "-v", "--redact", "header:X-Pin").returncode == 0
    assert left(below) == []


@pytest.mark.parametrize(
    "text",
    [
        *("[tool.lxdtap]\nredact = 1\n", "[tool.lxdtap]\nredact = ['pin']\n", "[[[\n"),
        *("tool = 1\n", "[tool]\nlxdtap = []\n"),
    ],
)
def test_a_project_that_cannot_be_read(project: Path, daemon: FakeDaemon, text: str) -> None:
    """One line that names the file, before anything is run."""
    (project / "pyproject.toml").write_text(text)
    done = record(project, daemon)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pyproject.toml" in line
    assert not (project / "c.yaml").exists()


def test_by_a_function(project: Path, daemon: FakeDaemon) -> None:
    """It leaves out what it returns None for."""
    done = record(project, daemon, "--redact-with", "ours:without_images")
    assert done.returncode == 0, done.stderr
    assert "recorded 1 transaction" in done.stderr
    assert "/1.0/images/x" not in (project / "c.yaml").read_text()


def test_a_function_that_fails(project: Path, daemon: FakeDaemon) -> None:
    """Nothing is written but the spool, which can be recovered without it."""
    done = record(project, daemon, "--redact-with", "ours:broken")
    assert done.returncode == 1
    assert "oh no" in done.stderr
    assert not (project / "c.yaml").exists()
    again = subprocess.run(
        [*LXDTAP, "recover", "c.yaml.spool", "--redact-with", "ours:without_images"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert again.returncode == 0, again.stderr
    assert "recovered 1 transaction" in again.stderr


@pytest.mark.parametrize("name", ["ours", "ours:nothing", "nowhere:x", ":"])
def test_what_is_no_function(project: Path, daemon: FakeDaemon, name: str) -> None:
    """One line that says what to give, before anything is run."""
    done = record(project, daemon, "--redact-with", name)
    assert done.returncode == 1
    assert "MODULE:FUNCTION" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_name(project: Path, daemon: FakeDaemon) -> None:
    """A usage error."""
    assert record(project, daemon, "--redact", "pin").returncode == 2


def test_a_project_runs_nothing(project: Path, daemon: FakeDaemon) -> None:
    """Modules that lie there under names that lxdtap or Python would import are left alone."""
    for name in ("yaml", "msgpack", "click", "json", "tomllib", "sitecustomize", "lxdtap", "ours"):
        (project / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(9)\n")
    (project / "pyproject.toml").write_text('[tool.lxdtap]\nredact = ["key:pin"]\n')
    client = [sys.executable, "-I", "-c", CLIENT]
    done = subprocess.run(
        [Path(sys.executable).parent / "lxdtap", "run", "-w", "c.yaml", "--", *client],
        cwd=project,
        env=environment(LXD_SOCKET=daemon.path),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert (project / "c.yaml").exists()
    assert not (project / "ran").exists()
