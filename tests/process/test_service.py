"""Under a service manager: a socket handed over, what is told, and the units that we ship.

What systemd does is done here by a few lines of our own, with real sockets and processes; where
its tools are installed they are asked too.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Protocol

import pytest

from lxdtap.record.link import PATIENCE as RECORDER
from lxdtap.stage import DRAIN

from .callers import Caller, content, tells
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
    rest,
)
from .test_not_permitted import STRANGER, stranger

UNITS = resources.files("lxdtap") / "data" / "systemd"
GROUP = 64_655
"""The gid of those whom the tap serves; nobody's on this machine."""

# sd_listen_fds(3), the other side: sockets from descriptor 3 on, and the pid that they are for.
LAUNCH = """
import fcntl, os, sys
count = int(sys.argv[1])
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[2 : 2 + count]]
for target, number in enumerate(high, 3):
    os.dup2(number, target)
    os.close(number)
os.environ.setdefault("LISTEN_FDS", str(count))
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execvp(sys.argv[2 + count], sys.argv[2 + count :])
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        yield daemon


class Descriptor(Protocol):
    """What can be handed over."""

    def fileno(self) -> int: ...


def listening(path: Path | str) -> socket.socket:
    """A socket as a .socket unit makes one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen()
    return sock


def launched(*socks: Descriptor, command: tuple[str, ...] = LXDTAP) -> list[str]:
    """What to run so that ``lxdtap`` is handed these; ``pass_fds`` takes their numbers."""
    numbers = [str(sock.fileno()) for sock in socks]
    return [sys.executable, "-c", LAUNCH, str(len(socks)), *numbers, *command]


class Service:
    """``lxdtap run`` as a service manager starts it."""

    def __init__(self, upstream: str, *socks: Descriptor, **env: str) -> None:
        self.process = subprocess.Popen(
            [*launched(*socks), "run", "-q"],
            env=environment(LXD_SOCKET=upstream, **env),
            pass_fds=[sock.fileno() for sock in socks],
            stderr=subprocess.PIPE,
            text=True,
        )

    def said(self) -> str:
        """The next line on stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@contextlib.contextmanager
def service(upstream: str, *socks: Descriptor, **env: str) -> Iterator[Service]:
    """A running service; ended if the test has not."""
    tap = Service(upstream, *socks, **env)
    try:
        yield tap
    finally:
        if tap.process.poll() is None:
            tap.process.kill()
        tap.process.communicate()


def failed(
    upstream: str,
    *socks: Descriptor,
    arguments: tuple[str, ...] = (),
    command: tuple[str, ...] = LXDTAP,
    **env: str,
) -> str:
    """The one line that is said by a service that cannot start."""
    done = subprocess.run(
        [*launched(*socks, command=command), "run", *arguments],
        env=environment(LXD_SOCKET=upstream, **env),
        pass_fds=[sock.fileno() for sock in socks],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("lxdtap: cannot ")
    return line


# -- a socket that is handed over


def test_a_socket_is_handed_over(tmp_path: Path, daemon: FakeDaemon) -> None:
    """It is what clients are told to use, and closed on exec."""
    path = tmp_path / "unix.socket"
    with listening(path) as sock, service(daemon.path, sock) as tap:
        assert tap.said() == f"export LXD_DIR={tmp_path} LXD_SOCKET={path}\n"
        assert ask(str(path), GET) == answer(b"{}")
        flags = Path(f"/proc/{tap.process.pid}/fdinfo/3").read_text().splitlines()[1]
        assert int(flags.split()[1], 8) & os.O_CLOEXEC


def test_the_name_stays_and_nobody_is_turned_away(tmp_path: Path, daemon: FakeDaemon) -> None:
    """A client that comes between two taps is served by the second; the inode is the same."""
    path = tmp_path / "unix.socket"
    with listening(path) as sock:
        os.chmod(path, 0o600)
        before = os.lstat(path)
        with service(daemon.path, sock) as tap:
            tap.said()
            assert tap.stop() == 0
        with connect(str(path)) as client:
            client.sendall(GET)
            with service(daemon.path, sock):
                assert rest(client) == answer(b"{}")
        assert os.lstat(path).st_ino == before.st_ino
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600


def test_a_socket_for_somebody_else(tmp_path: Path, daemon: FakeDaemon) -> None:
    """With another's LISTEN_PID the socket is not touched, nor its variables handed on."""
    path = tmp_path / "unix.socket"
    script = "env | grep -c ^LISTEN_; echo $LXD_SOCKET"
    with listening(path) as sock:
        done = subprocess.run(
            [*launched(sock), "run", "-q", "--", "sh", "-c", script],
            env=environment(LXD_SOCKET=daemon.path, LISTEN_PID="1", LISTEN_FDNAMES="unix"),
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    count, used = done.stdout.splitlines()
    assert count == "0"
    assert used != str(path)


def test_none_is_handed_over(tmp_path: Path, daemon: FakeDaemon) -> None:
    """LISTEN_FDS=0 is as if there were no variables."""
    with service(daemon.path, LISTEN_FDS="0", LXDTAP_LISTEN=f"{tmp_path}/") as tap:
        assert tap.said() == f"export LXD_DIR={tmp_path} LXD_SOCKET={tmp_path}/unix.socket\n"


def wrong_socket(what: str, directory: Path) -> socket.socket:
    """A descriptor that a mistaken .socket unit would hand over."""
    match what:
        case "datagrams":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sock.bind(str(directory / "unix.socket"))
        case "packets":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.bind(str(directory / "unix.socket"))
            sock.listen()
        case "tcp":
            sock = socket.create_server(("127.0.0.1", 0))
        case "silent":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(directory / "unix.socket"))
        case "abstract":
            sock = listening(f"\0{directory}/unix.socket")
        case "odd name":
            sock = listening(directory / "lxd.sock")
        case _:
            sock = listening(directory / "unix.socket")
            os.unlink(directory / "unix.socket")
    return sock


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("datagrams", "not a unix stream socket (ListenStream=/...)"),
        ("packets", "not a unix stream socket (ListenStream=/...)"),
        ("tcp", "not a unix stream socket (ListenStream=/...)"),
        ("silent", "does not listen (Accept= is to be no)"),
        ("abstract", "does not end in /unix.socket, which clients look for"),
        ("odd name", "does not end in /unix.socket, which clients look for"),
        ("no name", "No such file or directory"),
    ],
)
def test_a_socket_that_is_of_no_use(
    tmp_path: Path, daemon: FakeDaemon, what: str, reason: str
) -> None:
    """What is wrong with it is said in one line, and where to mend it."""
    with wrong_socket(what, tmp_path) as sock:
        line = failed(daemon.path, sock)
    assert reason in line
    assert ".socket unit" in line


def test_no_socket_at_all(daemon: FakeDaemon) -> None:
    """A descriptor that is not open, or no socket, is not taken for one."""
    assert "descriptor 3 is not open" in failed(daemon.path, LISTEN_FDS="1")
    with open(os.devnull, "rb") as file:
        assert "Socket operation on non-socket" in failed(daemon.path, file)


def test_more_than_one(tmp_path: Path, daemon: FakeDaemon) -> None:
    """A tap has one socket; a number that is none is told as it is."""
    with listening(tmp_path / "unix.socket") as sock:
        assert "2 sockets" in failed(daemon.path, sock, sock)
        assert "LISTEN_FDS='one'" in failed(daemon.path, sock, LISTEN_FDS="one")


def test_it_is_the_only_place_to_listen(tmp_path: Path, daemon: FakeDaemon) -> None:
    """With a place of our own, or with a command, it is not clear what was meant."""
    with listening(tmp_path / "unix.socket") as sock:
        line = failed(daemon.path, sock, arguments=("--listen", "/tmp/x/"))
        assert line.startswith("lxdtap: cannot listen at /tmp/x/: ")
        assert "LXDTAP_LISTEN" in failed(daemon.path, sock, LXDTAP_LISTEN="/tmp/x/")
        line = failed(daemon.path, sock, arguments=("--", "true"))
        assert line.startswith("lxdtap: cannot run true: ")


@pytest.mark.parametrize("mode", [0o660, 0o606])
def test_a_socket_for_others_too(tmp_path: Path, daemon: FakeDaemon, mode: int) -> None:
    """Without root all of them would be us to the daemon: that is refused."""
    path = tmp_path / "unix.socket"
    os.chmod(daemon.path, 0o666)
    command = LXDTAP if os.geteuid() else tuple(stranger())
    with listening(path) as sock:
        os.chmod(path, mode)
        line = failed(daemon.path, sock, command=command)
    assert f"with mode {mode:04o} others could use it, and act as you" in line


def test_the_daemon_is_not_ourselves(tmp_path: Path) -> None:
    """A socket that was handed over is no daemon to tap either."""
    path = tmp_path / "unix.socket"
    with listening(path) as sock:
        done = subprocess.run(
            [*launched(sock), "run"],
            env=environment(LXD_SOCKET=str(path)),
            pass_fds=[sock.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert "are the same" in done.stderr


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="not installed")
def test_systemds_own_launcher(tmp_path: Path, daemon: FakeDaemon) -> None:
    """systemd-socket-activate(1) starts the tap on the first client, which is served."""
    path = tmp_path / "unix.socket"
    process = subprocess.Popen(
        [
            *("systemd-socket-activate", f"--listen={path}", f"--setenv=LXD_SOCKET={daemon.path}"),
            *(f"--setenv=PATH={os.environ['PATH']}", *LXDTAP, "run", "-q"),
        ],
        env=environment(),
        stderr=subprocess.PIPE,
    )
    try:
        eventually(path.exists)
        assert ask(str(path), GET) == answer(b"{}")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert path.exists()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


# -- what is told


class Manager:
    """Hears what is told (sd_notify(3))."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(PATIENCE)
        self.sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def heard(self) -> dict[str, str]:
        """The next message."""
        lines = self.sock.recv(1 << 16).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def nothing_more(self) -> bool:
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return not self.sock.recv(1 << 16)
        return True


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = tmp_path / "notify"
    manager = Manager(str(path) if request.param == "path" else f"@{path}")
    with manager.sock:
        yield manager


def test_ready_and_stopping(tmp_path: Path, daemon: FakeDaemon, manager: Manager) -> None:
    """Ready means that a client who comes now is served; stopping, that none is let in."""
    env = {"NOTIFY_SOCKET": manager.address, "LXDTAP_LISTEN": f"{tmp_path}/"}
    with service(daemon.path, **env) as tap:
        ready = manager.heard()
        assert ready["READY"] == "1"
        assert daemon.path in ready["STATUS"]
        assert f"{tmp_path}/unix.socket" in ready["STATUS"]
        assert ask(f"{tmp_path}/unix.socket", GET) == answer(b"{}")
        assert tap.stop() == 0
        assert manager.heard()["STOPPING"] == "1"
        assert manager.nothing_more()


def test_not_ready_without_a_daemon(tmp_path: Path, manager: Manager) -> None:
    """Where it cannot start, the manager's status is the line that was said; it may try again."""
    missing = str(tmp_path / "no daemon\n" / "unix.socket")
    line = subprocess.run(
        [*LXDTAP, "run"],
        env=environment(LXD_SOCKET=missing, NOTIFY_SOCKET=manager.address),
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    assert line.returncode == 1
    assert manager.heard() == {"STATUS": line.stderr.removeprefix("lxdtap: ").rstrip("\n")}
    assert manager.nothing_more()


def test_a_manager_that_does_not_hear(tmp_path: Path, daemon: FakeDaemon) -> None:
    """Trouble in telling is no reason to end: absent, stale, no socket, too long, of no kind."""
    stale, plain = tmp_path / "stale", tmp_path / "plain"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(stale))
    plain.touch()
    addresses = (f"{tmp_path}/none", str(stale), str(plain), f"/{'x' * 200}", "vsock:2:1234", "@")
    for number, address in enumerate(addresses):
        place = tmp_path / str(number)
        env = {"NOTIFY_SOCKET": address, "LXDTAP_LISTEN": f"{place}/unix.socket"}
        with service(daemon.path, **env) as tap:
            assert tap.said().startswith("export ")
            assert ask(f"{place}/unix.socket", GET) == answer(b"{}")
            assert tap.stop() == 0


def test_a_manager_that_is_busy(tmp_path: Path, daemon: FakeDaemon) -> None:
    """One that reads nothing is waited for a little, not for ever."""
    manager = Manager(str(tmp_path / "notify"))
    with manager.sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        filling.connect(manager.address)
        with contextlib.suppress(BlockingIOError):
            while True:
                filling.send(b"X=1")
        env = {"NOTIFY_SOCKET": manager.address, "LXDTAP_LISTEN": f"{tmp_path}/"}
        with service(daemon.path, **env) as tap:
            assert tap.said().startswith("export ")
            assert ask(f"{tmp_path}/unix.socket", GET) == answer(b"{}")
            assert tap.stop() == 0


def test_with_a_command_the_manager_is_the_commands(daemon: FakeDaemon, manager: Manager) -> None:
    """A service that is run behind a tap tells of itself; the tap does not speak for it."""
    script = "import os; print(os.environ['NOTIFY_SOCKET'])"
    done = subprocess.run(
        [*LXDTAP, "run", "-q", "--", sys.executable, "-c", script],
        env=environment(LXD_SOCKET=daemon.path, NOTIFY_SOCKET=manager.address),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == f"{manager.address}\n"
    assert manager.nothing_more()


def test_a_stop_drains(tmp_path: Path) -> None:
    """What is under way at a stop is answered, after the manager was told; then it is over."""
    go: list[bool] = []

    def slow(sock: socket.socket, served: Served) -> None:
        if read_until(sock, served, b"\r\n\r\n"):
            eventually(lambda: go)
            sock.sendall(answer(b"{}"))

    manager = Manager(str(tmp_path / "notify"))
    path = tmp_path / "unix.socket"
    with (
        manager.sock,
        listening(path) as sock,
        fake_daemon(tmp_path / "daemon", slow) as daemon,
        service(daemon.path, sock, NOTIFY_SOCKET=manager.address) as tap,
        connect(str(path)) as client,
    ):
        assert manager.heard()["READY"] == "1"
        client.sendall(GET)
        eventually(lambda: len(daemon.served) == 2 and daemon.served[1].received)
        tap.process.send_signal(signal.SIGTERM)
        stopping = manager.heard()
        assert stopping == {"STOPPING": "1", "STATUS": "waiting for 1 open transactions"}
        go.append(True)
        assert rest(client) == answer(b"{}")
        tap.process.communicate(timeout=PATIENCE)
        assert tap.process.returncode == 0


# `lxdtap run --quiet --write FILE`.
RECORD = """
import os, sys
from lxdtap.run import Options, run
sys.exit(run(Options(quiet=True, write=sys.argv[1]), dict(os.environ)))
"""


def test_a_recording_is_given_time(tmp_path: Path, daemon: FakeDaemon) -> None:
    """To save it may take longer than a stop may: the manager is asked for more."""
    manager = Manager(str(tmp_path / "notify"))
    cassette = tmp_path / "c.yaml"
    with manager.sock, listening(tmp_path / "unix.socket") as sock:
        process = subprocess.Popen(
            launched(sock, command=(sys.executable, "-c", RECORD, str(cassette))),
            env=environment(LXD_SOCKET=daemon.path, NOTIFY_SOCKET=manager.address),
            pass_fds=[sock.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert manager.heard()["READY"] == "1"
            assert ask(str(tmp_path / "unix.socket"), GET) == answer(b"{}")
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        assert manager.heard()["STOPPING"] == "1"
        saving = manager.heard()
    assert saving == {"STATUS": f"saving {cassette}", "EXTEND_TIMEOUT_USEC": "600000000"}


# -- the units


def unit(name: str) -> configparser.ConfigParser:
    """A unit file; of settings that are repeated, the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parsed.optionxform = str  # type: ignore[assignment,method-assign] # systemd minds the case
    parsed.read_string((UNITS / name).read_text(encoding="utf-8"))
    return parsed


@pytest.mark.parametrize("whose", ["system", "user"])
def test_a_stop_fits_its_time(whose: str) -> None:
    """Nothing that we still wait for is killed: idle ends, the drain, the log taken and written."""
    seconds = unit(f"{whose}/lxdtap.service")["Service"]["TimeoutStopSec"]
    assert int(seconds.removesuffix("s")) > 1 + DRAIN + 2 * RECORDER + 1


@pytest.mark.parametrize("whose", ["system", "user"])
def test_the_socket_is_never_more_open_than_meant(whose: str) -> None:
    """As shipped it is 0600, has the name that clients look for, and the service leaves it be."""
    ours = unit(f"{whose}/lxdtap.socket")["Socket"]
    assert ours["SocketMode"] == "0600"
    assert ours["ListenStream"].endswith("/lxdtap/unix.socket")
    assert unit(f"{whose}/lxdtap.service")["Service"]["RuntimeDirectoryPreserve"] == "yes"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="not installed")
@pytest.mark.parametrize("whose", ["system", "user"])
def test_systemd_understands_the_units(tmp_path: Path, whose: str) -> None:
    """Every setting is one that systemd knows, with a value that it takes."""
    for name in ("lxdtap.service", "lxdtap.socket"):
        text = (UNITS / whose / name).read_text(encoding="utf-8")
        for command in ("=lxdtap run", "=%h/.local/bin/lxdtap run"):
            text = text.replace(command, "=/bin/true run")  # ours may not be installed there
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", f"--{whose}", "verify", "--man=no", str(tmp_path / "lxdtap.service")],
        env=environment(XDG_RUNTIME_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "lxdtap" in line]) == (
        0,
        [],
    )


def bounded() -> list[str]:
    """A prefix that leaves a command what the system unit leaves it."""
    names = unit("system/lxdtap.service")["Service"]["CapabilityBoundingSet"].split()
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
    return ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs"]


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    place = Path(tempfile.mkdtemp(prefix="lxdtap-"))
    try:
        place.chmod(0o711)
        yield place
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root")
def test_the_units_capabilities_are_enough(open_place: Path) -> None:
    """Root with these alone gives its socket to a group, and is each of it to a 0660 daemon."""
    prefix = bounded()
    if subprocess.run([*prefix, sys.executable, "-c", "import lxdtap"]).returncode != 0:
        pytest.skip("the checkout is where not even root can go without more capabilities")
    path = str(open_place / "tap" / "unix.socket")
    with fake_daemon(open_place / "daemon", tells) as daemon:
        os.chmod(daemon.path, 0o660)
        os.chown(daemon.path, 0, GROUP)
        log = open_place / "log"
        process = subprocess.Popen(
            [*prefix, *LXDTAP, "run", f"--listen={path}", f"--group={GROUP}", f"--log={log}"],
            env=environment(LXD_SOCKET=daemon.path),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("export ")
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o660
            for caller in (Caller(0, 0), Caller(STRANGER, STRANGER, (GROUP,))):
                assert content(caller.ask(path))["uid"] == caller.uid
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
            assert log.exists()
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
