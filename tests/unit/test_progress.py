"""States: which of the answers to one question is given when."""

from __future__ import annotations

from lxdtap.replay.progress import Progress
from lxdtap.replay.tape import Entry, Tape
from tests.unit.builders import response
from tests.unit.recordings import asked, cassette, seen

C1 = "/1.0/instances/c1"


def tape(*requests: str) -> Tape:
    """A tape of requests, as ``PUT /1.0/x``."""
    return Tape(
        cassette(
            *(
                seen(number, asked(text.split()[0], text.split()[1]), response(200, f"{number}"))
                for number, text in enumerate(requests, 1)
            )
        )
    )


def gets(made: Tape) -> list[Entry]:
    return [entry for entry in made.entries if not entry.changing]


def chosen(made: Tape, *played: int) -> int:
    """The number of the GET that is played after these changes."""
    progress = Progress(made.changes)
    for change in played:
        progress.play(change)
    return progress.choose(gets(made)).number


def test_each_state_has_its_answer() -> None:
    """What was asked after a change is answered after it, however often it is asked."""
    made = tape(f"GET {C1}", f"PUT {C1}", f"GET {C1}", f"PUT {C1}", f"GET {C1}")
    assert [chosen(made), chosen(made, 0), chosen(made, 0, 1)] == [1, 3, 5]


def test_the_last_word_of_a_state() -> None:
    """Asked several times in one state, the last answer is the one that stays."""
    made = tape(f"GET {C1}", f"GET {C1}", f"PUT {C1}", f"GET {C1}", f"GET {C1}", f"GET {C1}")
    assert [chosen(made), chosen(made, 0)] == [2, 6]
    assert chosen(tape(f"GET {C1}", f"GET {C1}")) == 2


def test_between_two_states() -> None:
    """The earlier one of two that are as near: what was not done has no effect."""
    made = tape(f"GET {C1}", f"PUT {C1}", f"PUT {C1}", f"GET {C1}")
    assert chosen(made, 0) == 1


def test_changes_that_were_left_out() -> None:
    """A client that makes only the second change finds what was after it."""
    made = tape("PUT /1.0/profiles/p", f"GET {C1}", f"PUT {C1}", f"GET {C1}")
    assert [chosen(made), chosen(made, 1)] == [2, 4]


def test_what_concerns_it_counts_first() -> None:
    """Changes elsewhere, and commands that ran, do not outweigh the one that was made here."""
    made = tape(
        f"GET {C1}", f"PUT {C1}", *["POST /1.0/profiles"] * 2, f"POST {C1}/exec", f"GET {C1}"
    )
    assert chosen(made, 0) == 6
    assert chosen(made, 1, 2, 3) == 1


def test_commands_show_in_files() -> None:
    """A file may be of a command's making."""
    files = f"{C1}/files?path=/x"
    made = tape(f"GET {files}", f"POST {C1}/exec", "POST /1.0/a", "POST /1.0/b", f"GET {files}")
    assert [chosen(made), chosen(made, 0)] == [1, 5]


def test_out_of_order() -> None:
    """Two clients at once, one of them recorded after the other: each finds its own effects."""
    made = tape("POST /1.0/a", "GET /1.0/b", "POST /1.0/b", "GET /1.0/b")
    assert [chosen(made, 1), chosen(made, 0), chosen(made, 1, 0)] == [4, 2, 4]


def test_before_the_first_state() -> None:
    """Asked earlier than ever, the first answer is the nearest."""
    made = tape("PUT /1.0/x", "GET /1.0/x", "PUT /1.0/x", "GET /1.0/x")
    assert chosen(made) == 2


def test_first_open() -> None:
    """Changes are made in order, each once."""
    made = tape("PUT /1.0/x", "PUT /1.0/x", "PUT /1.0/x")
    progress = Progress(made.changes)
    progress.play(1)
    assert (progress.made, progress.complete) == (None, False)
    found = [progress.first_open(made.changes[at:]) for at in range(3)]
    assert [each and each.number for each in found] == [1, 3, 3]
    progress.play(0)
    progress.play(2)
    assert progress.first_open(made.changes) is None
    assert (progress.made, progress.complete, progress.has(2)) == (3, True, True)


def test_rewind() -> None:
    """What is taken back, and all after it, is to be made again."""
    progress = Progress(tape("PUT /1.0/x", "PUT /1.0/x").changes)
    progress.play(0)
    progress.play(1)
    progress.rewind(1)
    assert (progress.made, progress.has(0), progress.has(1)) == (1, True, False)
