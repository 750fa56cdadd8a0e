"""The daemons that the tests in this directory drive: one of each kind for the whole run.

Where a daemon cannot be started its tests are skipped, in one line that says why; where ``CI``
is true they fail, because there it was to be installed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tapping import Tapping
from .throwaway import INCUS, LXD, Brand, Daemon, throwaway

HERE = Path(__file__).parent
BRANDS = {"lxd": LXD, "incus": INCUS}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this directory needs a daemon."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.daemons)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip here and not in the fixtures: so pytest says it once, not once a test."""
    assert isinstance(item, pytest.Function)
    chosen = item.callspec.params.get("daemon") if hasattr(item, "callspec") else None
    for name in {str(chosen), *item.fixturenames} & BRANDS.keys():
        if why := BRANDS[name].missing():
            _absent(f"{why} (see .ci/install-daemons)")


def _absent(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def _started(brand: Brand) -> Iterator[Daemon]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by a signal: orderly too
    with throwaway(brand) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def lxd() -> Iterator[Daemon]:
    """A throwaway LXD."""
    yield from _started(LXD)


@pytest.fixture(scope="session")
def incus() -> Iterator[Daemon]:
    """A throwaway Incus."""
    yield from _started(INCUS)


@pytest.fixture(scope="session", params=["lxd", "incus"])
def daemon(request: pytest.FixtureRequest) -> Daemon:
    """A throwaway LXD, then a throwaway Incus."""
    started: Daemon = request.getfixturevalue(request.param)
    return started


@pytest.fixture
def tap(daemon: Daemon, tmp_path: Path) -> Tapping:
    """Runs commands directly and through the tap, and compares; for each daemon."""
    return Tapping(daemon, tmp_path)
