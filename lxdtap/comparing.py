"""``lxdtap diff``: two cassettes are read, and what differs is told."""

from __future__ import annotations

from lxdtap.cassette import files
from lxdtap.cassette.differences import differences
from lxdtap.cassette.model import CassetteError
from lxdtap.log.journal import Selection
from lxdtap.stage import say

TROUBLE = 2
"""The exit status where a cassette cannot be read, as diff(1) has it."""


def compare(a: str, b: str, selection: Selection, *, everything: bool) -> int:
    """Print a block for each difference; the exit status: 0 none, 1 some, 2 trouble.

    Args:
        a: the path of a cassette.
        b: the path of the other.
        selection: the requests to compare.
        everything: whether what differs from run to run counts too.
    """
    try:
        ours, theirs = files.load(a), files.load(b)
    except CassetteError as error:
        say(str(error))
        return TROUBLE
    differ = False
    for difference in differences(ours, theirs, everything=everything, wanted=selection.wanted()):
        differ = True
        print("\n".join(difference.lines()), flush=True)
    return int(differ)
