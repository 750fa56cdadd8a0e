"""A root tap: whom it serves, and that each of them is who they are to the daemon."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lxdtap.tap.identity import request, requested
from lxdtap.transaction import Peer

from . import tap
from .callers import Caller, children, content, heard, is_running, tells
from .tap import GET, LXDTAP, PATIENCE, FakeDaemon, Sidecar, ask, environment, fake_daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to serve others")

SERVED = 64_651
"""The gid of those whom the tap serves; like the others, nobody's on this machine."""
ADMINS = 64_652
"""The gid of those whom the daemon lets in."""
ANNA = Caller(64_661, 64_671, (SERVED,))
BERT = Caller(64_662, 64_672, (SERVED, ADMINS, 64_673))
CARL = Caller(64_663, 64_673, (ADMINS,))


def told(caller: Caller) -> tuple[int, int, list[int], str]:
    """What the daemon is to see: no name above all, for then LXD would not trust it."""
    return caller.uid, caller.gid, list(caller.groups), ""


def seen(response: str) -> tuple[int, int, list[int], str]:
    """What the daemon saw."""
    who = content(response)
    return who["uid"], who["gid"], who["groups"], who["name"]


@dataclass
class Place:
    """Where anybody can go: a daemon that lets anybody in, and room for the tap."""

    top: Path
    daemon: FakeDaemon

    @property
    def room(self) -> Path:
        return self.top / "tap"

    def admit(self, group: int) -> None:
        """Let in only a group, as LXD does."""
        os.chown(self.daemon.path, 0, group)
        os.chmod(self.daemon.path, 0o660)

    @contextlib.contextmanager
    def sidecar(self, *options: str, group: int | str | None = SERVED) -> Iterator[Sidecar]:
        """A running sidecar that serves this group."""
        serving = () if group is None else ("--group", str(group))
        with tap.sidecar(self.room, self.daemon.path, *serving, *options) as running:
            yield running


@pytest.fixture
def place() -> Iterator[Place]:
    top = Path(tempfile.mkdtemp(prefix="lxdtap-"))
    try:
        top.chmod(0o711)
        with fake_daemon(top / "daemon", tells) as daemon:
            os.chmod(daemon.directory, 0o711)
            os.chmod(daemon.path, 0o666)
            yield Place(top, daemon)
    finally:
        shutil.rmtree(top)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def connector(sidecar: Sidecar) -> int:
    """The process that connects for others: the last that a tap forks."""
    return children(sidecar.process.pid)[-1]


# -- who they are


@pytest.mark.parametrize(
    "caller",
    [ANNA, BERT, Caller(64_664, SERVED), Caller(4_294_967_294, 4_294_967_293, (SERVED,))],
    ids=["a group", "groups", "none", "the highest ids"],
)
def test_the_daemon_sees_the_caller(place: Place, caller: Caller) -> None:
    """Uid, gid and supplementary groups are the caller's, and the socket has no name."""
    with place.sidecar() as sidecar:
        assert seen(caller.ask(sidecar.path)) == told(caller)
        assert sidecar.stop() == 0
    [transaction] = sidecar.transactions()
    assert (transaction["peer"]["uid"], transaction["peer"]["gid"]) == (caller.uid, caller.gid)
    assert not transaction["own"]


def test_hundreds_of_groups(place: Place) -> None:
    """More than Python's own ``getsockopt()`` has room for; the last of them opens the door."""
    groups = (SERVED, *range(70_000, 70_299))
    place.admit(groups[-1])
    with place.sidecar() as sidecar:
        caller = Caller(ANNA.uid, ANNA.gid, groups)
        assert seen(caller.ask(sidecar.path)) == (ANNA.uid, ANNA.gid, [-1], "")


def test_root_is_root(place: Place) -> None:
    """It is connected directly: the daemon sees the tap itself."""
    with place.sidecar() as sidecar:
        who = content(ask(sidecar.path, GET).decode())
        assert (who["pid"], who["uid"], who["name"]) == (sidecar.process.pid, 0, "")
        assert content(ANNA.ask(sidecar.path))["pid"] == connector(sidecar)


def test_nobody_is_taken_for_another(place: Place) -> None:
    """Two users ask 100 times each at once; every answer is about the one who asked."""
    with place.sidecar() as sidecar:
        started = [(caller, caller.start(sidecar.path, 100)) for caller in (ANNA, BERT)]
        for caller, process in started:
            responses = heard(process)
            assert len(responses) == 100
            assert {json.dumps(seen(each)) for each in responses} == {json.dumps(told(caller))}


def test_a_full_backlog_is_waited_for_as_the_caller(place: Place) -> None:
    """Where the daemon has no room for now, the connector comes back."""
    directory = place.top / "busy"
    directory.mkdir()
    path = str(directory / "unix.socket")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(0)
        os.chmod(path, 0o666)
        with tap.sidecar(place.room, path, "--group", str(SERVED)) as sidecar:
            waiting = [caller.start(sidecar.path, 5) for caller in (ANNA, BERT)]
            time.sleep(0.3)
            door.settimeout(PATIENCE)
            for _ in range(11):  # the tap has knocked once itself
                sock, _address = door.accept()
                with sock:
                    with contextlib.suppress(ConnectionError):
                        tells(sock, tap.Served())
            for caller, process in zip((ANNA, BERT), waiting, strict=True):
                assert [seen(each) for each in heard(process)] == [told(caller)] * 5


def test_a_command_may_become_others(place: Place) -> None:
    """With a command too the group is served, at a place that only it can enter."""
    program = f"""
import os, socket, sys
os.setgroups([{SERVED}]); os.setresgid(1, 1, 1); os.setresuid(2, 2, 2)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(os.environ["LXD_SOCKET"])
    sock.sendall(b"GET /1.0 HTTP/1.1\\r\\nHost: lxd\\r\\nConnection: close\\r\\n\\r\\n")
    while data := sock.recv(65536):
        sys.stdout.buffer.write(data)
"""
    done = tap.run(
        *("run", "-q", "--group", str(SERVED), "--", sys.executable, "-I", "-c", program),
        env=environment(LXD_SOCKET=place.daemon.path, XDG_RUNTIME_DIR="/root"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert seen(done.stdout) == (2, 1, [SERVED], "")


# -- who is let in


def test_the_kernel_decides(place: Place) -> None:
    """Whom the daemon's socket refuses gets LXD's envelope with 403, and the log says whose."""
    place.admit(ADMINS)
    with place.sidecar() as sidecar:
        refused = ANNA.ask(sidecar.path)
        assert seen(BERT.ask(sidecar.path)) == told(BERT)
        assert sidecar.stop() == 0
    assert refused.startswith("HTTP/1.1 403 Forbidden\r\n")
    envelope = content(refused)
    assert (envelope["type"], envelope["error_code"]) == ("error", 403)
    assert envelope["error"] == (
        f"lxdtap: not permitted to connect to {place.daemon.path} (from LXD_SOCKET) as uid"
        f" {ANNA.uid}: join the socket's group, or use sudo"
    )
    kinds = [(each["status"], each["own"]) for each in sidecar.transactions()]
    assert kinds == [(403, True), (200, False)]
    [note] = sidecar.entries("note")
    assert note["text"] == envelope["error"].removeprefix("lxdtap: ")


def test_the_way_to_the_daemon_counts_too(place: Place) -> None:
    """A directory that the caller may not enter refuses as a socket does."""
    os.chmod(place.daemon.directory, 0o700)
    with place.sidecar() as sidecar:
        assert content(ANNA.ask(sidecar.path))["error_code"] == 403
        assert content(ask(sidecar.path, GET).decode())["uid"] == 0


def test_only_root_without_a_group(place: Place) -> None:
    """The socket is 0600: nobody else can connect, whatever their groups."""
    with place.sidecar(group=None) as sidecar:
        place.room.chmod(0o711)
        assert (mode(sidecar.path), os.stat(sidecar.path).st_uid) == (0o600, 0)
        for caller in (ANNA, Caller(ANNA.uid, 0, (0,))):
            assert caller.error(sidecar.path) == errno.EACCES
        assert content(ask(sidecar.path, GET).decode())["uid"] == 0


def test_opened_by_hand(place: Place) -> None:
    """A root tap whose socket somebody opened lets in as root nobody who is not."""
    place.admit(ADMINS)
    with place.sidecar(group=None) as sidecar:
        place.room.chmod(0o711)
        os.chmod(sidecar.path, 0o666)
        assert content(ANNA.ask(sidecar.path))["error_code"] == 403
        assert seen(CARL.ask(sidecar.path)) == told(CARL)


def as_a_user(caller: Caller, *arguments: str) -> list[str]:
    """``lxdtap``, run by somebody who may read anything (see ``test_not_permitted``)."""
    return [
        *("setpriv", f"--reuid={caller.uid}", f"--regid={caller.gid}", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--no-new-privs"),
        *LXDTAP,
        *arguments,
    ]


def test_a_users_tap_serves_its_user(place: Place) -> None:
    """Who comes in where its socket was opened would be its user to the daemon: 403."""
    place.room.mkdir(mode=0o711)
    os.chown(place.room, ANNA.uid, ANNA.gid)
    process = subprocess.Popen(
        as_a_user(ANNA, "run", "-q", "--listen", f"{place.room}/"),
        env=environment(LXD_SOCKET=place.daemon.path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("export ")
        path = str(place.room / "unix.socket")
        assert mode(path) == 0o600
        assert BERT.error(path) == errno.EACCES
        assert children(process.pid) == []
        os.chmod(path, 0o666)
        envelope = content(BERT.ask(path))
        assert envelope["error_code"] == 403
        assert f"uid {BERT.uid} is not served" in envelope["error"]
        assert seen(ask(path, GET).decode())[0] == ANNA.uid  # root, as its user
        assert seen(ANNA.ask(path))[0] == ANNA.uid
    finally:
        process.kill()
        process.communicate()


# -- the socket and its directory


def test_the_group_may_enter(place: Place) -> None:
    """A directory of lxdtap's own is the group's to enter, nobody else's, and goes in the end."""
    with place.sidecar() as sidecar:
        for path, bits in ((sidecar.path, 0o660), (place.room, 0o750)):
            status = os.stat(path)
            assert (status.st_uid, status.st_gid, mode(path)) == (0, SERVED, bits)
        assert os.listdir(place.room) == ["unix.socket"]
        assert CARL.error(sidecar.path) == errno.EACCES
        assert sidecar.stop() == 0
    assert not place.room.exists()


def test_a_directory_that_is_there_is_not_changed(place: Place) -> None:
    """Neither its mode nor its owner; only the socket is the group's."""
    place.room.mkdir(mode=0o711)
    before = os.stat(place.room)
    with place.sidecar() as sidecar:
        during = os.stat(place.room)
        assert mode(sidecar.path) == 0o660
        assert CARL.error(sidecar.path) == errno.EACCES
        assert seen(ANNA.ask(sidecar.path)) == told(ANNA)
        assert sidecar.stop() == 0
    assert (before.st_mode, before.st_uid, before.st_gid) == (
        during.st_mode,
        during.st_uid,
        during.st_gid,
    )
    assert os.listdir(place.room) == []


def refused(place: Place, *arguments: str, env: dict[str, str] | None = None) -> str:
    """The one line for which a sidecar does not come up."""
    done = tap.run(
        *("run", "--listen", f"{place.room}/", *arguments),
        env=environment(LXD_SOCKET=place.daemon.path, **env or {}),
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    return line


def test_a_directory_that_the_group_cannot_enter(place: Place) -> None:
    """It is said which, and nothing is left there."""
    place.room.mkdir(mode=0o700)
    line = refused(place, "--group", str(SERVED))
    assert line.startswith(f"lxdtap: cannot serve group {SERVED} in {place.room}: it may not enter")
    assert os.listdir(place.room) == []
    place.room.rmdir()
    place.top.chmod(0o700)
    assert f"may not enter {place.top}," in refused(place, "--group", str(SERVED))
    assert not place.room.exists()


def test_a_group_that_is_not_there(place: Place) -> None:
    """By name or by number, and by the variable too."""
    for name in ("no-such-group", "4294967295", "-1", "1.5", "\u0661"):
        line = refused(place, env={"LXDTAP_GROUP": name})
        assert line.startswith(f"lxdtap: no group {name!r} here: ")
    assert not place.room.exists()


def test_a_group_by_its_name(place: Place) -> None:
    """Names are looked up; every machine has the group daemon, which is 1."""
    with place.sidecar(group="daemon") as sidecar:
        assert os.stat(sidecar.path).st_gid == 1
        assert seen(Caller(ANNA.uid, 1).ask(sidecar.path)) == (ANNA.uid, 1, [], "")


def test_without_root(place: Place) -> None:
    """Others would reach the daemon as the tap's user: refused, with one line why."""
    done = subprocess.run(
        as_a_user(ANNA, "run", "--group", str(SERVED), "--listen", f"{place.room}/"),
        env=environment(LXD_SOCKET=place.daemon.path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line == (
        f"lxdtap: cannot serve group {SERVED}: without root, all of it would reach the daemon as"
        " you; use sudo, or leave --group out"
    )


def default_acl(directory: Path, uid: int) -> None:
    """Give a user all rights to whatever is made in a directory (acl(5), posix_acl_xattr.h)."""
    anybody = 0xFFFFFFFF
    entries = [(1, 7, anybody), (2, 7, uid), (4, 7, anybody), (16, 7, anybody), (32, 7, anybody)]
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(directory, "system.posix_acl_default", raw)
    except OSError:
        pytest.skip("no ACLs on this file system")


@pytest.mark.parametrize("there", [False, True], ids=["made", "there"])
def test_a_default_acl_lets_nobody_in(place: Place, there: bool) -> None:
    """What a directory gives to all that is made in it, the tap's socket does not keep."""
    if there:
        place.room.mkdir(mode=0o711)
    default_acl(place.room if there else place.top, CARL.uid)
    with place.sidecar() as sidecar:
        assert CARL.error(sidecar.path) == errno.EACCES
        assert seen(ANNA.ask(sidecar.path)) == told(ANNA)


_STRANGER = """
import os, signal, socket, sys
path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
tries = ins = 0
print("ready", flush=True)
while not over:
    for name in [path, *(f"{path[:-12]}/{each}/s" for each in os.listdir(path[:-12]))]:
        tries += 1
        with socket.socket(socket.AF_UNIX) as sock:
            ins += sock.connect_ex(name) == 0
print(tries, ins)
"""


@pytest.mark.parametrize("group", [None, SERVED], ids=["alone", "group"])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_not_for_an_instant(place: Place, umask: int, group: int | None) -> None:
    """While taps come and go somebody tries all that is there, and never gets in."""
    place.room.mkdir()
    place.room.chmod(0o755)
    arguments = [str(place.room / "unix.socket"), str(CARL.uid), str(CARL.gid)]
    stranger = subprocess.Popen(
        [sys.executable, "-I", "-c", _STRANGER, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == "ready\n"
    serving = () if group is None else ("--group", str(group))
    try:
        for _ in range(3):
            done = subprocess.run(
                [*LXDTAP, "run", "-q", *serving, "--listen", f"{place.room}/", "--", "true"],
                env=environment(LXD_SOCKET=place.daemon.path),
                umask=umask,
                timeout=PATIENCE,
            )
            assert done.returncode == 0
    finally:
        stranger.terminate()
    tries, ins = map(int, stranger.communicate(timeout=PATIENCE)[0].split())
    assert tries > 100
    assert ins == 0


# -- the process that connects for others


def test_it_is_gone(place: Place) -> None:
    """Everybody but root is told so at once, with 503, and what to do; nobody hangs."""
    with place.sidecar() as sidecar:
        assert seen(ANNA.ask(sidecar.path)) == told(ANNA)
        pid = connector(sidecar)
        os.kill(pid, signal.SIGSTOP)
        waiting = ANNA.start(sidecar.path, 20)
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        for response in (*heard(waiting), BERT.ask(sidecar.path)):
            assert response.startswith("HTTP/1.1 503 Service Unavailable\r\n")
            assert content(response)["error"] == (
                "lxdtap: the process of lxdtap's that connects for others than root has ended:"
                " only root is served now; restart lxdtap"
            )
        assert seen(ask(sidecar.path, GET).decode()) == (0, 0, [], "")
        assert sidecar.stop() == 0
    assert [each["own"] for each in sidecar.transactions()] == [False, *[True] * 21, False]


def test_it_was_gone_before_anybody_asked(place: Place) -> None:
    """The same for the very first caller."""
    with place.sidecar() as sidecar:
        os.kill(connector(sidecar), signal.SIGKILL)
        assert content(ANNA.ask(sidecar.path))["error_code"] == 503


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_tap(place: Place, number: signal.Signals) -> None:
    """However the tap ends, and though it is stopped for an orderly end."""
    with place.sidecar() as sidecar:
        pid = connector(sidecar)
        if number == signal.SIGTERM:
            os.kill(pid, signal.SIGSTOP)
        sidecar.stop(number)
        tap.eventually(lambda: not is_running(pid))


def test_signals_for_all_of_us(place: Place) -> None:
    """What a terminal or a service manager sends to everybody does not end it before the tap."""
    with place.sidecar() as sidecar:
        pid = connector(sidecar)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
            os.kill(pid, number)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGTSTP):
            os.kill(pid, number)
        assert seen(ANNA.ask(sidecar.path)) == told(ANNA)
        assert connector(sidecar) == pid


def test_it_holds_nothing_open(place: Place) -> None:
    """Its own socket and stderr: else the log would not end with the tap."""
    with place.sidecar("-v") as sidecar:
        before = sidecar.descriptors  # while nobody is connected
        assert seen(ANNA.ask(sidecar.path)) == told(ANNA)
        directory = f"/proc/{connector(sidecar)}/fd"
        held = {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}
        assert held.pop("0") == held.pop("1") == "/dev/null"
        assert held.pop("2").startswith("pipe:")
        assert [link.partition(":")[0] for link in held.values()] == ["socket"]
        assert len(heard(BERT.start(sidecar.path, 50))) == 50
        tap.eventually(lambda: sidecar.descriptors == before)
        assert len(os.listdir(directory)) == 4
        start = time.monotonic()
        assert sidecar.stop() == 0
        assert time.monotonic() - start < 1


def test_a_command_inherits_nothing(place: Place) -> None:
    """The command has its three standard streams, and no way to the process or the daemon."""
    done = tap.run(
        *("run", "-q", "--", "ls", "-l", "/proc/self/fd"),
        env=environment(LXD_SOCKET=place.daemon.path),
    )
    numbers = [line.split(" -> ")[0].split()[-1] for line in done.stdout.splitlines()[1:]]
    assert numbers == ["0", "1", "2", "3"]  # 3 is the directory itself


# -- a root that is not all of root


@contextlib.contextmanager
def limited(place: Place, *limits: str) -> Iterator[subprocess.Popen[str]]:
    """A root tap that ``setpriv`` took something from."""
    process = subprocess.Popen(
        ["setpriv", *limits, *LXDTAP, "run", "-q", "--group", "1", "--listen", f"{place.room}/"],
        env=environment(LXD_SOCKET=place.daemon.path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stderr is not None
    return [process.stderr.readline() for _ in range(count)]


def test_it_cannot_become_others(place: Place) -> None:
    """In a container that took the capabilities away: root is served, others are told."""
    caller = Caller(ANNA.uid, 1)
    path = str(place.room / "unix.socket")
    with limited(place, "--bounding-set=-setuid,-setgid") as process:
        lines(process, 2)
        envelope = content(caller.ask(path))
        assert envelope["error_code"] == 503
        assert envelope["error"] == (
            "lxdtap: cannot connect as the caller: Operation not permitted; lxdtap needs"
            " CAP_SETUID and CAP_SETGID to serve others than root"
        )
        assert content(ask(path, GET).decode())["uid"] == 0


def test_it_would_stay_mighty(place: Place) -> None:
    """Where root's capabilities outlive its uid the kernel would refuse nobody: none is served."""
    place.admit(ADMINS)
    path = str(place.room / "unix.socket")
    with limited(place, "--securebits=+no_setuid_fixup") as process:
        said = lines(process, 3)
        assert (
            "lxdtap: cannot lay down root's capabilities (securebits);"
            " only root is served from here on\n" in said
        )
        assert content(Caller(ANNA.uid, 1).ask(path))["error_code"] == 503
        assert content(ask(path, GET).decode())["uid"] == 0


def test_it_is_root_through_and_through(place: Place) -> None:
    """Where the tap's real uid is somebody's, that one cannot send the connector signals."""
    path = str(place.room / "unix.socket")
    with limited(place, f"--ruid={ANNA.uid}") as process:
        lines(process, 2)
        assert seen(Caller(ANNA.uid, 1).ask(path)) == (ANNA.uid, 1, [], "")
        [pid] = children(process.pid)
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        assert [line.split()[1:] for line in status if line.startswith("Uid:")] == [["0"] * 4]


def test_without_standard_streams(place: Place) -> None:
    """A tap that was started without stdin and stdout serves as any other."""
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *LXDTAP, "run", "-q"]
    process = subprocess.Popen(
        [*command, "--group", str(SERVED), "--listen", f"{place.room}/"],
        env=environment(LXD_SOCKET=place.daemon.path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines(process, 2)
        assert seen(ANNA.ask(str(place.room / "unix.socket"))) == told(ANNA)
    finally:
        process.kill()
        process.communicate()


# -- what is said to it


@pytest.mark.parametrize(
    "whom",
    [
        Peer(0, 1, 2),
        Peer(0, 0xFFFFFFFE, 0xFFFFFFFE, (0, 1, 0xFFFFFFFF)),
        Peer(0, 5, 6, tuple(range(65_536))),
    ],
    ids=["no groups", "the highest", "all groups"],
)
@pytest.mark.parametrize("path", ["", "/run/a", "/\udcff\u00e9"])
def test_a_request_is_read_as_it_was_meant(whom: Peer, path: str) -> None:
    """Number, path and peer come out as they went in; the pid is nobody's business."""
    assert requested(memoryview(request(7, path, whom))) == (7, os.fsencode(path), whom)
