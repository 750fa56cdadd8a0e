"""``lxdtap run`` as its user meets it: the command, the sidecar, the log, and each error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxdtap import endpoint
from lxdtap.errors import NoDaemonError, UpstreamError
from lxdtap.log import debugformat
from lxdtap.tap import upstream
from tests.scenarios import CASSETTES

from .tap import (
    GET,
    LXDTAP,
    PATIENCE,
    FakeDaemon,
    Served,
    always,
    answer,
    ask,
    connect,
    environment,
    eventually,
    fake_daemon,
    read_until,
    run,
    sidecar,
)

FIRST_LOOK = str(CASSETTES / "lxd" / "first-look.yaml")
ASK = (
    "import os,socket; s=socket.socket(1); s.connect(os.environ['LXD_SOCKET']); "
    "s.sendall(b'GET /1.0 HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n'); print(s.recv(9999)[-2:])"
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        yield daemon


# -- with a command


def test_the_command_is_tapped(daemon: FakeDaemon) -> None:
    """Its output is its own, its status is ours, and what it did is on stderr."""
    script = f"{ASK}; raise SystemExit(3)"
    done = run("run", "--upstream", daemon.path, "--", "python3", "-c", script)
    assert (done.returncode, done.stdout) == (3, "b'{}'\n")
    [block] = debugformat.parse(done.stderr)
    assert (block.method, block.outcome) == ("GET", "HTTP/200")
    assert block.url.endswith("unix.socket/1.0")


def test_the_socket_is_private_and_goes_with_the_command(daemon: FakeDaemon) -> None:
    """Only its owner can connect, in a directory that only its owner can enter."""
    script = "stat -c '%a %F' $LXD_SOCKET $LXD_DIR; echo $LXD_SOCKET; echo $INCUS_SOCKET"
    lines = run("run", "-q", "--upstream", daemon.path, "--", "sh", "-c", script).stdout.split("\n")
    assert lines[:2] == ["600 socket", "700 directory"]
    assert not Path(lines[2]).parent.exists()
    assert lines[3] == ""


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_status_is_the_commands(daemon: FakeDaemon, command: str, status: int) -> None:
    """128 + N stands for signal N, as in shells."""
    done = run("run", "-q", "--upstream", daemon.path, "--", "sh", "-c", command)
    assert done.returncode == status


def test_the_commands_input_and_signals_are_its_own(daemon: FakeDaemon) -> None:
    """It reads our stdin, and finds no signal blocked or ignored."""
    done = run(
        *("run", "-q", "--upstream", daemon.path, "--"),
        *("sh", "-c", "cat; grep -E 'Sig(Blk|Ign)' /proc/self/status"),
        stdin="typed\n",
    )
    typed, blocked, ignored = done.stdout.splitlines()
    assert typed == "typed"
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_signals_reach_the_command(daemon: FakeDaemon) -> None:
    """A SIGTERM to lxdtap is the command's to answer."""
    script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*LXDTAP, "run", "-q", "--upstream", daemon.path, "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[0] == "caught\n"
    assert process.returncode == 5


def test_a_command_that_asks_nothing_is_remarked_on(daemon: FakeDaemon) -> None:
    """If no request came through, the likely reason is said."""
    done = run("run", "--upstream", daemon.path, "--", "true")
    assert done.returncode == 0
    assert "no request came through" in done.stderr


# -- its start

SPARED = {"lxdtap.content", "lxdtap.redact", "lxdtap.log", "lxdtap.cassette", "msgpack", "yaml"}
"""What only those runs use that log or record."""


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        (("run", "-q", "--upstream", "DAEMON", "--", "true"), SPARED | {"aiohttp"}),
        (("replay", FIRST_LOOK, "--", "true"), {"lxdtap.tap.core", "msgpack", "aiohttp"}),
        (("run", "--help"), SPARED | {"asyncio", "lxdtap.transaction"}),
    ],
)
def test_only_what_is_needed_is_imported(
    daemon: FakeDaemon, arguments: tuple[str, ...], spared: set[str]
) -> None:
    """A command waits for its tap: what that does without it does not load."""
    given = [daemon.path if each == "DAEMON" else each for each in arguments]
    done = run(*given, env=environment(PYTHONPROFILEIMPORTTIME="1"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert (done.returncode, loaded & spared) == (0, set())
    assert "lxdtap.cli" in loaded


def test_garbage_is_collected_once_all_is_imported(tmp_path: Path, daemon: FakeDaemon) -> None:
    """It is not looked for before, nor ever in what was imported; while a tap runs it is."""
    (tmp_path / "hook.py").write_text(
        "import gc, sys\nprint(gc.isenabled(), gc.get_freeze_count() > 10_000, file=sys.stderr)\n"
        "def keep(interaction): return interaction\n"
    )
    where = ("--upstream", daemon.path, "-w", f"{tmp_path}/w.yaml", "--redact-with", "hook:keep")
    done = subprocess.run(
        [*LXDTAP, "run", "-q", *where, "--", "true"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr.splitlines()[0] == "True True"


# -- errors


def one_line(text: str) -> str:
    """The one line that was said."""
    [line] = text.splitlines()
    assert line.startswith("lxdtap: ")
    return line


@pytest.mark.parametrize(
    ("command", "status"), [("no-such-command", 127), ("/etc/passwd", 126), ("/etc/passwd/x", 127)]
)
def test_a_command_that_cannot_be_run(daemon: FakeDaemon, command: str, status: int) -> None:
    """127 where it is not found, 126 where it is not executable, as in shells."""
    done = run("run", "--upstream", daemon.path, "--", command)
    assert done.returncode == status
    assert command in one_line(done.stderr)


def test_no_daemon_found(tmp_path: Path) -> None:
    """Where a variable names one that is not there, it is said which variable."""
    done = run("run", "--", "true", env=environment(LXD_DIR=str(tmp_path)))
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert f"{tmp_path}/unix.socket (from LXD_DIR)" in line
    assert "start" in line


def test_a_daemon_that_does_not_listen(daemon: FakeDaemon) -> None:
    """A stale socket is told from a missing one."""
    daemon.close()
    done = run("run", "--upstream", daemon.path, "--", "true")
    assert done.returncode == 1
    assert "no daemon listens" in one_line(done.stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who is refused")
def test_not_permitted(daemon: FakeDaemon) -> None:
    """A socket that we may not connect to is said to be so."""
    os.chmod(daemon.path, 0o600)
    for directory in list(Path(daemon.path).parents)[:-1]:
        with contextlib.suppress(PermissionError):
            os.chmod(directory, os.stat(directory).st_mode | 0o011)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # somebody else, who has nothing to lose
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        said = "connected"
        try:
            upstream.connect(endpoint.Endpoint(daemon.path, "--upstream"))
        except UpstreamError as error:
            said = f"{error.status} {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as answer_of_theirs:
        said = answer_of_theirs.read()
    assert said.startswith(f"403 not permitted to connect to {daemon.path}")
    assert "group" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "xml"),
        ("--only", "nonsense pattern"),
        ("-z",),
    ],
)
def test_wrong_options(arguments: tuple[str, ...]) -> None:
    """A wrong option is a usage error: exit status 2, and the option is named."""
    done = run("run", *arguments, "--", "true")
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_a_path_that_is_too_long(tmp_path: Path, daemon: FakeDaemon) -> None:
    """A path over sun_path's 107 bytes is said to be too long, before anything is made."""
    place = tmp_path / ("x" * 100)
    done = run("run", "--upstream", daemon.path, "--listen", f"{place}/unix.socket")
    assert done.returncode == 1
    assert "at most 107 bytes" in one_line(done.stderr)
    assert not place.exists()


# -- the sidecar


def test_a_sidecar_says_what_to_set(tmp_path: Path, daemon: FakeDaemon) -> None:
    """Its first line is the one to type; it ends on a signal, and takes its socket along."""
    with sidecar(tmp_path / "tap", daemon.path) as tap:
        assert tap.said[0] == f"export LXD_DIR={tap.directory} LXD_SOCKET={tap.path}\n"
        assert stat.S_IMODE(os.lstat(tap.path).st_mode) == 0o600
        assert os.listdir(tap.directory) == ["unix.socket"]
        assert tap.stop(signal.SIGINT) == 0
        assert not Path(tap.path).exists()


# -- the log


def test_what_hangs_is_visible(tmp_path: Path) -> None:
    """A request that has waited for a second is shown, before its answer."""

    def never(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"never")

    with fake_daemon(tmp_path / "daemon", never) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap, connect(tap.path) as sock:
            started = time.monotonic()
            sock.sendall(GET.replace(b"/1.0", b"/1.0/operations/x/wait"))
            eventually(lambda: tap.entries("open"))
            assert 1 <= time.monotonic() - started < 2
            assert tap.entries("open")[0]["target"] == "/1.0/operations/x/wait"


NASTY = b"\x1b[2J\x1b]0;owned\x07\r\n" + b"=" * 24 + b"\nGET forged HTTP/200\n\xe2\x80\xae\xc2\x9b"


@pytest.mark.parametrize("form", ["debug", "line", "json"])
def test_nothing_in_the_traffic_reaches_the_terminal_raw(tmp_path: Path, form: str) -> None:
    """Escape sequences, newlines and marks that reorder text are shown, not obeyed."""
    error = json.dumps({"type": "error", "error": NASTY.decode(), "error_code": 400}).encode()
    with fake_daemon(
        tmp_path / "daemon", always(answer(error, "400 \x1b[31mBad", kind="application/json"))
    ) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-v", form=form) as tap:
            ask(
                tap.path,
                b"POST /\x1b[1m\xff HTTP/1.1\r\nX: \x1b]0;x\x07\r\nConnection: close\r\n\r\n",
            )
            ask(tap.path, b"PUT /1.0 HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(NASTY) + NASTY)
            tap.stop()
            text = tap.log.read_bytes().decode()
    assert not {c for c in text if c < " " and c not in "\n\t"} | ({"\x9b", "\u202e"} & set(text))
    if form == "debug":
        assert len(debugformat.parse(text)) == text.count("\n" + "=" * 24 + "\n") == 2
    else:
        assert len(text.splitlines()) == 2


def test_secrets_are_placeholders_unless_asked_for(tmp_path: Path, daemon: FakeDaemon) -> None:
    """A credential is nowhere in the log, and is there with --show-secrets."""
    body = b'{"password": "correct-horse-battery"}'
    request = b"POST /x?secret=tr0ub4dor-and-3 HTTP/1.1\r\nAuthorization: Bearer abcdefghijkl\r\n"
    request += b"Content-Type: application/json\r\nConnection: close\r\n"
    request += b"Content-Length: %d\r\n\r\n" % len(body) + body
    secrets = ("correct-horse-battery", "tr0ub4dor-and-3", "abcdefghijkl")
    for options, shown in (((), False), (("--show-secrets",), True)):
        place = tmp_path / f"tap{len(options)}"
        with sidecar(place, daemon.path, "-v", *options, form="debug") as tap:
            ask(tap.path, request)
            tap.stop()
            text = tap.log.read_text()
        assert [secret in text for secret in secrets] == [shown] * 3


def test_only_and_ignore(tmp_path: Path, daemon: FakeDaemon) -> None:
    """What is filtered is carried all the same, and keeps its number."""
    with sidecar(
        tmp_path / "tap", daemon.path, "--only", "GET /1.0*", "--ignore", "/1.0/events"
    ) as tap:
        for path in (b"/1.0/events", b"/1.0/x", b"/other"):
            assert ask(tap.path, GET.replace(b"/1.0", path)) == answer(b"{}")
        tap.stop()
        assert [(e["id"], e["target"]) for e in tap.transactions()] == [(2, "/1.0/x")]


def test_a_reader_that_leaves_does_not_matter(tmp_path: Path, daemon: FakeDaemon) -> None:
    """With the log piped into `head`, traffic goes on after head has gone."""
    reading, writing = os.pipe()
    with sidecar(tmp_path / "tap", daemon.path, form="line", stdout=writing) as tap:
        os.close(writing)
        os.close(reading)
        for _ in range(20):
            assert ask(tap.path, GET) == answer(b"{}")
        assert tap.stop() == 0


def test_a_reader_that_sleeps_does_not_hold_traffic_up(tmp_path: Path) -> None:
    """A log that nobody reads costs transactions their lines, not their time; it says how many."""
    body = b'{"pad": "' + b"x" * 200_000 + b'"}'
    reading, writing = os.pipe()
    with fake_daemon(tmp_path / "daemon", always(answer(body))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, stdout=writing) as tap:
            os.close(writing)
            started = time.monotonic()
            for _ in range(200):
                assert len(ask(tap.path, GET)) > 200_000
            assert time.monotonic() - started < PATIENCE
            tap.process.send_signal(signal.SIGTERM)
            with os.fdopen(reading, "rb") as log:
                lines = log.read().splitlines()
            _, stderr = tap.process.communicate(timeout=PATIENCE)
    said = stderr + "".join(json.loads(line).get("text", "") for line in lines)
    assert len(lines) < 200
    assert "too slow" in said


def test_help_and_variables(daemon: FakeDaemon) -> None:
    """The help has examples; each option has its variable."""
    text = run("run", "--help").stdout
    assert "lxdtap run -- lxc list" in text
    env = environment(LXDTAP_UPSTREAM=daemon.path, LXDTAP_FORMAT="line")
    done = run("run", "--", "python3", "-c", ASK, env=env)
    assert done.stderr.count("\n") == 1
    assert " #1 GET /1.0 200 " in done.stderr


def test_hello(tmp_path: Path, daemon: FakeDaemon) -> None:
    """--hello sends a first request through the tap, so that there is something to see."""
    with sidecar(tmp_path / "tap", daemon.path, "--hello") as tap:
        eventually(tap.transactions)
        assert tap.transactions()[0]["target"] == "/1.0"


def test_no_daemon_but_a_cassette() -> None:
    """That there is none is said, where it was looked for, and that a recording plays instead."""
    try:
        found = endpoint.discover({}, os.path.exists)
    except NoDaemonError:
        script = ASK.replace("Connection", "Host: x\\r\\nConnection")
        done = run("run", "--or-replay", FIRST_LOOK, "--", "python3", "-c", script)
        assert done.returncode == 0
        none, instead, *rest = done.stderr.splitlines()
        assert none.startswith("lxdtap: no LXD or Incus daemon found: ")
        assert f"{FIRST_LOOK} is played in its place" in instead
        assert rest[0] == "GET http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket/1.0 HTTP/200"
    else:
        pytest.skip(f"there is a daemon at {found.path}")


def test_a_daemon_that_was_named_is_not_replaced(tmp_path: Path, daemon: FakeDaemon) -> None:
    """A cassette is for where there is none: not for one that is there, or should be."""
    command = ("--or-replay", FIRST_LOOK, "--", "python3", "-c", ASK)
    assert run("run", "--upstream", daemon.path, *command).stdout == "b'{}'\n"
    done = run("run", "--upstream", f"{tmp_path}/none", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no daemon at" in one_line(done.stderr)
    done = run("run", "-w", f"{tmp_path}/w.yaml", *command)
    assert done.returncode == 2
    assert "leave it out" in done.stderr


def test_colours(daemon: FakeDaemon) -> None:
    """None where it is not a terminal; FORCE_COLOR and --color say otherwise."""
    command = ("run", "--upstream", daemon.path, "--", "python3", "-c", ASK)
    assert "\x1b" not in run(*command).stderr
    assert "\x1b[" in run(*command, env=environment(FORCE_COLOR="1")).stderr
    assert "\x1b[" in run("run", "--color", "always", *command[1:]).stderr
