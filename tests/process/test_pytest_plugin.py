"""The pytest plugin, in pytest runs of its own, in front of a fake daemon."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lxdtap.api
from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from lxdtap.testing import decks
from tests.process.tap import FakeDaemon, Served, answer, fake_daemon, read_until

pytest_plugins = ["pytester"]

LOADED = lxdtap.api, decks
"""Runs in this process drop what they were first to import, and would mix old with new."""

HELPERS = '''
import http.client, json, os, socket

class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("lxd")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

def ask(method, target, body=None, path=None, headers={}):
    """Ask the daemon that LXD_DIR names; its envelope."""
    connection = Connection(path or os.environ["LXD_DIR"] + "/unix.socket")
    try:
        body = None if body is None else json.dumps(body)
        connection.request(method, target, body, {"Connection": "close", **headers})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
'''
RECORD = "--lxdtap-record-mode=all"


def says(sock: socket.socket, served: Served) -> None:
    """A daemon that says what it was asked, and how often it was asked anything."""
    while b"\r\n\r\n" in (data := read_until(sock, served, b"\r\n\r\n")):
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length is not None and len(body) < int(length[1]):
            more = sock.recv(1 << 16)
            served.received += more
            body += more
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        metadata = {"asked": f"{method} {target}", "body": json.loads(body or b"null")}
        envelope = {"type": "sync", "status": "Success", "status_code": 200, "metadata": metadata}
        status = "404 Not Found" if target.endswith("/nonesuch") else "200 OK"
        if status[0] == "4":
            envelope = {"type": "error", "error": "Not Found", "error_code": 404}
        close = b"Connection: close" in head
        sock.sendall(answer(json.dumps(envelope).encode(), status, close=close))
        if close:
            return


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs with helpers at hand, and no daemon."""
    for name in ("LXD_DIR", "LXD_SOCKET", "INCUS_DIR", "INCUS_SOCKET", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(helpers=HELPERS)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider\n"
        "pythonpath = .\nasyncio_default_fixture_loop_scope = function\n"
    )
    return pytester


@pytest.fixture
def daemon(
    pytester: pytest.Pytester,  # noqa: ARG001 - it clears the environment first
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FakeDaemon]:
    """A daemon that clients find by ``LXD_DIR``; not there any more once it is closed."""
    with fake_daemon(tmp_path_factory.mktemp("daemon"), says) as running:
        monkeypatch.setenv("LXD_DIR", str(running.directory))
        yield running


def cassette(pytester: pytest.Pytester, name: str) -> Cassette:
    return files.load(str(pytester.path / "cassettes" / f"{name}.yaml"))


def targets(pytester: pytest.Pytester, name: str) -> list[str]:
    """What was asked in a cassette."""
    asked = [each.transaction.request for each in cassette(pytester, name).interactions]
    return [f"{request.method} {request.target}" for request in asked]


LOOKS = """
import pytest
from helpers import ask

@pytest.mark.lxdtap
def test_look():
    assert ask("GET", "/1.0")["metadata"]["asked"] == "GET /1.0"
"""


# -- modes


def test_what_was_recorded_is_replayed_with_no_daemon(
    pytester: pytest.Pytester, daemon: FakeDaemon
) -> None:
    """The same test passes before the daemon, and then without it."""
    pytester.makepyfile(test_it=LOOKS)
    recorded = pytester.runpytest("--lxdtap-record-mode=once")
    recorded.assert_outcomes(passed=1)
    recorded.stdout.fnmatch_lines(["recorded 1 transaction to cassettes/test_it/test_look.yaml"])
    daemon.close()
    replayed = pytester.runpytest()
    replayed.assert_outcomes(passed=1)
    replayed.stdout.no_fnmatch_line("=*lxdtap*=")
    assert targets(pytester, "test_it/test_look") == ["GET /1.0"]


def test_a_missing_cassette_fails_at_once_with_the_line_that_records_it(
    pytester: pytest.Pytester, daemon: FakeDaemon
) -> None:
    """What is printed can be typed as it is."""
    pytester.makepyfile(test_it=LOOKS)
    missing = pytester.runpytest()
    missing.assert_outcomes(errors=1)
    missing.stdout.no_fnmatch_line("*During handling*")
    line = next(line for line in missing.outlines if line.startswith("  pytest "))
    assert not daemon.served
    pytester.runpytest(*shlex.split(line)[1:]).assert_outcomes(passed=1)
    pytester.runpytest().assert_outcomes(passed=1)


def test_once_records_what_is_missing_and_all_records_afresh(
    pytester: pytest.Pytester, daemon: FakeDaemon
) -> None:
    """A cassette that is there is touched by all alone."""
    pytester.makepyfile(test_it=LOOKS)
    place = pytester.path / "cassettes" / "test_it" / "test_look.yaml"
    seen = []
    for mode in ("once", "once", "none", "all"):
        pytester.runpytest(f"--lxdtap-record-mode={mode}").assert_outcomes(passed=1)
        # Once a run finds which daemon it is, and once it asks.
        seen.append((len(daemon.served), place.stat().st_ino))
    asked, inodes = zip(*seen, strict=True)
    assert asked[0] == asked[1] == asked[2] < asked[3]
    assert inodes[0] == inodes[1] == inodes[2] != inodes[3]


def test_new_episodes_is_refused_wherever_it_is_asked_for(pytester: pytest.Pytester) -> None:
    """A mode that cannot work says why, before anything is done."""
    pytester.makepyfile(test_it=LOOKS.replace("lxdtap\n", "lxdtap(record_mode='new_episodes')\n"))
    flag = pytester.runpytest("--lxdtap-record-mode=new_episodes")
    flag.stderr.fnmatch_lines(["*new_episodes is not offered: what was replayed does not exist*"])
    assert flag.ret == pytest.ExitCode.USAGE_ERROR
    marker = pytester.runpytest()
    marker.assert_outcomes(errors=1)
    marker.stdout.fnmatch_lines(["*new_episodes is not offered*"])


@pytest.mark.parametrize(
    ("file", "fixture", "marker", "flag", "recorded"),
    [
        ("once", "", "", "", True),
        ("none", "once", "", "", True),
        ("once", "none", "", "", False),
        ("none", "none", "once", "", True),
        ("once", "once", "none", "", False),
        ("none", "none", "none", "once", True),
        ("once", "once", "once", "none", False),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_flag_over_marker_over_fixture_over_file(
    pytester: pytest.Pytester,
    file: str,
    fixture: str,
    marker: str,
    flag: str,
    recorded: bool,
) -> None:
    """Whoever is nearer to the run decides."""
    mark = f"lxdtap(record_mode={marker!r})" if marker else "lxdtap"
    pytester.makepyfile(test_it=LOOKS.replace("mark.lxdtap", f"mark.{mark}"))
    if fixture:
        pytester.makeconftest(
            "import pytest\n@pytest.fixture(scope='session')\n"
            f"def lxdtap_config(): return {{'record_mode': {fixture!r}}}\n"
        )
    flags = [f"--lxdtap-record-mode={flag}"] if flag else []
    run = pytester.runpytest("-o", f"lxdtap_record_mode={file}", *flags)
    run.assert_outcomes(**{"passed" if recorded else "errors": 1})


# -- what a test gets


@pytest.mark.usefixtures("daemon")
def test_the_environment_points_at_the_cassette_and_is_put_back(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever client is started finds the cassette, and nothing else; afterwards all is as was."""
    monkeypatch.setenv("INCUS_DIR", "/nowhere")
    monkeypatch.setenv("LXC_REMOTE", "elsewhere")
    monkeypatch.setenv("LXD_CONF", "/mine")
    pytester.makepyfile(
        test_it="""
        import os, subprocess, sys
        import pytest
        from helpers import ask

        CLIENT = "from helpers import ask; print(ask('GET', '/1.0/sub')['metadata']['asked'])"

        @pytest.mark.lxdtap
        def test_environment(lxdtap, monkeypatch):
            assert os.environ["LXD_SOCKET"] == lxdtap.socket
            assert os.environ["LXD_DIR"] == lxdtap.directory == os.path.dirname(lxdtap.socket)
            assert lxdtap.misses == []
            assert len(lxdtap.unplayed) == (0 if lxdtap.recording else 1)
            assert lxdtap.path.endswith("/cassettes/test_it/test_environment.yaml")
            assert lxdtap.environ == {k: os.environ[k] for k in ("LXD_DIR", "LXD_SOCKET")}
            assert not {"INCUS_DIR", "INCUS_SOCKET", "LXC_REMOTE"} & os.environ.keys()
            assert os.listdir(os.environ["LXD_CONF"]) == ["config.yml"]
            monkeypatch.undo()
            said = subprocess.run([sys.executable, "-c", CLIENT], capture_output=True, text=True)
            assert said.stdout == "GET /1.0/sub\\n", said.stderr

        def test_afterwards():
            assert os.environ["INCUS_DIR"] == "/nowhere"
            assert os.environ["LXC_REMOTE"] == "elsewhere"
            assert os.environ["LXD_CONF"] == "/mine"
            assert "LXD_SOCKET" not in os.environ
        """
    )
    for mode in ("once", "none"):
        run = pytester.runpytest(f"--lxdtap-record-mode={mode}")
        run.assert_outcomes(passed=2)


def test_an_incus_cassette_sets_incus_variables(
    pytester: pytest.Pytester, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of Incus look for their own, and may not find the other's."""
    monkeypatch.delenv("LXD_DIR")
    monkeypatch.setenv("INCUS_DIR", str(daemon.directory))
    pytester.makepyfile(
        test_it="""
        import os
        import pytest
        from helpers import ask

        @pytest.mark.lxdtap
        def test_incus(lxdtap):
            assert not {"LXD_DIR", "LXD_SOCKET"} & os.environ.keys()
            assert os.environ["INCUS_SOCKET"] == lxdtap.socket
            assert lxdtap.first.kind == "incus"
            ask("GET", "/1.0", path=os.environ["INCUS_DIR"] + "/unix.socket")
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    monkeypatch.delenv("INCUS_DIR")
    monkeypatch.setenv("LXD_DIR", str(daemon.directory))
    pytester.runpytest().assert_outcomes(passed=1)


def test_our_own_api_goes_to_the_cassette(pytester: pytest.Pytester, daemon: FakeDaemon) -> None:
    """API and its exceptions work on what was recorded, from any thread."""
    pytester.makepyfile(
        test_it="""
        from concurrent.futures import ThreadPoolExecutor
        import pytest
        from lxdtap import API, APINotFoundException

        @pytest.mark.lxdtap
        def test_api():
            with API.factory() as api, ThreadPoolExecutor(4) as threads:
                found = list(threads.map(lambda n: api.get(f"instances/c{n}"), range(8)))
                assert [r.metadata["asked"] for r in found] == [
                    f"GET /1.0/instances/c{n}" for n in range(8)
                ]
                with pytest.raises(APINotFoundException):
                    api.get("instances/nonesuch")
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    daemon.close()
    pytester.runpytest().assert_outcomes(passed=1)


def test_other_fixtures_go_through_the_cassette_too(
    pytester: pytest.Pytester, daemon: FakeDaemon
) -> None:
    """What they make and take away belongs to the test."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from helpers import ask

        @pytest.fixture
        def instance():
            ask("POST", "/1.0/instances", {"name": "c1"})
            yield "c1"
            ask("DELETE", "/1.0/instances/c1")

        @pytest.mark.lxdtap(strict=True)
        def test_instance(instance):
            ask("GET", f"/1.0/instances/{instance}")
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    daemon.close()
    pytester.runpytest().assert_outcomes(passed=1)
    assert targets(pytester, "test_it/test_instance") == [
        *("POST /1.0/instances", "GET /1.0/instances/c1", "DELETE /1.0/instances/c1")
    ]


@pytest.mark.usefixtures("daemon")
def test_unittest_classes_may_be_marked(pytester: pytest.Pytester) -> None:
    """The marker is enough: nothing has to be asked for."""
    pytester.makepyfile(
        test_it="""
        import unittest
        import pytest
        from helpers import ask

        @pytest.mark.lxdtap
        class TestCase(unittest.TestCase):
            def setUp(self):
                ask("GET", "/1.0")

            def test_miss(self):
                ask("GET", "/1.0/instances")
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    assert targets(pytester, "test_it/TestCase.test_miss") == ["GET /1.0", "GET /1.0/instances"]
    pytester.path.joinpath("test_it.py").write_text(
        pytester.path.joinpath("test_it.py").read_text().replace("/1.0/instances", "/1.0/networks")
    )
    pytester.runpytest().assert_outcomes(failed=1)


# -- names


def test_each_test_and_each_parameter_has_its_cassette(
    pytester: pytest.Pytester, daemon: FakeDaemon
) -> None:
    """Under the module's name, by class, test and parameters; names that are none are made so."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from helpers import ask

        pytestmark = pytest.mark.lxdtap

        class TestA:
            class TestB:
                @pytest.mark.parametrize("path", ["/1.0", "/1.0/networks"])
                def test_c(self, path):
                    assert ask("GET", path)["metadata"]["asked"] == f"GET {path}"

        @pytest.mark.parametrize("number", [1, 2])
        def test_d(number):
            ask("GET", f"/1.0/instances/c{number}")
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=4)
    found = sorted(path.name for path in (pytester.path / "cassettes" / "test_it").iterdir())
    names = {re.sub(r"-[0-9a-f]{8}\.yaml", "-HASH.yaml", name) for name in found}
    assert names == {
        *("TestA.TestB.test_c[-1.0]-HASH.yaml", "TestA.TestB.test_c[-1.0-networks]-HASH.yaml"),
        *("test_d[1].yaml", "test_d[2].yaml"),
    }
    daemon.close()
    pytester.runpytest("-q").assert_outcomes(passed=4)


@pytest.mark.usefixtures("daemon")
def test_cassettes_may_be_named_and_kept_elsewhere(pytester: pytest.Pytester) -> None:
    """Tests may share a named cassette: who is first records it, once."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from helpers import ask

        @pytest.fixture(scope="module")
        def lxdtap_cassette_dir(request):
            return request.path.parent / "taped"

        @pytest.mark.lxdtap("shared")
        @pytest.mark.parametrize("time", [1, 2])
        def test_a(time):
            ask("GET", "/1.0")
        """
    )
    pytester.runpytest("--lxdtap-record-mode=once").assert_outcomes(passed=2)
    assert [path.name for path in (pytester.path / "taped").iterdir()] == ["shared.yaml"]
    pytester.runpytest().assert_outcomes(passed=2)
    afresh = pytester.runpytest(RECORD)
    afresh.assert_outcomes(passed=1, errors=1)
    afresh.stdout.fnmatch_lines(["*shared.yaml is recorded by test_it.py::test_a?1? in this run*"])


def test_a_test_may_have_several_cassettes(pytester: pytest.Pytester, daemon: FakeDaemon) -> None:
    """Each is a daemon with a socket of its own; the first is the environment's."""
    pytester.makepyfile(
        test_it="""
        import os
        import pytest
        from helpers import ask

        @pytest.mark.lxdtap("one", "other")
        def test_two(lxdtap):
            assert lxdtap["one"].socket == lxdtap.socket != lxdtap["other"].socket
            ask("GET", "/1.0/one")
            ask("GET", "/1.0/other", path=lxdtap["other"].socket)
            with lxdtap.use("third") as third:
                assert os.environ["LXD_SOCKET"] == third.socket
                ask("GET", "/1.0/third")
            assert os.environ["LXD_SOCKET"] == lxdtap.socket
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    assert [targets(pytester, f"test_it/{name}") for name in ("one", "other", "third")] == [
        *(["GET /1.0/one"], ["GET /1.0/other"], ["GET /1.0/third"])
    ]
    daemon.close()
    pytester.runpytest().assert_outcomes(passed=1)


def test_a_daemon_may_be_named(
    pytester: pytest.Pytester, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cassette may be recorded from a daemon of its own, whatever the environment says."""
    monkeypatch.setenv("LXD_DIR", "/nowhere")
    pytester.makepyfile(
        test_it=LOOKS.replace("mark.lxdtap", f"mark.lxdtap(upstream={str(daemon.directory)!r})")
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)


def test_markers_stack(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Each names a cassette of its own daemon; one without names has settings for all."""
    pytester.makepyfile(
        test_it="""
        import os
        import pytest
        from helpers import ask

        pytestmark = pytest.mark.lxdtap(strict=True)
        PLACE = os.environ.get("PLACE", "")

        @pytest.mark.lxdtap("incus", upstream=f"{PLACE}/incus")
        @pytest.mark.lxdtap("lxd", upstream=f"{PLACE}/lxd")
        def test_both(lxdtap):
            assert [lxdtap[name].kind for name in ("lxd", "incus")] == ["lxd", "incus"]
            assert lxdtap.socket == os.environ["LXD_SOCKET"] == lxdtap["lxd"].socket
            assert os.environ["INCUS_SOCKET"] == lxdtap["incus"].socket
            ask("GET", "/1.0/lxd")
            if lxdtap.recording:
                ask("GET", "/1.0/incus", path=os.environ["INCUS_SOCKET"])
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLACE", str(tmp_path))
        with fake_daemon(tmp_path / "lxd", says), fake_daemon(tmp_path / "incus", says):
            pytester.runpytest(RECORD).assert_outcomes(passed=1)
    assert targets(pytester, "test_it/lxd") == ["GET /1.0/lxd"]
    assert targets(pytester, "test_it/incus") == ["GET /1.0/incus"]
    replayed = pytester.runpytest()
    replayed.assert_outcomes(passed=1, errors=1)
    replayed.stdout.fnmatch_lines(["lxdtap: strict, and 1 of 1 recorded and never asked for:"])


# -- misses and leftovers


@pytest.mark.usefixtures("daemon")
def test_a_miss_fails_its_test_and_says_what_is_nearest(pytester: pytest.Pytester) -> None:
    """Also where the client kept it to itself."""
    pytester.makepyfile(test_it=LOOKS)
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    pytester.makepyfile(test_it=LOOKS + '    ask("GET", "/1.0/instances/c2")\n')
    run = pytester.runpytest()
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        [
            "lxdtap: no recorded interaction answers GET /1.0/instances/c2; nearest recorded: #1*",
            "*- lxdtap -*",
            "replayed from cassettes/test_it/test_look.yaml",
            "1 asked for and not recorded:",
            "  no recorded interaction answers GET /1.0/instances/c2*",
        ]
    )


@pytest.mark.usefixtures("daemon")
def test_a_miss_is_a_failure_that_may_be_expected(pytester: pytest.Pytester) -> None:
    """It is told once, and an xfail takes it as any other."""
    pytester.makepyfile(test_it=LOOKS)
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    expected = LOOKS.replace("def test", "@pytest.mark.xfail\ndef test")
    for line in ('ask("GET", "/1.0/instances/c2")', 'assert ask("GET", "/1.0/c")["metadata"]'):
        pytester.makepyfile(test_it=f"{expected}    {line}\n")
        pytester.runpytest().assert_outcomes(xfailed=1)


@pytest.mark.usefixtures("daemon")
def test_a_miss_of_a_fixture_fails_too(pytester: pytest.Pytester) -> None:
    """Also after the test itself."""
    after = LOOKS.replace("test_look()", "test_look(late)") + (
        "\n@pytest.fixture\ndef late():\n    yield\n    ask('GET', '/1.0/late')\n"
    )
    pytester.makepyfile(test_it=after)
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    pytester.makepyfile(test_it=after.replace("/1.0/late", "/1.0/later"))
    run = pytester.runpytest()
    run.assert_outcomes(passed=1, errors=1)
    run.stdout.fnmatch_lines(["*ERROR at teardown of test_look*", "*answers GET /1.0/later*"])


@pytest.mark.usefixtures("daemon")
def test_what_nobody_asked_for_is_told_and_fails_where_that_is_wanted(
    pytester: pytest.Pytester,
) -> None:
    """Leftovers are shown with passed tests; strict ones fail."""
    pytester.makepyfile(test_it=LOOKS + '    ask("GET", "/1.0/instances/c2")\n')
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    pytester.makepyfile(test_it=LOOKS)
    told = pytester.runpytest("-rP")
    told.assert_outcomes(passed=1)
    told.stdout.fnmatch_lines(
        [
            "1 of 2 recorded and never asked for:",
            "  #2 GET /1.0/instances/c2",
            "1 test has recordings that were never asked for*",
        ]
    )
    strict = pytester.runpytest("-o", "lxdtap_strict=true")
    strict.assert_outcomes(passed=1, errors=1)
    strict.stdout.fnmatch_lines(
        ["lxdtap: strict, and 1 of 2 recorded and never asked for:", "  #2 GET *c2"]
    )


@pytest.mark.usefixtures("daemon")
def test_a_change_is_made_as_often_as_it_was_recorded(pytester: pytest.Pytester) -> None:
    """More is a miss, unless repeats are allowed."""
    source = """
import pytest
from helpers import ask

@pytest.mark.lxdtap
@pytest.mark.parametrize("name", ["c1"])
def test_make(name):
    for _ in range({}):
        ask("POST", "/1.0/instances", {{"name": name}})
"""
    pytester.makepyfile(test_it=source.format(1))
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    pytester.makepyfile(test_it=source.format(2))
    refused = pytester.runpytest()
    refused.assert_outcomes(failed=1)
    refused.stdout.fnmatch_lines(["*POST /1.0/instances was recorded once, and is asked for once*"])
    pytester.runpytest("-o", "lxdtap_allow_repeats=true").assert_outcomes(passed=1)


# -- recording


@pytest.mark.usefixtures("daemon")
def test_a_test_that_fails_keeps_no_recording(pytester: pytest.Pytester) -> None:
    """What was there stays; the report says so, and shows what has passed."""
    pytester.makepyfile(test_it=LOOKS)
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    before = (pytester.path / "cassettes/test_it/test_look.yaml").read_bytes()
    pytester.makepyfile(
        test_it=LOOKS + '    ask("GET", "/1.0/x?token=" + "t0p"[:])\n    assert 0\n'
    )
    run = pytester.runpytest(RECORD)
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        ["recorded from http+unix*; not kept, because the test failed", "*GET /1.0/x* 200 *"]
    )
    run.stdout.fnmatch_lines(["not recorded: cassettes/test_it/test_look.yaml, because *"])
    run.stdout.no_fnmatch_line("*token=t0p*")
    assert (pytester.path / "cassettes/test_it/test_look.yaml").read_bytes() == before
    assert [path.name for path in (pytester.path / "cassettes/test_it").iterdir()] == [
        "test_look.yaml"
    ]


@pytest.mark.parametrize(
    ("line", "outcome", "kept"),
    [
        ("pytest.skip('not today')", {"skipped": 1}, False),
        ("pytest.xfail('not yet')", {"xfailed": 1}, True),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_what_ends_as_expected_is_kept(
    pytester: pytest.Pytester,
    line: str,
    outcome: dict[str, int],
    kept: bool,
) -> None:
    """An expected failure is no failure; what was skipped has not been through."""
    pytester.makepyfile(test_it=f"{LOOKS}    {line}\n")
    pytester.runpytest(RECORD).assert_outcomes(**outcome)
    assert (pytester.path / "cassettes/test_it/test_look.yaml").exists() is kept


@pytest.mark.usefixtures("daemon")
def test_a_fixture_that_fails_afterwards_keeps_no_recording(pytester: pytest.Pytester) -> None:
    """A recording without its end is none."""
    after = "\n@pytest.fixture\ndef late():\n    yield\n    assert 0\n"
    pytester.makepyfile(test_it=LOOKS.replace("test_look()", "test_look(late)") + after)
    pytester.runpytest(RECORD).assert_outcomes(passed=1, errors=1)
    assert not (pytester.path / "cassettes").exists()


@pytest.mark.usefixtures("daemon")
def test_hooks_and_redaction_before_recording(pytester: pytest.Pytester) -> None:
    """A hook sees what would be written and may change or drop it; names add to what is secret."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from helpers import ask

        def hook(interaction):
            request = interaction.transaction.request
            assert "s3cret" not in repr(interaction)
            if request.target == "/1.0/dropped":
                return None
            changed = request._replace(headers=(("X-Hook", "was here"), *request.headers))
            return interaction._replace(
                transaction=interaction.transaction._replace(request=changed)
            )

        @pytest.fixture(scope="module")
        def lxdtap_config():
            return {
                "before_record": hook,
                "redact_keys": ["pin"],
                "redact_headers": ["X-Tenant"],
                "redact_query": ["who"],
            }

        @pytest.mark.lxdtap
        def test_secrets():
            ask("GET", "/1.0/dropped")
            ask("POST", "/1.0/x?who=s3cret1", {"pin": "s3cret2"}, headers={"X-Tenant": "s3cret3"})
        """
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    assert targets(pytester, "test_it/test_secrets") == ["POST /1.0/x?who=REDACTED-1"]
    text = (pytester.path / "cassettes/test_it/test_secrets.yaml").read_text()
    assert "s3cret" not in text
    assert "was here" in text
    assert text.count("REDACTED") >= 3


@pytest.mark.usefixtures("daemon")
def test_hooked_cassettes_replay(pytester: pytest.Pytester) -> None:
    """What was redacted still answers what was asked."""
    asks = LOOKS.replace('"/1.0")', '"/1.0?who=me")').replace('== "GET /1.0"', "")
    pytester.makepyfile(test_it=asks)
    pytester.makeconftest(
        "import pytest\n@pytest.fixture\ndef lxdtap_config(): return {'redact_query': 'who'}\n"
    )
    pytester.runpytest(RECORD).assert_outcomes(passed=1)
    pytester.runpytest().assert_outcomes(passed=1)


def test_no_daemon_to_record_fails_at_once(pytester: pytest.Pytester) -> None:
    """It says where it looked."""
    pytester.makepyfile(
        test_it=LOOKS.replace("mark.lxdtap", "mark.lxdtap(upstream='/nowhere/unix.socket')")
    )
    run = pytester.runpytest(RECORD)
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["lxdtap: no daemon at /nowhere/unix.socket*"])


def test_a_damaged_cassette_fails_at_once_and_is_left_alone(pytester: pytest.Pytester) -> None:
    """It is never taken for an empty one, and never overwritten unless that is wanted."""
    pytester.makepyfile(test_it=LOOKS)
    place = pytester.path / "cassettes/test_it/test_look.yaml"
    place.parent.mkdir(parents=True)
    place.write_text("version: 1\ninteractions: [")
    run = pytester.runpytest("--lxdtap-record-mode=once")
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["lxdtap: *test_look.yaml, *"])
    assert place.read_text() == "version: 1\ninteractions: ["


def test_settings_that_are_none_are_told(pytester: pytest.Pytester) -> None:
    """A misspelled one does not pass unsaid."""
    pytester.makepyfile(test_it=LOOKS.replace("mark.lxdtap", "mark.lxdtap(repeats=True)"))
    run = pytester.runpytest()
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["lxdtap: 'repeats' is no setting: use one of record_mode, *"])


@pytest.mark.usefixtures("daemon")
def test_setups_alone_record_nothing(pytester: pytest.Pytester) -> None:
    """A run that runs no test keeps what there is."""
    pytester.makepyfile(test_it=LOOKS)
    pytester.runpytest(RECORD, "--setup-only")
    assert not (pytester.path / "cassettes").exists()


# -- beside others


def test_workers_record_and_replay_at_once(pytester: pytest.Pytester, daemon: FakeDaemon) -> None:
    """Under pytest-xdist each test has its cassette, and no two workers write the same."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from helpers import ask

        @pytest.mark.lxdtap
        @pytest.mark.parametrize("number", range(8))
        def test_many(number):
            for path in range(5):
                asked = f"GET /1.0/instances/c{number}-{path}"
                assert ask(*asked.split())["metadata"]["asked"] == asked

        @pytest.mark.lxdtap("same")
        @pytest.mark.parametrize("number", range(4))
        def test_same(number):
            ask("GET", f"/1.0/instances/c{number}")
        """
    )
    recorded = pytester.runpytest_subprocess("-n", "2", RECORD)
    recorded.assert_outcomes(passed=9, errors=3)
    recorded.stdout.fnmatch_lines(
        ["recorded 5 transactions to cassettes/test_it/test_many[[]0].yaml"]
    )
    daemon.close()
    replayed = pytester.runpytest_subprocess("-n", "2", "-k", "many")
    replayed.assert_outcomes(passed=8)
    assert len(targets(pytester, "test_it/same")) == 1


def test_asyncio_tests_are_not_blocked(pytester: pytest.Pytester) -> None:
    """Even a daemon that runs on the test's own loop can be tapped there, and replayed."""
    pytester.makepyfile(
        test_it="""
        import asyncio, os
        import pytest
        from lxdtap import AsyncAPI

        BODY = b'{"type": "sync", "status_code": 200, "metadata": "here"}'
        ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY) + BODY
        PLACE = os.environ["DAEMON"]

        serving = set()

        async def serve(reader, writer):
            serving.add(asyncio.current_task())
            try:
                while await reader.readuntil(b"\\r\\n\\r\\n"):
                    writer.write(ANSWER)
            except asyncio.IncompleteReadError:
                writer.close()
                await writer.wait_closed()

        @pytest.mark.asyncio
        @pytest.mark.lxdtap(upstream=PLACE)
        async def test_async(lxdtap):
            assert asyncio.get_running_loop().is_running()
            if lxdtap.recording:
                os.unlink(PLACE)
                server = await asyncio.start_unix_server(serve, PLACE)
            async with AsyncAPI.factory() as api:
                found = await asyncio.gather(*(api.get("") for _ in range(5)))
            assert [result.metadata for result in found] == ["here"] * 5
            if lxdtap.recording:
                server.close()
                await asyncio.wait(serving)
        """
    )
    place = pytester.path / "d.socket"
    with socket.socket(socket.AF_UNIX) as door, pytest.MonkeyPatch.context() as patch:
        # Something listens when the tap looks for a daemon; the test itself takes its place.
        door.bind(str(place))
        door.listen()
        patch.setenv("DAEMON", str(place))
        pytester.runpytest(RECORD).assert_outcomes(passed=1)
        pytester.runpytest().assert_outcomes(passed=1)
    assert len(cassette(pytester, "test_it/test_async").interactions) == 5


def test_runs_that_do_not_use_it_are_not_disturbed(pytester: pytest.Pytester) -> None:
    """Nothing is said, nothing is left, and nothing heavy is loaded."""
    pytester.makepyfile(
        test_it="""
        import sys

        def test_nothing():
            heavy = {"aiohttp", "yaml", "msgpack", "click", "lxdtap.tap", "lxdtap.cassette"}
            assert not heavy & sys.modules.keys()
            assert "lxdtap.pytest_plugin" in sys.modules
        """
    )
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n")
    run = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:xdist")
    run.assert_outcomes(passed=1)
    run.stdout.no_fnmatch_line("=*lxdtap*=")
    assert not (pytester.path / "cassettes").exists()


def test_the_plugin_itself_is_loaded_quickly() -> None:
    """It is loaded in every run of those who have lxdtap: by itself it may cost a few ms."""
    code = (
        "import pytest, argparse, time; began = time.perf_counter(); import lxdtap.pytest_plugin;"
        "print(time.perf_counter() - began)"
    )
    taken = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(taken) < 0.05


def test_the_marker_and_the_flag_are_documented(pytester: pytest.Pytester) -> None:
    """The help of pytest itself tells of them."""
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.lxdtap(?names, *"])
    told = pytester.runpytest("--help").stdout
    told.fnmatch_lines(["*--lxdtap-record-mode=MODE*"])
    told.no_fnmatch_line("* --record-mode*")
