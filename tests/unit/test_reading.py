"""A cassette's text, as edited by hand, cut, damaged or made up: read, or refused in one line."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.cassette.model import Cassette, CassetteError, Interaction, Piece, Server
from lxdtap.transaction import (
    EMPTY,
    Body,
    Count,
    Direction,
    Opcode,
    Request,
    Response,
    Timing,
    Transaction,
    Tunnel,
)

from .builders import BASE, body
from .cassettes import SERVER, Shelf, cassettes, kept, loaded, written
from .conversation import cost

HEAD = """\
version: 1
server:
  kind: lxd
  address: http+unix://lxd
interactions:
"""
GET = """\
- request:
    method: GET
    uri: /1.0
"""
END = "complete: true\n"
RICH = Cassette(
    SERVER,
    (
        Interaction(
            Transaction(
                1,
                BASE,
                Request("GET", "/1.0", headers=(("A", "\udcff"), ("A", "1")), body=body("a \r\nb")),
                Timing(1, 1, 2, 3, 4),
                Response(200, "OK", headers=(("Etag", "1"),), body=body('{"a":[1,{}]}\n')),
                Tunnel("websocket", Count(9, 9), Count(1, 8)),
                connection=1,
                broken="x",
            ),
            (Piece(Direction.RECEIVED, 5, body('{"b":1}\n'), Opcode.TEXT),),
            "x",
            "stdin",
        ),
    ),
    "lxdtap",
    0,
)
TEXT = written(RICH).encode()


def interaction(text: str) -> Interaction:
    """The only one, whose request is a plain GET; its other keys are given."""
    (only,) = loaded(HEAD + GET + text + END).interactions
    return only


def refused(text: str | bytes, shelf: Shelf | None = None) -> str:
    with pytest.raises(CassetteError) as caught:
        loaded(text, shelf)
    message = str(caught.value)
    assert message.startswith("line ")
    assert message.isprintable()
    return message


@given(cassettes())
def test_any_recording_is_loaded_as_it_was_saved(cassette: Cassette) -> None:
    """But for white space within JSON, and the beginnings of what was not kept whole."""
    shelf = Shelf()
    assert loaded(written(cassette, shelf), shelf) == kept(cassette)


def test_a_person_need_not_write_much() -> None:
    """A request is enough; the rest is understood."""
    assert interaction("") == Interaction(
        Transaction(1, "http+unix://lxd", Request("GET", "/1.0"), Timing(0, 0))
    )
    assert loaded(HEAD + "  []\n" + END) == Cassette(Server("lxd", "http+unix://lxd"))
    terse = interaction("  response: {status: {code: 200}}\n")
    assert terse.transaction.response == Response(200)


def test_a_person_may_lay_it_out_otherwise() -> None:
    """Indentation, order of keys, quotation marks, comments, tabs in JSON: none of it matters."""
    text = """\
  response:
      body: {json: '{"a" :  [ 1, 2 ] }'}   # on one line
      status:
        message: OK
        code: 200
      headers:
        - {value: 120, name: Content-Length}
  timing: {began: 2, duration: 1}
"""
    shown = interaction(text).transaction
    headers = (("Content-Length", "120"),)
    assert shown.response == Response(200, "OK", headers=headers, body=body('{"a":[1,2]}'))
    assert shown.timing == Timing(2 * 10**9, 2 * 10**9, ended=3 * 10**9)
    json = '      json: |\n        {\n        \t"a":\t1}\n'
    tabs = interaction(f"  response:\n    status: {{code: 1}}\n    body:\n{json}").transaction
    assert tabs.response == Response(1, body=body('{"a":1}\n'))


def test_what_is_not_told_follows_from_what_is() -> None:
    """Numbers count on, moments are the one before, frames are of their interaction's beginning."""
    text = (
        HEAD + GET + "  number: 3\n  timing: {began: 1.5}\n" + GET + "  tunnel: {protocol: sftp}\n"
    )
    text += "  frames: [{direction: sent, type: bytes, text: abc}, {direction: sent, type: ping}]\n"
    first, second = loaded(text + END).interactions
    assert (first.transaction.number, second.transaction.number) == (3, 4)
    assert second.transaction.timing.begun == second.pieces[0].offset == 1_500_000_000
    assert second.transaction.tunnel == Tunnel("sftp", Count(0, 3))
    assert second.pieces[1] == Piece(Direction.SENT, 1_500_000_000, EMPTY, Opcode.PING)
    told = interaction("  tunnel: {protocol: tls, sent: {bytes: 5}, close_code: 1000}\n")
    assert told.transaction.tunnel == Tunnel("tls", Count(0, 5), close_code=1000)


def test_an_empty_body_is_none() -> None:
    """However it is spelled."""
    for form in ('text: ""', 'base64: ""'):
        shown = interaction(f"  response: {{status: {{code: 200}}, body: {{{form}}}}}\n")
        assert shown.transaction.response == Response(200)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: it is empty: record it again"),
        ("interactions: []\n", "line 1: a cassette begins with its version"),
        ("{}\n", "line 1: a cassette begins with its version"),
        ("- 1\n", "line 1: a cassette is wanted here"),
        ("version: 2\nnew: 1\n", "line 1: version 2 is not known to this lxdtap: use a newer one"),
        ("version: x\n", "line 1: 'x' is not a whole number"),
        ("version: 1\nnew: 1\n", "line 2: 'new' is no key of a cassette: use one of recorded_with"),
        ("version: 1\ninteractions: []\n", "line 2: the server and its address come before"),
        ("version: 1\nserver: {kind: lxd}\n", "line 2: a server has no address: add it"),
        ("version: 1\nserver: {kind: docker}\n", "line 2: 'docker' is none of lxd, incus"),
        ("version: 1\nrecorded_at: now\n", "line 2: 'now': it is not a time such as"),
        (HEAD + GET, "line 9: it has been cut off, there is no complete"),
        ("version: 1\n", "line 2: it has been cut off, there is no interactions"),
        (HEAD + "  []\n" + END + "recorded_with: x\n", "line 8: a cassette ends with its inter"),
        (HEAD + "  []\n" + END + END, "line 8: 'complete' stands twice"),
        (HEAD + "  []\ncomplete: yes\n", "line 7: 'yes' is neither true nor false"),
        (HEAD + "- response: {}\n" + END, "line 6: a response has no status: add it"),
        (HEAD + "- number: 1\n" + END, "line 6: an interaction has no request: add it"),
    ],
)
def test_what_is_no_cassette_is_refused(text: str, message: str) -> None:
    """One line: the place, what is wrong there, what to do."""
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  number: 0\n", "line 6: number 0 follows 0: take it out"),
        ("  colour: red\n", "line 9: 'colour' is no key of an interaction: use one of request"),
        ("  timing: {began: -1}\n", "line 9: '-1': it is not a number of seconds"),
        ("  response: {status: {}}\n", "line 9: a status has no code: add it"),
        ("  response: {status: {code: x}}\n", "line 9: 'x' is not a whole number"),
        ("  frames: [{direction: up, type: text}]\n", "line 9: 'up' is none of sent, received"),
        ("  frames: [{type: text}]\n", "line 9: a frame has no direction: add it"),
        ("  frames: {}\n", "line 9: frames are wanted here, as a list"),
        ("  operation: {base64: '!'}\n", "line 9: '!': it is not base64"),
        ("  operation: {}\n", "line 9: base64 has no base64: add it"),
        ("  operation: []\n", "line 9: text is wanted here"),
        ("  own: 1\n", "line 9: '1' is neither true nor false"),
    ],
)
def test_what_does_not_fit_is_told_of_by_its_line(text: str, message: str) -> None:
    """In an interaction whose first line is the sixth."""
    assert refused(HEAD + GET + text + END).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("json: |\n        {\n          'a': 1\n        }\n", "line 12: not JSON: Expecting prop"),
        ("json: '{'\n", "line 10: not JSON: Expecting"),
        (f"json: '{'[' * 9999}'\n", "line 10: not JSON: it is nested too deeply"),
        ("json: '[NaN]'\n", "line 10: not JSON: NaN is not JSON"),
        ("json: 1\n      text: x\n", "line 10: this has both json and text: take one out"),
        ("text: x\n      size: 1\n", "line 10: size goes with file or sha256"),
        (f"sha256: {'a' * 64}\n", "line 10: size goes with file or sha256"),
        ("size: 1\n", "line 10: size goes with file or sha256"),
        ("sha256: ../x\n      size: 1\n", "line 10: '../x' is not a SHA-256"),
        ("base64: é\n", "line 10: 'é': it is not base64"),
    ],
)
def test_a_body_is_what_it_says_it_is(text: str, message: str) -> None:
    """JSON that a person has broken is told of by the line within it."""
    asked = "- request:\n    method: GET\n    uri: /\n    body:\n      "
    assert refused(HEAD + asked + text + END).startswith(message)


def test_what_lies_beside_is_checked() -> None:
    """Missing, altered or of another size: the cassette is not whole."""
    data = b"\xff" * 5000
    sha256 = hashlib.sha256(data).hexdigest()
    frame = f"{{direction: sent, type: bytes, file: {sha256}, size: 5000}}"
    text = HEAD + GET + f"  frames:\n  - {frame}\n  - {frame}\n" + END
    shelf = Shelf()
    assert "is not beside the cassette" in refused(text, shelf)
    shelf.files[sha256] = b"other"
    assert "has been altered" in refused(text, shelf)
    shelf.files[sha256] = data
    assert "has 5000 bytes, not 1" in refused(text.replace("5000", "1"), shelf)
    one, other = loaded(text, shelf).interactions[0].pieces
    assert one.payload is other.payload
    assert one.payload.captured == data
    assert loaded(text).interactions[0].pieces[0].payload == Body(5000, b"", sha256)
    empty = hashlib.sha256(b"").hexdigest()
    shelf.files[empty] = b""
    nothing = text.replace(sha256, empty).replace("5000", "0")
    assert loaded(nothing, shelf).interactions[0].pieces[0].payload == EMPTY


def test_no_beginning_of_a_cassette_is_one() -> None:
    """Cut at any byte, it is refused."""
    assert loaded(TEXT) == RICH
    for end in range(len(TEXT)):
        refused(TEXT[:end])


@given(cassettes(most=1), st.data())
def test_no_beginning_of_any_cassette_is_one(cassette: Cassette, data: st.DataObject) -> None:
    """Whatever it holds: even the text of another cassette."""
    text = written(cassette).encode()
    refused(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.integers(0, 8 * len(TEXT) - 1))
def test_a_damaged_cassette_is_refused_or_still_one(bit: int) -> None:
    """Any bit may flip: what loads then can be saved again."""
    damaged = bytearray(TEXT)
    damaged[bit >> 3] ^= 1 << (bit & 7)
    with contextlib.suppress(CassetteError):
        cassette = loaded(bytes(damaged))
        assert loaded(written(cassette)) == kept(cassette)


def test_a_cassette_within_a_cassette_does_not_end_it() -> None:
    """Nothing that was recorded can be taken for what the file says itself."""
    inner = RICH.interactions[0].transaction._replace(response=Response(200, body=body(TEXT)))
    outer = RICH._replace(interactions=(Interaction(inner),))
    text = written(outer).encode()
    assert loaded(text) == outer
    refused(text[: -len(END)])


def test_the_documentation_s_example_is_one() -> None:
    """It is loaded, and its errors read as shown."""
    text = (Path(__file__).parents[2] / "docs/cassette-format.md").read_text("utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    (shown,) = loaded(example).interactions
    assert shown.transaction.response is not None
    assert shown.transaction.response.body.captured.endswith(b"}\n\n")
    message = refused(example.replace("body:", "bodi:"))
    assert message.partition(": ")[2] in text


def test_cost_is_linear() -> None:
    """Eight times as many interactions cost about eight times as much."""

    def read(times: int) -> None:
        loaded(HEAD + (GET + "  operation: x\n") * times + END)

    assert cost(lambda: read(1600)) < 20 * cost(lambda: read(200)) + 0.01
