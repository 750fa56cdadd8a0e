"""The API in front of fake daemons: real sockets, threads, forks, signals and processes."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import gc
import gzip
import hashlib
import importlib
import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lxdtap.api
from lxdtap.api import (
    API,
    APIConnectionError,
    APIException,
    APINotFoundException,
    APIStream,
    AsyncAPI,
    AsyncAPIStream,
)
from lxdtap.errors import NoDaemonError
from lxdtap.log import debugformat

from .tap import (
    PATIENCE,
    FakeDaemon,
    Script,
    Served,
    always,
    answer,
    environment,
    eventually,
    fake_daemon,
    read_until,
)

HELLO = {"type": "sync", "metadata": {"auth": "trusted"}}
STRICT = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
"""For Python: warnings are errors, but for the one that forks with threads get from 3.12 on."""
SECRET = "a-very-secret-secret"


def says(document: object, status: str = "200 OK") -> bytes:
    return answer(json.dumps(document).encode(), status)


def content(served: Served) -> bytes:
    """The body of what was received, chunks undone."""
    head, _, body = bytes(served.received).partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


def takes(response: bytes) -> Script:
    """A script that reads a body by its length or its chunks, then answers."""

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        head, _, body = bytes(served.received).partition(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-len")]
        if length:
            size = int(length[0].partition(b":")[2]) - len(body)
            while size > 0 and (data := sock.recv(1 << 16)):
                served.received += data
                size -= len(data)
        elif b"transfer-encoding: chunked" in head.lower():
            while not served.received.endswith(b"0\r\n\r\n") and (data := sock.recv(1 << 16)):
                served.received += data
        sock.sendall(response)

    return script


def silent(sock: socket.socket, served: Served) -> None:
    """A script that reads and never answers."""
    sock.settimeout(60)
    while data := sock.recv(1 << 16):
        served.received += data
    served.over = True


def leaves(_sock: socket.socket, _served: Served) -> None:
    """A script that hangs up at once."""


class Silent(threading.Event):
    """A script that answers nothing until it is told to."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self._response = response

    def __call__(self, sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        self.asked.release()
        assert self.wait(30)
        sock.sendall(self._response)


Serve = Callable[[Script], FakeDaemon]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts fake daemons."""
    with contextlib.ExitStack() as ending:

        def start(script: Script) -> FakeDaemon:
            directory = tmp_path / f"daemon{len(list(tmp_path.iterdir()))}"
            return ending.enter_context(fake_daemon(directory, script))

        yield start


# -- what is sent


def test_get_shows_the_transaction(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """A call's DEBUG text is on stdout before it returns, the result holds the daemon's JSON."""
    daemon = serve(always(says(HELLO)))
    with API.factory(daemon.path, debug=True) as api:
        result = api.get("instances", params={"recursion": 1})
        shown = capsys.readouterr().out
        assert result.data == HELLO
        assert result.metadata == {"auth": "trusted"}
        assert result.api is api
        assert result.request.url == f"{api.endpoint}/1.0/instances?recursion=1"
    summary = f"{result.request_summary()} {result.response_summary()}"
    assert shown == f"{summary}\n{debugformat.SEPARATOR}\n"
    assert bytes(daemon.served[0].received).startswith(
        b"GET /1.0/instances?recursion=1 HTTP/1.1\r\nHost: unix.socket\r\n"
    )


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head"])
def test_methods(serve: Serve, method: str) -> None:
    """Each method is sent as itself; HEAD's response has a length and no body."""
    body = says(HELLO)
    daemon = serve(
        takes(body.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "head" else body)
    )
    with API.factory(daemon.path) as api:
        result = getattr(api, method)("/1.0/x")
        assert result.response.status_code == 200
        assert result.data == (None if method == "head" else HELLO)
        assert int(result.response.headers["content-length"]) > 0
    assert daemon.served[0].received.startswith(f"{method.upper()} /1.0/x ".encode())


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "302 Found"])
def test_statuses_without_a_body(serve: Serve, status: str) -> None:
    """Neither 204 nor 304 is waited at for a body, and a redirect is not followed."""
    length = "Content-Length: 0\r\n" if status.startswith("302") else ""
    daemon = serve(always(f"HTTP/1.1 {status}\r\nLocation: /2.0\r\n{length}\r\n".encode()))
    with API.factory(daemon.path) as api:
        assert api.get("x").response.status_code == int(status[:3])
    assert len(daemon.served) == 1


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("images", "/1.0/images"),
        ("/1.0/images", "/1.0/images"),
        ("/", "/"),
        ("", "/1.0"),
        ("?public", "/1.0?public"),
        ("images/a b", "/1.0/images/a%20b"),
        ("images/é", "/1.0/images/%C3%A9"),
        ("images/%2F", "/1.0/images/%2F"),
        ("images/a#b", "/1.0/images/a%23b"),
        ("images\r\nX: y", "/1.0/images%0D%0AX:%20y"),
        ("images/a?b={c}", "/1.0/images/a?b=%7Bc%7D"),
    ],
)
def test_urls(serve: Serve, url: str, target: str) -> None:
    """What goes on the wire is what format_url says; nothing in a URL leaves its line."""
    daemon = serve(always(says(HELLO)))
    with API.factory(daemon.path) as api:
        assert api.format_url(url) == api.endpoint + target
        assert api.format_url(api.endpoint + target) == api.endpoint + target
        api.get(url)
    line, _, rest = bytes(daemon.served[0].received).partition(b"\r\n")
    assert line == f"GET {target} HTTP/1.1".encode()
    assert b"X: y" not in rest


def test_other_urls_are_refused() -> None:
    """A URL of somewhere else is not made one of this daemon's."""
    api = API("http+unix://%2Flxd")
    for url in ("http+unix://%2Flxdother/1.0", "https://example.org/1.0"):
        with pytest.raises(ValueError, match="is no URL of the daemon at"):
            api.format_url(url)


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({"a": 1, "b": None}, "?a=1"),
        ({"a": ["x", None, "y"]}, "?a=x&a=y"),
        ([("a", "1"), ("a", "2")], "?a=1&a=2"),
        ({"filter": "name eq é&"}, "?filter=name+eq+%C3%A9%26"),
        ("a=b c", "?a=b%20c"),
        ({}, ""),
        ({"a": None}, ""),
    ],
)
def test_params(serve: Serve, params: Any, query: str) -> None:  # noqa: ANN401
    """Parameters become a query as in requests."""
    daemon = serve(always(says(HELLO)))
    with API.factory(daemon.path) as api:
        result = api.get("x", params=params)
        assert result.request.url == f"{api.endpoint}/1.0/x{query}"
        assert api.get("x?z=1", params={"a": 1}).request.url.endswith("/x?z=1&a=1")
    assert daemon.served[0].received.startswith(f"GET /1.0/x{query} HTTP".encode())


def test_headers(serve: Serve) -> None:
    """Headers replace ours whatever their case, None leaves one out, odd bytes arrive as sent."""
    daemon = serve(takes(says(HELLO)))
    odd = {"content-type": "x/y", "User-Agent": None, "X-Odd": b"\xe9", "X-Text": "é", "X-1": 1}
    with API.factory(daemon.path) as api:
        api.post("x", json={}, headers=odd)
        with pytest.raises(ValueError, match="header"):
            api.get("x", headers={"X-Bad": "a\r\nX-Worse: b"})
    head = bytes(daemon.served[0].received).lower()
    assert head.count(b"content-type: ") == 1
    assert b"content-type: x/y\r\n" in head
    assert "x-text: é\r\n".encode() in head
    assert b"lxdtap/" not in head
    assert b"x-1: 1" in head
    assert not any(b"Worse" in served.received for served in daemon.served)


class Odd:
    """Something like a file, of which the length is not known."""

    def __init__(self) -> None:
        self._left = [b"one", b"two"]

    def read(self, _size: int) -> bytes:
        return self._left.pop(0) if self._left else b""


@pytest.mark.parametrize(
    ("data", "sent", "header"),
    [
        (b"bytes", b"bytes", b"Content-Length: 5"),
        ("té", "té".encode(), b"Content-Length: 3"),
        (bytearray(b"ab"), b"ab", b"Content-Length: 2"),
        (io.BytesIO(b"file" * 100_000), b"file" * 100_000, b"Content-Length: 400000"),
        (io.StringIO("té"), "té".encode(), b"Transfer-Encoding: chunked"),
        (Odd(), b"onetwo", b"Transfer-Encoding: chunked"),
        (iter([b"a", b"", "b", bytearray(b"c")]), b"abc", b"Transfer-Encoding: chunked"),
        ([b"a", b"b"], b"ab", b"Transfer-Encoding: chunked"),
        ({"a": "x y", "b": [1, 2]}, b"a=x+y&b=1&b=2", b"application/x-www-form-urlencoded"),
        ([("a", "1"), ("a", "2")], b"a=1&a=2", b"application/x-www-form-urlencoded"),
        (io.BytesIO(b""), b"", b"Content-Length: 0"),
    ],
)
def test_data(serve: Serve, data: Any, sent: bytes, header: bytes) -> None:  # noqa: ANN401
    """What data may be, and how it is sent."""
    daemon = serve(takes(says(HELLO)))
    with API.factory(daemon.path) as api:
        api.post("images", data=data)
    assert content(daemon.served[0]) == sent
    assert header in bytes(daemon.served[0].received)
    assert b"octet-stream" not in bytes(daemon.served[0].received)  # as in requests


def test_a_file_is_sent_from_where_it_stands(serve: Serve, tmp_path: Path) -> None:
    """As in requests: what was read of a file is not sent."""
    daemon = serve(takes(says(HELLO)))
    (tmp_path / "file").write_bytes(b"0123456789")
    with API.factory(daemon.path) as api, (tmp_path / "file").open("rb") as file:
        file.seek(4)
        api.post("images", data=file)
    assert content(daemon.served[0]) == b"456789"


def test_data_that_cannot_be_sent(serve: Serve) -> None:
    """What cannot be sent is refused with its reason, and nothing is left of the call."""
    daemon = serve(takes(says(HELLO)))

    class Shrunk(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return super().seek(offset, whence) + (10 if whence else 0)

    def fails() -> Iterator[bytes]:
        yield b"x"
        raise LookupError("no more")

    with API.factory(daemon.path) as api:
        for data, error, words in (
            (5, TypeError, "data is int"),
            (iter([b"x", 5]), TypeError, "a piece of the body is int"),
            (Shrunk(b"abc"), ValueError, "ended 10 bytes before its length"),
            (fails(), LookupError, "no more"),
        ):
            with pytest.raises(error, match=words):
                api.post("x", data=data)
        with pytest.raises(TypeError, match="not both"):
            api.post("x", data=b"", json={})
        with pytest.raises(ValueError, match="JSON"):
            api.post("x", json={"x": float("nan")})
        assert api.get("x").data == HELLO
    assert not any(served.received.endswith(b"0\r\n\r\n") for served in daemon.served)


# -- what comes back


@pytest.mark.parametrize(
    ("body", "data"),
    [(b"[1]", [1]), (b'"x"', "x"), (b"null", None), (b"{", None), (b"", None), (b"\xff", None)],
)
def test_json_that_is_no_envelope(serve: Serve, body: bytes, data: object) -> None:
    """Whatever the JSON is, it is the data, and it has no metadata."""
    daemon = serve(always(answer(body)))
    with API.factory(daemon.path) as api:
        result = api.get("x")
        assert result.data == data
        assert result.metadata is None
        assert result.wait() is result
        assert result.response.content == body


def test_gzip(serve: Serve) -> None:
    """A compressed answer is read; what is no gzip although it says so breaks off."""
    body = gzip.compress(json.dumps(HELLO).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    with API.factory(serve(always(head + body)).path) as api:
        assert api.get("x").data == HELLO
    with API.factory(serve(always(head + bytes(len(body)))).path) as api:
        with pytest.raises(APIConnectionError):
            api.get("x")


def test_large_head(serve: Serve) -> None:
    """A header of 500 KB is read."""
    head = b"HTTP/1.1 200 OK\r\nX-Large: " + b"x" * 500_000 + b"\r\nContent-Length: 0\r\n\r\n"
    with API.factory(serve(always(head)).path) as api:
        assert len(api.get("x").response.headers["X-Large"]) == 500_000


@pytest.mark.parametrize("stream", [False, True])
def test_errors(serve: Serve, stream: bool) -> None:
    """An error raises with the daemon's words, streamed or not; 404 has its own exception."""
    envelope = {"type": "error", "error": "Instance not found", "error_code": 404}
    with API.factory(serve(always(says(envelope, "404 Not Found"))).path) as api:
        with pytest.raises(APINotFoundException) as raised:
            api.get("instances/c1", stream=stream)
        assert str(raised.value) == f"GET {api.endpoint}/1.0/instances/c1 Instance not found"
        assert raised.value.error == "Instance not found"
        assert raised.value.result.response.status_code == 404
        again = pickle.loads(pickle.dumps(raised.value))
        assert (type(again), str(again)) == (APINotFoundException, str(raised.value))
        assert again.result.data == envelope
        assert again.result.transaction == raised.value.result.transaction is not None
        with pytest.raises(RuntimeError, match="pickled"):
            again.result.wait()


def test_failure_behind_200(serve: Serve) -> None:
    """An operation's failure raises although the answer is 200."""
    failed = {"status_code": 400, "err": "exit status 1", "status": "Failure"}
    envelope = {"type": "sync", "status_code": 200, "error": "", "metadata": failed}
    with API.factory(serve(always(says(envelope))).path) as api:
        with pytest.raises(APIException, match=r"/wait exit status 1$"):
            api.get("operations/1/wait")


def test_wait(serve: Serve) -> None:
    """wait() asks LXD for so many whole seconds, in the operation's project."""
    envelope = {"type": "async", "operation": "/1.0/operations/u?project=p", "metadata": {}}
    daemon = serve(takes(says(envelope, "202 Accepted")))
    with API.factory(daemon.path) as api:
        result = api.put("instances/c1/state", json={"action": "stop"})
        for seconds in (None, 7, 0.5, -1, 1e6):
            result.wait(seconds)
        result.wait(timeout=float("inf"))
    asked = [bytes(s.received).split()[1].decode() for s in daemon.served[1:]]
    waits = ["30", "7", "1", "-1", "1000000", "-1"]
    assert asked == [f"/1.0/operations/u/wait?timeout={each}&project=p" for each in waits]


def test_every_early_end(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that dies after any byte of its answer: an error that says so, and DEBUG text."""
    whole = says(HELLO)
    ends = iter(range(len(whole)))

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(whole[: next(ends)])

    with API.factory(serve(script).path, debug=True) as api:
        for _ in whole:
            with pytest.raises(APIConnectionError, match="the daemon closed the connection"):
                api.get("x")
        assert next(ends, None) is None, "a request was sent again"
    blocks = debugformat.parse(capsys.readouterr().out)
    assert len(blocks) == len(whole)
    assert all("closed" in f"{block.outcome}{block.remarks}" for block in blocks)


def test_upload_answered_early(serve: Serve) -> None:
    """A daemon may answer before it has read all, and hang up: its words are what is raised."""
    refused = says({"type": "error", "error": "too large", "error_code": 413}, "413 Too Large")

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(refused)

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 16)

    with API.factory(serve(script).path) as api:
        for data in (endless(), io.BytesIO(bytes(32 << 20)), bytes(8 << 20)) * 5:
            with pytest.raises(APIException, match="too large"):
                api.post("images", data=data)


@pytest.mark.parametrize(
    "module", ["common", "body", "endpoints", "exchange", "result", "synchronous", "asynchronous"]
)
def test_docstrings(module: str) -> None:
    """The examples in docstrings are true."""
    assert not doctest.testmod(importlib.import_module(f"lxdtap.api.{module}")).failed


def test_every_public_name_has_an_example() -> None:
    """Whoever asks for help is shown how."""
    for name in lxdtap.api.__all__:
        assert "Example:" in (getattr(lxdtap.api, name).__doc__ or ""), name


# -- no daemon


@pytest.mark.parametrize(
    "spelling", ["{}", "{}/", "unix:{}", "unix://{}", "http+unix://{quoted}", "{directory}"]
)
def test_endpoints(serve: Serve, spelling: str) -> None:
    """All spellings of a socket mean the same daemon."""
    daemon = serve(always(says(HELLO)))
    quoted = daemon.path.replace("/", "%2F")
    endpoint = spelling.format(daemon.path, quoted=quoted, directory=daemon.directory)
    for api in (API.factory(endpoint), API(endpoint)):
        assert api.endpoint == f"http+unix://{quoted}"
        assert api.get("").data == HELLO
        api.close()


def test_missing_socket(tmp_path: Path) -> None:
    """A path that does not exist is a RuntimeError, in the words that programs know."""
    with pytest.raises(RuntimeError, match=f"Socket {tmp_path}/none does not exist"):
        API.factory(f"{tmp_path}/none")
    for odd in ("unix:", "unix://", "http+unix://", "ftp://host", "none", ""):
        with pytest.raises(NoDaemonError, match="no daemon is at"):
            API.factory(odd)


def test_daemon_that_left(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens any more: a connection error that says so, and shown as no word of LXD's."""
    daemon = serve(always(says(HELLO)))
    daemon.close()
    with API.factory(daemon.path, debug=True) as api:
        with pytest.raises(APIConnectionError, match="cannot be asked: no daemon listens at"):
            api.get("x")
    assert "# answered by lxdtap, not by the daemon" in capsys.readouterr().out


# -- secrets


def test_secrets_are_not_shown(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """No message, no text and no repr holds a credential that was in a URL or a body."""
    scripts: list[Script] = [
        always(answer(f"secret={SECRET}".encode(), "500 Bad", kind="text/plain")),
        always(says({"type": "error", "password": SECRET}, "400 Bad")),
        always(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"),
        always(b"no HTTP\r\n\r\n"),
        leaves,
        silent,
    ]
    for script in scripts:
        for stream in (False, True):
            with API.factory(serve(script).path, debug=True) as api:
                with pytest.raises(  # noqa: PT012 - whichever of both it is that raises
                    (APIException, APIConnectionError, TimeoutError)
                ) as raised:
                    result = api.get(f"x?secret={SECRET}", stream=stream, timeout=0.1)
                    assert SECRET not in repr(result)
                    assert isinstance(result, APIStream)
                    list(result.iter_content())
                assert "REDACTED-1" in str(raised.value)
                assert SECRET not in str(raised.value)
                chain = (raised.value.__cause__, raised.value.__suppress_context__)
                assert chain in ((None, True), (None, False))
                assert chain[1] or raised.value.__context__ is None
    shown = capsys.readouterr().out
    assert "REDACTED-1" in shown
    assert SECRET not in shown


def test_echoed_secret(serve: Serve) -> None:
    """Nor does a message where the daemon's words repeat it."""
    envelope = {"type": "error", "error": f"bad {SECRET}"}
    with API.factory(serve(always(says(envelope, "400 Bad"))).path) as api:
        with pytest.raises(APIException, match=r"\?secret=REDACTED-1 bad REDACTED-1$"):
            api.get(f"x?secret={SECRET}")


def test_secrets_on_demand(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """show_secrets shows them."""
    with API.factory(serve(always(says(HELLO))).path, debug=True, show_secrets=True) as api:
        api.get(f"x?secret={SECRET}")
    assert SECRET in capsys.readouterr().out


# -- DEBUG text


def test_debug_by_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """DEBUG turns the text on, the argument has the last word."""
    path = serve(always(says(HELLO))).path
    for value, argument, shown in (("", None, 0), ("1", None, 1), ("1", False, 0), ("", True, 1)):
        monkeypatch.setenv("DEBUG", value)
        output = io.StringIO()
        with API.factory(path, debug=argument, output=output) as api:
            api.get("x")
        assert bool(output.getvalue()) == shown


def test_debug_cannot_be_printed(serve: Serve) -> None:
    """An output that takes no é, or nothing at all, fails no call."""
    path = serve(always(says({"é": 1}))).path
    raw = io.BytesIO()
    with API.factory(path, debug=True, output=io.TextIOWrapper(raw, "ascii")) as api:
        assert api.get("x").data == {"é": 1}
        assert b"\\xe9" in raw.getvalue()
    closed = io.StringIO()
    closed.close()
    with API.factory(path, debug=True, output=closed) as api:
        assert api.get("x").data == {"é": 1}


def test_debug_of_what_goes_on(serve: Serve) -> None:
    """What has no answer for a second is shown while it is waited for, as by the tap."""
    waiting, output = Silent(says(HELLO)), io.StringIO()
    with API.factory(serve(waiting).path, debug=True, output=output) as api:
        call = threading.Thread(target=api.get, args=("x",))
        call.start()
        eventually(lambda: "open for" in output.getvalue())
        waiting.set()
        call.join()
    assert [block.outcome[:8] for block in debugformat.parse(output.getvalue())] == [
        "open for",
        "HTTP/200",
    ]


# -- timeouts


def test_timeout(serve: Serve) -> None:
    """timeout= ends a call for which nothing comes; its message says which, the API goes on."""
    with API.factory(serve(silent).path) as api:
        begun = time.monotonic()
        for timeout in (0.2, (0.2, 0.1)):
            with pytest.raises(TimeoutError, match=r"^GET .*/1.0/x was given up: nothing happened"):
                api.get("x", timeout=timeout)
        assert time.monotonic() - begun < 2


def test_timeout_is_for_silence(serve: Serve) -> None:
    """What goes on is not ended, however long it takes, in either direction."""

    def slowly(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"0\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(5):
            time.sleep(0.15)
            sock.sendall(b"x")

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            time.sleep(0.4)
            yield b"x"

    with API.factory(serve(slowly).path) as api:
        assert api.post("x", data=pieces(), timeout=0.3).response.content == b"xxxxx"
        result = api.post("x", data=pieces(), timeout=0.3, stream=True)
        assert isinstance(result, APIStream)
        assert b"".join(result.iter_content()) == b"xxxxx"


# -- streams and memory

WEIGH = """
import hashlib, os, resource, sys
from lxdtap.api import API
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
how, path = sys.argv[1:]
api = API.factory(path)
api.get("warm")
resource.getrusage(resource.RUSAGE_SELF)
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted anew
before = rss()
if how == "file":
    digest = api.post("up", data=open(os.path.dirname(path) + "/large", "rb")).metadata
elif how == "generator":
    digest = api.post("up", data=(bytes(1 << 20) for _ in range(1024))).metadata
else:
    hashed = hashlib.sha256()
    with api.get("down", stream=True) as stream:
        for piece in stream.iter_content(1 << 18):
            hashed.update(piece)
    digest = hashed.hexdigest()
peak = next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]
print(digest, int(peak) * 1024 - before)
"""


GIB = 1 << 30


def dechunked(reader: io.BufferedReader[Any]) -> Iterator[bytes]:
    """The chunks of a body, as they come."""
    while size := int(reader.readline(), 16):
        yield reader.read(size)
        reader.readline()


def large(sock: socket.socket, served: Served) -> None:
    """A script that takes a GiB, and tells its SHA-256, or gives one."""
    sock.settimeout(60)
    reader = io.BufferedReader(socket.SocketIO(sock, "r"), 1 << 20)
    head = b"".join(iter(reader.readline, b"\r\n"))
    got = hashlib.sha256()
    if b"/down" in head:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
        for _ in range(GIB >> 20):
            sock.sendall(bytes(1 << 20))
    elif b"chunked" in head:
        for chunk in dechunked(reader):
            got.update(chunk)
    elif b"/up" in head:
        for _ in range(GIB >> 20):
            got.update(reader.read(1 << 20))
    sock.sendall(says({"type": "sync", "metadata": got.hexdigest()}))
    served.over = True


@pytest.mark.parametrize("how", ["file", "generator", "download"])
def test_memory(serve: Serve, how: str) -> None:
    """A GiB goes up or comes down whole, in less than 48 MiB."""
    hashed = hashlib.sha256()
    for _ in range(GIB >> 20):
        hashed.update(bytes(1 << 20))
    daemon = serve(large)
    with (daemon.directory / "large").open("wb") as file:
        file.truncate(GIB)
    done = subprocess.run(
        [sys.executable, "-c", WEIGH, how, daemon.path],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=100,
    )
    assert not done.stderr
    digest, grown = done.stdout.split()
    assert digest == hashed.hexdigest()
    assert int(grown) < 48 << 20


def test_stream_left_early(serve: Serve) -> None:
    """A stream may be closed, or let go, before its end; the daemon's side ends with it."""

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(bytes(1 << 16))
        served.over = True

    daemon = serve(script)
    with API.factory(daemon.path) as api:
        with api.get("x", stream=True) as stream:
            assert isinstance(stream, APIStream)
            assert len(next(stream.iter_content(10))) == 10
        assert stream.transaction is not None
        assert stream.transaction.broken
        stream = api.get("x", stream=True)
        del stream
        gc.collect()
        eventually(lambda: len(daemon.served) == 2 and all(s.over for s in daemon.served))


def test_stream_that_breaks_off(serve: Serve) -> None:
    """A stream without its end is an error, in the same words as elsewhere."""
    daemon = serve(always(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nxx"))
    with API.factory(daemon.path) as api:
        stream = api.get("x", stream=True)
        with pytest.raises(APIConnectionError, match="the daemon closed the connection in the ans"):
            list(stream.iter_content())
        assert stream.transaction is not None


def test_stream_outlives_close(serve: Serve) -> None:
    """A stream whose API was closed says so."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(head)
        served.over = not sock.recv(1)

    api = API.factory(serve(script).path)
    stream = api.get("x", stream=True)
    assert isinstance(stream, APIStream)
    assert pickle.loads(pickle.dumps(stream)).response.status_code == 200
    api.close()
    with pytest.raises(APIConnectionError, match="closed"):
        list(stream.iter_content())
    stream.close()


# -- threads, forks, loops, signals


def test_fifty_threads(serve: Serve) -> None:
    """One API serves fifty threads at once."""
    waiting = Silent(says(HELLO))
    daemon, results = serve(waiting), []
    with API.factory(daemon.path, debug=True, output=io.StringIO()) as api:
        threads = [
            threading.Thread(target=lambda n=n: results.append((n, api.get(f"x{n}"))))
            for n in range(50)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.asked.acquire(timeout=PATIENCE)
        waiting.set()
        for thread in threads:
            thread.join()
    assert sorted(n for n, _ in results) == list(range(50))
    assert all(r.request.url.endswith(f"/x{n}") and r.data == HELLO for n, r in results)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_during_a_call(serve: Serve) -> None:
    """A process forked while another thread's call is under way has calls of its own."""
    waiting = Silent(says(HELLO))
    daemon = serve(waiting)
    with API.factory(daemon.path) as api:
        call = threading.Thread(target=api.get, args=("parent",))
        call.start()
        assert waiting.asked.acquire(timeout=PATIENCE)
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = 0 if api.get("child", timeout=5).data == HELLO else 2
                api.close()
            os._exit(status)
        assert waiting.asked.acquire(timeout=PATIENCE)
        waiting.set()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        call.join(PATIENCE)
        assert not call.is_alive()
        assert api.get("again").data == HELLO


def test_fork_with_an_open_stream(serve: Serve) -> None:
    """A fork that ends as programs do takes nothing from its parent, whose stream goes on."""
    program = """
import gc, os, sys
from lxdtap.api import API
stream = API.factory(sys.argv[1]).get("x", stream=True)
pieces = stream.iter_content(1000)
size = len(next(pieces))
if os.fork() == 0:
    del stream, pieces
    gc.collect()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
print(size + sum(map(len, pieces)))
"""
    daemon = serve(always(answer(bytes(8 << 20))))
    done = subprocess.run(
        [sys.executable, *STRICT, "-c", program, daemon.path],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=20,
    )
    assert (done.stdout, done.stderr) == (f"{8 << 20}\n", "")


def test_close_during_a_call(serve: Serve) -> None:
    """close() ends the calls of other threads with a connection error, and the next call works."""
    daemon = serve(silent)
    api, raised = API.factory(daemon.path), []

    def call() -> None:
        try:
            api.get("x")
        except APIConnectionError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    eventually(lambda: len([s for s in daemon.served if s.received]) == 5)
    api.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(raised) == 5
    assert all("lxdtap was stopped" in text or "closed" in text for text in raised)
    eventually(lambda: all(served.over for served in daemon.served))
    with pytest.raises(TimeoutError):
        api.get("x", timeout=0.1)
    api.close()


def test_inside_a_running_loop(serve: Serve) -> None:
    """The synchronous API works where an event loop runs, as in a notebook."""

    async def main() -> object:
        with API.factory(serve(always(says(HELLO))).path) as api:
            return api.get("x").data

    assert asyncio.run(main()) == HELLO


def test_let_go(serve: Serve) -> None:
    """An API that is let go takes its thread and its descriptors with it."""
    path = serve(always(says(HELLO))).path
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        API.factory(path).get("x")
        gc.collect()
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


PROGRAMS = {
    "nothing closed": "API.factory(path).get('x')\napi = API.factory(path)\napi.get('x')",
    "an open stream": "s = API.factory(path).get('x', stream=True)\nnext(s.iter_content(1))",
    "a stream let go": "import gc\nAPI.factory(path).get('x', stream=True)\ngc.collect()",
    "closed": "with API.factory(path) as api: api.get('x')",
    "closed twice": "api = API.factory(path)\napi.get('x')\napi.close()\napi.close()",
    "refused": """
import os, socket
sock = socket.socket(socket.AF_UNIX); sock.bind(path + '2'); sock.close()
try:
    with API.factory(path + '2') as api: api.get('x')
except APIConnectionError: pass
""",
    "a call in a thread": """
import threading, time
api = API.factory(path)
threading.Thread(target=api.get, args=('never',), daemon=True).start()
time.sleep(0.2)
""",
    "a fork": """
import os
api = API.factory(path); api.get('x')
if os.fork() == 0:
    api.get('x')
else:
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
""",
    "a fork that calls nothing": """
import os
api = API.factory(path); s = api.get('x', stream=True)
if os.fork() != 0:
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
""",
    "two loops": """
import asyncio
api = AsyncAPI.factory(path)
async def main():
    await api.get('x')
asyncio.run(main()); asyncio.run(main())
""",
    "an open stream in a loop": """
import asyncio
async def main():
    async with AsyncAPI.factory(path) as api:
        s = await api.get('x', stream=True)
        async for piece in s.iter_content(): break
asyncio.run(main())
""",
    "an upload that never ends": """
import threading, time
api = API.factory(path)
def never():
    time.sleep(100); yield b''
threading.Thread(target=api.post, args=('x',), kwargs={'data': never()}, daemon=True).start()
time.sleep(0.2)
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_end(serve: Serve, name: str) -> None:
    """A program ends by itself, at once and in silence, whatever it left open, with -W error."""

    def script(sock: socket.socket, served: Served) -> None:
        asked = read_until(sock, served, b"\r\n\r\n")
        if b"never" in asked:
            silent(sock, served)
        sock.sendall(says({"x": "x" * 500_000}))

    begun = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, *STRICT, "-c"),
            "import sys\nfrom lxdtap.api import *\npath = sys.argv[1]\n" + PROGRAMS[name],
            serve(script).path,
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=20,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begun < 10


@contextlib.contextmanager
def _killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever becomes of the test, it is not waited for."""
    try:
        yield
    finally:
        process.kill()


INTERRUPTED = {
    "get": "API.factory(path).get('x')",
    "debug": "API.factory(path, debug=True).get('x')",
    "post": "API.factory(path).post('x', data=sys.stdin.buffer)",
    "with": "with API.factory(path) as api: api.post('x', data=(time.sleep(99) for _ in 'x'))",
    "asyncio": "asyncio.run(AsyncAPI.factory(path).get('x'))",
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_interrupt(serve: Serve, name: str) -> None:
    """Ctrl-C ends a call within a second, its connection too, and the program as it should."""
    daemon = serve(silent)
    program = "import asyncio, sys, time\nfrom lxdtap.api import *\npath = sys.argv[1]\n"
    with (
        subprocess.Popen(
            [sys.executable, *STRICT, "-c", program + INTERRUPTED[name], daemon.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process,
        _killed(process),
    ):
        eventually(lambda: daemon.served, 10)
        time.sleep(0.1)  # a head is sent with the body's first piece
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert time.monotonic() - begun < 1
        eventually(lambda: daemon.served[0].over, 1)
        assert process.stdout is not None
        assert process.stderr is not None
        shown, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in said
    assert ("no answer" in shown) == (name == "debug")


def test_interrupted_and_used_again(serve: Serve) -> None:
    """A call that was interrupted leaves nothing, and the API goes on; a stream likewise."""

    def script(sock: socket.socket, served: Served) -> None:
        asked = read_until(sock, served, b"\r\n\r\n")
        if b"never" in asked:
            silent(sock, served)
        if b"stream" in asked:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
            silent(sock, served)
        sock.sendall(says(HELLO))

    def rings(_number: int, _frame: object) -> None:
        raise InterruptedError("the bell")

    before = signal.signal(signal.SIGALRM, rings)
    daemon = serve(script)
    try:
        with API.factory(daemon.path) as api:
            api.get("x")
            descriptors = len(os.listdir("/proc/self/fd"))
            for call in (lambda: api.get("never"), lambda: stream(api)):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(InterruptedError, match="the bell"):
                    call()
                assert api.get("x").data == HELLO
            eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    finally:
        signal.signal(signal.SIGALRM, before)


def stream(api: API) -> bytes:
    return b"".join(api.get("stream", stream=True).iter_content())


# -- asyncio


def test_async(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The same with await, from several tasks at once, with streams both ways."""

    async def main(path: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"a", b"", b"b"):
                await asyncio.sleep(0)
                yield piece

        async with AsyncAPI.factory(path, debug=True) as api:
            results = await asyncio.gather(*(api.get(f"x{n}") for n in range(20)))
            assert all(result.data == HELLO for result in results)
            assert await results[0].wait() is results[0]
            await api.post("up", data=pieces())
            await api.put("up", data=io.BytesIO(b"ab"))
            await api.patch("up", json={})
            await api.delete("up")
            stream = await api.get("x", stream=True)
            assert isinstance(stream, AsyncAPIStream)
            async with stream:
                assert json.loads(b"".join([p async for p in stream.iter_content()])) == HELLO
            assert stream.transaction is not None

    daemon = serve(takes(says(HELLO)))
    asyncio.run(main(daemon.path))
    assert len(debugformat.parse(capsys.readouterr().out)) == 25
    assert content(daemon.served[20]) == b"ab"


def test_async_in_two_loops(serve: Serve) -> None:
    """One AsyncAPI serves one loop after another."""
    api = AsyncAPI.factory(serve(always(says(HELLO))).path)
    for _ in range(2):
        assert asyncio.run(api.get("x")).data == HELLO


def test_async_cancelled(serve: Serve) -> None:
    """A call that is cancelled is over at once, on the wire too; so is one with a timeout."""
    daemon = serve(silent)

    async def main() -> None:
        async with AsyncAPI.factory(daemon.path) as api:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await api.get("x")
            with pytest.raises(TimeoutError, match="was given up"):
                await api.get("x", timeout=0.1)
            call = asyncio.ensure_future(api.get("x"))
            await asyncio.sleep(0.1)
            await api.aclose()
            with pytest.raises(APIConnectionError):
                await call

    asyncio.run(main())
    eventually(lambda: len(daemon.served) == 3 and all(s.over for s in daemon.served))
