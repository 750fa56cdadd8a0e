"""From updates to a log's text, in any of the formats."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from lxdtap.log import debugformat, jsonformat, lineformat
from lxdtap.log.entries import Entry
from lxdtap.log.journal import Journal, Selection
from lxdtap.redact import Redactor
from lxdtap.terminal import Paint, plain
from lxdtap.transaction import Update

Format = Literal["debug", "line", "json"]


def renderer(
    form: Format, selection: Selection, painter: Paint = plain, redactor: Redactor | None = None
) -> Callable[[Update], str]:
    """What makes a log's text of updates; it remembers what it has seen."""
    frames = form != "line" or selection.verbose
    journal = Journal(selection, frames=frames, redactor=redactor)
    formats: dict[Format, Callable[[Entry], str]] = {
        "debug": functools.partial(debugformat.text, verbose=selection.verbose, paint=painter),
        "line": functools.partial(lineformat.line, verbose=selection.verbose, paint=painter),
        "json": jsonformat.line,
    }
    text = formats[form]
    return lambda update: "".join(text(entry) for entry in journal.hear(update))
