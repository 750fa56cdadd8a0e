"""``lxdtap check``: cassettes are read, and what should be known of them is told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lxdtap.cassette import files
from lxdtap.cassette.check import Places, findings
from lxdtap.cassette.model import CassetteError
from lxdtap.terminal import escape

_PLACE = re.compile(r"(?P<path>.*), line (?P<line>\d+): (?P<what>.*)", re.DOTALL)


def check(paths: Sequence[str], *, strict: bool) -> int:
    """Print a line for each finding; the exit status.

    Args:
        paths: of the cassettes.
        strict: whether notes count too.
    """
    failed = False
    for path in paths:
        for line, note in _lines(path):
            print(escape(line), flush=True)
            failed = failed or strict or not note
    return int(failed)


def _lines(path: str) -> Iterator[tuple[str, bool]]:
    """What is to be told of one cassette, and whether it is but a note."""
    try:
        cassette = files.load(path)
        with open(path, encoding="utf-8") as file:
            places = Places(file.readlines())
    except CassetteError as error:
        yield _placed(path, str(error)), False
        return
    for finding in findings(cassette):
        yield finding.line(path, places), finding.note


def _placed(path: str, error: str) -> str:
    match = _PLACE.fullmatch(error)
    return f"{path}:{match['line']}: {match['what']}" if match else f"{path}:1: {error}"
