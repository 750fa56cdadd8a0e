"""LXD's own rules: failures wherever they hide, operations and who made them, exec's streams."""

from __future__ import annotations

import pytest

from lxdtap import lxd
from lxdtap.content import Json
from lxdtap.lxd import (
    Operation,
    Operations,
    Seen,
    failure,
    operation,
    operation_path,
    server_version,
    streams,
)

UUID = "70eb42bf-5e79-42de-8230-2162e9e8b612"


def envelope(status: str, code: int, err: str = "", **metadata: Json) -> Json:
    """An answer that describes an operation."""
    inner: dict[str, Json] = {
        "id": UUID,
        "class": "websocket",
        "status": status,
        "status_code": code,
        "err": err,
        "metadata": dict(metadata),
    }
    return {"type": "sync", "status_code": 200, "error_code": 0, "error": "", "metadata": inner}


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (None, ""),
        ([1], ""),
        ({"error": "not found", "error_code": 404}, "not found"),
        ({"error": "", "error_code": 500, "status": ""}, "500"),
        ({"error": "", "metadata": None}, ""),
        (envelope("Success", 200), ""),
        (envelope("Failure", 400, "exit status 1"), "exit status 1"),
        (envelope("Cancelled", 401), "Cancelled"),
        ({"metadata": {"status_code": 400}}, "400"),
        ({"type": "operation", "metadata": {"metadata": {"status_code": 400, "err": "x"}}}, "x"),
        ({"metadata": {"status": "Stopped", "status_code": 102}}, ""),
        ({"metadata": {"status_code": "odd"}}, ""),
    ],
)
def test_failure(document: Json, error: str) -> None:
    """The error is lifted out, also of nested metadata; an empty outer one does not hide it."""
    assert failure(document) == error


@pytest.mark.parametrize(
    "document",
    [None, {}, {"metadata": []}, {"metadata": {"id": 1}}, {"metadata": {"id": "x", "status": "y"}}],
)
def test_no_operation(document: Json) -> None:
    """What has no id, status and class is no operation."""
    assert operation(document) is None


def test_operation() -> None:
    """An operation is final from status code 200 on."""
    assert operation(envelope("Running", 103)) == Operation(UUID, "Running", 103)
    states = [operation(envelope("x", code)) for code in (103, 199, 200, 400)]
    assert [state.final for state in states if state] == [False, False, True, True]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/1.0/operations/{UUID}", UUID),
        (f"/1.0/operations/{UUID}/websocket", UUID),
        (f"/1.0/operations/{UUID}/wait?timeout=3", UUID),
        ("/1.0/operations", None),
        ("/1.0/events", None),
    ],
)
def test_operation_path(path: str, found: str | None) -> None:
    """The id of an operation stands behind /1.0/operations/."""
    assert operation_path(path) == found


def test_streams() -> None:
    """Exec's file descriptors have names; one that goes both ways is a terminal."""
    plain: Json = {"0": "a", "1": "b", "2": "c", "control": "d"}
    names = {"a": "stdin", "b": "stdout", "c": "stderr", "d": "control"}
    assert streams(envelope("Running", 103, fds=plain)) == names
    interactive: Json = {"0": "a", "control": "d", "odd": 1}
    terminal = {"a": "terminal", "d": "control"}
    assert streams(envelope("Running", 103, fds=interactive)) == terminal


def test_streams_of_a_migration() -> None:
    """Its secrets stand flat, and are told from other strings by their form."""
    secret = "0123456789abcdef" * 4
    document = envelope("Running", 103, control=secret, fs=secret[::-1], progress="x", n=1)
    assert streams(document) == {secret: "control", secret[::-1]: "fs"}


@pytest.mark.parametrize(
    "document",
    [
        None,
        {"metadata": {"class": "task", "metadata": {"fds": {"0": "a"}}}},
        {"metadata": {"class": "websocket", "metadata": None}},
    ],
)
def test_no_streams(document: Json) -> None:
    """Only websocket operations have streams."""
    assert streams(document) == {}


def test_an_operation_remembers_its_maker() -> None:
    """Whoever made it is named with its end, and its end is news once."""
    known = Operations()
    first = known.learn(envelope("Running", 103), made_by=3)
    assert first == Seen(Operation(UUID, "Running", 103), 3, news=False)
    end = known.learn(envelope("Success", 200))
    assert end is not None
    assert (end.maker, end.news) == (3, True)
    again = known.learn(envelope("Success", 200), made_by=9)
    assert again is not None
    assert (again.maker, again.news) == (3, False)
    assert known.learn({"metadata": None}) is None


def test_a_maker_that_is_seen_late() -> None:
    """An event may tell of an operation before the answer that made it has passed."""
    known = Operations()
    early = known.learn(envelope("Pending", 105))
    late = known.learn(envelope("Running", 103), made_by=3)
    assert early is not None
    assert late is not None
    assert (early.maker, late.maker) == (None, 3)


def test_a_websocket_is_known_by_its_secret() -> None:
    """The stream of a target is that of the secret in its query."""
    known = Operations()
    known.learn(envelope("Running", 103, fds={"0": "a", "1": "b"}))
    assert known.stream(f"/1.0/operations/{UUID}/websocket?secret=b") == "stdout"
    assert known.stream(f"/1.0/operations/{UUID}/websocket?secret=z") == ""
    assert known.stream("/1.0") == ""


def test_the_oldest_are_forgotten() -> None:
    """A tap that runs for weeks keeps no more than so many operations and secrets in mind."""
    known = Operations()
    for number in range(lxd.REMEMBERED + 2):
        inner: dict[str, Json] = {"id": str(number), "status": "x", "class": "websocket"}
        inner["metadata"] = {"fds": {"0": f"s{number}"}}
        known.learn({"metadata": inner}, made_by=number)
    assert known.stream("?secret=s0") == known.stream("?secret=s1") == ""
    assert known.stream("?secret=s2") == "terminal"
    seen = known.learn({"metadata": {"id": "0", "status": "x", "class": "task"}})
    assert seen is not None
    assert seen.maker is None


@pytest.mark.parametrize(
    ("document", "kind"), [({"type": "logging"}, "logging"), ({"type": 1}, ""), (None, "")]
)
def test_event_type(document: Json, kind: str) -> None:
    """An event says its type."""
    assert lxd.event_type(document) == kind


@pytest.mark.parametrize(
    ("document", "version"),
    [
        ({"metadata": {"environment": {"server_version": "5.0.2"}}}, "5.0.2"),
        ({"metadata": {"environment": {"server_version": 5}}}, ""),
        ({"metadata": {"environment": "odd"}}, ""),
        ({"metadata": []}, ""),
        ([], ""),
    ],
)
def test_the_daemon_says_its_version(document: Json, version: str) -> None:
    """It stands in the answer to GET /1.0, and nowhere else."""
    assert server_version(document) == version
