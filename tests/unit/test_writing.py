"""The text of a cassette: what a person sees, and that nothing gets lost in it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given

from lxdtap.cassette import writing
from lxdtap.cassette.model import Cassette, Interaction, Piece, Server
from lxdtap.transaction import (
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

from .builders import BASE, body, cut_body
from .cassettes import RECORDED_AT, SERVER, Shelf, cassettes, kept, loaded, written
from .conversation import cost

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/cassette.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
RECEIVED, SENT = Direction.RECEIVED, Direction.SENT
JSON = (("Content-Type", "application/json"),)
UUID = "70eb42bf-5e79-42de-8230-2162e9e8b612"

ONE = Interaction(
    Transaction(
        1,
        BASE,
        Request("POST", "/1.0/instances/c1/exec", headers=JSON, body=body('{"command":["id"]}\n')),
        Timing(RECORDED_AT, 0, 1_000, 2_000_000, 2_500_000),
        Response(
            202, "Accepted", headers=(*JSON, ("Content-Length", "19")), body=body('{"a":[]}\n\n')
        ),
        connection=3,
    ),
    operation=UUID,
)
OTHER = Interaction(
    Transaction(
        2,
        BASE,
        Request("GET", "/1.0/operations/x/websocket?secret=y", headers=(("A", "1"), ("A", "2"))),
        Timing(RECORDED_AT + 10**9, 10**9),
        Response(101, "Switching Protocols"),
        Tunnel("websocket", Count(), Count(3, 16), 1000, ended="the daemon hung up"),
        connection=4,
    ),
    (
        Piece(RECEIVED, 10**9 + 5, body("hello\n"), Opcode.BINARY, final=False),
        Piece(RECEIVED, 10**9 + 6, body('{"b":1}\n'), Opcode.CONTINUATION),
        Piece(RECEIVED, 10**9 + 7, body("1\n"), Opcode.BINARY),
        Piece(SENT, 10**9 + 8, body(b"\x03\xe8"), Opcode.CLOSE),
        Piece(RECEIVED, 10**9 + 9, body(b""), Opcode.PING),
    ),
    UUID,
    "stdout",
)
TEXT = """\
# Recorded by lxdtap; docs/cassette-format.md tells what may be edited, and how.
version: 1
recorded_with: lxdtap 0.1.0
recorded_at: "2023-11-14T22:13:20.123456789Z"
server:
  kind: lxd
  version: "5.0.2"
  address: http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket

interactions:
- request:
    method: POST
    uri: /1.0/instances/c1/exec
    headers:
      Content-Type: application/json
    body:
      json: |
        {
          "command": [
            "id"
          ]
        }
  response:
    status: {code: 202, message: Accepted}
    headers:
      Content-Type: application/json
      Content-Length: "19"
    body:
      json: |+
        {
          "a": []
        }

  timing: {began: 0.0, sent: 0.000001, answered: 0.002, duration: 0.0025}
  connection: 3
  operation: 70eb42bf-5e79-42de-8230-2162e9e8b612

- request:
    method: GET
    uri: /1.0/operations/x/websocket?secret=y
    headers:
      - name: A
        value: "1"
      - name: A
        value: "2"
  response:
    status: {code: 101, message: Switching Protocols}
  timing: {began: 1.0}
  connection: 4
  operation: 70eb42bf-5e79-42de-8230-2162e9e8b612
  stream: stdout
  tunnel: {protocol: websocket, close_code: 1000, ended: the daemon hung up}
  frames:
  - {direction: received, offset: 1.000000005, type: binary, final: false, text: "hello\\n"}
  - direction: received
    offset: 1.000000006
    type: continuation
    json: |
      {
        "b": 1
      }
  - {direction: received, offset: 1.000000007, type: binary, text: "1\\n"}
  - {direction: sent, offset: 1.000000008, type: close, base64: "A+g="}
  - {direction: received, offset: 1.000000009, type: ping}

complete: true
"""
WHOLE = Cassette(SERVER, (ONE, OTHER), "lxdtap 0.1.0", RECORDED_AT)


def of(sent: Body, *, media: str = "", shelf: Shelf | None = None) -> list[str]:
    """The lines of a request's body."""
    headers = (("content-TYPE", media),) if media else ()
    request = Request("PUT", "/1.0", headers=headers, body=sent)
    told = ONE.transaction._replace(request=request, response=None)
    lines = written(Cassette(SERVER, (Interaction(told),)), shelf).split("    body:\n")[1]
    return lines.split("  timing:")[0].splitlines()


def test_it_reads_like_this() -> None:
    """Exchanges and frames in the order of time, JSON in lines, nothing said that is understood."""
    assert written(WHOLE) == TEXT
    assert loaded(TEXT) == WHOLE


@given(cassettes())
def test_any_recording_fits_the_schema(cassette: Cassette) -> None:
    """Every YAML reader has the same values, and the schema allows them."""
    VALIDATOR.validate(yaml.load(written(cassette), yaml.SafeLoader))


@given(cassettes())
def test_any_recording_is_loaded_as_it_was(cassette: Cassette) -> None:
    """But for white space within JSON, and the beginnings of what was not kept whole."""
    shelf = Shelf()
    assert loaded(written(cassette, shelf), shelf) == kept(cassette)


@given(cassettes())
def test_it_is_written_again_the_same(cassette: Cassette) -> None:
    """Loading and saving changes nothing: no noise in a diff."""
    shelf = Shelf()
    text = written(cassette, shelf)
    assert written(loaded(text, shelf)) == text


def test_the_schema_is_one() -> None:
    """It is valid itself, all of its objects are closed, and each of its keys is described."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, definition in SCHEMA["$defs"].items():
        assert definition["description"], name
        assert definition.get("additionalProperties", False) is False
        assert all(each["description"] for each in definition.get("properties", {}).values())


def test_the_schema_is_shipped() -> None:
    """The package has the schema that is documented."""
    shipped = Path(writing.__file__).parents[1] / "data/cassette.schema.json"
    assert json.loads(shipped.read_text("utf-8")) == SCHEMA


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b'[1, "\\u003e"]', ["      text: '[1, \"\\u003e\"]'"]),
        (
            b'[1,"\\u003e"]\n',
            ["      json: |", "        [", "          1,", '          "\\u003e"', "        ]"],
        ),
        (b"{broken\n", ['      text: "{broken\\n"']),
        (b"null", ['      text: "null"']),
        (b"a\n\n b\n", ["      text: |", "        a", "", "         b"]),
        (b"a\r\nb", ['      text: "\\', "        a\\r\\n\\", '        b"']),
        (b"\xff\n", ['      base64: "/wo="']),
        (b"a\0", ['      base64: "YQA="']),
        (b"\xff" * 76, ["      base64: |", f"        {'/' * 76}", f"        {'/' * 25}w=="]),
    ],
)
def test_a_body_has_the_form_that_suits_it(data: bytes, lines: list[str]) -> None:
    """JSON where that is exact, else text where it can be read, else base64."""
    assert of(body(data)) == lines


def test_white_space_in_what_is_said_to_be_json_means_nothing() -> None:
    """Its media type tells: so clients that space it differ in nothing."""
    spaced, plain = body('{"a": [1, 2]}'), body('{"a":[1,2]}')
    assert of(spaced, media="application/json") == of(plain, media="application/json")
    assert of(spaced, media="text/plain") != of(plain, media="text/plain")
    assert of(body("null"), media="application/json") == ["      json: |-", "        null"]
    assert of(body("nope"), media="application/json") == ['      text: "nope"']
    assert of(body('"\u2028"'), media="application/json") == ['      text: "\\"\\u2028\\""']


def test_what_is_large_lies_beside() -> None:
    """Binary above 4 KiB, text above 1 MiB, once for each content."""
    shelf = Shelf()
    for data in (b"\xff" * (writing.LONGEST_BINARY + 1), b"a" * (writing.LONGEST_TEXT + 1)):
        big = body(data)
        assert of(big, shelf=shelf) == [f'      file: "{big.sha256}"', f"      size: {big.size}"]
        assert shelf.files.pop(big.sha256) == data
    assert not shelf.files


def test_what_was_not_kept_is_known_by_its_hash() -> None:
    """Its size and its hash, and nothing of its beginning."""
    big = cut_body(b"abc", 1)
    assert of(big) == ["      size: 3", f'      sha256: "{big.sha256}"']


def test_an_empty_recording_is_one() -> None:
    """Nothing may have passed, or nothing may be known."""
    cassette = Cassette(Server("incus", ""), complete=False)
    text = written(cassette)
    assert text.endswith('  kind: incus\n  address: ""\n\ninteractions:\n  []\n\ncomplete: false\n')
    assert loaded(text) == cassette


def test_what_is_rare_is_told_where_it_happens() -> None:
    """Numbers that leave some out, interim answers, other versions, trailers, own answers."""
    request = Request(
        "", "", "HTTP/1.0", body=body("?"), garbled="no request", trailers=(("T", "1"),)
    )
    tunnel = Tunnel("opaque", Count(0, 7), reason="no HTTP: at all, only noise")
    answer = Response(200, interim=(100, 103))
    told = Transaction(
        7, "https://b", request, Timing(0, 0), answer, tunnel, broken="cut off", own=True
    )
    odd = Interaction(
        told,
        (
            Piece(
                RECEIVED,
                0,
                body("\xe9"),
            ),
            Piece(SENT, 0, body("x" * 99), Opcode.TEXT),
        ),
    )
    text = written(Cassette(SERVER, (odd,)))
    assert (
        text.split("interactions:\n")[1]
        == f"""\
- number: 7
  request:
    method: ""
    uri: ""
    version: HTTP/1.0
    body:
      text: "?"
    trailers:
      T: "1"
    garbled: no request
  response:
    interim: [100, 103]
    status: {{code: 200, message: ""}}
  timing: {{began: 0.0}}
  address: https://b
  broken: cut off
  own: true
  tunnel:
    protocol: opaque
    sent: {{frames: 0, bytes: 7}}
    received: {{frames: 0, bytes: 0}}
    reason: "no HTTP: at all, only noise"
  frames:
  - {{direction: received, offset: 0.0, type: bytes, text: "\xe9"}}
  - direction: sent
    offset: 0.0
    type: text
    text: "{"x" * 99}"

complete: true
"""
    )


def test_names_that_are_no_keys_are_values() -> None:
    """A header's name may be long, or not be text."""
    for name in ("\udcff", "n" * (writing.LONGEST_NAME + 1)):
        request = ONE.transaction.request._replace(headers=((name, "v"),))
        cassette = WHOLE._replace(
            interactions=(ONE._replace(transaction=ONE.transaction._replace(request=request)),),
        )
        assert "- name: " in written(cassette)
        assert loaded(written(cassette)) == cassette


def test_cost_is_linear() -> None:
    """Eight times as many interactions cost about eight times as much."""

    def write(times: int) -> None:
        writer = writing.Writer(Shelf().attach)
        writer.begin(SERVER)
        for _ in range(times):
            writer.interaction(ONE)

    assert cost(lambda: write(1600)) < 20 * cost(lambda: write(200)) + 0.01
