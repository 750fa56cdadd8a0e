"""``lxdtap replay`` as its user meets it: of a fake daemon that was recorded, and is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .tap import LXDTAP, always, answer, ask, environment, fake_daemon, run

GET = b"GET /1.0/%s HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n"
CLIENT = """\
import os, socket, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.environ["LXD_SOCKET"])
        head = "GET %s HTTP/1.1\\r\\nHost: lxd\\r\\nConnection: close\\r\\n\\r\\n"
        sock.sendall((head % path).encode())
        print(b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\\r\\n\\r\\n")[2].decode())
"""


def client(*paths: str) -> tuple[str, ...]:
    """A command that asks for these paths, one after the other, and prints what it is told."""
    return (sys.executable, "-c", CLIENT, *paths)


@pytest.fixture
def cassette(tmp_path: Path) -> str:
    """A recording of two requests, whose daemon is gone."""
    path = str(tmp_path / "two.yaml")
    says = {"type": "sync", "metadata": {"name": "c1", "password": "correct-horse-battery"}}
    with fake_daemon(tmp_path / "d", always(answer(json.dumps(says).encode()))) as daemon:
        done = run(
            *("run", "-q", "-w", path, "--", *client("/1.0/instances/c1", "/1.0/images")),
            env=environment(LXD_SOCKET=daemon.path),
        )
        assert (done.returncode, done.stdout.count("correct-horse-battery")) == (0, 2)
    return path


def test_a_recording_answers_as_its_daemon_did(cassette: str) -> None:
    """The command hears what was recorded, without its secrets, and its status is ours."""
    done = run("replay", "--strict", cassette, "--", *client("/1.0/instances/c1", "/1.0/images"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["metadata"]["name"] for line in done.stdout.splitlines()] == ["c1"] * 2
    assert "correct-horse-battery" not in Path(cassette).read_text() + done.stdout
    assert run("replay", cassette, "--", "sh", "-c", "exit 7").returncode == 7


def test_what_was_not_recorded_is_a_miss(cassette: str) -> None:
    """The client gets LXD's envelope that names the nearest; so does stderr; strict fails."""
    done = run("replay", cassette, "--", *client("/1.0/instances/c2"))
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["type"] == "error"
    assert "/1.0/instances/c2" in told["error"]
    assert "/1.0/instances/c1" in told["error"]
    assert "/1.0/instances/c2" in done.stderr.splitlines()[0]
    strict = run("replay", "--strict", cassette, "--", *client("/1.0/instances/c2"))
    assert strict.returncode == 1


def test_what_was_not_played_is_told(cassette: str) -> None:
    """At the end: a note, or a failure."""
    done = run("replay", cassette, "--", *client("/1.0/images"))
    assert (done.returncode, done.stderr.splitlines()) == (
        0,
        [
            "lxdtap: 1 recorded interactions were not played:",
            "lxdtap:   #1 GET /1.0/instances/c1",
        ],
    )
    assert run("replay", "--strict", cassette, "--", *client("/1.0/images")).returncode == 1


def test_what_is_played_may_be_shown(cassette: str, tmp_path: Path) -> None:
    """The same DEBUG text as of the daemon itself, under its address."""
    done = run("replay", "--show", cassette, "--", *client("/1.0/images"))
    assert done.stderr.startswith("GET http+unix://")
    assert "d%2Funix.socket/1.0/images HTTP/200\n{\n" in done.stderr
    log = tmp_path / "log"
    run("replay", "-o", str(log), "--format", "line", cassette, "--", *client("/1.0/images"))
    assert " GET /1.0/images 200 " in log.read_text()


@pytest.mark.parametrize("content", [None, "", "nonsense", "version: 1\n", "[[[["])
def test_what_is_no_cassette_is_not_played(tmp_path: Path, content: str | None) -> None:
    """One line, exit status 1, and the command is not run."""
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_text(content)
    done = run("replay", str(path), "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("lxdtap: ")
    assert "bad.yaml" in line


def test_a_recording_as_a_sidecar(cassette: str, tmp_path: Path) -> None:
    """Any client that is pointed at the socket is answered, until a signal ends it."""
    process = subprocess.Popen(
        [*LXDTAP, "replay", "--listen", f"{tmp_path}/", cassette],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        path = f"{tmp_path}/unix.socket"
        assert process.stderr.readline() == f"export LXD_DIR={tmp_path} LXD_SOCKET={path}\n"
        assert "playing" in process.stderr.readline()
        assert b"c1" in ask(path, GET % b"instances/c1")
        process.terminate()
        assert process.wait(5) == 0
    assert not Path(path).exists()
