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
LIMIT = 300
"""Seconds a test may take: a comparison may be made again."""
MADE_AGAIN = pytest.StashKey[list[str]]()
BRANDS = {"lxd": LXD, "incus": INCUS}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this directory needs a daemon, and patience with it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.daemons)
            item.add_marker(pytest.mark.timeout(LIMIT))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what had to be made again: a tap that makes it more than rare is not to hide there."""
    if told := config.stash.get(MADE_AGAIN, []):
        terminalreporter.section(f"{len(told)} comparisons made again")
        for line in told:
            terminalreporter.line(line)


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
def tap(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Iterator[Tapping]:
    """Runs commands directly and through the tap, and compares; for each daemon."""
    tapping = Tapping(daemon, tmp_path)
    yield tapping
    told = request.config.stash.setdefault(MADE_AGAIN, [])
    told += [f"{request.node.name}: {' '.join(why.split())[:300]}" for why in tapping.again]
