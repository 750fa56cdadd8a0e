"""What is found in a cassette, and what is not."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace

import pytest

from lxdtap.cassette.check import Finding, Places, findings
from lxdtap.cassette.cleaning import Cleaner, Rules
from lxdtap.cassette.model import Cassette, Interaction, Piece, Server
from lxdtap.redact import Redactor
from lxdtap.transaction import EMPTY, Body, Direction, Opcode, Transaction

from .conversation import BASE, GET, OK, talk

SECRET = "correct-horse-battery"
JSON = (("Content-Type", "application/json"),)
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0123456789\n"
CHANCE = random.Random(7)


def body(data: bytes | object) -> Body:
    raw = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    return Body(len(raw), raw) if raw else EMPTY


def transaction(sent: object = b"", said: object = b"", target: str = "/1.0") -> Transaction:
    told = talk(">>", GET, "<<", OK).only
    assert told.response is not None
    request = told.request._replace(target=target, headers=JSON, body=body(sent))
    return told._replace(
        request=request, response=told.response._replace(headers=JSON, body=body(said))
    )


def cassette(*interactions: Interaction, complete: bool = True) -> Cassette:
    return Cassette(Server("lxd", BASE), interactions, complete=complete)


def found(*interactions: Interaction) -> list[tuple[str, str]]:
    """What is found, and where; notes aside."""
    told = [each for each in findings(cassette(*interactions)) if not each.note]
    return [(each.what, each.where) for each in told]


def noted(*interactions: Interaction) -> list[tuple[str, str]]:
    told = [each for each in findings(cassette(*interactions)) if each.note]
    return [(each.what, each.where) for each in told]


def piece(data: bytes, opcode: Opcode | None = Opcode.TEXT, offset: int = 0) -> Piece:
    return Piece(Direction.RECEIVED, offset, body(data), opcode)


def in_body(text: str) -> list[tuple[str, str]]:
    return found(Interaction(transaction({"a": [text]})))


def test_known_fields_are_found_where_they_stand() -> None:
    """By the rules of the recording: also a copy that stands before what tells that it is one."""
    sent = {
        "password": SECRET,
        "config": {"user.a": "mine", "limits.cpu": "2", "n": 1},
        "list": [SECRET],
    }
    told = found(Interaction(transaction(sent, {"metadata": SECRET}, f"/1.0?x={SECRET}")))
    assert told == [
        ("a credential", "uri"),
        ("a credential", "request body: password"),
        ("a setting that may be secret", "request body: config.user.a"),
        ("a credential", "request body: list.0"),
        ("a credential", "response body: metadata"),
    ]


def test_what_was_recorded_is_clean() -> None:
    """Placeholders are no secrets."""
    sent = {"password": SECRET, "config": {"user.a": "mine"}, "environment": {"A": "b"}}
    told = Interaction(transaction(sent, sent, f"/1.0?secret={SECRET}"))
    assert found(Cleaner(Redactor()).clean(told)) == []


def test_keys_headers_trailers_and_text() -> None:
    """Nothing is left out: a key may hold a secret, a header, and what is no document."""
    told = transaction({"password": SECRET, SECRET: "x"})
    assert found(Interaction(told))[1] == ("a credential", "request body: a key")
    told = transaction()
    headers = (("Authorization", f"Bearer {SECRET}"), ("Content-Encoding", "gzip"))
    request = told.request._replace(headers=headers, trailers=headers)
    assert found(Interaction(told._replace(request=request))) == [
        ("a credential", "request headers: Authorization"),
        ("a credential", "request trailers: Authorization"),
    ]
    odd = transaction(f'{{"password":"{SECRET}","password":"{SECRET}"}}'.encode())
    assert found(Interaction(odd)) == [("a credential", "request body")]


def test_no_answer_is_none() -> None:
    """What was not answered can hold a secret all the same."""
    told = transaction({"token": SECRET})._replace(response=None)
    assert found(Interaction(told)) == [("a credential", "request body: token")]


def test_frames() -> None:
    """An event's secret, a logging event that was kept, a message in fragments."""
    event = piece(b'{"metadata":{"secret":"%s"}}' % SECRET.encode())
    logging = piece(b'{"type":"logging","metadata":{}}', offset=1)
    fine = piece(b'{"type":"lifecycle"}', offset=2)
    assert found(Interaction(transaction(), (event, logging, fine))) == [
        ("a credential", "frame: metadata.secret"),
        ("a logging event, which may hold a copy of anything", "frame"),
    ]
    first = piece(b'{"metadata":{"sec')._replace(final=False)
    last = piece(b'ret":"%s"}}' % SECRET.encode(), Opcode.CONTINUATION, 3)
    assert found(Interaction(transaction(), (first, last))) == [("a credential", "frame")]


def test_each_is_told_once() -> None:
    """However often it stands in one place."""
    text = b'{"metadata":{"secret":"%s"}}' % SECRET.encode()
    told = found(Interaction(transaction(), (piece(text), piece(text, offset=1))))
    assert told == [("a credential", "frame: metadata.secret")]


def token() -> str:
    return base64.b64encode(
        json.dumps({"server_name": "a", "secret": SECRET * 3}).encode()
    ).decode()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("AKIAIOSFODNN7EXAMPLE", "what looks like a token"),
        ("ghp_" + "a1B2" * 9, "what looks like a token"),
        ("glpat-" + "a1B2-" * 4, "what looks like a token"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "what looks like a token"),
        (token(), "what looks like a token"),
        ("Zk3qP9xL2mV7tB4nR8wS", "20 characters that look random"),
        ("k3j9x2m7q4w8r5t1y6u0p3z8", "24 characters that look random"),
    ],
)
def test_what_looks_secret(text: str, what: str) -> None:
    """Wherever it stands: in a document, in a header, in the target."""
    assert in_body(text) == [(what, "request body: a.0")]
    assert found(Interaction(transaction(target=f"/1.0?x={text}"))) == [(what, "uri")]
    told = transaction()
    named = told.request._replace(headers=(("X-Odd", text),))
    assert found(Interaction(told._replace(request=named))) == [(what, "request headers: X-Odd")]


def test_chance_is_found() -> None:
    """Nineteen in twenty strings of 24 random letters and digits."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    told = [in_body("".join(CHANCE.choices(letters, k=24))) for _ in range(200)]
    assert sum(map(bool, told)) >= 190


@pytest.mark.parametrize(
    "text",
    [
        "d41d8cd98f00b204e9800998ecf8427e" * 2,
        "D41D8CD98F00B204E9800998ECF8427E",
        "4171ecd5-9c88-45c4-9a80-db3f4c858bed",
        "/var/lib/lxd/storage-pools/default/containers/c1",
        "instance_nic_bridged_port_isolation2",
        "getInstanceStateForProjectDefault2",
        "InternalServerErrorInternalServerError",
        "REDACTED-1",
        "00000000000000000000000000",
        "-----BEGIN CERTIFICATE-----\nZk3qP9xL2mV7tB4nR8wSZk3qP9xL2m\n-----END CERTIFICATE-----",
        "MIICaDCCAe6gAwIBAgIRAPFsvuq6jXc3pYgZ5N3nZ1MwCgYIKoZIzj0EAwMwNDEWMBQGA1UEChMNTGlu" * 2,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN9Cr3JXqmLW7u2g5c1pNvq6v me@here",
    ],
)
def test_what_does_not(text: str) -> None:
    """Hashes, names, paths, UUIDs, certificates and public keys are none."""
    assert in_body(text) == []


def test_what_http_makes_up_is_no_secret() -> None:
    """The nonces of a websocket's handshake, and ETags."""
    told = transaction()
    headers = (("Sec-WebSocket-Key", "Zk3qP9xL2mV7tB4nR8wSZk=="), ("ETag", "Zk3qP9xL2mV7tB4nR8wS"))
    assert found(Interaction(told._replace(request=told.request._replace(headers=headers)))) == []


def test_private_keys_are_found_in_payload_too() -> None:
    """In a file, in what a command printed; what is random there is only payload."""
    raw = transaction(KEY.encode())._replace(response=None)
    raw = raw._replace(request=raw.request._replace(headers=()))
    assert found(Interaction(raw)) == [("a private key", "request body")]
    printed = piece(KEY.encode(), Opcode.BINARY)
    assert found(Interaction(transaction(), (printed,), stream="stdout")) == [
        ("a private key", "frame")
    ]
    noise = piece(b"Zk3qP9xL2mV7tB4nR8wS", Opcode.BINARY)
    assert found(Interaction(transaction(), (noise,), stream="stdout")) == []


def test_payload_is_noted() -> None:
    """Commands, what was typed and printed, and bodies that are no documents."""
    assert noted(Interaction(transaction({"command": ["id"]}))) == [
        ("a command that was run", "request body")
    ]
    assert noted(Interaction(transaction({"metadata": [{"command": ["id"]}]}))) == [
        ("a command that was run", "request body")
    ]
    data, ping = piece(b"hello", Opcode.BINARY), piece(b"x", Opcode.PING)
    told = Interaction(transaction(), (data, ping, piece(b"")), stream="stdout")
    assert noted(told) == [("5 bytes that were typed, printed or sent", "stdout")]
    assert noted(told._replace(pieces=(piece(b"abc", None),), stream="")) == [
        ("3 bytes that were typed, printed or sent", "frames")
    ]
    assert (
        noted(told._replace(pieces=(piece(b"{}"),), stream="control"))
        == [("2 bytes that were typed, printed or sent", "control")][:0]
    )
    file = transaction(b"\xff\xfe")
    assert noted(Interaction(file)) == [("2 bytes that are never edited", "request body")]


def test_payload_that_was_left_out_is_not_noted() -> None:
    """As ``--redact-payload`` has it; what cannot be played again for it is."""
    data = Interaction(
        transaction({"command": ["id"]}), (piece(b"x", Opcode.BINARY),), stream="stdout"
    )
    clean = Cleaner(Redactor(), Rules(payload=True)).clean(data)
    assert noted(clean) == [("it cannot be played again, for not all of the answer was kept", "")]


def test_an_incomplete_recording_is_noted() -> None:
    """Once, not of an interaction."""
    (told,) = findings(cassette(complete=False))
    assert told.note
    assert told.line("a.yaml", Places([])) == "a.yaml:1: note: the recording is not complete"


TEXT = """\
version: 1
interactions:

{0}- request:
{0}    uri: one
{0}  frames:
{0}  - {{direction: sent}}

{0}- request:
{0}    body: |
{0}        - secret
complete: true
"""


@pytest.mark.parametrize("margin", ["", "  "])
def test_places(margin: str) -> None:
    """A finding's line is that of its text, else of its interaction; however it is indented."""
    places = Places(TEXT.format(margin).splitlines(keepends=True))
    assert places.find(0, "one") == 5
    assert places.find(0, "secret") == 4
    assert places.find(1, "secret") == 11
    assert places.find(1, "") == 9
    assert places.find(2, "secret") == places.find(-1, "") == 1


def test_a_line_is_for_people_and_programs() -> None:
    """FILE:LINE: first, then which interaction, what and where."""
    places = Places(TEXT.format("").splitlines())
    told = Finding(1, 7, "a credential", "request body: a", text="secret")
    assert told.line("a.yaml", places) == "a.yaml:11: interaction #7: a credential, request body: a"
    assert replace(told, note=True, where="").line("a.yaml", places) == (
        "a.yaml:11: note: interaction #7: a credential"
    )


def test_files_and_the_database_are_noted() -> None:
    """Also where they are JSON, of which only what is known to be secret is taken out."""
    file = transaction({"a": 1}, {"metadata": None}, "/1.0/instances/c1/files?path=/x")
    assert noted(Interaction(file)) == [("7 bytes that are never edited", "request body")]
    query = transaction({"query": "SELECT"}, {"rows": []}, "/internal/sql")
    assert noted(Interaction(query)) == [
        ("what the database was asked, or said", "request body"),
        ("what the database was asked, or said", "response body"),
    ]


def test_events_of_commands_are_noted() -> None:
    """An event may tell what was run; once, however many do."""
    ran = piece(b'{"type":"lifecycle","metadata":{"context":{"command":["id"]}}}')
    gone = piece(b'{"type":"lifecycle","metadata":{"context":{"command":"REDACTED-1"}}}')
    other = piece(b'{"type":"lifecycle","metadata":{"source":"command"}}')
    odd = piece(b'"command" is no JSON')
    events = transaction(target="/1.0/events")
    assert noted(Interaction(events, (other, ran, ran))) == [("a command that was run", "frame")]
    assert noted(Interaction(events, (other, gone, odd))) == []
    control = transaction(target="/1.0/operations/x/websocket")
    resized = piece(b'{"command":"window-resize"}')
    assert noted(Interaction(control, (resized,), stream="control")) == []


def test_a_stream_that_nobody_knows_is_noted() -> None:
    """An operation's websocket carries data, unless it is known to be its control stream."""
    told = transaction(target="/1.0/operations/x/websocket")
    assert noted(Interaction(told, (piece(b"hello"),))) == [
        ("5 bytes that were typed, printed or sent", "frames")
    ]
