"""Every place of LXD's traffic where a secret may stand, and how a canary gets there.

:data:`PLANTINGS` is the table. Most are planted in traffic with a real daemon; what a daemon of
the versions at hand does not say is said by a fake one (:data:`SAYINGS`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import re
import secrets
import socket
import string
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.daemons.throwaway import Daemon, UnixConnection, until

LETTERS = string.ascii_letters + string.digits
ODD = '"\\<&é% +/='
"""Is spelled differently in JSON, in JSON within JSON, in a URL, and in a form."""
PATIENCE = 30

Json: TypeAlias = Any
"""What ``json.loads`` gives."""


def random_text(length: int) -> str:
    """Letters and digits that stand nowhere else."""
    return "".join(secrets.choice(LETTERS) for _ in range(length))


MARK = random_text(12)
"""Both ends of every canary that is ours, so that they are quickly looked for."""


def spellings(text: str) -> Iterator[bytes]:
    """Letters and digits as they are, in hexadecimal, and as they may stand within base64."""
    data = text.encode()
    yield data
    yield data.hex().encode()
    for before in range(3):
        # Without what depends on the neighbours: the first and the last group.
        yield base64.b64encode(b"x" * before + data)[4:-4]


@dataclass(frozen=True, slots=True)
class Canary:
    """A unique string, of which neither end may be found anywhere.

    Attributes:
        field: where it was planted.
        text: as it was planted.
        kept: whether it is payload, which is kept by design.
    """

    field: str
    text: str
    kept: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        """Its first and last letters and digits: spelled alike in JSON, in URLs, in forms."""
        return self.text[:20], self.text[-20:]

    def is_in(self, texts: Iterable[bytes]) -> bool:
        """Whether it stands in one of them, in whatever spelling."""
        return any(
            spelling in text for text in texts for end in self.ends for spelling in spellings(end)
        )


@dataclass
class Aviary:
    """All canaries of a run."""

    canaries: list[Canary] = field(default_factory=list)

    def plain(self, where: str, *, kept: bool = False) -> str:
        """A new one, of letters and digits."""
        return self.add(where, MARK + random_text(8) + MARK, kept=kept)

    def odd(self, where: str, *, kept: bool = False) -> str:
        """A new one, with characters in the middle that have to be escaped somewhere."""
        return self.add(where, MARK + random_text(8) + ODD + random_text(8) + MARK, kept=kept)

    def add(self, where: str, text: str, *, kept: bool = False) -> str:
        """One that was hatched elsewhere, as the daemon's own secrets are."""
        self.canaries.append(Canary(where, text, kept))
        return text

    def found(self, data: bytes, *, kept: bool | None = None) -> list[str]:
        """The fields of those that stand there; of all, of payload, or of secrets only."""
        texts = (data, re.sub(rb"\\?\s+", b"", data))  # lines may be folded
        marked = any(spelling in text for spelling in spellings(MARK) for text in texts)
        asked = [c for c in self.canaries if kept is None or c.kept is kept]
        looked_for = [c for c in asked if marked or not c.text.startswith(MARK)]
        return sorted({canary.field for canary in looked_for if canary.is_in(texts)})


# -- clients


def _connection(path: str) -> UnixConnection:
    return UnixConnection(path, host="lxd", timeout=PATIENCE)


@dataclass
class Field:
    """Where canaries are planted: a daemon, behind the taps at a socket."""

    socket: str
    aviary: Aviary
    daemon: Daemon | None = None

    @property
    def plain(self) -> Callable[..., str]:
        """See :meth:`Aviary.plain`."""
        return self.aviary.plain

    @property
    def odd(self) -> Callable[..., str]:
        """See :meth:`Aviary.odd`."""
        return self.aviary.odd

    def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Ask, whatever the status; the body of the answer."""
        with contextlib.closing(_connection(self.socket)) as connection:
            connection.request(method, target, body or None, dict(headers or {}))
            return connection.getresponse().read()

    def ask(self, method: str, target: str, value: object = None) -> Json:
        """Ask with JSON, whatever the status; the JSON of the answer."""
        body = b"" if value is None else json.dumps(value).encode()
        return json.loads(self.send(method, target, body, {"Content-Type": "application/json"}))

    def done(self, method: str, target: str, value: object = None) -> Json:
        """Ask, and wait for the operation; its end, or the error that came instead."""
        answer = self.ask(method, target, value)
        if answer["type"] != "async":
            return answer
        return self.ask("GET", f"{answer['operation']}/wait?timeout={PATIENCE}")

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run the daemon's own client; what it prints."""
        assert self.daemon is not None
        done = subprocess.run(
            [self.daemon.brand.client, *argv],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """What points the daemon's client at the taps."""
        assert self.daemon is not None
        return self.daemon.environment | {
            self.daemon.brand.directory_variable: os.path.dirname(self.socket),
            self.daemon.brand.socket_variable: self.socket,
        }

    def put(self, instance: str, path: str, data: bytes) -> None:
        """Push a file, without a word of what it is, as lxc does."""
        headers = {"X-LXD-type": "file", "X-LXD-write": "overwrite"}
        headers |= {"X-Incus-type": "file", "X-Incus-write": "overwrite"}
        self.send("POST", f"/1.0/instances/{instance}/files?path={path}", data, headers)


@contextlib.contextmanager
def watched(place: Field) -> Iterator[None]:
    """The daemon's own client follows all events meanwhile, copies in logging events included."""
    assert place.daemon is not None
    monitor = subprocess.Popen(
        [place.daemon.brand.client, "monitor"],
        env=place.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert monitor.stdout is not None
    os.set_blocking(monitor.stdout.fileno(), False)

    def told() -> bool:
        place.ask("GET", "/1.0")
        return bool(monitor.stdout and monitor.stdout.read())

    until(told, "an event")
    try:
        yield
        time.sleep(0.2)  # events have goroutines of their own
    finally:
        monitor.stdout.close()
        monitor.kill()
        monitor.wait()


# -- the table


Plant = Callable[[Field], None]


@dataclass(frozen=True, slots=True)
class Planting:
    """How canaries get into real traffic.

    Attributes:
        what: is planted.
        plant: plants it.
    """

    what: str
    plant: Plant


EMPTY = {"type": "none"}
CONFIG = ("user.any", "user.user-data", "user.meta-data", "environment.GREETING")
CLOUD = ("cloud-init.user-data", "cloud-init.vendor-data")
SERVER = (
    *("candid.api.key", "maas.api.key", "rbac.api.key", "rbac.agent.private_key"),
    *("loki.auth.password", "oidc.client.secret", "openfga.api.token"),
    "acme.provider.environment",
)
POOLS = (
    *("alletra.user.password", "powerflex.user.password", "powerstore.user.password"),
    *("pure.api.token", "powerflex.gateway.password"),
)


def _config(place: Field) -> None:
    config = {key: place.odd(key) for key in (*CONFIG, *CLOUD)}
    config["cloud-init.network-config"] = f"version: 1\nnote: {place.plain('network-config')}"
    config["raw.lxc"] = f"lxc.environment = A={place.plain('raw.lxc')}"
    place.done("POST", "/1.0/instances", {"name": "e1", "source": EMPTY, "config": config})
    place.done("POST", "/1.0/instances/e1/snapshots", {"name": "s1"})
    place.ask("GET", "/1.0/instances/e1/snapshots?recursion=1")
    place.ask("GET", "/1.0/instances?recursion=2")
    now = place.ask("GET", "/1.0/instances/e1")["metadata"]
    place.done("PUT", "/1.0/instances/e1", now)
    more = place.odd("user.more, set by the client")
    place.run("config", "set", "e1", f"user.more={more}")
    place.run("config", "show", "e1", "--expanded")


def _profile(place: Field) -> None:
    config = {"user.p": place.odd("a profile's user.p"), "environment.P": place.odd("and variable")}
    place.ask("POST", "/1.0/profiles", {"name": "p1", "config": config})
    place.ask("GET", "/1.0/profiles?recursion=1")


def _server(place: Field) -> None:
    for key in SERVER:
        place.ask("PATCH", "/1.0", {"config": {key: place.odd(f"the server's {key}")}})
    proxy = f"http://me:{place.plain('the password in a URL of a proxy')}@127.0.0.1:1"
    place.ask("PATCH", "/1.0", {"config": {"core.proxy_http": proxy}})
    place.ask("GET", "/1.0")
    place.ask("PATCH", "/1.0", {"config": {"core.proxy_http": ""}})


def _trust(place: Field) -> None:
    place.ask("PATCH", "/1.0", {"config": {"core.trust_password": place.odd("trust password")}})
    for key in ("password", "trust_token"):
        value = place.odd(f"a certificate's {key}")
        place.ask("POST", "/1.0/certificates", {"type": "client", "name": "x", key: value})


def _odd_json(place: Field) -> None:
    twice = json.dumps({"name": "x", "password": place.plain("JSON with a key twice")})
    place.send("POST", "/1.0/certificates", twice.replace("{", '{"name": "y", ', 1).encode())


def _token(place: Field) -> None:
    assert place.daemon is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place.ask("PATCH", "/1.0", {"config": {"core.https_address": f"127.0.0.1:{port}"}})
    add = ("trust", "add", "--name", "t1") if place.daemon.kind == "lxd" else ("trust", "add", "t1")
    token = place.run("config", *add).split()[-1]
    place.aviary.add("a trust token's secret", json.loads(base64.b64decode(token))["secret"])
    place.run("config", "trust", "list-tokens")
    pending = place.ask("GET", "/1.0/operations?recursion=1")["metadata"]["running"]
    place.ask("POST", "/1.0/certificates", {"type": "client", "trust_token": token})
    place.aviary.add("a trust token", token)
    for operation in pending:
        if operation["class"] == "token":
            place.ask("DELETE", f"/1.0/operations/{operation['id']}")


def _cluster(place: Field) -> None:
    names = ("cluster_password", "cluster_token", "cluster_certificate_key")
    joining = {name: place.odd(name) for name in names}
    place.ask("PUT", "/1.0/cluster", {"server_name": "x", "enabled": True, **joining})


def _private_key(place: Field) -> None:
    key = f"-----BEGIN PRIVATE KEY-----\n{place.plain('a key in PEM')}\n-----END PRIVATE KEY-----\n"
    place.ask("POST", "/1.0/profiles", {"name": "k1", "description": key})
    place.ask("GET", "/1.0/profiles/k1")


def _image_secrets(place: Field) -> None:
    assert place.daemon is not None
    pull = {"type": "image", "mode": "pull", "server": "https://127.0.0.1:1", "fingerprint": "f"}
    pull["secret"] = place.odd("an image's secret")
    place.done("POST", "/1.0/images", {"source": pull})
    url = f"https://me:{place.plain('the password in the URL of an image')}@127.0.0.1:1/x"
    place.done("POST", "/1.0/images", {"source": {"type": "url", "url": url}})
    header = {"X-LXD-secret": place.plain("X-LXD-secret"), "X-LXD-fingerprint": "f" * 64}
    header["Content-Type"] = "application/octet-stream"
    place.send("POST", "/1.0/images", place.plain("an image", kept=True).encode(), header)
    image = f"/1.0/images/{place.daemon.image.fingerprint}"
    secret = place.ask("POST", f"{image}/secret")["metadata"]["metadata"]["secret"]
    place.aviary.add("a secret for an image", secret)
    place.ask("GET", f"{image}?secret={secret}")


def _migration(place: Field) -> None:
    source = {
        "type": "migration",
        "mode": "pull",
        "operation": "https://127.0.0.1:1/1.0/operations/x",
    }
    streams = {name: place.plain(f"source.secrets.{name}") for name in ("control", "fs", "other")}
    place.done("POST", "/1.0/instances", {"name": "m1", "source": source | {"secrets": streams}})
    streams = {name: place.odd(f"target.secrets.{name}") for name in ("control", "fs")}
    target = {"operation": "https://127.0.0.1:1/x", "secrets": streams}
    place.done("POST", "/1.0/instances/nonesuch", {"migration": True, "target": target})
    begun = place.ask("POST", "/1.0/instances/e1", {"name": "e1", "migration": True})
    for name, secret in (begun["metadata"]["metadata"] or {}).items():
        place.aviary.add(f"a migration's {name}", secret)
    place.ask("GET", "/1.0/operations?recursion=1")
    place.ask("DELETE", begun["operation"])


def _storage(place: Field) -> None:
    config = {key: place.odd(f"a pool's {key}") for key in POOLS}
    place.ask("POST", "/1.0/storage-pools", {"name": "x", "driver": "powerflex", "config": config})
    keys = {name: place.odd(f"a bucket's {name}") for name in ("access-key", "secret-key")}
    bucket = "/1.0/storage-pools/default/buckets/b"
    place.ask("POST", f"{bucket}/keys", {"name": "k", "role": "admin", **keys})


def _network(place: Field) -> None:
    config = {
        "bgp.peers.one.password": place.odd("a BGP peer's password"),
        "bgp.peers.one.asn": "x",
    }
    place.ask("POST", "/1.0/networks", {"name": "x1", "type": "bridge", "config": config})
    zone = {"peers.one.key": place.odd("a TSIG key"), "peers.one.address": "127.0.0.1"}
    place.ask("POST", "/1.0/network-zones", {"name": "example.net", "config": zone})
    place.ask("GET", "/1.0/network-zones?recursion=1")


def _headers(place: Field) -> None:
    basic = base64.b64encode(f"me:{random_text(20)}".encode()).decode()
    place.send(
        "GET",
        "/1.0",
        headers={
            "Authorization": f"Bearer {place.plain('Bearer')}",
            "Proxy-Authorization": f"Basic {place.aviary.add('Basic in base64', basic)}",
            "Cookie": f"session={place.plain('Cookie')}; other={place.plain('Cookie, second')}",
            "Macaroons": place.plain("Macaroons"),
            "X-LXD-OIDC-access": place.plain("X-LXD-OIDC-access"),
            "X-LXD-OIDC-refresh": place.plain("X-LXD-OIDC-refresh"),
        },
    )


def _urls(place: Field) -> None:
    place.send("GET", f"/1.0/nonesuch?secret={place.plain('a URL that is not found')}")
    place.send("GET", f"/1.0/operations/x/websocket?secret={place.plain('a wrong secret')}")
    place.send("GET", f"/1.0/images?token={place.plain('a token in a URL')}&project=nonesuch")


def _exec(place: Field) -> None:
    variable = place.plain("an exec's environment")
    typed = place.plain("stdin", kept=True)
    said = (place.plain("stdout", kept=True), place.plain("stderr", kept=True))
    out, err = ("".join(f"\\{ord(c):03o}" for c in text) for text in said)
    command = place.plain("a command", kept=True)
    script = f"cat > /dev/null; : {command}; printf '{out}'; printf '{err}' >&2"
    place.run("exec", "c1", "--env", f"GREETING={variable}", "--", "sh", "-c", script, stdin=typed)


def _terminal(place: Field) -> None:
    assert place.daemon is not None
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [place.daemon.brand.client, "exec", "c1", "-t", "--", "sh", "-c", "read a; echo done"],
        env=place.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.write(ours, place.plain("a terminal", kept=True).encode() + b"\n")
    process.wait(PATIENCE)
    os.close(ours)
    os.close(theirs)


def _recorded_output(place: Field) -> None:
    said = "".join(f"\\{ord(c):03o}" for c in place.plain("recorded output", kept=True))
    run = {"command": ["printf", said], "record-output": True, "wait-for-websocket": False}
    ended = place.done("POST", "/1.0/instances/c1/exec", run)
    place.send("GET", ended["metadata"]["metadata"]["output"]["1"])
    console = place.plain("a console", kept=True)
    place.run("exec", "c1", "--", "sh", "-c", "cat > /dev/console", stdin=f"{console}\n")
    place.send("GET", "/1.0/instances/c1/console")


def _files(place: Field) -> None:
    text = place.plain("a file", kept=True)
    document = json.dumps({"note": place.plain("a file of JSON", kept=True)})
    key = place.plain("a key in a file", kept=True) + random_text(30)
    pem = f"-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"
    for name, data in {"text": text, "json": document, "pem": pem}.items():
        place.put("c1", f"/root/{name}", data.encode())
        place.send("GET", f"/1.0/instances/c1/files?path=/root/{name}")


def _template(place: Field) -> None:
    template = json.dumps({"note": place.plain("a template", kept=True)}).encode()
    target = "/1.0/instances/c1/metadata/templates?path=hostname.tpl"
    place.send("POST", target, template)
    place.send("GET", target)


def _sftp(place: Field) -> None:
    head = "GET /1.0/instances/c1/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\nConnection: Upgrade"
    path = f"/root/{place.plain('SFTP', kept=True)}".encode()
    stat = b"\x11\0\0\0\1" + len(path).to_bytes(4, "big") + path  # SSH_FXP_STAT
    with contextlib.closing(_connection(place.socket)) as connection:
        connection.connect()
        connection.sock.sendall(f"{head}\r\n\r\n".encode())
        connection.sock.recv(4096)
        for packet in (b"\1\0\0\0\3", stat):
            connection.sock.sendall(len(packet).to_bytes(4, "big") + packet)
            connection.sock.recv(4096)


def _backup(place: Field) -> None:
    place.done("POST", "/1.0/instances", {"name": "e2", "source": EMPTY, "config": {}})
    place.put("e2", "/note", place.plain("a backup", kept=True).encode())
    backup = {"name": "b1", "compression_algorithm": "none", "instance_only": True}
    place.done("POST", "/1.0/instances/e2/backups", backup)
    place.send("GET", "/1.0/instances/e2/backups/b1/export")


def _database(place: Field) -> None:
    said = place.plain("a query of the database", kept=True)
    for query in ("SELECT * FROM instances_config", f"SELECT '{said}'"):
        place.ask("POST", "/internal/sql", {"database": "global", "query": query})
    place.ask("GET", "/internal/sql?database=global")


PLANTINGS = (
    # First: in a backup stand the settings of that time too, and it is payload as a whole.
    Planting("a backup", _backup),
    Planting("instances' settings: set, told, expanded, in snapshots, put back", _config),
    Planting("profiles' settings", _profile),
    Planting("the server's configuration", _server),
    Planting("trust passwords", _trust),
    Planting("JSON that is odd, and not said to be any", _odd_json),
    Planting("tokens of trust, while they are pending", _token),
    Planting("what a server joins a cluster with", _cluster),
    Planting("a private key in a description", _private_key),
    Planting("images' secrets: in requests, answers, headers and URLs", _image_secrets),
    Planting("migrations' secrets: in requests and answers", _migration),
    Planting("pools' passwords, buckets' keys", _storage),
    Planting("networks' passwords and keys", _network),
    Planting("headers", _headers),
    Planting("URLs of requests that fail", _urls),
    Planting("exec: environment, command and streams", _exec),
    Planting("exec: a terminal", _terminal),
    Planting("exec's output in a file, the console's log", _recorded_output),
    Planting("files", _files),
    Planting("a template", _template),
    Planting("SFTP", _sftp),
    Planting("the database", _database),
)
"""In this order: some plant in what those before have made."""


def plant(place: Field) -> None:
    """Plant all, while their events are watched; then learn what the daemon made up itself."""
    assert place.daemon is not None
    mark = place.daemon.mark()
    with watched(place):
        for planting in PLANTINGS:
            planting.plant(place)
    log = place.daemon.log.read_bytes()[mark:].decode(errors="replace")
    for secret in sorted(set(re.findall(r"websocket\?secret=([0-9a-f]{64})", log))):
        place.aviary.add("an exec's websocket", secret)


# -- what only a fake daemon says here


def _operation(metadata: object, kind: str = "token") -> dict[str, object]:
    about = {"id": "b282146b-0000-4000-8000-000000000000", "status": "Running", "status_code": 103}
    return {"type": "async", "metadata": {**about, "class": kind, "metadata": metadata}}


@dataclass(frozen=True, slots=True)
class Saying:
    """What a fake daemon says.

    Attributes:
        what: that is, and why no real one says it.
        document: the JSON of its answer.
        headers: more of its answer's.
    """

    what: str
    document: Callable[[Aviary], object]
    headers: Callable[[Aviary], Mapping[str, str]] = lambda _aviary: {}


SAYINGS = (
    Saying(
        "the server's configuration: no daemon knows all keys",
        lambda a: {"metadata": {"config": {key: a.odd(f"told: {key}") for key in SERVER}}},
    ),
    Saying(
        "pools of drivers that take an appliance",
        lambda a: {"metadata": [{"config": {key: a.odd(f"told: {key}")}} for key in POOLS]},
    ),
    Saying(
        "a bucket's keys, which take a MinIO",
        lambda a: {"metadata": {n: a.odd(f"told: {n}") for n in ("access-key", "secret-key")}},
    ),
    Saying(
        "a network's peer, which takes a network",
        lambda a: {"metadata": {"config": {"bgp.peers.a.password": a.odd("told: BGP")}}},
    ),
    Saying(
        "a token to join a cluster, which takes one",
        lambda a: _operation({"secret": a.plain("told: a join token"), "serverName": "x"}),
    ),
    Saying(
        "tokens of identities and cluster links, of newer daemons",
        lambda a: {
            "metadata": {"token": a.odd("told: bearer"), "trust_token": a.odd("told: link")}
        },
    ),
    Saying(
        "SSH keys in settings, of newer daemons",
        lambda a: {"metadata": {"expanded_config": {"cloud-init.ssh-keys.me": a.odd("SSH")}}},
    ),
    Saying(
        "a VGA console's secrets, which take a virtual machine",
        lambda a: _operation({"fds": {"0": a.plain("VGA"), "control": a.plain("c")}}, "websocket"),
    ),
    Saying(
        "an error that repeats what was asked",
        lambda a: {"type": "error", "error_code": 400, "error": f"password={a.plain('an error')}"},
    ),
    Saying(
        "cookies, which single sign-on takes",
        lambda _a: {},
        lambda a: {"Set-Cookie": f"session={a.plain('Set-Cookie')}; Path=/"},
    ),
)
