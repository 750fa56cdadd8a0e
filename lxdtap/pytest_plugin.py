"""The pytest plugin: fixtures, the marker, the flag. See docs/pytest.md.

It is loaded in every run of whoever has lxdtap installed: what it needs is imported where a test
uses it.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from lxdtap.testing import settings

if TYPE_CHECKING:
    from lxdtap.testing.claims import Claims
    from lxdtap.testing.decks import Decks
    from lxdtap.testing.settings import Settings

T = TypeVar("T")

MARKER = "lxdtap"
_FLAG = "--lxdtap-record-mode"
_INI = ("record_mode", "allow_repeats", "strict")
_SECTION = "lxdtap"
_RECORDED = ("recorded ", "not recorded: ")
_DECKS = pytest.StashKey["Decks"]()
_PASSED = pytest.StashKey[bool]()
_SAID = pytest.StashKey[list[str]]()


# -- options


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flag, and what may be in pytest's configuration file."""
    group = parser.getgroup("lxdtap", "LXD and Incus cassettes")
    group.addoption(
        _FLAG,
        type=_mode,
        metavar="MODE",
        help="none: replay cassettes, and nothing else (the default); once: record those that are"
        " missing, from the daemon that LXD_DIR or INCUS_DIR names; all: record afresh.",
    )
    parser.addini("lxdtap_record_mode", "As --lxdtap-record-mode.", default=None)
    parser.addini(
        "lxdtap_allow_repeats",
        "Whether a change may be made more often than it was recorded.",
        type="bool",
        default=None,
    )
    parser.addini(
        "lxdtap_strict",
        "Whether what was recorded and not asked for fails the test.",
        type="bool",
        default=None,
    )


def _mode(text: str) -> str:
    try:
        return settings.mode(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers",
        "lxdtap(*names, record_mode=None, allow_repeats=None, strict=None, ...): replay the"
        " daemon from cassettes of these names, or record it to them; see lxdtap's docs/pytest.md",
    )


# -- fixtures


@pytest.fixture(scope="module")
def lxdtap_config() -> dict[str, Any]:
    """Settings for the tests that this is overridden for; see docs/pytest.md for the keys."""
    return {}


@pytest.fixture(scope="module")
def lxdtap_cassette_dir(request: pytest.FixtureRequest) -> str:
    """Where the cassettes of a module are: ``cassettes/MODULE`` beside it."""
    return str(request.path.parent / "cassettes" / request.path.stem)


@pytest.fixture(autouse=True)
def _lxdtap_marked(request: pytest.FixtureRequest) -> None:
    """Set the marker's cassettes up before what other fixtures of the test do with the daemon."""
    if request.node.get_closest_marker(MARKER) is not None:
        request.getfixturevalue("lxdtap")


@pytest.fixture
def lxdtap(
    request: pytest.FixtureRequest,
    lxdtap_config: Mapping[str, Any],
    lxdtap_cassette_dir: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Decks]:
    """The cassettes of this test; the environment points clients at the first."""
    from lxdtap.errors import LxdtapError
    from lxdtap.testing.decks import Decks, Plan

    item = request.node
    assert isinstance(item, pytest.Item)
    choose = _Choice(item.config, lxdtap_config)
    plan = Plan(
        item.nodeid,
        os.fspath(lxdtap_cassette_dir),
        choose,
        lambda: _claims(item.config, tmp_path_factory),
        _command(item),
    )
    decks = item.stash[_DECKS] = Decks(plan)
    try:
        for name, options in _wanted(item):
            decks.insert(name, options)
        with decks.environment():
            yield decks
    except (LxdtapError, ValueError) as error:
        raise pytest.fail.Exception(f"lxdtap: {error}", pytrace=False) from None
    finally:
        decks.close()


class _Choice:
    """The settings of one cassette: the flag over the marker over the fixture over the file."""

    def __init__(self, config: pytest.Config, fixture: Mapping[str, Any]) -> None:
        self._file = {key: config.getini(f"lxdtap_{key}") or None for key in _INI}
        self._fixture = fixture
        self._flag = {"record_mode": config.getoption(_FLAG)}

    def __call__(self, marker: Mapping[str, Any]) -> Settings:
        return settings.merged(self._file, self._fixture, marker, self._flag)


def _wanted(item: pytest.Item) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of a test's cassettes: the marker next to it first."""
    markers = list(item.iter_markers(MARKER))
    common: dict[str, Any] = {}
    for marker in reversed(markers):
        if not marker.args:
            common.update(marker.kwargs)
    named = [(str(name), {**common, **marker.kwargs}) for marker in markers for name in marker.args]
    return named or [(_default_name(item), common)]


def _default_name(item: pytest.Item) -> str:
    classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    return settings.default_name(classes, item.name)


def _command(item: pytest.Item) -> str:
    """The line that runs this test alone, here."""
    _, colons, rest = item.nodeid.partition("::")
    place = os.path.relpath(item.path, item.config.invocation_params.dir)
    return f"pytest {shlex.quote(place + colons + rest)}"


def _claims(config: pytest.Config, factory: pytest.TempPathFactory) -> Claims:
    """Those of this run, which xdist's workers share."""
    from lxdtap.testing.claims import Claims

    base = factory.getbasetemp()
    shared = base.parent if hasattr(config, "workerinput") else base
    return Claims(str(shared / "lxdtap-claims"))


# -- what becomes of a test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, T, T]:
    """A miss fails its test, also where the client kept it to itself."""
    complaint = ""
    try:
        result = yield
    finally:  # where the test has failed, that is enough
        if decks := item.stash.get(_DECKS, None):
            complaint = decks.complaint()
    if complaint:
        pytest.fail(complaint, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, T, T]:
    """All that used the cassettes is over: keep what was recorded, if all was well."""
    torn_down = False
    try:
        result = yield
        torn_down = True
    finally:
        decks = item.stash.get(_DECKS, None)
        if decks is not None:
            del item.stash[_DECKS]
            _finish(item, decks, passed=torn_down and item.stash.get(_PASSED, False))
    return result


def _finish(item: pytest.Item, decks: Decks, *, passed: bool) -> None:
    from lxdtap.errors import LxdtapError

    item.stash[_PASSED] = False  # it may be run again
    item.stash[_SAID] = []
    complaint = decks.complaint() or (passed and decks.left())
    try:
        item.stash[_SAID] = decks.finish(keep=passed and not complaint)
    except LxdtapError as error:
        complaint = f"lxdtap: {error}"
    if complaint and passed:
        pytest.fail(complaint, pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say what there is to be said of the cassettes."""
    report = yield
    if decks := item.stash.get(_DECKS, None):
        if call.when == "call":
            item.stash[_PASSED] = report.passed or hasattr(report, "wasxfail")
        if report.failed and (text := decks.report()):
            report.sections.append((_SECTION, text))
    elif call.when == "teardown" and (said := item.stash.get(_SAID, [])):
        report.sections.append((f"{_SECTION} teardown", "\n".join(said).rstrip()))
        item.stash[_SAID] = []
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which cassettes were recorded, and how many tests have not played theirs out."""
    lines: list[str] = []
    unplayed = 0
    for text in _told(terminalreporter):
        recorded = [line for line in text.splitlines() if line.startswith(_RECORDED)]
        lines += recorded
        unplayed += not recorded
    if unplayed:
        tests = "1 test has" if unplayed == 1 else f"{unplayed} tests have"
        lines.append(f"{tests} recordings that were never asked for (-rP shows them)")
    if lines:
        terminalreporter.section("lxdtap")
        for line in lines:
            terminalreporter.line(line)


def _told(terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
    """What tests had to say in the end, from all workers."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for title, text in getattr(report, "sections", ()):
                if title == f"{_SECTION} teardown":
                    yield text
