"""Mixed traffic with a real LXD, from real clients, for as long as it is wanted.

Several actors work at once, each at what it does, with pauses: commands that look, run something,
launch and delete, watch events, carry files; pylxd; curl; keep-alive connections; and some that
kill their client in the middle. What goes wrong is told apart:

- a *failure* may be the daemon's own: a command that did not do what it was to do. LXD 5.0.2 loses
  the output of an exec now and then, and a busy machine lets commands run into their time limit;
- a *fault* cannot: bytes that are not those that were sent, or a connection that broke while the
  daemon was alive and well.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.daemons.throwaway import Daemon, DaemonError, UnixConnection

PATIENCE = 60
"""Seconds after which a client is taken to hang; it is killed, and that is a failure."""
SIZES = (10_000, 700_000, 2_500_000, 5_000_000)
"""Bytes of the files that are carried; what is in them is new each time."""
RAW = (
    ("/1.0", 200),
    ("/1.0/instances", 200),
    ("/1.0/instances/c1", 200),
    ("/1.0/instances/c1/state", 200),
    ("/1.0/profiles?recursion=1", 200),
    ("/1.0/instances/nonesuch", 404),
    ("/1.0/operations/none-such", 404),
    ("/2.0/nonesuch", 404),
)
"""What is asked for on keep-alive connections, and the status that answers it."""
PYLXD = """\
import pylxd
client = pylxd.Client()
assert client.instances.get("c1").state().status == "Running"
said = client.instances.get("c1").execute(["sh", "-c", "echo out; exit 3"])
try:
    client.instances.get("nonesuch")
except pylxd.exceptions.NotFound:
    print(said.exit_code, [each.name for each in client.profiles.all()])
"""
MOST_DEATHS = 20


class FailureError(Exception):
    """A client did not do what it was to do; the daemon may be why."""


class FaultError(Exception):
    """What only what is between client and daemon can have done."""


def _connection(path: str) -> UnixConnection:
    return UnixConnection(path, host="lxd", timeout=PATIENCE)


@dataclass
class Tally:
    """What came of it all; each actor writes, one at a time."""

    done: Counter[str] = field(default_factory=Counter)
    """How often each actor did what it does."""
    failures: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    """The requests of the clients that can count their own, by the mark in their targets."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note how the block ends."""
        try:
            yield
        except FailureError as error:
            with self._lock:
                self.failures[f"{what}: {error}"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the end
            with self._lock:
                self.faults.append(f"{what}: {type(error).__name__}: {error}")
        else:
            with self._lock:
                self.done[what] += 1

    def asks(self, mark: str) -> None:
        """One more request with this mark is about to be sent."""
        with self._lock:
            self.asked[mark] += 1


class Traffic:
    """All the actors.

    Args:
        daemon: whom it is for in the end; it is started again where it dies.
        path: the socket that clients are given.
        place: a directory for their files.
    """

    def __init__(self, daemon: Daemon, path: str, place: Path) -> None:
        self.tally = Tally()
        self._daemon = daemon
        self._path = path
        self._place = place
        self._over = threading.Event()
        self._names = iter(range(1 << 30))
        self._life = 0  # of the daemon: even while it lives

    def run(self, seconds: Iterable[float]) -> None:
        """Have all of them work while ``seconds`` go by, and then come to an end."""
        self._over.clear()
        actors = [
            threading.Thread(target=self._act, args=(name, act, pause))
            for name, (act, pause) in self._actors().items()
        ]
        for actor in actors:
            actor.start()
        try:
            for each in seconds:
                time.sleep(each)
                self._revive()
        finally:
            self._over.set()
            for actor in actors:
                actor.join()

    def fill(self, count: int) -> None:
        """So many requests with secrets that are new: what remembers the last of them is full."""
        with self.tally.noting("fill"), contextlib.closing(_connection(self._path)) as connection:
            for _ in range(count):
                self.tally.asks("fill")
                target = f"/2.0/nonesuch?secret={os.urandom(32).hex()}"
                connection.request("GET", _marked(target, "fill"))
                connection.getresponse().read()

    def settle(self) -> None:
        """The same few requests each time, one after the other."""
        dice = random.Random(1)
        for act in (self._upload, self._curl, self._curl, self._curl):
            with self.tally.noting("settle"):
                act(dice)

    def _actors(self) -> Mapping[str, tuple[Callable[[random.Random], None], float]]:
        """What each does, and the seconds that it pauses then, on average."""
        return {
            "look": (self._look, 1.0),
            "exec": (self._exec, 1.0),
            "launch": (self._launch, 8.0),
            "monitor": (self._monitor, 1.0),
            "file": (self._file, 15.0),
            "pylxd": (self._pylxd, 8.0),
            "curl": (self._curl, 0.7),
            "keep-alive": (self._keep_alive, 0.3),
            "upload": (self._upload, 12.0),
            "kill": (self._kill, 3.0),
        }

    def _act(self, name: str, act: Callable[[random.Random], None], pause: float) -> None:
        dice = random.Random(f"{name} {time.monotonic_ns()}")
        while not self._over.is_set():
            with self.tally.noting(name):
                act(dice)
            self._over.wait(dice.uniform(0.5, 1.5) * pause)

    def _revive(self) -> None:
        """Start a daemon again that died; its instances live on."""
        if self._daemon.process.poll() is not None:
            self._daemon.deaths += 1
            if self._daemon.deaths > MOST_DEATHS:
                raise DaemonError(f"{self._daemon.kind} died {MOST_DEATHS} times")
            self._life += 1
            self._daemon.start()
            self._life += 1

    # -- how clients are run

    def _environment(self) -> dict[str, str]:
        where = {"LXD_DIR": os.path.dirname(self._path), "LXD_SOCKET": self._path}
        return self._daemon.environment | where

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=self._environment(),
            cwd=self._place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _run(self, *command: str, status: int = 0) -> bytes:
        """Run a client to its end; what it said."""
        with self._start(*command) as process:
            try:
                stdout, stderr = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                _killed(process)
                raise FailureError(f"{' '.join(command[:2])} hangs") from None
        if process.returncode != status:
            why = stderr.decode(errors="replace").strip()[-200:]
            raise FailureError(f"{' '.join(command[:2])} ends with {process.returncode}: {why}")
        return stdout

    @contextlib.contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Connections do not break in this block, nor are they refused, unless the daemon dies."""
        life = self._life
        try:
            yield
        except (OSError, http.client.HTTPException, FaultError) as error:
            time.sleep(1)  # its socket is closed a little before its process has ended
            if self._life != life or life % 2 or self._daemon.process.poll() is not None:
                raise FailureError("the daemon died") from error
            raise FaultError(repr(error)) from error

    def _bytes(self, dice: random.Random) -> bytes:
        return dice.randbytes(dice.choice(SIZES))

    # -- the actors

    def _look(self, dice: random.Random) -> None:
        """Lists, information, and what is not there."""
        chosen = dice.randrange(4)
        if chosen == 0 and b"c1," not in self._run("lxc", "list", "--format", "csv"):
            raise FaultError("c1 is not listed")
        if chosen == 1:
            self._run("lxc", "info", "c1")
        if chosen == 2:
            self._run("lxc", "info", "nonesuch", status=1)
        if chosen == 3:
            self._run("lxc", "query", "/1.0/instances?recursion=2")

    def _exec(self, dice: random.Random) -> None:
        """A command's output and its exit status."""
        count, status = dice.randint(1, 20_000), dice.choice((0, 0, 1, 7, 255))
        command = f"seq 1 {count}; exit {status}"
        said = self._run("lxc", "exec", "c1", "--", "sh", "-c", command, status=status)
        wanted = "".join(f"{number}\n" for number in range(1, count + 1)).encode()
        if said != wanted:
            if not wanted.startswith(said):
                raise FaultError(f"exec said what its command did not: {said[-100:]!r}")
            raise FailureError("output lost")

    def _launch(self, dice: random.Random) -> None:
        """An instance's life. It is deleted also where it did not come to live."""
        name = f"w{next(self._names)}"
        try:
            self._run("lxc", "launch", "bb", name)
            if dice.random() < 0.5:
                self._run("lxc", "snapshot", name, "s1")
        finally:
            self._run("lxc", "delete", "--force", name)

    def _monitor(self, dice: random.Random) -> None:
        """Events for a while; the client is ended by a signal."""
        kinds = dice.choice(([], ["--type", "lifecycle"], ["--type", "operation"]))
        number = dice.choice((signal.SIGTERM, signal.SIGKILL))  # SIGINT may be ignored (nohup)
        with self._start("lxc", "monitor", "--format", "json", *kinds) as process:
            self._over.wait(dice.uniform(0.3, 4))
            process.send_signal(number)
            try:
                stdout, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                _killed(process)
                raise FailureError("lxc monitor hangs") from None
        for line in stdout.split(b"\n")[:-1]:  # what comes last may be cut
            if line:
                json.loads(line)

    def _file(self, dice: random.Random) -> None:
        """A file goes in and comes out again."""
        data, path = self._bytes(dice), f"c1/root/file{dice.randrange(3)}"
        with tempfile.TemporaryDirectory(dir=self._place) as place:
            Path(place, "out").write_bytes(data)
            self._run("lxc", "file", "push", f"{place}/out", path)
            self._run("lxc", "file", "pull", path, f"{place}/back")
            _same(data, Path(place, "back").read_bytes(), "lxc file")

    def _pylxd(self, dice: random.Random) -> None:  # noqa: ARG002 - an actor
        """What pylxd has of an instance, a command's exit status, and what is not there."""
        if self._run(sys.executable, "-c", PYLXD).strip() != b"3 ['default']":
            raise FaultError("pylxd said something else")

    def _curl(self, dice: random.Random) -> None:
        """One request a connection, counted."""
        target, status = dice.choice(RAW)
        self.tally.asks("curl")
        url, out = f"http://lxd{_marked(target, 'curl')}", "%{http_code}"
        with self._unbroken():
            said = self._run("curl", "-sS", "--unix-socket", self._path, "-w", out, url)
            if not said.endswith(str(status).encode()):
                raise FaultError(f"{target} was answered by {said[-300:]!r}")

    def _keep_alive(self, dice: random.Random) -> None:
        """Many requests on one connection, counted."""
        with self._unbroken(), contextlib.closing(_connection(self._path)) as connection:
            for target, status in dice.choices(RAW, k=dice.randint(10, 150)):
                self.tally.asks("keep-alive")
                connection.request("GET", _marked(target, "keep-alive"))
                with connection.getresponse() as response:
                    told = json.loads(response.read())
                if response.status != status or (told["type"] == "error") != (status == 404):
                    raise FaultError(f"{target} was answered by {response.status} {told}")
                if self._over.wait(dice.uniform(0, 0.1)):
                    return

    def _upload(self, dice: random.Random) -> None:
        """A file goes in and comes out again on one connection, counted."""
        data = self._bytes(dice)
        target = _marked(f"/1.0/instances/c1/files?path={quote('/root/uploaded')}", "upload")
        kind = {"Content-Type": "application/octet-stream", "X-LXD-type": "file"}
        with self._unbroken(), contextlib.closing(_connection(self._path)) as connection:
            for method, body in (("POST", data), ("GET", None)):
                self.tally.asks("upload")
                connection.request(method, target, body, kind if body else {})
                with connection.getresponse() as response:
                    back = response.read()
                if response.status != 200:
                    raise FailureError(f"{method} {response.status} {back[:200]!r}")
        _same(data, back, "upload")

    def _kill(self, dice: random.Random) -> None:
        """A client that is killed in the middle of what it does."""
        big = self._place / "big"
        if not big.exists():
            big.write_bytes(dice.randbytes(max(SIZES)))
        command = dice.choice(
            (
                ("lxc", "list"),
                ("lxc", "exec", "c1", "--", "sh", "-c", "yes | head -n 200000"),
                ("lxc", "exec", "c1", "--", "sleep", "20"),
                ("lxc", "file", "push", "big", "c1/root/cut"),
                (sys.executable, "-c", PYLXD),
            )
        )
        with self._start(*command) as process:
            self._over.wait(dice.uniform(0, 1.5))
            _killed(process)


def _killed(process: subprocess.Popen[bytes]) -> None:
    """Kill a client and what it started; what it said until then is read, for its pipes' sake."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


def _marked(target: str, mark: str) -> str:
    """The target of a request that its client counts."""
    return f"{target}{'&' if '?' in target else '?'}soak={mark}"


def _same(sent: bytes, back: bytes, what: str) -> None:
    """By hash: what came back is what was sent."""
    if hashlib.sha256(sent).digest() != hashlib.sha256(back).digest():
        raise FaultError(f"{what}: of {len(sent)} bytes {len(back)} others came back")
