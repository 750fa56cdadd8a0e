"""The API against real daemons, and beside the tap: the same text, the same words."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import lxdtap.api
from lxdtap import API, APIException, APINotFoundException, AsyncAPI
from lxdtap.api import AsyncAPIStream
from lxdtap.log import debugformat

from .throwaway import Daemon

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
VARYING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[0-9:.]+[^\"]*"
    r"|(?m:^open for .*\n=+\n)"
)
"""Ids and times."""


@pytest.fixture
def api(daemon: Daemon) -> API:
    """An API for each daemon."""
    return API.factory(str(daemon.socket), debug=True)


def stop_text(shown: str) -> str:
    """The block of the PUT, ids and times aside."""
    [block] = [each for each in shown.split(f"{debugformat.SEPARATOR}\n") if each[:3] == "PUT"]
    return VARYING.sub("…", block)


PROGRAM = """
from lxdtap import API
api = API.factory()
api.default_timeout = 60
api.put("instances/w1/state", json={"action": "start", "timeout": 30}).wait()
api.put("instances/w1/state", json={"action": "stop", "timeout": 30, "force": True}).wait()
"""


def test_text_of_a_stop(daemon: Daemon, api: API, capfd: pytest.CaptureFixture[str]) -> None:
    """The document's PUT: the API and the tap show it in the same words, tabs and order."""
    daemon.run("init", "bb", "w1")
    try:
        start = {"action": "start", "timeout": 30}
        api.put("instances/w1/state", json=start).wait()
        capfd.readouterr()
        stop = {"action": "stop", "timeout": 30, "force": True}
        result = api.put("instances/w1/state", json=stop)
        ours = stop_text(capfd.readouterr().out)
        result.wait()
        tapped = subprocess.run(
            [sys.executable, "-m", "lxdtap", "run", "--", sys.executable, "-c", PROGRAM],
            env=daemon.environment | daemon.directions,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert tapped.returncode == 0, tapped.stderr
        blocks = tapped.stderr.split(f"{debugformat.SEPARATOR}\n")
        [theirs] = [stop_text(each) for each in blocks if '"stop"' in each and each[:3] == "PUT"]
        assert ours == theirs
        assert ours.startswith(
            f"PUT {api.endpoint}/1.0/instances/w1/state\n"
            '{\n\t"action": "stop",\n\t"timeout": 30,\n\t"force": true\n} HTTP/202\n'
            '{\n\t"type": "async"'
        )
        assert result.transaction is not None
    finally:
        api.close()
        daemon.reset()


def test_start_that_fails(daemon: Daemon, api: API, capfd: pytest.CaptureFixture[str]) -> None:
    """The document's example: the exception has the wait's URL and the daemon's words."""
    daemon.run("init", "bb", "w1")
    daemon.run("config", "set", "w1", "raw.lxc=lxc.hook.mount=/bin/false")
    try:
        result = api.put("instances/w1/state", json={"action": "start", "timeout": 30})
        with pytest.raises(APIException) as raised:
            result.wait()
        operation = result.data["operation"].partition("?")[0]
        message = str(raised.value)
        assert message.startswith(f"GET {api.endpoint}{operation}/wait?timeout=30 ")
        assert "forkstart" in raised.value.error
        assert message.endswith(raised.value.error)
        assert raised.value.result.response.status_code == 200
        shown = capfd.readouterr().out
        assert f"GET {api.endpoint}{operation}/wait?timeout=30 HTTP/200\n{{\n\t" in shown
        assert "forkstart" in shown
    finally:
        api.close()
        daemon.reset()


def test_what_is_not_there(api: API) -> None:
    """404 has its own exception, with LXD's words."""
    with api, pytest.raises(APINotFoundException, match=r"nstance not found$"):
        api.get("instances/nonesuch")


def test_head_and_headers(api: API) -> None:
    """HEAD, an ETag that is stale, a query, a whole URL."""
    with api:
        with pytest.raises(APIException, match=r"HTTP/501$"):
            api.head("")
        etag = api.get("instances/c1").response.headers["ETag"]
        config = {"config": {"user.color": "blue"}}
        api.patch("instances/c1", json=config, headers={"If-Match": etag}).wait()
        with pytest.raises(APIException) as raised:
            api.patch("instances/c1", json=config, headers={"If-Match": etag})
        assert raised.value.result.response.status_code == 412
        api.patch("instances/c1", json={"config": {"user.color": ""}}).wait()
        names = api.get("instances", params={"recursion": 1, "filter": "name eq c1"}).metadata
        assert [each["name"] for each in names] == ["c1"]
        assert api.get(api.format_url("instances")).metadata == ["/1.0/instances/c1"]


def test_image(daemon: Daemon, api: API, tmp_path: Path) -> None:
    """An image goes up from a file and from an iterable, and comes down as a stream."""
    path, fingerprint = daemon.spare.unified, daemon.spare.fingerprint
    try:
        with path.open("rb") as file:
            assert (
                api.post("images", data=file).wait().metadata["metadata"]["fingerprint"]
                == fingerprint
            )
        api.delete(f"images/{fingerprint}").wait()
        data = path.read_bytes()
        pieces = (data[at : at + 10_000] for at in range(0, len(data), 10_000))
        api.post("images", data=pieces).wait()
        with (
            api.get(f"images/{fingerprint}/export", stream=True) as image,
            (tmp_path / "image").open("wb") as copy,
        ):
            for piece in image.iter_content():
                copy.write(piece)
        assert (tmp_path / "image").read_bytes() == data
        assert image.transaction is not None
        assert image.transaction.response is not None
        assert image.transaction.response.body.sha256 == fingerprint
    finally:
        api.close()
        daemon.reset()


def test_file(api: API) -> None:
    """A file goes into an instance and comes back."""
    with api:
        headers = {"X-LXD-type": "file", "X-Incus-type": "file"}
        api.post("instances/c1/files", params={"path": "/tmp/x"}, data=b"\0\xff", headers=headers)
        result = api.head("instances/c1/files", params={"path": "/tmp/x"})
        assert result.response.content == b""
        result = api.get("instances/c1/files", params={"path": "/tmp/x"})
        assert result.response.content == b"\0\xff"
        assert result.data is None
        api.delete("instances/c1/files?path=/tmp/x")


def test_async(daemon: Daemon) -> None:
    """The same with await: operations at once, a failure, a stream."""

    async def main() -> None:
        async with AsyncAPI.factory(str(daemon.socket)) as api:
            source = {"type": "image", "alias": "bb"}
            made = await asyncio.gather(
                *(api.post("instances", json={"name": f"w{n}", "source": source}) for n in (1, 2))
            )
            await asyncio.gather(*(each.wait(60) for each in made))
            with pytest.raises(APINotFoundException):
                await api.get("instances/w3")
            result = await api.put("instances/w1/state", json={"action": "start"})
            await result.wait(timeout=60)
            export = f"images/{daemon.image.fingerprint}/export"
            image = await api.get(export, stream=True)
            assert isinstance(image, AsyncAPIStream)
            hashed = hashlib.sha256()
            async for piece in image.iter_content():
                hashed.update(piece)
            assert hashed.hexdigest() == daemon.image.fingerprint

    try:
        asyncio.run(main())
    finally:
        daemon.reset()


def shortcuts() -> ModuleType:
    """The example program, as a module."""
    spec = importlib.util.spec_from_file_location("shortcuts", EXAMPLES / "shortcuts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_blocks() -> Iterator[str]:
    """The code in the API's docstrings that needs a daemon."""
    for path in sorted(Path(lxdtap.api.__file__).parent.glob("*.py")):
        for text in path.read_text().split(".. code-block:: python\n")[1:]:
            lines = text.split("\n")[1:]
            depth = len(lines[0]) - len(lines[0].lstrip())
            ends = next(n for n, x in enumerate(lines) if x.strip() and not x[:depth].isspace())
            yield textwrap.dedent("\n".join(lines[:ends])).partition('"""')[0]


BLOCKS = list(code_blocks())


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_examples_in_docstrings(
    lxd: Daemon, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example in the API's docstrings runs as it stands, but for an image's fingerprint."""
    (tmp_path / "image.tar.gz").write_bytes(lxd.spare.unified.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LXD_SOCKET", str(lxd.socket))
    names = {**vars(lxdtap.api), "file": io.BytesIO()}
    program = textwrap.indent(block.replace("images/…", f"images/{lxd.image.fingerprint}"), "    ")
    keyword, kind = ("async ", "AsyncAPI") if "await" in program else ("", "API")
    exec(f"{keyword}def example(api):\n{program}", names)
    helpers = shortcuts()
    with API.factory(str(lxd.socket)) as api:
        try:
            change = helpers.container_stopped if '"start"' in block else helpers.container_started
            change(api, "c1")
            done = names["example"](getattr(lxdtap, kind).factory(str(lxd.socket)))
            if keyword:
                asyncio.run(done)
        finally:
            helpers.container_started(api, "c1")
            lxd.reset()


def test_shortcuts(daemon: Daemon) -> None:
    """The example does all its steps twice, and leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "shortcuts.py", daemon.spare.unified],
        env=daemon.environment | daemon.directions,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.stdout, done.stderr) == ("Running\ndeleted\n", "")
    assert daemon.state() == daemon.base
