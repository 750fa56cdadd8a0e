"""For all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from .campaign import Campaign

CAMPAIGN = pytest.StashKey[Campaign]()

# A loaded machine is slow now and then; the timeout of each test is the bound that counts.
settings.register_profile("lxdtap", deadline=None)
settings.load_profile("lxdtap")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The full counts are for those who ask for them."""
    group = parser.getgroup("campaign")
    group.addoption("--campaign", action="store_true", help="make the full counts; takes hours")
    group.addoption("--figures", metavar="FILE", help="write what was measured here, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """One campaign a run."""
    config.stash[CAMPAIGN] = Campaign(full=config.getoption("--campaign"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The report."""
    campaign = config.stash[CAMPAIGN]
    if campaign.figures:
        terminalreporter.section("figures")
        for line in campaign.lines():
            terminalreporter.line(line)
    if path := config.getoption("--figures"):
        campaign.write(Path(path))


@pytest.fixture(scope="session")
def campaign(pytestconfig: pytest.Config) -> Campaign:
    """How often to try, and where to tell what was measured."""
    return pytestconfig.stash[CAMPAIGN]
