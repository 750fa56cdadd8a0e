"""Secrets in real traffic: in no cassette, no log, no message; and what is kept by design is told.

Every field that is known to hold one (docs/redaction.md) is sent, whatever the daemon makes of it;
what it makes secrets of itself is sent as well.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lxdtap.cassette import files
from tests.process.tap import Sidecar, eventually, run, sidecar

from .throwaway import Daemon

PEM = "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n"


@dataclass
class Canaries:
    """Words that are found nowhere else, by where they were planted."""

    secret: dict[str, str] = field(default_factory=dict)
    setting: dict[str, str] = field(default_factory=dict)
    payload: dict[str, str] = field(default_factory=dict)

    def plant(self, where: str) -> str:
        """A secret to be taken out everywhere."""
        return self.secret.setdefault(where, f"canary-{len(self.secret)}-{'Zq' * 5}")

    def put(self, where: str) -> str:
        """A setting: the log shows it, no cassette has it."""
        return self.setting.setdefault(where, f"setting-{len(self.setting)}-{'Jy' * 5}")

    def drop(self, where: str) -> str:
        """Payload, which is kept by design."""
        return self.payload.setdefault(where, f"payload-{len(self.payload)}-{'Xk' * 5}")


class Client:
    """Asks through the tap, on a connection for each request."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, method: str, target: str, body: object = None, **headers: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("lxd")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self._path)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        with contextlib.closing(connection):
            connection.request(method, target, data, named)
            said = connection.getresponse().read()
        try:
            value = json.loads(said)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def metadata(self, method: str, target: str, body: object = None) -> dict[str, Any]:
        """Of what is answered; waited for, if it is an operation."""
        said = self.ask(method, target, body)
        if said.get("type") == "async":
            self.ask("GET", f"{said['operation']}/wait?timeout=30")
        found = said.get("metadata")
        return found if isinstance(found, dict) else {}


def settings(canaries: Canaries, name: str) -> dict[str, str]:
    keys = ("user.password-free", "user.user-data", "cloud-init.user-data", "environment.SOME_WORD")
    found = {key: canaries.put(f"{name} {key}") for key in keys}
    found["cloud-init.vendor-data"] = f"#cloud-config\nx: {canaries.put(f'{name} vendor')}\n"
    found["raw.lxc"] = f"lxc.environment = A={canaries.put(f'{name} raw.lxc')}"
    return found


def send_secrets(client: Client, canaries: Canaries) -> None:
    """All the fields, in requests, whether the daemon knows them or not."""
    plant = canaries.plant
    client.ask("PUT", "/1.0/cluster", {
        "enabled": True, "server_name": "n", "cluster_address": "127.0.0.1:1",
        "cluster_password": plant("cluster_password"), "cluster_token": plant("cluster_token"),
        "cluster_certificate_key": PEM.format(plant("cluster_certificate_key")),
    })  # fmt: skip
    for key in (
        *("core.trust_password", "candid.api.key", "maas.api.key", "rbac.api.key"),
        *("rbac.agent.private_key", "loki.auth.password", "oidc.client.secret"),
    ):
        client.ask("PATCH", "/1.0", {"config": {key: plant(key)}})
    proxy = f"http://me:{plant('proxy')}@127.0.0.1:9"
    client.ask("PATCH", "/1.0", {"config": {"core.proxy_https": proxy}})
    client.ask("GET", "/1.0")
    client.ask("PATCH", "/1.0", {"config": {"core.proxy_https": "", "core.trust_password": ""}})
    client.ask("POST", "/1.0/certificates", {
        "type": "client", "password": plant("certificates password"),
        "trust_token": plant("trust_token"), "certificate": "AAAA",
    })  # fmt: skip
    storage = ("alletra.user.password", "powerflex.user.password", "pure.api.token")
    pool = {key: plant(key) for key in storage}
    client.ask("POST", "/1.0/storage-pools", {"name": "p", "driver": "nonesuch", "config": pool})
    keys = {"access-key": plant("access-key"), "secret-key": plant("secret-key")}
    client.ask("POST", "/1.0/storage-pools/default/buckets/b/keys", {"name": "k"} | keys)
    network = {"bgp.peers.one.password": plant("bgp password")}
    client.ask("POST", "/1.0/networks", {"name": "n", "type": "nonesuch", "config": network})
    zone = {"peers.one.key": plant("peers key")}
    client.ask("POST", "/1.0/network-zones", {"name": "z.example", "config": zone})
    client.ask("GET", "/1.0/network-zones?recursion=1")
    client.ask("DELETE", "/1.0/network-zones/z.example")
    client.ask("POST", "/1.0/instances", {
        "name": "m1", "source": {
            "type": "migration", "mode": "pull", "operation": "https://127.0.0.1:1/1.0/operations/x",
            "secrets": {"control": plant("migration control"), "fs": plant("migration fs")},
        },
    })  # fmt: skip
    client.ask("POST", "/1.0/images", {"source": {
        "type": "image", "mode": "pull", "server": f"https://u:{plant('image url')}@127.0.0.1:1",
        "secret": plant("image secret"), "fingerprint": "0" * 12,
    }})  # fmt: skip
    client.ask(
        "GET",
        f"/1.0/images/{'0' * 64}?secret={plant('query secret')}",
        Authorization=f"Bearer {plant('authorization')}",
        Cookie=f"session={plant('cookie')}",
        X_LXD_secret=plant("x-lxd-secret"),
        X_LXD_OIDC_access=plant("x-lxd-oidc-access"),
        Macaroons=plant("macaroons"),
    )
    form = json.dumps({"config": {"user.by-curl": canaries.put("curl")}}).encode()
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    client.ask("PATCH", "/1.0/profiles/nonesuch", form, **kind)


def send_settings(client: Client, canaries: Canaries) -> None:
    """Of a profile and of an instance, which come back in many answers and in events."""
    for what in ("profiles", "instances"):
        body: dict[str, Any] = {"name": "x1", "config": settings(canaries, what)}
        if what == "instances":
            body |= {"source": {"type": "image", "alias": "bb"}}
        made = client.metadata("POST", f"/1.0/{what}", body)
        said = client.ask("GET", f"/1.0/{what}/x1")
        assert said.get("metadata"), (made, said)
        whole = said["metadata"]
        client.metadata("PUT", f"/1.0/{what}/x1", {k: whole[k] for k in ("config", "devices")})
        client.ask("GET", f"/1.0/{what}?recursion=1")
    client.metadata("POST", "/1.0/instances/x1/snapshots", {"name": "s"})
    client.ask("GET", "/1.0/instances/x1/snapshots/s")
    client.metadata("DELETE", "/1.0/instances/x1")
    client.metadata("DELETE", "/1.0/profiles/x1")


def have_secrets_made(client: Client, canaries: Canaries) -> None:
    """By the daemon: a token, an image's secret, those of an exec that nobody attends."""
    client.ask("PATCH", "/1.0", {"config": {"core.https_address": "127.0.0.1:0"}})
    wanted = {"type": "client", "token": True, "name": "t"}
    said = client.ask("POST", "/1.0/certificates", wanted)
    token = said["metadata"]
    assert token, said
    canaries.secret["token"] = token["metadata"]["secret"]
    client.ask("GET", "/1.0/operations?recursion=1")
    client.ask("DELETE", f"/1.0/operations/{token['id']}")
    client.ask("PATCH", "/1.0", {"config": {"core.https_address": ""}})
    image = client.ask("GET", "/1.0/images/aliases/bb")["metadata"]["target"]
    made = client.ask("POST", f"/1.0/images/{image}/secret")["metadata"]
    canaries.secret["made image secret"] = made["metadata"]["secret"]
    client.ask("GET", f"/1.0/images/{image}?secret={made['metadata']['secret']}")
    started = client.ask("POST", "/1.0/instances/c1/exec", {
        "command": ["sleep", "0.1"], "wait-for-websocket": True, "interactive": False,
        "environment": {"WORD": canaries.put("exec environment")},
    })["metadata"]  # fmt: skip
    for name, secret in started["metadata"]["fds"].items():
        canaries.secret[f"exec {name}"] = secret
    client.ask("GET", f"/1.0/operations/{started['id']}")
    client.ask("DELETE", f"/1.0/operations/{started['id']}")


def send_payload(daemon: Daemon, tap: Sidecar, canaries: Canaries) -> None:
    """A command that prints what it reads, and a file."""
    lx = daemon.brand.client
    prefix = daemon.kind.upper()
    env = daemon.environment | {
        f"{prefix}_DIR": str(tap.directory),
        f"{prefix}_SOCKET": tap.path,
        "WORD": canaries.put("env of lxc exec"),
    }
    script = (
        f'echo {canaries.drop("stdin")} | {lx} exec c1 --env WORD="$WORD" --'
        f" sh -c 'cat; : {canaries.drop('command')}'\n"
        f"echo {canaries.drop('file')} > {tap.directory.parent}/file\n"
        f"{lx} file push {tap.directory.parent}/file c1/root/file\n"
        f"{lx} file pull c1/root/file {tap.directory.parent}/pulled\n"
    )
    subprocess.run(["sh", "-euc", script], env=env, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("form", "options"),
    [("debug", ()), ("line", ("--redact-payload",)), ("json", ("--keep-secrets",))],
)
def test_no_secret_is_told(
    daemon: Daemon, tmp_path: Path, form: str, options: tuple[str, ...]
) -> None:
    """No credential and no setting in a cassette, beside it, in a log, in a message.

    ``--keep-secrets`` shows that all of them did pass.
    """
    canaries, path = Canaries(), tmp_path / "c.yaml"
    with sidecar(tmp_path / "tap", str(daemon.socket), "-w", str(path), *options, form=form) as tap:
        with monitoring(daemon, tap):
            client = Client(tap.path)
            have_secrets_made(client, canaries)
            send_secrets(client, canaries)
            send_settings(client, canaries)
            send_payload(daemon, tap, canaries)
        assert tap.stop() == 0, tap.said
    daemon.reset()
    said = tap.log.read_text() + "".join(tap.said)
    recorded = b"".join(p.read_bytes() for p in (path, *tmp_path.glob("c.files/*")))
    assert not list(tmp_path.glob("*.spool"))
    assert leaked(canaries.secret | canaries.setting, said.encode()) == []
    checked = run("check", str(path))
    assert leaked(canaries.secret, checked.stdout.encode()) == []
    if "--keep-secrets" in options:
        assert leaked(canaries.secret, recorded) == sorted(canaries.secret)
        assert leaked(canaries.setting, recorded) == sorted(canaries.setting)
        assert checked.returncode == 1
        return
    assert leaked(canaries.secret | canaries.setting, recorded) == []
    found = [line for line in checked.stdout.splitlines() if ": note: " not in line]
    assert (found, checked.returncode) == ([], 0)
    if options:
        assert leaked(canaries.payload, recorded) == []
    else:
        noted = re.findall(r"note: interaction #\d+: (.*)", checked.stdout)
        assert "a command that was run, request body" in noted
        assert any(each.endswith("typed, printed or sent, stdin") for each in noted)
        assert any(each.endswith("typed, printed or sent, stdout") for each in noted)
    assert files.load(str(path)).complete


def leaked(canaries: dict[str, str], text: bytes) -> list[str]:
    return sorted(where for where, word in canaries.items() if word.encode() in text)


@contextlib.contextmanager
def monitoring(daemon: Daemon, tap: Sidecar):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """All of the daemon's events pass meanwhile, those of the type logging too."""
    prefix = daemon.kind.upper()
    env = daemon.environment | {f"{prefix}_SOCKET": tap.path, f"{prefix}_DIR": str(tap.directory)}
    process = subprocess.Popen(
        [daemon.brand.client, "monitor", "--format", "json"], env=env, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    eventually(tap.log.exists)
    time.sleep(0.5)
    try:
        yield
        time.sleep(0.3)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
