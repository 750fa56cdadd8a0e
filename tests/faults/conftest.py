"""The real daemon that some of these tests are held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.absent import absent
from tests.daemons.throwaway import LXD, Daemon, throwaway


@pytest.fixture(scope="session")
def lxd() -> Iterator[Daemon]:
    """A throwaway LXD."""
    if why := LXD.missing():
        absent(f"{why} (see .ci/install-daemons)")
    with throwaway(LXD) as daemon:
        yield daemon
