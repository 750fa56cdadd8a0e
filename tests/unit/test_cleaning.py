"""What of a recording is written down, and what is not."""

from __future__ import annotations

import gzip
import hashlib
import json

from lxdtap.cassette.cleaning import Cleaner, Rules
from lxdtap.cassette.model import Interaction, Piece
from lxdtap.redact import Redactor
from lxdtap.transaction import Body, Direction, Opcode, Transaction

from .conversation import GET, OK, reply, talk

SECRET = "correct-horse-battery"


def body(data: bytes) -> Body:
    return Body(len(data), data)


def document(value: object, end: bytes = b"\n") -> Body:
    return body(json.dumps(value, separators=(",", ":")).encode() + end)


def posted(sent: object) -> Transaction:
    """A request with a JSON body, and its answer."""
    told = talk(">>", GET, "<<", OK).only
    kind = (("Content-Type", "application/json"),)
    return told._replace(request=told.request._replace(headers=kind, body=document(sent)))


def clean(transaction: Transaction, rules: Rules | None = None) -> Transaction:
    return Cleaner(Redactor(), rules).clean(Interaction(transaction)).transaction


def piece(data: bytes, opcode: Opcode = Opcode.TEXT) -> Piece:
    return Piece(Direction.RECEIVED, 0, body(data), opcode)


def pieces(*given: Piece, stream: str = "", rules: Rules | None = None) -> tuple[Piece, ...]:
    told = Interaction(talk(">>", GET, "<<", OK).only, given, stream=stream)
    return Cleaner(Redactor(), rules).clean(told).pieces


def test_credentials_and_settings_are_taken_out() -> None:
    """Passwords by their keys, and all that people put into settings; the rest is as it was."""
    sent = {
        "password": SECRET,
        "environment": {"HOME": "/root"},
        "config": {"user.token-of-mine": "a", "cloud-init.user-data": "b", "limits.cpu": "2"},
        "environment.A": "c",
        "command": ["id"],
    }
    said = json.loads(clean(posted(sent)).request.body.captured)
    assert said["password"] == "REDACTED-1"
    assert said["environment"]["HOME"].startswith("REDACTED-")
    config = said["config"]
    assert config["user.token-of-mine"].startswith("REDACTED-")
    assert config["cloud-init.user-data"].startswith("REDACTED-")
    assert said["environment.A"].startswith("REDACTED-")
    assert (config["limits.cpu"], said["command"]) == ("2", ["id"])


def test_what_the_daemon_tells_of_itself_stays() -> None:
    """Its environment in GET /1.0 is no exec's: clients go by it."""
    told = posted({"environment": {"server_version": "5.0.2", "kernel": "Linux"}})
    assert clean(told) == told


def test_the_same_secret_has_the_same_name_everywhere() -> None:
    """In a body, a target, a header and an answer, so that what is played again still fits."""
    told = posted({"secret": SECRET})
    headers = (("X-Seen", f"got {SECRET}"),)
    target = f"/1.0?secret={SECRET}"
    assert told.response is not None
    told = told._replace(
        request=told.request._replace(target=target),
        response=told.response._replace(headers=headers),
    )
    done = clean(told)
    assert done.request.body.captured == b'{"secret":"REDACTED-1"}\n'
    assert done.request.target == "/1.0?secret=REDACTED-1"
    assert done.response is not None
    assert done.response.headers == (("X-Seen", "got REDACTED-1"),)


def test_the_log_and_the_cassette_agree() -> None:
    """A secret that the log has met keeps the name that it had there."""
    redactor = Redactor()
    redactor.text(f"password={SECRET}-1 token={SECRET}-2")
    told = Interaction(posted({"token": f"{SECRET}-2"}))
    done = Cleaner(redactor).clean(told).transaction
    assert done.request.body.captured == b'{"token":"REDACTED-2"}\n'


def test_what_holds_no_secret_keeps_its_bytes() -> None:
    """Spacing, escapes and line ends are the daemon's own where nothing was taken out."""
    raw = b'{ "a" : "\\u003e" }\n\n'
    told = reply(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", raw)
    assert told.response is not None
    done = clean(told).response
    assert done is not None
    assert done.body.captured == raw


def test_line_ends_survive() -> None:
    """LXD ends errors with two newlines and all else with one."""
    told = posted({})
    told = told._replace(request=told.request._replace(body=document({"token": "x"}, b"\n\n")))
    assert clean(told).request.body.captured == b'{"token":"REDACTED-1"}\n\n'


def test_no_answer_is_none() -> None:
    """What was never answered is cleaned all the same."""
    told = talk(">>", GET + b"", "||").only
    assert clean(told).response is None


def test_what_is_not_json_is_never_edited() -> None:
    """A file that holds a password is a file; exec's data is what was said."""
    file = f"password={SECRET}".encode()
    told = reply(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n", file)
    done = clean(told).response
    assert done is not None
    assert done.body.captured == file
    said = piece(f'{{"password": "{SECRET}"}}'.encode(), Opcode.BINARY)
    assert pieces(said) == (said,)
    assert pieces(said._replace(opcode=Opcode.TEXT), stream="stdout")[0].payload == said.payload


def test_events_are_cleaned() -> None:
    """A secret in an event has its name; the control stream's words are events too."""
    told = piece(f'{{"metadata":{{"secret":"{SECRET}"}}}}\n'.encode())
    (done,) = pieces(told)
    assert done.payload.captured == b'{"metadata":{"secret":"REDACTED-1"}}\n'
    (done,) = pieces(told, stream="control")
    assert done.payload.captured == b'{"metadata":{"secret":"REDACTED-1"}}\n'


def test_logging_events_are_left_out() -> None:
    """They hold copies of everything; other events that mention the word stay."""
    logging = piece(b'{"type":"logging","metadata":{}}')
    other = piece(b'{"type":"lifecycle","metadata":{"source":"logging"}}')
    odd = piece(b'"logging" is no JSON')
    raw = piece(b'{"type":"logging"}', Opcode.BINARY)
    assert pieces(logging, other, odd, raw) == (other, odd, raw)
    assert pieces(logging, rules=Rules(logging=False)) == (logging,)


def test_secrets_may_be_kept() -> None:
    """As they are, byte for byte."""
    told = posted({"password": SECRET})
    told = told._replace(request=told.request._replace(target=f"/1.0?secret={SECRET}"))
    assert clean(told, Rules(secrets=False)).request == told.request


def test_payload_may_be_left_out() -> None:
    """Commands become names, data and files their size and hash; what is empty stays so."""
    rules = Rules(payload=True)
    sent = clean(posted({"command": ["rm", "-rf"], "cwd": "/"}), rules).request.body.captured
    assert json.loads(sent) == {"command": ["REDACTED-1", "REDACTED-2"], "cwd": "/"}
    (said, barrier) = pieces(
        piece(b"hello", Opcode.BINARY), piece(b""), stream="stdout", rules=rules
    )
    assert said.payload == Body(5, b"", hashlib.sha256(b"hello").hexdigest())
    assert barrier.payload.size == 0


def test_a_message_in_fragments_is_one() -> None:
    """What gorilla/websocket cuts after 4 KiB is read whole, and only then rewritten."""
    text = f'{{"metadata":{{"secret":"{SECRET}"}}}}'.encode()
    first = piece(text[:25])._replace(final=False)
    ping = piece(b"", Opcode.PING)
    last = piece(text[25:], Opcode.CONTINUATION)._replace(offset=9)
    told = piece(b'{"a":1}')._replace(direction=Direction.SENT)
    (pinged, said, done) = pieces(first, ping, told, last)
    assert (pinged, said) == (ping, told)
    assert done == piece(b'{"metadata":{"secret":"REDACTED-1"}}')._replace(offset=9)


def test_fragments_without_a_secret_stay_fragments() -> None:
    """Byte for byte, and in their order."""
    first = piece(b'{"a":')._replace(final=False)
    ping = piece(b"", Opcode.PING)
    last = piece(b"1}", Opcode.CONTINUATION)
    assert pieces(first, ping, last) == (first, ping, last)
    raw = piece(b"x", Opcode.BINARY)._replace(final=False)
    assert pieces(raw, last) == (raw, last)
    tunnel = raw._replace(opcode=None)
    assert pieces(tunnel) == (tunnel,)


def test_fragments_of_logging_events_are_left_out() -> None:
    """All of them, wherever the cut is."""
    first = piece(b'{"type":"logg')._replace(final=False)
    assert pieces(first, piece(b'ing"}', Opcode.CONTINUATION)) == ()


def test_a_message_that_was_cut_is_cleaned_by_its_looks() -> None:
    """The recording ended within it: no JSON yet, but a secret all the same."""
    cut = piece(f'{{"metadata":{{"secret":"{SECRET}'.encode())._replace(final=False)
    (done,) = pieces(cut)
    assert done.payload.captured == b'{"metadata":{"secret":"REDACTED-1'


def sent_as(kind: str, data: bytes, *more: tuple[str, str]) -> Transaction:
    told = talk(">>", GET, "<<", OK).only
    headers = (("Content-Type", kind), *more)
    return told._replace(request=told.request._replace(headers=headers, body=body(data)))


def test_curl_calls_json_a_form() -> None:
    """``curl -d`` says so of whatever it sends: JSON is cleaned as JSON, a form as a form."""
    form = "application/x-www-form-urlencoded"
    told = sent_as(form, b'{"config":{"user.a":"mine"}}')
    assert clean(told).request.body.captured == b'{"config":{"user.a":"REDACTED-1"}}'
    told = sent_as(form, f"name=x&password={SECRET}".encode())
    assert clean(told).request.body.captured == b"name=x&password=REDACTED-1"


def test_odd_json_is_cleaned_by_its_looks() -> None:
    """A key that is repeated makes it no document here, yet the daemon takes it; bytes survive."""
    told = sent_as("application/json", f'{{"password":"a\xff","password":"{SECRET}"}}'.encode())
    assert clean(told).request.body.captured == b'{"password":"REDACTED-1","password":"REDACTED-2"}'
    told = sent_as("application/json", b"\xff\0")
    assert clean(told) == told
    assert clean(told, Rules(secrets=False)) == told
    cut = told._replace(request=told.request._replace(body=Body(9, b"{", "0" * 64)))
    assert clean(cut) == cut


def test_what_is_no_http_is_cleaned_by_its_looks() -> None:
    """A request that could not be read holds its headers in its body."""
    told = sent_as("", f"GET\r\nAuthorization: Bearer {SECRET}\r\n".encode())
    told = told._replace(request=told.request._replace(garbled="no target"))
    assert clean(told).request.body.captured == b"GET\r\nAuthorization: Bearer REDACTED-1\r\n"


def test_what_was_packed_is_plain_once_it_was_edited() -> None:
    """Then no header says otherwise; what holds no secret stays packed."""
    packed = ("Content-Encoding", "gzip")
    told = sent_as("application/json", gzip.compress(b'{"password":"x"}'), packed)
    done = clean(told).request
    assert (done.headers, done.body.captured) == (
        (("Content-Type", "application/json"),),
        b'{"password":"REDACTED-1"}',
    )
    told = sent_as("application/json", gzip.compress(b'{"a":"x"}'), packed)
    assert clean(told) == told


def test_a_file_is_a_file_where_it_looks_like_json() -> None:
    """What lxc pushes says nothing of what it is: it is kept as it is, or left out."""
    for target in (
        "/1.0/instances/c1/files?path=/etc/x",
        "/1.0/instances/c1/metadata/templates?path=x",
        "/1.0/storage-pools/p/volumes/custom/v/files?path=/x",
    ):
        told = posted({"password": SECRET})
        told = told._replace(request=told.request._replace(target=target, headers=()))
        assert clean(told) == told
        left = clean(told, Rules(payload=True)).request.body
        assert (left.captured, left.size) == (b"", told.request.body.size)


def test_the_database() -> None:
    """What stands under the name of a secret is one in a row too; as payload all of it goes."""
    told = reply(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
        json.dumps({"columns": ["key", "value"], "rows": [["user.x", SECRET]]}).encode(),
    )
    told = told._replace(
        request=posted({"query": "SELECT"}).request._replace(target="/internal/sql")
    )
    answer = clean(told).response
    assert answer is not None
    assert json.loads(answer.body.captured)["rows"] == [["user.x", "REDACTED-1"]]
    bare = clean(told, Rules(payload=True))
    assert bare.response is not None
    assert (bare.request.body.captured, bare.response.body.captured) == (b"", b"")


def test_a_stream_of_an_unknown_operation_is_data() -> None:
    """Nobody recorded what it is for: what looks like an event may have been printed."""
    printed = piece(f'{{"type":"logging","password":"{SECRET}"}}'.encode())
    told = talk(">>", GET, "<<", OK).only
    told = told._replace(request=told.request._replace(target="/1.0/operations/x/websocket"))
    assert Cleaner(Redactor()).clean(Interaction(told, (printed,))).pieces == (printed,)


def test_odd_json_that_nobody_calls_so() -> None:
    """What a daemon may take for JSON is looked through, though its own text would be another."""
    told = sent_as("", f'{{"n":1,"n":2,"password":"{SECRET}"}}'.encode())
    told = told._replace(request=told.request._replace(headers=()))
    assert clean(told).request.body.captured == b'{"n":1,"n":2,"password":"REDACTED-1"}'
    file = told._replace(request=told.request._replace(body=body(f"password={SECRET}".encode())))
    assert clean(file) == file
