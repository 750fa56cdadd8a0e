"""For all tests."""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from .campaign import Campaign, Report

CAMPAIGN = pytest.StashKey[Campaign]()
REPORT = pytest.StashKey[Report]()

# A loaded machine is slow now and then; the timeout of each test is the bound that counts.
settings.register_profile("lxdtap", deadline=None)
settings.load_profile("lxdtap")

# What a shell starts in the background is deaf to Ctrl-C (POSIX, 2.11 of the shell's language), and
# so would be all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The full counts are for those who ask for them."""
    group = parser.getgroup("campaign")
    group.addoption("--campaign", action="store_true", help="make the full counts; takes hours")
    group.addoption("--figures", metavar="FILE", help="add the report to what is here, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """One campaign a run; its report is where the tests are chosen, not where xdist runs them."""
    full, path = config.getoption("--campaign"), config.getoption("--figures")
    config.stash[CAMPAIGN] = Campaign(full=full)
    if not hasattr(config, "workerinput"):
        config.stash[REPORT] = Report(full=full, path=Path(path) if path else None)
        config.pluginmanager.register(config.stash[REPORT])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was measured goes with the test's report, from xdist's processes too."""
    report = yield
    report.user_properties += item.config.stash[CAMPAIGN].taken()
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The report."""
    report = config.stash[REPORT]
    if report.results:
        report.keep()
        terminalreporter.section("figures")
        for line in report.lines():
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def campaign(pytestconfig: pytest.Config) -> Campaign:
    """How often to try, and where to tell what was measured."""
    return pytestconfig.stash[CAMPAIGN]
