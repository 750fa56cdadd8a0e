"""``make cassettes``: what it records of a real daemon tells nothing of this machine."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from lxdtap.cassette import files
from tests.scenarios import RECORDINGS

from .cassettes import HOST, KERNEL, Neutral, RecordingError, header, record
from .throwaway import Daemon


def test_record(daemon: Daemon, tmp_path: Path) -> None:
    """A cassette with a header, and with neither this machine's names nor the daemon's."""
    [launch] = [r for r in RECORDINGS if r.name == f"{daemon.kind}/launch"]
    path = tmp_path / "launch.yaml"
    record(launch, daemon, Neutral.of(daemon), path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith(header(launch))
    assert f'"server_name": "{HOST}"' in text
    assert f'"kernel_version": "{KERNEL}"' in text
    assert text.count('"kernel_version"') == 1
    for telling in (daemon.home.name, platform.release(), "BEGIN CERTIFICATE-----\\nMII"):
        assert telling not in text
    assert files.load(str(path)).server.base.endswith(f"%2Fvar%2Flib%2F{daemon.kind}%2Funix.socket")


def test_what_tells_of_the_machine_is_found(daemon: Daemon, tmp_path: Path) -> None:
    """Where the replacing misses something, no cassette is made."""
    [refusals] = [r for r in RECORDINGS if r.name == f"{daemon.kind}/launch"]
    neutral = Neutral.of(daemon)
    assert neutral.left(f"at {daemon.directory}", files.load(str(refusals.path))) != []
    assert neutral.left(neutral(f"at {daemon.directory}"), files.load(str(refusals.path))) == []
    path = tmp_path / "launch.yaml"
    careless = Neutral(daemon.home, Path("/x"), "lxd", "", "/", "nothing of this", "nor this")
    with pytest.raises(RecordingError, match="tells of this machine"):
        record(refusals, daemon, careless, path)
    assert not path.exists()
