"""Calls of our own recorded, and played without a daemon: the same results, the same words."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lxdtap import API, APIException, APINotFoundException, AsyncAPI
from lxdtap.errors import LxdtapError, SpoolError

from .tap import Served, answer, environment, fake_daemon, read_until

OPERATION = "/1.0/operations/70eb42bf-5e79-42de-8230-2162e9e8b612"
SECRET = "correct-horse-battery"


def document(metadata: object, **more: object) -> bytes:
    said = {"type": "sync", "status_code": 200, "operation": "", "error": "", **more}
    return json.dumps(said | {"metadata": metadata}).encode()


def failed() -> bytes:
    state = {"id": OPERATION[-36:], "class": "task", "status": "Failure", "status_code": 400}
    return answer(document(state | {"err": "Error calling 'lxd forkstart': exit status 1"}))


ANSWERS = {
    "GET /1.0/instances/c1": answer(document({"name": "c1", "password": SECRET})),
    "PUT /1.0/instances/c1/state": answer(
        document(
            {"id": OPERATION[-36:], "class": "task", "status": "Running", "status_code": 103},
            type="async",
            operation=OPERATION,
        ),
        "202 Accepted",
    ),
    f"GET {OPERATION}/wait": failed(),
    "GET /1.0/images/x/export": answer(os.urandom(300_000), kind="application/octet-stream"),
}
NOT_FOUND = answer(b'{"type": "error", "error": "Instance not found", "error_code": 404}', "404 N")


def lxd(sock: socket.socket, served: Served) -> None:
    """A daemon that knows one instance, whose start fails."""
    method, target, _ = read_until(sock, served, b"\r\n\r\n").decode().split(" ", 2)
    sock.sendall(ANSWERS.get(f"{method} {target.partition('?')[0]}", NOT_FOUND))


def program(api: API) -> list[object]:
    """What a program does, and all that it sees of it."""
    seen: list[object] = [api.endpoint]
    found = api.get("instances/c1")
    seen += [found.metadata["name"], found.response.status_code]
    calls: tuple[Callable[[], object], ...] = (
        lambda: api.get("instances/nope"),
        lambda: api.put("instances/c1/state", json={"action": "start"}).wait(timeout=60),
    )
    for call in calls:
        with pytest.raises(APIException) as caught:
            call()
        seen += [type(caught.value), str(caught.value), caught.value.error]
    with api.get("images/x/export", stream=True) as image:
        seen.append(b"".join(image.iter_content()))
    return seen


def without_times(text: str) -> str:
    """DEBUG text without what a placeholder hides; times it has none."""
    return re.sub(r"REDACTED-\d+", "…", text)


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[str, list[object], str]:
    """A cassette of the program, what it saw, and its DEBUG text."""
    path, told = str(tmp_path / "program.yaml"), io.StringIO()
    with (
        fake_daemon(tmp_path / "d", lxd) as daemon,
        API.factory(daemon.path, debug=True, output=told, record=path) as api,
    ):
        seen = program(api)
    return path, seen, told.getvalue()


def test_the_same_results_and_the_same_words(recorded: tuple[str, list[object], str]) -> None:
    """Results, exceptions with their messages, bytes, and DEBUG text are as they were live."""
    path, seen, told = recorded
    again = io.StringIO()
    with API.factory(cassette=path, debug=True, output=again) as api:
        assert program(api) == seen
        assert program(api) == seen, "a recording can be played more than once"
    first, second = again.getvalue()[: len(told)], again.getvalue()[len(told) :]
    assert without_times(first) == without_times(second) == without_times(told)
    assert seen[3] is APINotFoundException
    assert "Error calling 'lxd forkstart': exit status 1" in str(seen[7])


def test_secrets_are_not_recorded(recorded: tuple[str, list[object], str]) -> None:
    """Neither in the cassette nor in the DEBUG text."""
    path, _, told = recorded
    assert SECRET not in Path(path).read_text() + told
    assert not Path(f"{path}.spool").exists()


def test_from_asyncio(recorded: tuple[str, list[object], str]) -> None:
    """AsyncAPI plays the same cassette, one loop after the other; it records as well."""
    path, _, _ = recorded

    async def play() -> str:
        async with AsyncAPI.factory(cassette=path) as api:
            return str((await api.get("instances/c1")).metadata["name"])

    assert [asyncio.run(play()) for _ in range(2)] == ["c1", "c1"]


def test_two_loops_record_into_one_cassette(tmp_path: Path) -> None:
    """Each call is there once, whatever loop it was made on."""
    path = str(tmp_path / "loops.yaml")
    with fake_daemon(tmp_path / "d", lxd) as daemon:
        api = AsyncAPI.factory(daemon.path, record=path)

        async def ask() -> None:
            await api.get("instances/c1")

        asyncio.run(ask())
        asyncio.run(ask())
        asyncio.run(api.aclose())
    assert Path(path).read_text().count("uri: /1.0/instances/c1") == 2


def test_what_was_not_recorded(recorded: tuple[str, list[object], str]) -> None:
    """An APIException that names the nearest recorded call."""
    path, _, _ = recorded
    with (
        API.factory(cassette=path) as api,
        pytest.raises(APIException, match=r"/1\.0/instances/c1"),
    ):
        api.get("instances/c2")


def test_an_endpoint_or_a_cassette(recorded: tuple[str, list[object], str]) -> None:
    """Not both; and what is there is neither overwritten nor played if it is no cassette."""
    path, _, _ = recorded
    with pytest.raises(ValueError, match="not both"):
        API.factory("/some/socket", cassette=path)
    with pytest.raises(LxdtapError, match=r"nowhere\.yaml"):
        API.factory(cassette="nowhere.yaml")
    with pytest.raises(SpoolError, match="left alone"):
        API("http+unix://%2Flxd", record=path)


def test_nobody_closed_it(tmp_path: Path) -> None:
    """The recording is saved when the program ends, and a fork of it records nothing."""
    path = str(tmp_path / "end.yaml")
    code = """\
import os, sys
from lxdtap import API
api = API.factory(sys.argv[1], record=sys.argv[2])
api.get("instances/c1")
pid = os.fork()
api.get("instances/c1")
if not pid:
    sys.exit(0)
os.waitpid(pid, 0)
"""
    with fake_daemon(tmp_path / "d", lxd) as daemon:
        command = [sys.executable, "-c", code, daemon.path, path]
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert Path(path).read_text().count("uri: /1.0/instances/c1") == 2
