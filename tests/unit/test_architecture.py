"""The rings: pure modules stay pure, arrows point down, and the map tells of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lxdtap

PACKAGE = Path(lxdtap.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
}

# From the bottom up: a module may import those of its own ring and of the rings below it.
PURE_RINGS = (
    {"errors", "terminal", "transaction", "endpoint", "remotes"},
    {
        *("wire.http1", "wire.websocket", "wire.events", "wire.records", "wire.whole"),
        *("wire.tunnel", "wire.connection", "wire.fold"),
    },
    {"content", "lxd", "redact", "masking"},
    {
        *("log.entries", "log.journal", "log.render"),
        *("log.debugformat", "log.lineformat", "log.jsonformat"),
    },
    {
        *("cassette.model", "cassette.cleaning", "cassette.scalars", "cassette.jsontext"),
        *("cassette.cursor", "cassette.reading", "cassette.writing", "cassette.check"),
        "cassette.updates",
    },
    {"record.trim", "record.collect"},
    {
        *("replay.match", "replay.tape", "replay.progress", "replay.sftp"),
        *("replay.playback", "replay.answer", "replay.player"),
    },
    {"cassette.differences"},
    {"api.result"},
    {"testing.settings", "testing.watching"},
)
RINGS = (
    *PURE_RINGS,
    {"clock"},
    {"cassette.files"},
    {
        *("record.output", "record.spool", "record.save", "record.worker"),
        *("record.link", "record.recording", "record.direct", "record.placing"),
    },
    {
        *("tap.readiness", "tap.relay", "tap.listener", "tap.service", "tap.child"),
        *("tap.upstream", "tap.identity", "tap.pump", "tap.tls", "tap.refusal", "tap.core"),
    },
    {"replay.server"},
    {"api.body", "api.endpoints", "api.exchange", "api.common"},
    {"api.asynchronous", "api.synchronous"},
    {"finding", "stage"},
    {"testing.claims", "testing.service", "testing.deck", "testing.decks"},
    {"pytest_plugin"},
    {"run", "play", "checking", "comparing", "showing", "project"},
    {"cli"},
    {"__main__"},
)
PURE = set().union(*PURE_RINGS)
WITHOUT_TESTS = {"log.entries", "log.render", "wire.events", "wire.tunnel"}
"""Values alone, or small and tested with what they are part of."""
IMPURE = {"asyncio", "os", "socket", "select", "signal", "subprocess", "threading", "sys", "io"}


def imports(module: str) -> set[str]:
    """All that a module imports, by top-level name, and ours by module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            whole = {f"{source}.{alias.name}" for alias in node.names}
            modules = {name for name in whole if name.removeprefix("lxdtap.") in MODULES}
            found |= modules or {source}
    return found


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_know_no_world(module: str) -> None:
    """Sockets, files, clocks and the environment are for the outer rings."""
    assert not imports(module) & IMPURE


@pytest.mark.parametrize("ring", range(len(RINGS)))
def test_arrows_point_down(ring: int) -> None:
    """A module imports nothing of a ring above its own."""
    above = set().union(*RINGS[ring + 1 :])
    for module in RINGS[ring]:
        ours = {name.partition(".")[2] for name in imports(module) if name.startswith("lxdtap.")}
        assert ours <= MODULES.keys(), module
        assert not ours & above, module


def test_every_module_has_its_ring_and_its_place_on_the_map() -> None:
    """The package's docstring tells of every module, and every module is in one ring."""
    assert set(MODULES) == set().union(*RINGS)
    assert sum(len(ring) for ring in RINGS) == len(MODULES)
    for module in MODULES:
        assert module.rpartition(".")[2] in (lxdtap.__doc__ or ""), module


@pytest.mark.parametrize("module", sorted(PURE - WITHOUT_TESTS))
def test_every_pure_module_has_its_own_tests(module: str) -> None:
    """What is pure can be tested whole, in a file of its own."""
    assert (Path(__file__).parent / f"test_{module.rpartition('.')[2]}.py").exists()
