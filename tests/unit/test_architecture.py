"""The rings: pure modules stay pure, arrows point down, and the map tells of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lxdtap

PACKAGE = Path(lxdtap.__file__).parent
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}

# From the bottom up: a module may import those of its own ring and of the rings below it.
RINGS = (
    {"errors", "terminal", "transaction", "http1"},
    {"events", "endpoint", "websocket", "content"},
    {"wire", "fold", "lxd"},
    {"entries", "redact"},
    {"journal", "debugformat", "lineformat", "jsonformat"},
    {"relay", "listener", "child"},
    {"core"},
    {"logprocess"},
    {"run"},
    {"cli"},
    {"__main__"},
)
PURE = set().union(*RINGS[:5])
IMPURE = {"asyncio", "os", "socket", "select", "signal", "subprocess", "threading", "sys", "io"}


def imports(module: str) -> set[str]:
    """All that a module imports, by top-level name, and ours by module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "lxdtap":
            found |= {f"lxdtap.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
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
        assert not ours & above, module


def test_every_module_has_its_ring_and_its_place_on_the_map() -> None:
    """The package's docstring tells of every module, and every module is in one ring."""
    assert set(MODULES) == set().union(*RINGS)
    assert sum(len(ring) for ring in RINGS) == len(MODULES)
    for module in MODULES:
        assert module in (lxdtap.__doc__ or ""), module


@pytest.mark.parametrize("module", sorted(PURE - {"entries", "events", "errors"}))
def test_every_pure_module_has_its_own_tests(module: str) -> None:
    """What is pure can be tested whole, in a file of its own."""
    assert (Path(__file__).parent / f"test_{module}.py").exists()
