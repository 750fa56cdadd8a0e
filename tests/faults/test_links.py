"""A link or a FIFO stands where lxdtap writes: it is never followed, nor waited for.

Where it listens is test_listening's; cassettes and their attachments are saved by
:mod:`lxdtap.cassette.files`, which tests/process/test_cassette_files.py tries alone.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

from tests.campaign import Campaign
from tests.process.tap import LXDTAP, answer, ask, environment, sidecar

from .upstreams import Upstream, serving, upstream

SLOW = 60
LARGE = os.urandom(1 << 20)
"""Of a body that lies beside the cassette."""
GET = b"GET /1.0/images/x/export HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n"
FILE = answer(LARGE, kind="application/octet-stream")


def put(what: str, path: Path, other: Path) -> None:
    """Have something stand there that leads elsewhere."""
    match what:
        case "symlink":
            path.symlink_to(other)
        case "hard link":
            path.hardlink_to(other)
        case _:
            os.mkfifo(path)


def refused(daemon: Upstream, *arguments: str) -> subprocess.Popen[str]:
    """A tap with a command that must not be run."""
    command = ["run", "--upstream", daemon.path, *arguments, "--", "echo", "ran"]
    return subprocess.Popen(
        [*LXDTAP, *command],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


KINDS = ("symlink", "hard link", "fifo")
PLACES = {"log": "-o", "cassette": "-w", "spool": "-w"}


def test_before_it_begins(tmp_path: Path, campaign: Campaign) -> None:
    """The log, the cassette, the spool: one line names the place, and no command is run."""
    other = tmp_path / "other"
    other.write_text("precious")
    cases = list(itertools.product(KINDS, PLACES))
    tried = []
    with upstream(tmp_path / "daemon", serving(lambda _: answer(b"{}"))) as daemon:
        for number, (what, where) in enumerate(cases[:: campaign.count(4, 1)]):
            path = tmp_path / f"{number}.yaml"
            at = path.with_suffix(".yaml.spool") if where == "spool" else path
            put(what, at, other)
            tried.append((refused(daemon, PLACES[where], str(path)), at))
        for attempted, at in tried:
            stdout, stderr = attempted.communicate(timeout=SLOW)
            assert (attempted.returncode, stdout) == (1, "")
            [line] = stderr.splitlines()
            assert str(at) in line
    assert other.read_text() == "precious"
    campaign.figure("links before the start", f"{len(tried)} of kind and place: refused, untouched")


def test_while_it_records(tmp_path: Path, campaign: Campaign) -> None:
    """Where the cassette and what lies beside it are to go: told aloud, and not written there."""
    cases = [("symlink", "w.files"), ("symlink", "w.yaml"), ("fifo", "w.yaml")]
    for number, (what, name) in enumerate(cases[: campaign.count(1, len(cases))]):
        place, other = tmp_path / str(number), tmp_path / f"other{number}"
        place.mkdir()
        other.mkdir()
        (other / "kept").write_text("precious")
        path = place / "w.yaml"
        with upstream(place / "daemon", serving(lambda _: FILE)) as daemon:
            with sidecar(place / "tap", daemon.path, "-w", str(path), "--overwrite") as tap:
                assert ask(tap.path, GET) == FILE
                put(what, place / name, other if name == "w.files" else other / "kept")
                tap.process.terminate()
                _, stderr = tap.process.communicate(timeout=SLOW)
        assert tap.process.returncode == 1
        assert "w.yaml.spool" in stderr, stderr
        assert os.listdir(other) == ["kept"]
        assert (other / "kept").read_text() == "precious"
        assert (place / "w.yaml.spool").exists()
    campaign.figure("links while recording", f"{number + 1} kinds: told, untouched, spool kept")
