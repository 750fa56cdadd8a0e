"""A throwaway daemon: LXD or Incus in a temporary directory, gone without a trace afterwards.

::

    with throwaway(LXD, directory) as daemon:
        daemon.run("list")          # the client, speaking to the daemon without a tap
        daemon.requests()           # what the daemon itself says it was asked
        daemon.state()              # what it now holds, without what differs from run to run
    daemon.revive()             # has it died? then what it said last, and it runs again

The daemon has a ``dir`` storage pool, one busybox image ``bb`` and one running container
``c1``. It logs every request it is sent: that log is the witness of completeness.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias
from urllib.parse import quote

Requests = Counter[tuple[str, str]]
"""How often each (method, target) was asked for."""

Json: TypeAlias = Any
"""What ``json.loads`` gives."""

State = dict[str, Json]
"""What a daemon holds."""


@dataclass(frozen=True, slots=True)
class Brand:
    """What LXD and Incus call differently."""

    kind: Literal["lxd", "incus"]
    server: str
    client: str
    admin: str
    directory_variable: str
    socket_variable: str
    config_variable: str

    def missing(self) -> str | None:
        """Why this daemon cannot be started here, or None."""
        if os.geteuid() != 0:
            return f"{self.kind}: starting a daemon needs root"
        wanted = {self.server, self.client, self.admin.split()[0], "busybox", "curl"}
        absent = sorted(name for name in wanted if shutil.which(name) is None)
        return f"{self.kind}: not installed: {', '.join(absent)}" if absent else None


LXD = Brand("lxd", "lxd", "lxc", "lxd", "LXD_DIR", "LXD_SOCKET", "LXD_CONF")
INCUS = Brand(
    "incus",
    "/usr/libexec/incus/incusd",
    "incus",
    "incus admin",
    "INCUS_DIR",
    "INCUS_SOCKET",
    "INCUS_CONF",
)

PRESEED = """\
storage_pools:
- name: default
  driver: dir
profiles:
- name: default
  devices:
    root: {path: /, pool: default, type: disk}
"""


MOST_DEATHS = 3
"""How often one daemon may die by itself before that is an error."""


class DaemonError(Exception):
    """The daemon did not do what it was told."""


UNANSWERED = (DaemonError, OSError, http.client.HTTPException)
"""What asking ends with where the daemon refuses, is not there, or dies over it."""


# The image: Debian's static busybox and links to it.

APPLETS = """
cat chmod dd echo env false find grep head kill ln ls mkdir mkfifo mv od printf ps pwd rm sed seq
sh sha256sum sleep sort stat stty tail tar touch true tty wc yes
"""
INITTAB = "::sysinit:/bin/echo hello from init\n::respawn:/bin/cat\n"


@dataclass(frozen=True, slots=True)
class Image:
    """One image in both of its spellings."""

    unified: Path
    metadata: Path
    rootfs: Path

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.unified.read_bytes()).hexdigest()


def _add(tar: tarfile.TarFile, name: str, *, data: bytes = b"", mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _add_directory(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_metadata(tar: tarfile.TarFile, name: str) -> None:
    properties = f'{{os: busybox, release: "1", description: {name}}}'
    text = f"architecture: x86_64\ncreation_date: 1700000000\nproperties: {properties}\n"
    _add(tar, "metadata.yaml", data=text.encode())


def _add_rootfs(tar: tarfile.TarFile, under: str = "") -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    for name in ("", "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp"):
        _add_directory(tar, f"{under}{name}" or ".", 0o1777 if name == "tmp" else 0o755)
    _add(tar, f"{under}bin/busybox", data=Path(busybox).read_bytes(), mode=0o755)
    _add(tar, f"{under}etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\n")
    _add(tar, f"{under}etc/group", data=b"root:x:0:\n")
    _add(tar, f"{under}etc/inittab", data=INITTAB.encode())
    _add_link(tar, f"{under}sbin/init", "/bin/busybox")
    for applet in APPLETS.split():
        _add_link(tar, f"{under}bin/{applet}", "/bin/busybox")


def image(directory: Path, name: str) -> Image:
    """Write an image described as ``name``, the same bytes each time, both unified and split."""
    made = Image(
        directory / f"{name}.tar",
        directory / f"{name}.metadata.tar",
        directory / f"{name}.rootfs.tar",
    )
    with tarfile.open(made.unified, "w") as tar:
        _add_metadata(tar, name)
        _add_rootfs(tar, "rootfs/")
    with tarfile.open(made.metadata, "w") as tar:
        _add_metadata(tar, name)
    with tarfile.open(made.rootfs, "w") as tar:
        _add_rootfs(tar)
    return made


# The daemon.


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; ``timeout`` in seconds."""

    def __init__(self, path: str, *, host: str = "localhost", timeout: float = 90) -> None:
        super().__init__(host, timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(slots=True)
class Daemon:
    """One running daemon; made by :func:`throwaway`.

    Attributes:
        base: what it held when it was new.
        image: what ``bb`` is.
        spare: one that it does not hold.
        process: its process, or the one it had when it died.
        deaths: how often it died and was started again.
    """

    brand: Brand
    home: Path
    base: State = field(default_factory=dict)
    image: Image = field(init=False)
    spare: Image = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False, repr=False)
    deaths: int = 0
    _born: int = 0

    @property
    def kind(self) -> Literal["lxd", "incus"]:
        return self.brand.kind

    @property
    def directory(self) -> Path:
        return self.home / "d"

    @property
    def socket(self) -> Path:
        return self.directory / "unix.socket"

    @property
    def log(self) -> Path:
        return self.home / "daemon.log"

    @property
    def environment(self) -> dict[str, str]:
        """What every client needs, except where the daemon is."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LXD_", "INCUS_", "LXDTAP_", "XDG_"))
        }
        return ours | {
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            self.brand.config_variable: str(self.home / "conf"),
        }

    @property
    def directions(self) -> dict[str, str]:
        """Where the daemon is, for a client that speaks to it without a tap."""
        return {
            self.brand.directory_variable: str(self.directory),
            self.brand.socket_variable: str(self.socket),
        }

    def run(self, *argv: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Result:
        """Run the daemon's own client, without a tap."""
        return self._run([self.brand.client, *argv], env or {}, stdin)

    def administer(self, *argv: str, stdin: bytes = b"") -> Result:
        return self._run([*self.brand.admin.split(), *argv], {}, stdin)

    def _run(self, argv: list[str], env: Mapping[str, str], stdin: bytes) -> Result:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            env=self.environment | self.directions | dict(env),
            timeout=90,
        )
        if done.returncode:
            raise DaemonError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace')}")
        return Result(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def ask(self, method: str, path: str, body: object = None) -> Json:
        """Send the daemon a request, wait for the operation it starts, return the metadata."""
        answer = self._ask(method, path, body)
        if answer["type"] != "async":
            return answer["metadata"]
        ended = self._ask("GET", f"{answer['operation']}/wait?timeout=60")["metadata"]
        if ended["status_code"] != 200:
            raise DaemonError(f"{method} {path}: {ended['err'] or ended['status']}")
        return ended

    def _ask(self, method: str, path: str, body: object = None) -> Json:
        with contextlib.closing(UnixConnection(str(self.socket))) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            with connection.getresponse() as response:
                answer = json.loads(response.read())
        if answer["type"] == "error":
            raise DaemonError(f"{method} {path}: {answer['error']}")
        return answer

    def mark(self) -> int:
        """Where the log ends now: what :meth:`requests` can count from."""
        return self.log.stat().st_size

    def requests(self, since: int = 0) -> list[tuple[str, str]]:
        """The requests the daemon logged, in its order, without those of its own hooks."""
        with self.log.open("rb") as log:
            log.seek(since)
            return list(handled(log))

    def state(self) -> State:
        """What the daemon holds, without what differs from one run to the next."""
        return _Inventory(self).take()

    def reset(self) -> None:
        """Bring the daemon back to what it held when it was new.

        Where that fails it is said once; the next tests start from what there is.
        """
        if self.state() == self.base:
            return
        _Reset(self).everything()
        before, self.base = self.base, self.state()
        if before != self.base:
            old, new = (json.dumps(each, indent=1).splitlines() for each in (before, self.base))
            differing = "\n".join(difflib.unified_diff(old, new, lineterm="", n=1))
            raise DaemonError(f"{self.kind} is not what it was when it was new:\n{differing}")

    def start(self) -> None:
        """Start it on what is in its directory; its log goes on."""
        with self.log.open("ab") as log:
            self._born = log.tell()
            self.process = subprocess.Popen(
                [self.brand.server, "--group", "root", "--debug"],
                env=self.environment | {self.brand.directory_variable: str(self.directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(partial(_ready, self), f"{self.kind} is to get ready", 60)

    def revive(self) -> str:
        """Start it again where it died by itself, and reset it; how it died, empty if it lives.

        Its log goes on, so a mark stays good.
        """
        if not self._has_died():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._born)
            died = f"{self.kind} died, {_ended(self.process.returncode)}: {last_words(log.read())}"
        if self.deaths == MOST_DEATHS:
            raise DaemonError(
                f"{died}\nIt died {MOST_DEATHS} times before: it is not started again"
            )
        self.deaths += 1
        try:
            self.start()
            self.ask("PUT", "/1.0", {"config": {}})  # the test it died in may have had it listen
            self.reset()
        except UNANSWERED as error:
            raise DaemonError(f"{died}\nStarted again, it failed: {error}") from error
        return died

    def _has_died(self) -> bool:
        """One that hangs has not. Its socket is closed a little before its process has ended."""
        try:
            self._ask("GET", "/1.0")
        except UNANSWERED:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
        return self.process.poll() is not None


# What the daemon's log says.

_PANIC = re.compile(rb"^(?:panic|fatal error|SIG[A-Z]+): ", re.MULTILINE)


def _ended(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


def last_words(log: bytes, lines: int = 12) -> str:
    """How Go's panic begins; where there is none, the log's last lines."""
    if panic := _PANIC.search(log):
        said = log[panic.start() :][:4000].split(b"\n")[:lines]
    else:
        said = log[-4000:].splitlines()[-3:]
    return "\n".join(line.decode(errors="replace") for line in said if line.strip())


_LOGGED = re.compile(
    rb' msg="(?:Handling API request|Sending top level 404)".* method=(\S+) .*'
    rb'\burl=("(?:[^"\\]|\\.)*"|\S+)'
)
_HOOK = re.compile(r"/internal/(?:containers|instances|virtual-machines)/[^/]+/on(?:start|stop)")


def handled(log: IO[bytes]) -> Iterator[tuple[str, str]]:
    """The (method, target) of each request in a daemon's log.

    A container's start and stop hooks ask the daemon too, in the daemon's own environment:
    no client's business. Not logged at all: ``/``, OPTIONS, and what is not HTTP.
    """
    for line in log:
        if found := _LOGGED.search(line):
            method, url = found[1].decode(), found[2].decode()
            target = str(ast.literal_eval(url)) if url.startswith('"') else url
            if not _HOOK.match(target):
                yield method, target


# What the daemon holds.

_VOLATILE = frozenset(
    {
        *("created_at", "last_used_at", "uploaded_at", "expires_at"),
        *("first_seen_at", "last_seen_at", "count", "uuid"),
        *("state", "used_by", "expanded_config", "location"),
    }
)


def _settled(value: Json) -> Json:
    """``value`` without identifiers, times and counters."""
    if isinstance(value, dict):
        return {
            key: _settled(item)
            for key, item in sorted(value.items())
            if key not in _VOLATILE and not key.startswith("volatile.")
        }
    return [_settled(item) for item in value] if isinstance(value, list) else value


def _by_name(items: list[Json]) -> list[Json]:
    return sorted((_settled(item) for item in items), key=json.dumps)


def _published(picture: Json) -> Json:
    """An image made by the daemon is packed anew each time; an uploaded one has a file name."""
    if picture["filename"]:
        return picture
    return picture | {"fingerprint": "published", "size": "published"}


@dataclass(frozen=True, slots=True)
class _Inventory:
    daemon: Daemon

    def _list(self, what: str, project: str | None = None) -> list[Json]:
        chosen = f"&project={quote(project)}" if project else ""
        found: list[Json] = self.daemon.ask("GET", f"/1.0/{what}?recursion=1{chosen}")
        return found

    def _instances(self, project: str) -> list[Json]:
        def whole(each: Json) -> Json:
            snapshots = self._list(f"instances/{quote(each['name'])}/snapshots", project)
            return each | {"snapshots": _by_name(snapshots)}

        return _by_name([whole(each) for each in self._list("instances", project)])

    def _volumes(self, project: str) -> dict[str, list[Json]]:
        return {
            pool["name"]: _by_name(self._list(f"storage-pools/{pool['name']}/volumes", project))
            for pool in self._list("storage-pools")
        }

    def _project(self, project: str) -> State:
        return {
            "instances": self._instances(project),
            "images": _by_name([_published(each) for each in self._list("images", project)]),
            "profiles": _by_name(self._list("profiles", project)),
            "volumes": self._volumes(project),
        }

    def take(self) -> State:
        projects = self._list("projects")
        return {
            "projects": _by_name(projects),
            "pools": _by_name(self._list("storage-pools")),
            "certificates": _by_name(self._list("certificates")),
            "warnings": sorted((each["type"], each["status"]) for each in self._list("warnings")),
            "in": {each["name"]: self._project(each["name"]) for each in projects},
        }


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for ``condition``; say what was waited for when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DaemonError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class _Reset:
    """Deletes what a new daemon does not hold."""

    daemon: Daemon
    instances: frozenset[tuple[str, str]] = frozenset({("default", "c1")})

    def everything(self) -> None:
        for project, name in self.instances:
            self._running(name, project)
        for name in [project["name"] for project in self._get("projects")]:
            self._instances(name)
            self._images(name)
            self._named("profiles", name, keep="default")
            self._volumes(name)
        self._named("projects", None, keep="default")
        for each in self._get("certificates"):
            self._delete(f"certificates/{each['fingerprint']}")
        self._warnings()

    def _get(self, what: str, project: str | None = None) -> Json:
        chosen = f"&project={quote(project)}" if project else ""
        return self.daemon.ask("GET", f"/1.0/{what}?recursion=1{chosen}")

    def _delete(self, what: str, project: str | None = None) -> None:
        chosen = f"?project={quote(project)}" if project else ""
        self.daemon.ask("DELETE", f"/1.0/{what}{chosen}")

    def _instances(self, project: str) -> None:
        for each in self._get("instances", project):
            if (project, each["name"]) not in self.instances:
                until(partial(self._gone, each["name"], project), f"deletion of {each['name']}")

    def _running(self, name: str, project: str) -> None:
        path = f"/1.0/instances/{quote(name)}"
        if self.daemon.ask("GET", f"{path}?project={quote(project)}")["status"] == "Stopped":
            start = {"action": "start", "timeout": 10}
            self.daemon.ask("PUT", f"{path}/state?project={quote(project)}", start)

    def _gone(self, name: str, project: str) -> bool:
        """One attempt at an instance that may be busy with what the test made it do."""
        path = f"instances/{quote(name)}"
        try:
            if self._get(path, project)["status"] != "Stopped":
                stop = {"action": "stop", "force": True, "timeout": 10}
                self.daemon.ask("PUT", f"/1.0/{path}/state?project={quote(project)}", stop)
            self._delete(path, project)
        except DaemonError as error:
            return "not found" in str(error)
        return True

    def _images(self, project: str) -> None:
        for each in self._get("images", project):  # of a project that shares them: all
            if each["fingerprint"] != self.daemon.image.fingerprint:
                self._delete(f"images/{each['fingerprint']}", project)

    def _named(self, what: str, project: str | None, keep: str) -> None:
        for each in self._get(what, project):
            if each["name"] != keep:
                self._delete(f"{what}/{quote(each['name'])}", project)

    def _volumes(self, project: str) -> None:
        for pool in self._get("storage-pools"):
            path = f"storage-pools/{pool['name']}/volumes"
            for each in self._get(path, project):
                if each["type"] == "custom":
                    self._delete(f"{path}/custom/{quote(each['name'])}", project)

    def _warnings(self) -> None:
        known = {kind for kind, _ in self.daemon.base.get("warnings", ())}
        for each in self._get("warnings"):
            if known and each["type"] not in known:
                self._delete(f"warnings/{each['uuid']}")


# Start and stop.


@contextlib.contextmanager
def throwaway(brand: Brand) -> Iterator[Daemon]:
    """A new daemon; when the block ends, however it ends, nothing of it is left."""
    daemon = Daemon(brand, Path(tempfile.mkdtemp(prefix="lt-")))
    assert len(str(daemon.socket)) < 100, "a socket path is at most 107 bytes"
    with contextlib.ExitStack() as ending:
        ending.callback(_leave_nothing, daemon.home)
        _prepare(daemon)
        ending.callback(_stop, daemon)
        daemon.start()
        _furnish(daemon)
        ending.callback(_empty, daemon)
        daemon.base = daemon.state()
        yield daemon


def _prepare(daemon: Daemon) -> None:
    daemon.home.chmod(0o711)  # a container's root has to pass through it to its root directory
    daemon.directory.mkdir()
    (daemon.home / "conf").mkdir()


def _ready(daemon: Daemon) -> bool:
    if (returncode := daemon.process.poll()) is not None:
        last = daemon.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise DaemonError(f"{daemon.kind} ended with {returncode} at its start:\n{last}")
    try:
        daemon.ask("GET", "/internal/ready")
    except UNANSWERED:
        return False
    return True


def _furnish(daemon: Daemon) -> None:
    """Storage, a profile, an image, a running container; and a client past its first run."""
    daemon.administer("init", "--preseed", stdin=PRESEED.encode())
    daemon.image, daemon.spare = image(daemon.home, "bb"), image(daemon.home, "spare")
    daemon.run("image", "import", str(daemon.image.unified), "--alias", "bb")
    daemon.run("launch", "bb", "c1")


def _empty(daemon: Daemon) -> None:
    with contextlib.suppress(*UNANSWERED):
        _Reset(daemon, frozenset()).everything()


def _stop(daemon: Daemon) -> None:
    """End it, if it was started and has not died."""
    if (process := getattr(daemon, "process", None)) is None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _leave_nothing(home: Path) -> None:
    """End what the daemon and its clients left running, undo its mounts, remove its files."""
    until(lambda: not _end_processes(home), f"the end of what runs in {home}")
    for mount in reversed(_mounts_under(home)):
        subprocess.run(["umount", "--lazy", mount], stdin=subprocess.DEVNULL)
    until(partial(_removed, home), f"removal of {home}")


def _removed(home: Path) -> bool:
    """One attempt: who was just being started may write there once more."""
    _end_processes(home)
    shutil.rmtree(home, ignore_errors=True)
    return not home.exists()


def _end_processes(home: Path) -> bool:
    """Kill them all, at once: a container outlives its monitor; whether there were any."""
    found = _processes_of(home)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def _processes_of(home: Path) -> set[int]:
    """Who was given this home or names it, and their children; neither us nor who has ended.

    A container's monitor is told by its command line only, what runs in it by its parent only.
    """
    found, parents = set(), {}
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(OSError):
            parents[pid] = _parent(pid)
            if pid != os.getpid() and _belongs(pid, os.fsencode(home)):
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parent(pid: int) -> int:
    """The pid of a process's parent (proc(5), stat); 0 of one that has ended."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return 0 if state in "ZX" else int(parent)


def _belongs(pid: int, home: bytes) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return home + b"/" in words or b"HOME=" + home in given


def _mounts_under(home: Path) -> list[str]:
    table = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line.split()[1] for line in table if line.split()[1].startswith(f"{home}/")]
