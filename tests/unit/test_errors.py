"""What can go wrong, and the exit status for it."""

from __future__ import annotations

import re

import pytest

from lxdtap import errors
from lxdtap.errors import (
    CommandError,
    ListenError,
    LogError,
    LxdtapError,
    MissingSocketError,
    NoDaemonError,
)
from lxdtap.errors import UpstreamError as Upstream


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LxdtapError("x"), 1),
        (NoDaemonError("x"), 1),
        (Upstream("x"), 1),
        (ListenError("x"), 1),
        (LogError("x"), 1),
        (CommandError("x", 126), 126),
        (CommandError("x", 127), 127),
    ],
)
def test_every_error_has_its_text_and_its_exit_status(error: LxdtapError, status: int) -> None:
    """All of them are caught as one, print as one line, and know the command's exit status."""
    assert (str(error), error.exit_status) == ("x", status)


def test_an_upstream_error_knows_what_clients_are_told() -> None:
    """503 unless another status is given, such as 403 where it is not permitted."""
    assert (Upstream("x").status, Upstream("x", 403).status) == (503, 403)


def test_a_missing_socket_is_a_runtime_error_too() -> None:
    """Programs written for lxdapi catch that, and print its words."""
    error = MissingSocketError("/x/unix.socket")
    assert isinstance(error, RuntimeError)
    assert (error.path, error.exit_status) == ("/x/unix.socket", 1)
    assert str(error).startswith("Socket /x/unix.socket does not exist")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The module's docstring draws every error there is."""
    named = set(re.findall(r"\b[A-Z]\w+(?:Error|Exception)\b", errors.__doc__ or ""))
    assert {kind.__name__ for kind in _all(LxdtapError)} <= named


def _all(kind: type[LxdtapError]) -> list[type[LxdtapError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all(child))]
