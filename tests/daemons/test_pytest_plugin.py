"""The pytest plugin with real daemons and clients: recorded once, and then without the daemon."""

from __future__ import annotations

import gc

import pylxd  # type: ignore[import-untyped]  # it has no types
import pytest

import lxdtap.api
from lxdtap.testing import decks

from .throwaway import Daemon

pytest_plugins = ["pytester"]

LOADED = lxdtap.api, decks, pylxd
"""Runs in this process drop what they were first to import, and would mix old with new."""
TIMES = 5
OWN_FAULTS = (
    "ignore::ResourceWarning",
    "ignore:Exception in thread WebSocketManager:pytest.PytestUnhandledThreadExceptionWarning",
)
"""Pylxd's own: its websockets are left to the garbage collector, and its thread of them may come
to a poller that was closed by ``stop``."""

API = """
import pytest
from lxdtap import API, APIException, APINotFoundException

SOURCE = {"type": "image", "alias": "bb"}

@pytest.fixture
def instance():
    with API.factory() as api:
        made = api.post("instances", json={"name": "w1", "source": SOURCE}).wait()
        assert made.metadata["status"] == "Success"
        yield api
        api.delete("instances/w1").wait()

@pytest.mark.lxdtap(strict=True)
def test_life(instance):
    state = lambda: instance.get("instances/w1/state").metadata["status"]
    assert state() == "Stopped"
    instance.put("instances/w1/state", json={"action": "start"}).wait()
    assert state() == "Running"
    instance.put("instances/w1/state", json={"action": "stop", "force": True}).wait()
    assert state() == "Stopped"
    with pytest.raises(APINotFoundException):
        instance.get("instances/nonesuch")
    with pytest.raises(APIException):
        instance.patch("instances/w1", json={"config": {"nonsense.key": "1"}}).wait()
"""

CLIENT = """
import subprocess
import pytest

def client(*arguments, **more):
    return subprocess.run(["{client}", *arguments], capture_output=True, text=True, **more)

@pytest.mark.lxdtap
@pytest.mark.parametrize("status", [0, 3])
def test_exec(status):
    said = client("exec", "c1", "--", "sh", "-c", f"cat; echo oops >&2; exit {{status}}",
                  input="spoken\\n")
    assert (said.stdout, said.stderr, said.returncode) == ("spoken\\n", "oops\\n", status)

@pytest.mark.lxdtap
def test_files(tmp_path):
    note = tmp_path / "note"
    note.write_bytes(b"\\x00\\xff" * 1000)
    pushed = client("file", "push", str(note), "c1/root/note")
    assert pushed.returncode == 0, pushed.stderr
    assert client("file", "pull", "c1/root/note", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == note.read_bytes()
    assert client("file", "delete", "c1/root/note").returncode == 0

@pytest.mark.lxdtap
def test_list():
    for _ in range(2):
        assert client("list", "--format", "csv", "--columns", "ns").stdout == "c1,RUNNING\\n"
"""

PYLXD = """
import pylxd  # type: ignore[import-untyped]  # it has no types
import pytest

@pytest.mark.lxdtap
def test_pylxd():
    client = pylxd.Client()
    said = client.instances.get("c1").execute(["sh", "-c", "echo out; echo oops >&2; exit 3"])
    assert (said.exit_code, said.stdout, said.stderr) == (3, "out\\n", "oops\\n")
    with pytest.raises(pylxd.exceptions.NotFound):
        client.instances.get("nonesuch")
"""

ASYNC = """
import asyncio
import pytest
from lxdtap import AsyncAPI

@pytest.mark.asyncio
@pytest.mark.lxdtap
async def test_many():
    async with AsyncAPI.factory() as api:
        found = await asyncio.gather(*(api.get("instances/c1") for _ in range(20)))
    assert {result.metadata["name"] for result in found} == {"c1"}
"""


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs that find no daemon."""
    for name in ("LXD_DIR", "LXD_SOCKET", "INCUS_DIR", "INCUS_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    return pytester


def holds(
    pytester: pytest.Pytester, daemon: Daemon, passed: int, *options: str, times: int = TIMES
) -> None:
    """The tests pass before the daemon, and then as often as one likes without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(daemon.brand.directory_variable, str(daemon.directory))
        recorded = pytester.runpytest("--lxdtap-record-mode=all", *options)
        recorded.assert_outcomes(passed=passed)
    asked = daemon.requests()
    for _ in range(times):
        replayed = pytester.runpytest(*options)
        replayed.assert_outcomes(passed=passed)
    assert daemon.requests() == asked


def test_api(pytester: pytest.Pytester, daemon: Daemon) -> None:
    """An instance's life, in the words of our own API, strictly."""
    pytester.makepyfile(test_it=API)
    holds(pytester, daemon, 1)


def test_client(pytester: pytest.Pytester, daemon: Daemon) -> None:
    """The daemon's own client, started by a test."""
    pytester.makepyfile(test_it=CLIENT.format(client=daemon.brand.client))
    holds(pytester, daemon, 4)


@pytest.mark.filterwarnings(*OWN_FAULTS)
def test_pylxd(pytester: pytest.Pytester, lxd: Daemon) -> None:
    """Python's own client of LXD, in the test's process."""
    pytester.makepyfile(test_it=PYLXD)
    try:
        holds(pytester, lxd, 1, *(each for own in OWN_FAULTS for each in ("-W", own)))
    finally:
        gc.collect()  # here, where it is expected, not in the midst of another test


def test_asyncio(pytester: pytest.Pytester, daemon: Daemon) -> None:
    """Many calls at once on the test's loop."""
    pytester.makepyfile(test_it=ASYNC)
    holds(pytester, daemon, 1)


def test_workers(pytester: pytest.Pytester, daemon: Daemon) -> None:
    """Clients in two workers at once."""
    pytester.makepyfile(test_it=CLIENT.format(client=daemon.brand.client), test_async=ASYNC)
    holds(pytester, daemon, 5, "-n", "2", times=1)
