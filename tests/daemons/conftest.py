"""The daemons that the tests in this directory drive: one of each kind for the whole run.

A daemon that died by itself is started again before the next test, and that is told at the end.
Where a daemon cannot be started its tests are skipped, in one line that says why; where ``CI``
is true they fail, because there it was to be installed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.absent import absent

from .tapping import Tapping
from .throwaway import INCUS, LXD, Brand, Daemon, DaemonError, throwaway

HERE = Path(__file__).parent
LIMIT = 300
"""Seconds a test may take: a comparison may be made again."""
MADE_AGAIN = pytest.StashKey[list[str]]()
REVIVED = pytest.StashKey[list[str]]()
RUNNING = pytest.StashKey[dict[str, Daemon]]()
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
    for key, what in {MADE_AGAIN: "comparisons made", REVIVED: "daemons started"}.items():
        if told := config.stash.get(key, []):
            terminalreporter.section(f"{len(told)} {what} again")
            for line in told:
                terminalreporter.line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A daemon that is there and alive.

    It is skipped here and not in the fixtures: so pytest says it once, not once a test.
    """
    assert isinstance(item, pytest.Function)
    chosen = item.callspec.params.get("daemon") if hasattr(item, "callspec") else None
    for name in {str(chosen), *item.fixturenames} & BRANDS.keys():
        if why := BRANDS[name].missing():
            absent(f"{why} (see .ci/install-daemons)")
        if running := item.config.stash.get(RUNNING, {}).get(name):
            _revive(running, item)


def _revive(daemon: Daemon, item: pytest.Item) -> None:
    """So a death costs no more than the test that it came in."""
    try:
        died = daemon.revive()
    except DaemonError as error:
        pytest.fail(str(error), pytrace=False)
    if died:
        item.config.stash.setdefault(REVIVED, []).append(_line(f"before {item.name}", died))


def _line(where: str, why: str) -> str:
    return f"{where}: {' '.join(why.split())[:1000]}"


def _started(brand: Brand, config: pytest.Config) -> Iterator[Daemon]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by a signal: orderly too
    with throwaway(brand) as daemon:
        config.stash.setdefault(RUNNING, {})[brand.kind] = daemon
        yield daemon


@pytest.fixture(scope="session")
def lxd(pytestconfig: pytest.Config) -> Iterator[Daemon]:
    """A throwaway LXD."""
    yield from _started(LXD, pytestconfig)


@pytest.fixture(scope="session")
def incus(pytestconfig: pytest.Config) -> Iterator[Daemon]:
    """A throwaway Incus."""
    yield from _started(INCUS, pytestconfig)


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
    told += [_line(request.node.name, why) for why in tapping.again]
