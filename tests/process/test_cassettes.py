"""The cassettes in ``cassettes/``: whole, free of secrets, and playing what was recorded.

Each is played to the clients that were recorded, with no daemon. Where these are not installed, or
are of another version, that is skipped, in one line that says why; where ``CI`` is true it fails,
because there they were to be installed.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from lxdtap.cassette import files
from lxdtap.cassette.cleaning import Cleaner
from lxdtap.cassette.model import Cassette, Interaction
from lxdtap.redact import Redactor
from tests.absent import absent
from tests.scenarios import CASSETTES, PATIENCE, RECORDINGS, VERSIONS, Recording

from .replaying import replayed
from .tap import LXDTAP

SCHEMA = CASSETTES.parent / "docs" / "cassette.schema.json"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LIMIT = 3_000_000
"""Bytes that all of them, and what lies beside them, may have."""
PLACEHOLDER = re.compile(r"REDACTED-\d+")

each_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda each: each.name)


@cache
def loaded(path: Path) -> Cassette:
    return files.load(str(path))


def test_there_are_no_others() -> None:
    """Each cassette has its scenario, each attachment its cassette."""
    assert set(CASSETTES.glob("*/*.yaml")) == {each.path for each in RECORDINGS}
    beside = {Path(files.beside(str(each.path))) for each in RECORDINGS}
    assert {each for each in CASSETTES.glob("*/*") if each.is_dir()} <= beside


def test_they_are_small() -> None:
    """A checkout is not made large by them."""
    sizes = [each.stat().st_size for each in CASSETTES.rglob("*") if each.is_file()]
    assert sum(sizes) <= LIMIT


@each_recording
def test_whole(recording: Recording) -> None:
    """Nothing that passed is missing, of the daemon and version that its header names."""
    cassette = loaded(recording.path)
    assert cassette.complete
    assert cassette.server.kind == recording.kind
    assert cassette.server.version in (VERSIONS[recording.kind], "")
    assert all(each.replayable for each in cassette.interactions)


@each_recording
def test_schema(recording: Recording) -> None:
    """Other programs that read YAML find in it what the schema says."""
    with recording.path.open(encoding="utf-8") as file:
        document = yaml.load(file, Loader=LOADER)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)


@each_recording
def test_header(recording: Recording) -> None:
    """It begins with what was typed and said, and with the command that plays it."""
    head = recording.path.read_text(encoding="utf-8").partition("\nversion:")[0]
    lines = [line.removeprefix("# ").removeprefix("    ") for line in head.splitlines()]
    told = "\n".join(lines)
    assert f"lxdtap replay {recording.path.relative_to(CASSETTES.parent)}" in told
    assert "\n".join(line.rstrip() for line in recording.script.splitlines()) in told
    assert recording.says in told


@each_recording
def test_no_secrets(recording: Recording) -> None:
    """What is taken out of a recording has been: to clean it again changes nothing."""
    clean = Cleaner(Redactor()).clean
    for interaction in loaded(recording.path).interactions:
        assert clean(interaction) == interaction


@each_recording
def test_placeholders(recording: Recording) -> None:
    """A placeholder that is asked for was given before, by an answer."""
    given: set[str] = set()
    for interaction in loaded(recording.path).interactions:
        asked = set(PLACEHOLDER.findall(interaction.transaction.request.target))
        assert asked <= given
        given |= set(PLACEHOLDER.findall(said_by(interaction)))


def said_by(interaction: Interaction) -> str:
    response = interaction.transaction.response
    return "" if response is None else response.body.captured.decode("utf-8", "replace")


# Playing them.


@each_recording
def test_requests(recording: Recording) -> None:
    """Each request that was recorded, sent again in its order, has the status that was recorded."""
    cassette = loaded(recording.path)
    with replayed(cassette) as (path, served):
        held = [status_matches(path, each) for each in cassette.interactions]
    assert served.told == []
    for sock in held:
        sock.close()


def status_matches(path: str, interaction: Interaction) -> socket.socket:
    """Send a request and see the status; the connection, which may go on."""
    request, response = interaction.transaction.request, interaction.transaction.response
    assert response is not None
    skipped = ("content-length", "transfer-encoding", "expect")
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{n}: {v}" for n, v in request.headers if n.lower() not in skipped]
    lines += [f"Content-Length: {request.body.size}", "", ""]
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    sock.sendall("\r\n".join(lines).encode("utf-8", "surrogateescape") + request.body.captured)
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(1 << 16)
        assert data, (request, head)
        head += data
    assert head.startswith(f"HTTP/1.1 {response.status} ".encode()), (request.target, head[:300])
    return sock


@each_recording
def test_replay(recording: Recording, tmp_path: Path) -> None:
    """Those who were recorded say the same again, and ask for all of it and for nothing else."""
    if why := recording.lacks():
        absent(f"{why} (see .ci/install-daemons)")
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        [*LXDTAP, "replay", "--strict", str(recording.path), "--", "sh", "-uc", recording.script],
        cwd=place,
        env=recording.environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, recording.says), done.stderr
