"""The kernel has no memory for a moment: nothing is cut off, and nothing of the recording is lost.

A send on a socket fails then (send(2)), though whoever reads from it is well.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lxdtap.errors import NO_MEMORY
from tests.process.recording import SYNC, get, recording, said, targets
from tests.process.tap import Served, answer, ask, connect, read_until

from . import needs
from .running import finish, recorded

ERRORS = sorted(map(errno.errorcode.__getitem__, NO_MEMORY))


@pytest.mark.parametrize("error", ERRORS)
def test_no_memory_to_tell_the_recorder(tmp_path: Path, error: str) -> None:
    """What could not be told at once is told later; the recorder is not taken for dead."""
    with recording(tmp_path) as (_, tap, path):
        with needs.failing_at(tap.process.pid, None, f"sendmsg:error={error}:when=1..50"):
            for number in range(5):
                assert ask(tap.path, get(f"/{number}")) == answer(SYNC, close=True)
            finish(tap)
        assert said(tap) == ""
    assert targets(recorded(path)) == [f"/{number}" for number in range(5)]


@pytest.mark.parametrize("error", ERRORS)
def test_no_memory_to_send_on(tmp_path: Path, error: str) -> None:
    """What could not be sent on at once is sent later, both ways, and on the same connection."""
    with recording(tmp_path) as (_, tap, path):
        with connect(tap.path) as client:
            for number in range(5):
                with needs.failing_at(tap.process.pid, None, f"sendto:error={error}:when=1..20"):
                    client.sendall(get(f"/{number}", close=False))
                    read_until(client, Served(), SYNC)
        finish(tap)
    assert targets(recorded(path)) == [f"/{number}" for number in range(5)]
