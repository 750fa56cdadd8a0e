"""Cassettes that were edited, cut, damaged or made to do harm: they fit, or are refused soon."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxdtap.cassette import files
from lxdtap.cassette.model import REPLAYABLE, CassetteError
from tests.absent import absent
from tests.campaign import Campaign
from tests.process.tap import LXDTAP, environment

CASSETTES = Path(__file__).parents[2] / "cassettes"
LIMIT = 100 << 20
"""Bytes of memory that refusing may take."""
SECOND = 1.0
"""Of the processor's time; it may take that long."""
COMMANDS = {
    "show": (["show"], []),
    "check": (["check"], []),
    "replay": (["replay"], ["--", "true"]),
}
PLACES = {
    "show": r"lxdtap: PATH(, line \d+: | is neither a cassette nor a spool)",
    "check": r"PATH:\d+: ",
    "replay": r"lxdtap: PATH, line \d+: ",
}
MANY = settings(suppress_health_check=list(HealthCheck), derandomize=True)


@dataclass(frozen=True)
class Outcome:
    """What came of a command."""

    status: int
    said: str
    seconds: float
    memory: int


MEASURING = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stdout, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""Runs a command from a process that is small: what its parent has counts as its own too."""


def outcome(path: Path, name: str) -> Outcome:
    """Have lxdtap read a cassette, and measure it."""
    before, after = COMMANDS[name]
    command = [*LXDTAP, *before, str(path), *after]
    done = subprocess.run(
        [sys.executable, "-ISc", MEASURING, *command],
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    status, said, seconds, kibibytes = json.loads(done.stdout)
    return Outcome(status, said, seconds, kibibytes << 10)


def snapshot(directory: Path) -> dict[Path, tuple[int, int, int]]:
    """All files, as far as they are seen to be touched."""
    return {
        path: (path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_ino)
        for path in directory.rglob("*")
    }


def refused(path: Path, name: str) -> Outcome:
    """Have lxdtap refuse a cassette: in one line with the place, soon, in little memory."""
    before = snapshot(path.parent)
    found = outcome(path, name)
    assert found.status == 1, found
    assert found.said.count("\n") == 1, found.said[:2000]
    assert len(found.said) < 1000
    assert re.match(PLACES[name].replace("PATH", re.escape(str(path))), found.said), found.said
    assert found.seconds < SECOND, found
    assert found.memory < LIMIT, found
    assert snapshot(path.parent) == before
    return found


# -- made to do harm

HEAD = "version: 1\nserver:\n  kind: lxd\n  address: x\ninteractions:"
FIRST = f"{HEAD}\n- request:\n    method: GET\n    uri: /1.0\n"
END = "complete: true\n"
REQUEST = f"{FIRST}    body: "
LAUGHS = "a: &a [lol]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)

SMALL: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "it is empty"),
    "white space": (" \n\n", "it is empty"),
    "a comment": ("# version: 1\n", "it is empty"),
    "text": ("version 1\n", "a cassette is wanted here"),
    "a list": ("- version: 1\n", "a cassette is wanted here"),
    "another's": ("interactions:\n- request: {}\nversion: 1\n", "begins with its version"),
    "older": ("version: 0\n", "version 0 is not known"),
    "newer": ("version: 2\n", "version 2 is not known"),
    "much newer": (f"version: {10**17}\n", "is not known"),
    "version of another kind": ("version: '1'\n", "is not a whole number"),
    "version with a fraction": ("version: 1.0\n", "is not a whole number"),
    "tag": ("version: !!int 1\n", "tags"),
    "code": ("version: !!python/object/apply:os.system ['touch here']\n", "tags"),
    "tag of all": ("!!python/name:os.system\nversion: 1\n", "tags"),
    "tag directive": ("%TAG ! tag:yaml.org,2002:\n---\nversion: !int 1\n", "tags"),
    "another YAML": ("%YAML 3.0\n---\nversion: 1\n", "not YAML"),
    "anchor": ("version: &a 1\n", "anchors"),
    "alias": (f"{HEAD} *a\n", "anchors"),
    "laughs": (LAUGHS, "begins with its version"),
    "laughs within": (f"{HEAD}\n- request: &a {{method: G, uri: /}}\n- request: *a\n", "anchors"),
    "merge": (f"{HEAD}\n- <<: {{number: 1}}\n", "is no key of"),
    "merged alias": (f"{HEAD}\n- <<: *a\n", "is no key of"),
    "two keys": ("version: 1\nserver: {kind: lxd, kind: lxd}\n", "stands twice"),
    "a key that is a list": ("version: 1\n? [a]\n: b\n", "text is wanted"),
    "unknown key": (f"version: 1\n{'x' * 900}: 1\n", "is no key of a cassette"),
    "unknown kind": ("version: 1\nserver:\n  kind: docker\n  address: x\n", "is none of"),
    "a line in a word": ('version: 1\nserver:\n  kind: "a\\nb\\e[31m"\n', "is none of"),
    "huge integer": (f"{FIRST}  number: {'9' * 5000}\n", "is not a whole number"),
    "negative": (f"{FIRST}  number: -1\n", "is not a whole number"),
    "hexadecimal": (f"{FIRST}  number: 0x10\n", "is not a whole number"),
    "order": (f"{FIRST}  number: 7\n- request: {{method: G, uri: /}}\n  number: 7\n", "follows 7"),
    "huge time": (f"{FIRST}  timing: {{began: 1{'0' * 4000}}}\n", "not a number of seconds"),
    "no time": ('version: 1\nrecorded_at: "2026-02-31T00:00:00Z"\n', "day is out of range"),
    "the year 0": ('version: 1\nrecorded_at: "0000-01-01T00:00:00Z"\n', "year 0 is out of range"),
    "infinity": (f"{FIRST}  timing: {{began: .inf}}\n", "not a number of seconds"),
    "not base64": (REQUEST + "{base64: '====='}\n", "not base64"),
    "not JSON": (REQUEST + "\n      json: |\n        {\n          a\n", "not JSON"),
    "not a number": (REQUEST + "{json: 'NaN'}\n", "not JSON"),
    "two bodies": (REQUEST + "{json: '1', text: a}\n", "has both"),
    "NUL": ("version: 1\n\0\n", "control character"),
    "escape": ("version: 1\nrecorded_with: \x1b[2J\n", "control character"),
    "UTF-16": ("\ufeffversion: 1\n".encode("utf-16-le"), "UTF-8"),
    "UTF-16, the other": ("\ufeffversion: 1\n".encode("utf-16-be"), "UTF-8"),
    "UTF-16, unmarked": ("version: 1\n".encode("utf-16-le"), "control character"),
    "UTF-32": ("version: 1\n".encode("utf-32"), "UTF-8"),
    "Latin-1": ("version: 1\nrecorded_with: caf\xe9\n".encode("latin-1"), "UTF-8"),
    "half a character": (b"version: 1\nrecorded_with: \xed\xa0\x80\n", "UTF-8"),
    "overlong": (b"version: 1\nrecorded_with: \xc0\xaf\n", "UTF-8"),
    "half a character, escaped": ('version: 1\nrecorded_with: "\\ud800"\n', "not YAML"),
    "tab": ("version: 1\nserver:\n\tkind: lxd\n", "not YAML"),
    "two documents": (f"{FIRST}{END}---\n{FIRST}{END}", "another document"),
    "more after the end": (f"{FIRST}{END}...\nmore\n", "not YAML|another document"),
    "no end": (FIRST, "cut off"),
    "no newline": ((FIRST + END)[:-1], "no newline"),
    "end twice": (FIRST + END + END, "stands twice"),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    """By the reader: one line, which begins with the place, and says what is wrong there."""
    text, what = SMALL[name]
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CassetteError) as caught:
        files.load(str(path))
    assert re.match(rf"{path}, line \d+: .*({what})", str(caught.value))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_the_command_refuses_it_too(tmp_path: Path, campaign: Campaign) -> None:
    """Each of them, by each command that reads one."""
    names = list(SMALL)[:: campaign.count(19, 1)]
    seconds, memory = [], []
    for number, name in enumerate(names):
        path = tmp_path / "c.yaml"
        text, _ = SMALL[name]
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        for command in [list(COMMANDS)[number % 3]] if not campaign.full else COMMANDS:
            found = refused(path, command)
            seconds.append(found.seconds)
            memory.append(found.memory)
    campaign.figure("cassettes that do not fit", _worst(len(seconds), seconds, memory))


def _worst(count: int, seconds: list[float], memory: list[int]) -> str:
    return f"{count} refused; at most {max(seconds):.2f} s, {max(memory) >> 20} MiB"


LARGE = {
    "nested": ("", "[", 50_000_000, ""),
    "nested within": (HEAD, " [", 200_000, ""),
    "nested mappings": (HEAD, " {a:", 200_000, ""),
    "nested lists": ("version:\n", "- ", 200_000, ""),
    "nested keys": ("", "? ", 200_000, ""),
    "indented": ("", "\n" + " " * 500, 200_000, "a"),
    "long": (REQUEST + "{text: ", "x", 100_000_000, ""),
    "long, quoted": (REQUEST + '{text: "', "\\n", 50_000_000, ""),
    "long, folded": (REQUEST + "\n      text: >\n        ", "x ", 50_000_000, ""),
    "long, of lines": (REQUEST + "\n      text: |\n", "        x\n", 10_000_000, ""),
    "long line of all": ("", "x", 100_000_000, ""),
    "long key": ("version: 1\n", "x", 100_000_000, ": 1\n"),
    "huge": ("version: ", "9", 50_000_000, ""),
    "aliases": ("a: &a [", "*a, ", 10_000_000, ""),
    "anchors": ("version: 1\nserver: ", "&a ", 10_000_000, ""),
    "tag": ("version: !", "a", 50_000_000, ""),
    "comment": ("", "#", 50_000_000, ""),
    "comments": ("version: 1\n", "# a\n", 20_000_000, ""),
    "lines": ("version: 1\n", "\n", 50_000_000, ""),
    "directives": ("", "%TAG !a! tag:a\n", 5_000_000, ""),
    "more directives": ("", "%FOO bar\n", 5_000_000, ""),
    "documents": ("", "---\n", 20_000_000, ""),
    "zeros": ("", "\0", 50_000_000, ""),
    "nested JSON": (REQUEST + "{json: '", "[", 7_000_000, "'}\n"),
    "nested objects": (REQUEST + "{json: '", '{"":', 1_700_000, "'}\n"),
    "long JSON": (REQUEST + "{json: '[", "1,", 3_500_000, "]'}\n"),
    "long JSON number": (REQUEST + "{json: '", "9", 7_000_000, ".'}\n"),
    "long JSON string": (REQUEST + "{json: '\"", "\\u0041", 1_200_000, "'}\n"),
    "base64": (REQUEST + "{base64: '", "QUJD", 2_000_000, "='}\n"),
    "same header": (f"{FIRST}    headers:\n", "      a: b\n", 5_000_000, ""),
    "same key": (FIRST, "  number: 1\n", 5_000_000, ""),
}


@pytest.mark.timeout(600)
def test_what_is_hostile_costs_little(tmp_path: Path, campaign: Campaign) -> None:
    """One line, within a second of the processor's time and 100 MiB, whichever command reads it."""
    seconds, memory = [], []
    names = list(LARGE)[:: campaign.count(16, 1)]
    short = []
    for number, name in enumerate(campaign.progress("hostile", names, len(names))):
        before, piece, times, after = LARGE[name]
        path = tmp_path / "c.yaml"
        path.write_text(before + piece * times + after)
        for command in [list(COMMANDS)[number % 3]] if not campaign.full else COMMANDS:
            try:
                found = refused(path, command)
            except AssertionError as error:
                short.append(f"{name}, {command}: {str(error)[:300]}")
                continue
            seconds.append(found.seconds)
            memory.append(found.memory)
    assert not short, "\n".join(short)
    campaign.figure("cassettes made to do harm", _worst(len(seconds), seconds, memory))


# -- what lies beside


def with_files(directory: Path) -> tuple[Path, Path]:
    """A cassette, and one file that lies beside it."""
    path = directory / "c.yaml"
    shutil.copy(CASSETTES / "lxd/images.yaml", path)
    shutil.copytree(CASSETTES / "lxd/images.files", directory / "c.files")
    (only,) = (directory / "c.files").iterdir()
    return path, only


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def shorter(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def other(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def endless(path: Path) -> None:
    """A terabyte, none of which is on the disk."""
    os.truncate(path, 1 << 40)


def as_large_as_may_be(path: Path) -> None:
    os.truncate(path, REPLAYABLE)


def in_place_of(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else of that name."""

    def spoil(path: Path) -> None:
        path.rename(path.parent.parent / "taken")
        make(path)

    return spoil


BESIDE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is not beside the cassette"),
    "all missing": (lambda path: shutil.rmtree(path.parent), "is not beside the cassette"),
    "longer": (longer, "has been altered"),
    "shorter": (shorter, "has been altered"),
    "empty": (lambda path: path.write_bytes(b""), "has been altered"),
    "other": (other, "has been altered"),
    "endless": (endless, "is not beside the cassette"),
    "as large as may be": (as_large_as_may_be, "has been altered"),
    "symlink": (in_place_of(lambda path: path.symlink_to("../taken")), "too many levels"),
    "FIFO": (in_place_of(os.mkfifo), "is not beside the cassette"),
    "directory": (in_place_of(Path.mkdir), "is a directory"),
    "device": (in_place_of(lambda path: os.mknod(path, 0o20600, os.makedev(1, 5))), "not beside"),
}

DEAR = ("endless", "as large as may be", "FIFO")
"""Those that could cost something: the command itself is tried each time."""


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_is_not_what_it_was(tmp_path: Path, campaign: Campaign, name: str) -> None:
    """It is seen; links are not followed, no FIFO's end is waited for, nothing is touched."""
    spoil, what = BESIDE[name]
    if name == "device" and os.geteuid():
        absent("root makes devices")
    path, attached = with_files(tmp_path)
    spoil(attached)
    before = snapshot(tmp_path)
    with pytest.raises(CassetteError) as caught:
        files.load(str(path))
    assert str(path) in str(caught.value)
    assert what in str(caught.value).lower()
    for command in COMMANDS if campaign.full else ["check"] if name in DEAR else []:
        found = outcome(path, command)
        assert (found.status, found.said.count("\n")) == (1, 1), found
        assert what in found.said.lower()
        assert found.seconds < SECOND, found
        assert found.memory < LIMIT, found
    assert snapshot(tmp_path) == before


# -- real ones that were damaged


def small() -> list[Path]:
    """The cassettes of the project that are read in no time."""
    found = sorted(CASSETTES.glob("*/*.yaml"), key=lambda path: path.stat().st_size)
    return found[:6]


def load(path: Path) -> str:
    """Why a cassette is refused; empty where it is not."""
    begun = time.thread_time()
    try:
        cassette = files.load(str(path), attachments=False)
    except CassetteError as error:
        refusal = str(error)
        assert re.match(rf"{path}, line \d+: ", refusal), refusal
        assert refusal.isprintable(), refusal
        return refusal
    finally:
        assert time.thread_time() - begun < SECOND
    again = path.with_name("again.yaml")
    files.save(cassette, str(again), overwrite=True)
    assert files.load(str(again), attachments=False) == cassette
    return ""


def test_cut_at_any_byte(tmp_path: Path, campaign: Campaign) -> None:
    """No part of a cassette passes for a whole one."""
    path, cuts = tmp_path / "c.yaml", 0
    for original in small()[: campaign.count(2, 6)]:
        whole = original.read_bytes()
        sizes = range(0, len(whole), campaign.count(211, 1))
        for size in campaign.progress(f"{original.name} cut", sizes, len(sizes)):
            path.write_bytes(whole[:size])
            assert load(path), size
        cuts += len(sizes)
    campaign.figure("cassette cut at a byte", f"{cuts} cuts: each refused with its line")


NASTY = [
    *("", "null", "~", "-1", "1e9", "0x1", "1_000", "999999999999999999", "1.5", "true", "yes"),
    *("!!int 1", "&a b", "*a", "<<", "? a", "- a", "[a]", "{a: b}", "|", ">", "|9", "'", '"'),
    *('"\\0"', '"\\ud800"', '"\\n"', "%", "@", "`", "a: b", "#", "...", "---", "\t", "\x7f"),
    *("\ufeff", "\u2028", "a" * 5000, "{base64: '/w=='}", "2026-11-23T12:00:00Z"),
]


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A cassette in which lines were moved, and words replaced; or bytes."""
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        to = draw(st.integers(0, len(lines) - 1))
        change = draw(st.integers(0, 5))
        if change == 0:
            del lines[at : at + draw(st.integers(1, 9))]
        elif change == 1:
            lines[to:to] = lines[at : at + draw(st.integers(1, 30))]
        elif change == 2:
            lines[at], lines[to] = lines[to], lines[at]
        elif change == 3:
            lines[at] = draw(st.sampled_from([" ", "  ", "    ", "- ", "\t"])) + lines[at]
        elif change == 4:
            key, colon, _ = lines[at].partition(": ")
            lines[at] = f"{key}{colon}{draw(st.sampled_from(NASTY))}\n"
        else:
            lines[at] = lines[at].lstrip()
        lines = lines or ["\n"]
    data = bytearray("".join(lines).encode())
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


def test_any_damage(tmp_path: Path, campaign: Campaign) -> None:
    """It fits still, and is the same when it is saved again; or it is refused with the line."""
    path, count = tmp_path / "c.yaml", {"fits": 0, "refused": 0}
    texts = [each.read_text() for each in small()[: campaign.count(2, 6)]]

    @settings(MANY, max_examples=campaign.count(80, 20_000))
    @given(st.sampled_from(texts).flatmap(damaged))
    def law(data: bytes) -> None:
        path.write_bytes(data)
        count["refused" if load(path) else "fits"] += 1

    law()
    assert min(count.values())
    campaign.figure(
        "cassettes damaged at random", f"{count['fits']} fit, {count['refused']} do not"
    )


def _told(count: dict[str, int]) -> str:
    return f"{count['fits']} fit and stay, {count['refused']} are refused with their line"


def test_any_bytes(tmp_path: Path, campaign: Campaign) -> None:
    """They are refused, if there is anything wrong with them."""
    path = tmp_path / "c.yaml"
    pieces = st.one_of(st.binary(max_size=8), st.sampled_from([n.encode() for n in NASTY]))
    heads = st.sampled_from([b"", b"version: 1\n", HEAD.encode(), FIRST.encode()])

    @settings(MANY, max_examples=campaign.count(80, 50_000))
    @given(heads, st.lists(pieces | st.sampled_from([b"\n", b" ", b": ", b"\n  "]), max_size=20))
    def law(head: bytes, rest: list[bytes]) -> None:
        path.write_bytes(head + b"".join(rest))
        load(path)

    law()
