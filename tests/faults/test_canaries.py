"""Secrets are found nowhere: canaries are planted wherever LXD's traffic may hold a secret.

What is planted, and how, is the table in :mod:`tests.faults.planting`. The traffic passes several
taps at once, each of which logs in another format and records. Then everything that they left is
searched: for secrets, which must be nowhere, and for payload, which must be where it is said to be.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lxdtap.api import API, APIException
from lxdtap.cassette import files
from lxdtap.cassette.model import Interaction
from lxdtap.errors import LxdtapError
from tests.absent import absent
from tests.campaign import Campaign
from tests.daemons.throwaway import INCUS, LXD, Brand, Daemon, throwaway
from tests.process.tap import (
    LXDTAP,
    Served,
    Sidecar,
    answer,
    ask,
    environment,
    eventually,
    fake_daemon,
    read_until,
    sidecar,
)

from .planting import SAYINGS, Aviary, Field, Json, plant
from .running import family

pytestmark = pytest.mark.timeout(300)

FORMATS = ("debug", "line", "json")
TAPS: Mapping[str, Sequence[str]] = {
    "json": ("--format", "json", "-v"),
    "line": ("--format", "line", "-v", "--redact-payload"),
    "debug": ("--format", "debug", "-v"),
}
"""Their options. The last one is killed, and its recording recovered."""
LIMIT = 60.0


def told_by_the_system(pid: int) -> bytes:
    """What anybody may read of a tap's processes, and what its user may."""
    names = ("cmdline", "environ", "comm")
    paths = [Path(f"/proc/{each}/{name}") for each in family(pid) for name in names]
    return b"".join(path.read_bytes() for path in paths)


@dataclass
class Chain:
    """Taps one before the other: the same traffic passes all."""

    home: Path
    taps: dict[str, Sidecar]

    @property
    def socket(self) -> str:
        """Where the client goes."""
        return list(self.taps.values())[-1].path

    def cassette(self, name: str) -> Path:
        return self.home / f"{name}.yaml"

    def spool(self, name: str) -> Path:
        return self.home / f"{name}.yaml.spool"


@contextlib.contextmanager
def chain(home: Path, upstream: str) -> Iterator[Chain]:
    """A tap for each of :data:`TAPS`."""
    # No file that a tap makes without being told to is missed.
    for name in ("tmp", "home", "run"):
        (home / name).mkdir()
    env = environment(
        TMPDIR=str(home / "tmp"), HOME=str(home / "home"), XDG_RUNTIME_DIR=str(home / "run")
    )
    with contextlib.ExitStack() as taps:
        running: dict[str, Sidecar] = {}
        for name, more in TAPS.items():
            (home / name).mkdir()
            recording = ("-w", str(home / f"{name}.yaml"))
            tap = sidecar(home / name, upstream, *recording, *more, env=env)
            running[name] = taps.enter_context(tap)
            upstream = running[name].path
        yield Chain(home, running)


def kill(tap: Sidecar) -> None:
    """Kill all of its processes, who records first: nothing is saved."""
    for pid in reversed(family(tap.process.pid)):
        os.kill(pid, signal.SIGKILL)
    _, said = tap.process.communicate(timeout=LIMIT)
    tap.said.append(said)


def stop(tap: Sidecar) -> None:
    """End it in order, however much it has to save."""
    tap.process.terminate()
    _, said = tap.process.communicate(timeout=LIMIT)
    tap.said.append(said)
    assert tap.process.returncode == 0, said


def lxdtap(*arguments: str | Path) -> bytes:
    """Run it to its end; all that it says."""
    done = subprocess.run(
        [*LXDTAP, *map(str, arguments)], env=environment(), capture_output=True, timeout=LIMIT
    )
    assert b"Traceback" not in done.stderr
    return done.stdout + done.stderr


@dataclass
class Harvest:
    """What is left when all is over."""

    home: Path
    aviary: Aviary
    said: dict[str, bytes]
    """By whom: what taps and commands said, and what the system tells of their processes."""

    def files(self) -> Iterator[tuple[str, bytes]]:
        """All files, with their names, which are searched too."""
        for folder, _, names in os.walk(self.home):
            for path in (Path(folder, name) for name in names):
                if path.is_file():
                    short = str(path.relative_to(self.home))
                    yield short, path.read_bytes() + short.encode()

    def leaks(self) -> dict[str, list[str]]:
        """Which secrets are where."""
        everything = {**dict(self.files()), **self.said}
        found = {where: self.aviary.found(data, kept=False) for where, data in everything.items()}
        return {where: fields for where, fields in found.items() if fields}

    def cassette(self, name: str) -> Path:
        """A tap's."""
        return self.home / f"{name}.yaml"


def unplanted(spool: Path, aviary: Aviary) -> list[str]:
    """The fields whose canaries have not passed: the spool has all that passes, as it is."""
    raw = spool.read_bytes()
    missing = [c.field for c in aviary.canaries if not all(e.encode() in raw for e in c.ends)]
    return sorted(missing)


def harvested(links: Chain, aviary: Aviary, campaign: Campaign) -> Harvest:
    """End the taps, recover what one left, and have every command look at it."""
    said: dict[str, bytes] = {}
    spool = links.home / "debug.yaml.spool"
    eventually(lambda: not unplanted(spool, aviary), LIMIT)
    for name, tap in links.taps.items():
        said[f"the processes of {name}"] = told_by_the_system(tap.process.pid)
    kill(links.taps["debug"])
    for name, tap in reversed(links.taps.items()):
        if name != "debug":
            stop(tap)
        said[f"what {name} said"] = "".join(tap.said).encode()
    said["show of the spool"] = lxdtap("show", "-v", spool)
    said["recover"] = lxdtap("recover", spool)
    harvest = Harvest(links.home, aviary, said)
    said["diff"] = lxdtap("diff", "--all", harvest.cassette("json"), harvest.cassette("line"))
    said["show"] = lxdtap("show", "--format", "json", "-v", harvest.cassette("json"))
    for name in links.taps if campaign.full else ():
        path = harvest.cassette(name)
        for form in FORMATS:
            said[f"show --format {form} of {name}"] = lxdtap("show", "--format", form, "-v", path)
        said[f"check of {name}"] = lxdtap("check", path)
    return harvest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The campaign plants in both daemons; a run in the first that is there."""
    if "harvest" in metafunc.fixturenames:
        here = [brand for brand in (LXD, INCUS) if not brand.missing()] or [LXD]
        brands = [LXD, INCUS] if metafunc.config.getoption("--campaign") else here[:1]
        metafunc.parametrize("brand", brands, ids=[b.kind for b in brands], scope="module")


@pytest.fixture(scope="module")
def daemon(brand: Brand) -> Iterator[Daemon]:
    """A daemon of our own: what is planted in it is not for other tests to find."""
    if why := brand.missing():
        absent(f"{why} (see .ci/install-daemons)")
    with throwaway(brand) as running:
        yield running


@pytest.fixture(scope="module")
def harvest(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory, campaign: Campaign
) -> Harvest:
    """All is planted in the daemon's real traffic, and harvested."""
    home, aviary = tmp_path_factory.mktemp(f"canaries-{daemon.kind}"), Aviary()
    with chain(home, str(daemon.socket)) as links:
        plant(Field(links.socket, aviary, daemon))
        found = harvested(links, aviary, campaign)
    payload = sum(canary.kept for canary in aviary.canaries)
    secrets = len(aviary.canaries) - payload
    campaign.figure(
        f"canaries, {daemon.kind}",
        f"{secrets} secrets and {payload} of payload planted, {len(found.leaks())} leaks",
    )
    return found


def test_secrets_are_nowhere(harvest: Harvest) -> None:
    """In no cassette, attachment, log, message, or process list, in no spelling."""
    assert harvest.leaks() == {}


def test_nothing_else_is_left(harvest: Harvest) -> None:
    """No spool, no temporary file: only what was asked for."""
    kept = re.compile(r"\w+\.(log|yaml)|\w+\.files/[0-9a-f]{64}")
    assert [name for name, _ in harvest.files() if not kept.fullmatch(name)] == []


def payload_of(interaction: Interaction) -> bytes:
    """All that an interaction holds."""
    transaction = interaction.transaction
    answer = transaction.response
    bodies = [transaction.request.body, *([answer.body] if answer else [])]
    bodies += [piece.payload for piece in interaction.pieces]
    parts = [body.captured for body in bodies]
    return b"\n".join([*parts, repr((transaction.request.target, interaction.stream)).encode()])


def test_payload_that_is_kept_is_named(harvest: Harvest) -> None:
    """Each canary of payload is in the cassette, and each interaction that has one is noted."""
    path = harvest.cassette("json")
    notes = lxdtap("check", path).decode()
    noted = set(re.findall(r"note: interaction #(\d+): ", notes))
    has = {
        str(each.transaction.number): harvest.aviary.found(payload_of(each), kept=True)
        for each in files.load(str(path)).interactions
    }
    planted = {canary.field for canary in harvest.aviary.canaries if canary.kept}
    assert {field for fields in has.values() for field in fields} == planted
    assert {
        number: fields for number, fields in has.items() if fields and number not in noted
    } == {}


def test_payload_is_left_out_where_that_is_asked_for(harvest: Harvest) -> None:
    """With --redact-payload there is none in the cassette, nor beside it."""
    left = {
        name: harvest.aviary.found(data)
        for name, data in harvest.files()
        if name == "line.yaml" or name.startswith("line.files/")
    }
    assert left == {"line.yaml": []}


def placeholders(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where each placeholder stands in a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from placeholders(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from placeholders(item, (*path, str(index)))
    elif isinstance(value, str) and re.fullmatch(r"REDACTED-\d+", value):
        yield path, value


def test_log_and_cassette_have_the_same_placeholders(harvest: Harvest) -> None:
    """Wherever the log has one for a secret, the cassette has that one."""
    lines = (harvest.home / "json.log").read_text().splitlines()
    entries = {e["id"]: e for e in map(json.loads, lines) if e["event"] == "transaction"}
    compared = 0
    for interaction in files.load(str(harvest.cassette("json"))).interactions:
        entry, answer = entries[interaction.transaction.number], interaction.transaction.response
        for side, message in (("request", interaction.transaction.request), ("response", answer)):
            document = ((entry[side] or {}).get("body") or {}).get("json")
            if message is None or not document or "/files" in entry["target"]:
                continue
            shown = dict(placeholders(document))
            kept = dict(placeholders(json.loads(message.body.captured)))
            assert shown.items() <= kept.items()
            compared += len(shown)
    assert compared > len(harvest.aviary.canaries)


# -- what is said by a fake daemon


def said(document: object, headers: Mapping[str, str]) -> bytes:
    """An answer."""
    start, _, rest = answer(json.dumps(document).encode()).partition(b"\r\n")
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return start + b"\r\n" + more.encode() + rest


def says(aviary: Aviary) -> dict[str, bytes]:
    """Its answers, by their targets."""
    return {
        f"/1.0/said/{number}": said(saying.document(aviary), saying.headers(aviary))
        for number, saying in enumerate(SAYINGS)
    }


def test_what_these_daemons_do_not_say(tmp_path: Path, campaign: Campaign) -> None:
    """What only other versions, hardware or a cluster would tell is found nowhere either."""
    aviary = Aviary()
    answers = says(aviary)

    def script(sock: socket.socket, served: Served) -> None:
        if head := read_until(sock, served, b"\r\n\r\n"):
            sock.sendall(answers[head.split()[1].decode()])

    home = tmp_path / "home"
    home.mkdir()
    with fake_daemon(tmp_path / "d", script) as daemon, chain(home, daemon.path) as links:
        for target in answers:
            ask(links.socket, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        harvest = harvested(links, aviary, campaign)
    assert harvest.leaks() == {}


# -- who else records, and who else speaks


def repeats(sock: socket.socket, served: Served) -> None:
    """A daemon that refuses everything, and repeats what it was told."""
    while b"\r\n\r\n" in (data := read_until(sock, served, b"\r\n\r\n")):
        head, _, body = data.partition(b"\r\n\r\n")
        length = int((re.search(rb"(?i)content-length: (\d+)", head) or [0, 0])[1])
        while len(body) < length:
            body += sock.recv(1 << 16)
        error = f"no {head.splitlines()[0].decode()} of {body.decode()}"
        document = {"type": "error", "error": error, "error_code": 400, "metadata": None}
        status = "400 Bad Request" if b" /1.0/" in head else "200 OK"
        sock.sendall(answer(json.dumps(document).encode(), status, close=False))


def requests(aviary: Aviary) -> list[tuple[str, str, Json]]:
    """Some that hold secrets, and fail."""
    settings = {"config": {"user.a": aviary.odd("a setting"), "limits.cpu": "2"}}
    trust = {"password": aviary.odd("a password"), "type": "client"}
    return [
        ("GET", f"/1.0/images/x?secret={aviary.plain('a URL')}", None),
        ("PUT", "/1.0/instances/c1", settings),
        ("POST", "/1.0/certificates", trust),
        ("POST", "/1.0/instances/c1/exec", {"environment": {"A": aviary.odd("a variable")}}),
    ]


def test_the_api_and_its_exceptions(tmp_path: Path) -> None:
    """What an API prints, records and raises holds no secret, though the daemon repeats it."""
    aviary, output, said = Aviary(), io.StringIO(), ""
    with fake_daemon(tmp_path / "d", repeats) as daemon:
        record = str(tmp_path / "home" / "api.yaml")
        (tmp_path / "home").mkdir()
        with API(daemon.path, debug=True, output=output, record=record) as api:
            for method, target, value in requests(aviary):
                with pytest.raises(APIException) as raised:
                    api.request(method, target, json=value)
                result = raised.value.result
                said += f"{raised.value} {raised.value!r} {result!r} {raised.value.error}"
                said += result.request_summary() + result.response_summary()
        daemon.close()
    with pytest.raises(LxdtapError) as gone:
        API(daemon.path).get(f"/1.0/x?secret={aviary.plain('a URL of nobody')}")
    told = {"said": f"{said}{gone.value}".encode(), "printed": output.getvalue().encode()}
    assert "REDACTED-" in said
    assert "REDACTED-" in Path(record).read_text()
    assert Harvest(tmp_path / "home", aviary, told).leaks() == {}


PLUGGED = """
import http.client, json, os, socket
import pytest

class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["LXD_SOCKET"])

def send():
    for method, target, value in json.load(open(os.environ["REQUESTS"])):
        connection = Connection("lxd")
        connection.request(method, target, value and json.dumps(value))
        connection.getresponse().read()
        connection.close()

@pytest.mark.lxdtap
def test_recorded():
    send()

@pytest.mark.lxdtap
def test_failed():
    send()
    assert False, "so what passed is told"
"""


def test_the_pytest_plugin(tmp_path: Path) -> None:
    """Its recordings, and what it tells of a test that failed, hold no secret; nor do misses."""
    aviary = Aviary()
    asked, home = tmp_path / "requests", tmp_path / "home"
    asked.write_text(json.dumps(requests(aviary)))
    (home / "tmp").mkdir(parents=True)
    (home / "test_it.py").write_text(PLUGGED)
    told = {}

    def run(mode: str, socket: str) -> str:
        env = environment(LXD_SOCKET=socket, REQUESTS=str(asked), TMPDIR=str(home / "tmp"))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        command += ["-c", os.devnull, "--rootdir", "."]
        done = subprocess.run(
            [*command, f"--lxdtap-record-mode={mode}"],
            cwd=home,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        told[mode] = done.stdout.encode() + done.stderr.encode()
        return done.stdout

    with fake_daemon(tmp_path / "d", repeats) as daemon:
        assert "1 failed, 1 passed" in run("all", daemon.path)
        assert b"what has passed" in told["all"]
        more = [("GET", f"/1.0/nowhere?secret={aviary.plain('a URL that is missed')}", None)]
        asked.write_text(json.dumps([*requests(aviary), *more]))
        run("none", daemon.path)
    assert b"nearest recorded" in told["none"]
    assert b"REDACTED-" in (home / "cassettes/test_it/test_recorded.yaml").read_bytes()
    assert Harvest(home, aviary, told).leaks() == {}


def test_messages(tmp_path: Path) -> None:
    """What lxdtap answers and says itself where there is no daemon, or no recording of it."""
    aviary, home = Aviary(), tmp_path / "home"
    home.mkdir()
    target = f"/1.0/x?secret={aviary.plain('a URL')}&token={aviary.plain('another')}"
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    told = {}
    with (
        fake_daemon(tmp_path / "d", repeats) as daemon,
        sidecar(home / "t", daemon.path, "-w", str(home / "t.yaml")) as tap,
    ):
        daemon.close()
        told["the answer"] = ask(tap.path, request)
        tap.stop()
    assert b" 503 " in told["the answer"]
    told["said"] = "".join(tap.said).encode()
    client = [sys.executable, "-c", ASKS, target]
    replay = subprocess.run(
        [*LXDTAP, "replay", "--show", str(home / "t.yaml"), "--", *client],
        env=environment(),
        capture_output=True,
        timeout=LIMIT,
    )
    assert b"REDACTED-" in replay.stderr
    told["replay"] = replay.stdout + replay.stderr
    assert Harvest(home, aviary, told).leaks() == {}


ASKS = """\
import os, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(os.environ["LXD_SOCKET"])
    target = sys.argv[1].replace("/x", "/y")
    sock.sendall(f"GET {target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
    while data := sock.recv(65536):
        os.write(1, data)
"""
