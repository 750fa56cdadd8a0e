"""The docs do not lag behind the code: what there is, is told of; what is shown, works.

A ``python`` block in README or docs that imports lxdtap is run, each by itself, in front of a
daemon that has an instance c1; where a ``text`` block follows it, that is what it prints. Others
are fragments, and are compiled.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import itertools
import json
import pkgutil
import re
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import lxdtap
from lxdtap import api, cli, endpoint
from lxdtap.errors import LxdtapError

from .tap import LXDTAP, Served, answer, environment, fake_daemon, read_until, run

ROOT = Path(__file__).parents[2]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
}
REFERENCE = PAGES["docs/api.md"]
MODULES = [
    each.name
    for each in pkgutil.walk_packages(lxdtap.__path__, "lxdtap.")
    if not each.name.endswith("__main__")
]
COMMANDS = cli.main.commands
SECONDS = 60
"""Within which a program that is started ends, however busy the machine is."""


# -- the command line


def options(command: click.Command) -> Iterator[click.Option]:
    return (each for each in command.params if isinstance(each, click.Option))


def mentions(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_told_of(name: str) -> None:
    """One page tells of the command, and of all of its options, long and short."""
    wanted = {spelling for option in options(COMMANDS[name]) for spelling in option.opts}
    lacking = {
        page: {each for each in wanted if not mentions(text, each)}
        for page, text in PAGES.items()
        if f"lxdtap {name}" in text
    }
    assert lacking, f"no page tells of lxdtap {name}"
    nearest = min(lacking, key=lambda page: len(lacking[page]))
    assert not lacking[nearest], nearest


def shown_commands() -> Iterator[tuple[str, str]]:
    """Each ``lxdtap COMMAND …`` in the docs, and its page."""
    for page, text in PAGES.items():
        for match in re.finditer(r"^    (lxdtap .+)|`(lxdtap [^`\n]+)`", text, re.MULTILINE):
            yield page, match[1] or match[2].replace("\\|", "|")


@pytest.mark.parametrize(("page", "line"), sorted(set(shown_commands())))
def test_every_command_that_is_shown_is_one(page: str, line: str) -> None:
    """Its options exist, and take what is given; an argument may be left out in a sentence."""
    words = itertools.takewhile(lambda word: word not in ("|", "2>&1", "…"), shlex.split(line))
    _, name, *arguments = words
    if name.startswith("-"):
        return
    try:
        COMMANDS[name].make_context(name, arguments)
    except (click.MissingParameter, click.exceptions.Exit):
        pass  # the latter is --help's
    except click.UsageError as error:
        pytest.fail(f"{page}: {line}: {error.format_message()}")


def test_every_variable_is_an_options() -> None:
    """Each ``LXDTAP_…`` that the docs name is one that is read."""
    read = {
        option.envvar or f"LXDTAP_{(option.name or '').upper()}"
        for command in COMMANDS.values()
        for option in options(command)
    }
    for page, text in PAGES.items():
        assert set(re.findall(r"LXDTAP_[A-Z_]+", text)) <= read, page


# -- the reference


@pytest.mark.parametrize("name", api.__all__)
def test_every_name_of_the_api_is_in_the_reference(name: str) -> None:
    """And each method of API too, which are listed one by one."""
    assert re.search(rf"^\.\. auto(class|exception):: {name}\b", REFERENCE, re.MULTILINE)
    if name == "API":
        for method, _ in inspect.getmembers(api.API, callable):
            if not method.startswith("_"):
                assert f".. automethod:: API.{method}\n" in REFERENCE, method


def test_every_error_is_in_the_reference() -> None:
    """Wherever it is defined."""
    for module in MODULES:
        importlib.import_module(module)
    errors, found = [LxdtapError], set()
    while errors:
        error = errors.pop()
        if error.__module__.startswith("lxdtap."):
            found.add(error.__name__)
        errors += error.__subclasses__()
    named = re.findall(r"^\.\. autoexception:: (?:\w+\.)*(\w+)", REFERENCE, re.MULTILINE)
    assert found - set(named) == set()


# -- examples

USUAL = "/var/lib/lxd/unix.socket"
"""Where the daemon is in what is shown."""
OPERATION = "/1.0/operations/70eb42bf-5e79-42de-8230-2162e9e8b612"
STOPPING = {
    "id": OPERATION.rpartition("/")[2],
    "class": "task",
    "status": "Running",
    "status_code": 103,
    "may_cancel": False,
    "err": "",
}
ANSWERS: dict[str, dict[str, object]] = {
    "GET /1.0": {"type": "sync", "metadata": {"auth": "trusted"}},
    "GET /1.0/instances": {"type": "sync", "metadata": ["/1.0/instances/c1"]},
    "GET /1.0/images": {"type": "sync", "metadata": ["/1.0/images/bb"]},
    "PUT /1.0/instances/c1/state": {
        "type": "async",
        "status": "Operation created",
        "status_code": 100,
        "operation": OPERATION,
        "metadata": STOPPING,
    },
    f"GET {OPERATION}/wait": {
        "type": "sync",
        "metadata": STOPPING | {"status": "Success", "status_code": 200},
    },
}
MISSING = {"type": "error", "error": "Instance not found", "error_code": 404}


def daemon(sock: socket.socket, served: Served) -> None:
    """Answer one request as LXD would."""
    head = read_until(sock, served, b"\r\n\r\n")
    asked = re.split(rb"[ ?]", head, maxsplit=2)[:2]
    says = ANSWERS.get(b" ".join(asked).decode())
    if says is None:
        sock.sendall(answer(json.dumps(MISSING).encode(), "404 Not Found"))
    else:
        status = "202 Accepted" if says["type"] == "async" else "200 OK"
        sock.sendall(answer(json.dumps(says).encode(), status))


def examples() -> Iterator[tuple[str, str, str | None]]:
    """Each ``python`` block: its page, itself, and what it prints, where that is shown."""
    block = r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    for page, text in PAGES.items():
        for match in re.finditer(block, text, re.MULTILINE | re.DOTALL):
            yield page, match[1], match[2]


@pytest.mark.parametrize(("page", "code", "output"), list(examples()))
def test_examples_run(tmp_path: Path, page: str, code: str, output: str | None) -> None:
    """They run as they stand, and print what is shown."""
    if not re.search(r"^(from|import) lxdtap\b", code, re.MULTILINE):
        compile(code, page, "exec")
        return
    with fake_daemon(tmp_path / "d", daemon) as real:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            env=environment(LXD_DIR=str(real.directory), PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{page}: {done.stderr}"
        if output is not None:
            there, shown = (endpoint.base_url(path) for path in (real.path, USUAL))
            assert done.stdout.replace(there, shown) == output


def test_the_test_that_is_shown(tmp_path: Path) -> None:
    """The first block of pytest.md, recorded and replayed by the lines below it."""
    code, lines = re.findall(
        r"```python\n(.*?)```\n\n((?:    pytest[^\n]*\n)+)", PAGES["docs/pytest.md"], re.DOTALL
    )[0]
    (tmp_path / "test_start.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    record, replay = (shlex.split(line, comments=True)[1:] for line in lines.splitlines())
    python = (sys.executable, "-m", "pytest", "-q")
    with fake_daemon(tmp_path / "d", daemon) as real:
        env = environment(LXD_DIR=str(real.directory))
        for arguments in (record, replay):
            done = subprocess.run(
                [*python, *arguments],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            real.close()
    assert (tmp_path / "cassettes" / "test_start" / "test_start.yaml").exists()


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_do_what_they_say(name: str) -> None:
    """What stands after ``>>>`` gives what is below it."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


# -- links

FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link is to a file that there is, and to a heading in it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", PAGES[page])):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


# -- security.md


def test_the_tests_of_promises_exist() -> None:
    """Security.md names the tests that hold its promises."""
    named = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", PAGES["docs/security.md"])
    assert named
    assert {each for each in named if not list((ROOT / "tests").rglob(each))} == set()


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    """Log, spool and cassette are made 0600, whatever the umask."""
    log, cassette = tmp_path / "log", tmp_path / "c.yaml"
    with fake_daemon(tmp_path / "d", daemon) as real:
        where = ("--upstream", real.path, "-o", str(log), "-w", str(cassette))
        done = subprocess.run(
            [*LXDTAP, "run", *where, "--", "stat", "-c", "%a", f"{cassette}.spool"],
            env=environment(),
            umask=0,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    assert (done.returncode, done.stdout) == (0, "600\n")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (log, cassette)] == [0o600, 0o600]


def test_a_directory_of_others_is_no_place_for_the_socket(tmp_path: Path) -> None:
    """Where others may write they could take the tap's place: it is refused, and left as it is."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    with fake_daemon(tmp_path / "d", daemon) as real:
        done = run("run", "--upstream", real.path, "--listen", f"{place}/")
    assert done.returncode == 1
    assert "others may write there" in done.stderr
    assert list(place.iterdir()) == []
