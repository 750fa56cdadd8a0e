"""The least tap is one: who is measured beside ours does what it is said to do."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.process.tap import GET, always, answer, ask, eventually, fake_daemon

from .processes import Address, running


def test_it_relays_and_writes_down_what_passes(tmp_path: Path) -> None:
    """As it came, and who leaves without a word leaves nobody behind at the daemon."""
    place, said = tmp_path / "least", answer(b"{}")
    path, written = f"{place}/unix.socket", place / "written"
    with fake_daemon(tmp_path / "daemon", always(said)) as daemon:
        command = [sys.executable, "-m", "tests.bench.least", daemon.path, path, str(written)]
        with running(command, Address(path), place):
            assert ask(path, GET) == said
            assert written.read_bytes() == GET + said
            probe, _ = daemon.served  # which tried whether somebody listens
            eventually(lambda: probe.over)
