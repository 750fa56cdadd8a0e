"""Conversations that proxies and parsers get wrong, each by its name.

The classes are those known in the field: RFC 9112 and RFC 9110 where they are strict, request
smuggling where two readers of one request differ, and RFC 6455 behind an upgrade.
"""

from __future__ import annotations

from .answers import ANSWERS
from .case import Case
from .ends import ENDS
from .framing import FRAMING
from .heads import HEADS
from .several import SEVERAL
from .tunnels import TUNNELS

CASES: dict[str, Case] = {}
"""All of them, by their names."""

for _case in (*HEADS, *FRAMING, *ANSWERS, *SEVERAL, *TUNNELS, *ENDS):
    assert _case.name not in CASES, f"two cases are called {_case.name!r}"
    CASES[_case.name] = _case

LONG = 4000
"""Bytes of a conversation that is not cut into single ones."""
BITS = sorted(
    {
        word
        for case in CASES.values()
        for word in case.words
        if isinstance(word, bytes) and len(word) < LONG
    },
    key=len,
)
"""All that is said in them and is not long, the shortest first."""
