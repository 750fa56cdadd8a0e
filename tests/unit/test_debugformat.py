"""The DEBUG text: what it looks like, that it can be read back, and that nothing is forged."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap import content
from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text
from lxdtap.log import debugformat
from lxdtap.log.debugformat import SEPARATOR, Block
from lxdtap.log.entries import Entry, NoteEntry, OperationEntry
from lxdtap.terminal import coloured, escape_json
from lxdtap.transaction import Count, Direction, Opcode, Peer, Transaction, Tunnel

from .builders import (
    AT,
    BASE,
    body,
    entry,
    frame,
    frame_entry,
    request,
    response,
    seen,
    transaction,
)

GOLDEN = """\
PUT http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket/1.0/containers/pylxd-test-container/state
{
	"action": "stop",
	"timeout": 30
} HTTP/202
{
	"status": "Operation created",
	"status_code": 100,
	"operation": "/1.0/operations/70eb42bf-5e79-42de-8230-2162e9e8b612",
	"type": "async",
	"metadata": {
		"status": "Running",
		"err": "",
		"status_code": 103,
		"created_at": "2016-06-23T15:05:45.435413676+02:00",
		"updated_at": "2016-06-23T15:05:45.435413676+02:00",
		"class": "task",
		"may_cancel": false,
		"id": "70eb42bf-5e79-42de-8230-2162e9e8b612",
		"resources": {
			"containers": [
				"/1.0/containers/pylxd-test-container"
			]
		},
		"metadata": null
	}
}
"""

SHA = "ab" * 32
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# What an attacker would send: our own marks, and what moves a cursor or reorders what is read.
MARKS = (SEPARATOR, f"\n{SEPARATOR}\n", " HTTP/200\n", "\n# lxdtap: ", "(its end was not kept)")
SYNTAX = (*'\\\n\t\r >:<"}', "\\\\", "--", ": ", "\\x1b", "\\u202e")
UNSAFE = ("\x00", "\x1b[2J", "\x9b", "\u202e", "\u2028", "\udc80", "\ud800", "\x7f", "\x85")
NASTY = st.sampled_from([*MARKS, *SYNTAX, *UNSAFE, "é", "\U0001f600"])
ANY = st.text(st.characters(exclude_categories=[]), max_size=8)
WILD = st.lists(NASTY | ANY, max_size=6).map("".join)
MEDIA_TYPES = st.sampled_from(["text/plain", "application/octet-stream", "application/x-tar"])


def as_sent(value: Json) -> Json:
    """What a JSON reader makes of it: escaped surrogates that meet become one character."""
    read: Json = json.loads(json.dumps(value))
    return read


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WILD
VALUES: st.SearchStrategy[Json] = st.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WILD, inner, max_size=3),
    max_leaves=8,
)
PLAIN = (
    VALUES.map(as_sent).map(Document)
    | st.builds(Text, WILD, st.just("") | MEDIA_TYPES)
    | st.builds(Binary, st.integers(0, 10**9), st.just(SHA), st.just("") | MEDIA_TYPES)
)
NAMES = WILD.map(lambda name: name.replace(":", ""))


def _parts(inner: st.SearchStrategy[Content]) -> st.SearchStrategy[Content]:
    headers = st.lists(st.tuples(NAMES, WILD), max_size=2).map(tuple)
    part = st.builds(Part, headers, st.none() | inner, st.booleans())
    parts = st.lists(part, max_size=3).map(tuple)
    return st.builds(Parts, parts, st.integers(0, 999), st.just(SHA), st.just("multipart/mixed"))


CONTENTS: st.SearchStrategy[Content] = st.none() | st.recursive(PLAIN, _parts, max_leaves=4)


def the_block(written: str) -> Block:
    """The only block of a text."""
    (block,) = debugformat.parse(written)
    return block


def test_the_documented_example_is_met_character_for_character() -> None:
    """A PUT that was answered with 202 looks as DEBUG output always has."""
    asked, answered = (json.loads(part) for part in (GOLDEN.split("\n", 1)[1]).split(" HTTP/202\n"))
    target = "/1.0/containers/pylxd-test-container/state"
    of = transaction(request("PUT", target), response(202))
    written = debugformat.text(entry(of, asked=Document(asked), answered=Document(answered)))
    assert written == f"{GOLDEN}{SEPARATOR}\n"


@given(method=WILD, target=WILD, asked=CONTENTS, answered=CONTENTS, broken=WILD)
def test_a_block_is_read_back(
    method: str, target: str, asked: Content, answered: Content, broken: str
) -> None:
    """Whatever method, URL, outcome and contents a block was made of, they are read from it."""
    of = transaction(request(method, "/" + target), response(200), broken=broken, own=True)
    block = the_block(debugformat.text(entry(of, asked=asked, answered=answered), verbose=True))
    assert (block.method, block.url, block.outcome) == (method, f"{BASE}/{target}", "HTTP/200")
    assert (block.request, block.response) == (asked, answered)


@given(says=CONTENTS, stream=WILD)
def test_a_frame_is_read_back(says: Content, stream: str) -> None:
    """A frame's block gives back the stream and what the frame says."""
    block = the_block(debugformat.text(frame_entry(says, stream=stream)))
    words = ["received", stream, "text"]
    assert (block.outcome, block.response) == (" ".join(w for w in words if w), says)


@given(broken=WILD)
def test_the_lack_of_an_answer_is_read_back(broken: str) -> None:
    """Why there was no answer is read from the outcome."""
    block = the_block(debugformat.text(entry(transaction(broken=broken))))
    assert block.outcome == f"no answer: {broken or 'it is not HTTP'}"


@given(word=WILD)
def test_a_note_is_read_back(word: str) -> None:
    """A note is a block of its own, without method and URL."""
    block = the_block(debugformat.text(NoteEntry(word, AT)))
    assert block == Block("", "", None, "", None, (f"lxdtap: {word}",))


@given(word=WILD, says=CONTENTS, verbose=st.booleans())
def test_nothing_forges_a_line(word: str, says: Content, *, verbose: bool) -> None:
    """There are as many separators as entries, and no character that a terminal obeys."""
    tunnel = Tunnel(word, reason=word, ended=word)
    asked = request(word, "/" + word, headers=((word, word),), garbled=word)
    answer = response(headers=((word, word),))
    entries: list[Entry] = [
        entry(transaction(asked, answer, broken=word, own=True), asked=says, answered=says),
        entry(transaction(asked, answer, tunnel=tunnel, broken=word), "upgraded", says, says),
        entry(transaction(asked, answer, tunnel=tunnel), stream=word),
        frame_entry(says, transaction(asked), stream=word),
        NoteEntry(word, AT),
    ]
    written = "".join(debugformat.text(each, verbose=verbose) for each in entries)
    assert written.split("\n").count(SEPARATOR) == len(entries)
    assert not FORBIDDEN.search(written)


@pytest.mark.parametrize("method", ["#", "<", ">", "--"])
def test_a_method_is_no_note(method: str) -> None:
    """A method that looks like one of our marks is still a method."""
    of = transaction(request(method), response())
    assert the_block(debugformat.text(entry(of))).method == method


TUNNEL = Tunnel("websocket", Count(1, 5), Count(2, 10), 1000, ended="the client closed it")
CLOSED = (
    "closed after 2.0 s: websocket stdin, sent 5 bytes in 1 frame,"
    " received 10 bytes in 2 frames, close code 1000"
)
OUTCOMES: list[tuple[Transaction, str, str]] = [
    (transaction(answer=response(204)), "finished", "HTTP/204"),
    (transaction(answer=response(304)), "finished", "HTTP/304"),
    (transaction(answer=response(500)), "finished", "HTTP/500"),
    (transaction(), "open", "open for 2.0 s: 0 bytes sent, no answer yet"),
    (
        transaction(request(data=b"ab"), response(200, b"abc")),
        "open",
        "open for 2.0 s: 2 bytes sent, HTTP/200 and 3 bytes received",
    ),
    (transaction(answer=response(101), tunnel=TUNNEL), "upgraded", "HTTP/101"),
    (
        transaction(answer=response(101), tunnel=TUNNEL),
        "finished",
        CLOSED,
    ),
    (
        transaction(answer=response(101), tunnel=Tunnel("tls", Count(0, 7))),
        "open",
        "open for 2.0 s: tls stdin, sent 7 bytes, received 0 bytes",
    ),
]


@pytest.mark.parametrize(("of", "state", "outcome"), OUTCOMES)
def test_the_outcome_says_how_far_it_came(of: Transaction, state: str, outcome: str) -> None:
    """Each state of a transaction has its own words after the request."""
    shown = entry(of, stream="stdin")
    if state == "open":
        shown = shown._replace(state="open")
    elif state == "upgraded":
        shown = shown._replace(state="upgraded")
    assert the_block(debugformat.text(shown)).outcome == outcome


REMARKS: list[tuple[Transaction, str, tuple[str, ...]]] = [
    (transaction(request(garbled="x")), "", ("the request could not be followed: x",)),
    (transaction(answer=response(), tunnel=Tunnel("opaque", reason="r")), "", ("not followed: r",)),
    (transaction(answer=response(), tunnel=TUNNEL), "", ("the client closed it",)),
    (transaction(answer=response(), broken="b"), "", ("broken off: b",)),
    (transaction(answer=response(), own=True), "", ("answered by lxdtap, not by the daemon",)),
]


@pytest.mark.parametrize(("of", "stream", "remarks"), REMARKS)
def test_remarks_follow_the_response(
    of: Transaction, stream: str, remarks: tuple[str, ...]
) -> None:
    """What is odd about a transaction is told below it."""
    assert the_block(debugformat.text(entry(of, stream=stream))).remarks == remarks


def test_an_upgrade_is_remarked_on() -> None:
    """The block of an upgrade tells the protocol and the stream."""
    of = transaction(answer=response(101), tunnel=Tunnel("websocket"))
    block = the_block(debugformat.text(entry(of, "upgraded", stream="stdout")))
    assert block.remarks == ("upgraded to websocket stdout",)


def test_verbose_adds_details() -> None:
    """With ``-v`` a block ends with number, times, peer and both heads."""
    of = transaction(
        request(headers=(("Host", "x"),)), response(200, headers=(("A", "b"),), interim=(103,))
    )._replace(
        peer=Peer(1, 2, 3),
    )
    block = the_block(debugformat.text(entry(of), verbose=True))
    facts = "number 1, took 2.0 s, 500.0 ms to the answer, from pid 1 uid 2 gid 3"
    assert block.remarks == (facts, "> Host: x", "< HTTP/103", "< A: b")


def test_verbose_leaves_out_what_is_unknown() -> None:
    """A transaction of unknown peer that was not answered has fewer details."""
    of = transaction()._replace(timing=transaction().timing._replace(answered=None))
    assert the_block(debugformat.text(entry(of), verbose=True)).remarks == ("number 1, took 2.0 s",)


def test_an_operations_end_has_no_block() -> None:
    """The event that told of the operation's end is shown itself."""
    assert debugformat.text(OperationEntry(seen(), AT)) == ""


@pytest.mark.parametrize(
    ("opcode", "final", "name"),
    [
        (Opcode.TEXT, True, "text"),
        (Opcode.BINARY, False, "binary fragment"),
        (Opcode.CONTINUATION, True, "continuation fragment"),
        (Opcode.PING, True, "ping"),
    ],
)
def test_a_frames_kind_is_named(opcode: Opcode, *, final: bool, name: str) -> None:
    """A frame's block names its opcode, and whether it is a fragment."""
    written = debugformat.text(
        frame_entry(what=frame(opcode=opcode, final=final), direction=Direction.SENT)
    )
    assert the_block(written).outcome == f"sent {name}"


def test_colours_do_not_change_the_text() -> None:
    """Without its colours, coloured text is the plain text."""
    of = entry(asked=Document({"a": {"b": ["c"]}}), answered=Document({"d\\": "e: "}))
    painted = debugformat.text(of, paint=coloured)
    assert '\x1b[34m"a"\x1b[0m: ' in painted
    assert re.sub(r"\x1b\[\d*m", "", painted) == debugformat.text(of)


def test_summaries_stand_for_themselves() -> None:
    """Both summaries can be had without the block, and an empty body is no line."""
    of = transaction(request("PUT", "/1.0", body(b"x").captured))
    assert debugformat.request_summary(of, Document(1)) == f"PUT {BASE}/1.0\n1"
    assert debugformat.response_summary(404, None) == "HTTP/404"
    assert debugformat.body(None) == ""


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.sampled_from([0.25, "two  spaces", "\ud800"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_indented_by_one_tab_a_level(value: Json) -> None:
    """Whatever it holds, it is laid out as Python does it; what is not safe to print is escaped.

    However it came: a daemon writes it without blanks, which is remembered.
    """
    shown = escape_json(json.dumps(value, indent="\t", ensure_ascii=False))
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    came = content.document(compact.encode("utf-8", "surrogatepass"))
    for document in filter(None, [Document(value), came]):
        assert debugformat.indented(document) == shown


@pytest.mark.parametrize("text", ["\x7f", "\x1b\x7f", "\u202e", "\ud800", "\u00e9\x85"])
def test_json_is_safe_to_print(text: str) -> None:
    """Whatever its strings and keys hold, JSON shows nothing but its own line ends and tabs."""
    shown = debugformat.indented(Document({text: [text, {}]}))
    assert shown.translate({ord("\n"): "", ord("\t"): ""}).isprintable()
    assert json.loads(shown) == {text: [text, {}]}


def test_a_block_cut_off_at_the_end_is_left_out() -> None:
    """What was still being written is not read."""
    written = debugformat.text(entry())
    assert len(debugformat.parse(written + written[:-3])) == 1


@pytest.mark.parametrize(
    "block",
    [
        "",
        "GET\n",
        "GET u\n{\n",
        "GET u HTTP/200\n<x, 1 bytes\n\t-\n",
        "GET u\n" + "[" * 100_000 + "\n",
    ],
)
def test_what_is_no_debug_text_is_refused(block: str) -> None:
    """The message names the block that cannot be read."""
    with pytest.raises(ValueError, match="block 1 is not DEBUG text"):
        debugformat.parse(f"{block}{SEPARATOR}\n")
