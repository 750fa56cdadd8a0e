"""Credentials out, placeholders in: nowhere does a secret stay that lxdtap could know."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap import redact
from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text
from lxdtap.log import debugformat, jsonformat, lineformat
from lxdtap.log.journal import Journal, Selection
from lxdtap.redact import Redactor
from lxdtap.transaction import Finished, Headers, Note, Opcode, Open, Tunnel, Update, Upgraded

from . import builders
from .builders import AT, envelope, event, frame_seen, operation_document, request, response

CANARY = "c0ffee" * 10 + "beef"
"""Has the form of a websocket's secret; so it can stand in the place of any."""
ODD = 'Canary "of\\a<coal>&mine/42'
"""Is spelled differently in JSON, in JSON within JSON, and in a URL."""
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n{CANARY[::-1]}\n-----END EC PRIVATE KEY-----\n"
FINGERPRINT = "f1" * 32


def escaped(text: str, times: int = 1) -> str:
    """A text as it stands in a JSON string that stands in a JSON string, and so on."""
    for _ in range(times):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text


def learned(*secrets: str) -> Redactor:
    """A redactor that has seen these as passwords."""
    redactor = Redactor()
    redactor.content(Document({"password": list(secrets)}))
    return redactor


def test_what_was_sent_is_not_kept_beside_what_is_left() -> None:
    """A document from which something was taken is another, and was never sent."""
    clean = Redactor().content(Document({"password": "fish"}, b'{"password":"fish"}'))
    assert isinstance(clean, Document)
    assert (clean.value, clean.compact) == ({"password": "REDACTED-1"}, b"")


def cleaned(value: Json) -> Json:
    """What is left of a document."""
    clean = Redactor().content(Document(value))
    assert isinstance(clean, Document)
    return clean.value


# -- where a secret stands: section by section of what is known to cross LXD's socket

EXEC = operation_document(
    kind="websocket",
    metadata={"command": ["sh"], "fds": {"0": CANARY, "1": "1" * 64, "control": "c" * 64}},
)
MIGRATION = operation_document(kind="websocket", metadata={"control": "0" * 64, "fs": CANARY})
TOKEN = operation_document(
    kind="token", metadata={"secret": CANARY, "fingerprint": FINGERPRINT, "addresses": ["[::1]"]}
)

DOCUMENTS: dict[str, Json] = {
    "the answer to an exec": envelope(EXEC, "async"),
    "the answer to a migration": envelope(MIGRATION, "async"),
    "an operation's event": event(EXEC),
    "a list of operations": envelope({"running": [MIGRATION, EXEC]}),
    "where a migration comes from": {"source": {"type": "migration", "secrets": {"fs": CANARY}}},
    "where a migration goes to": {"target": {"secrets": {"control": CANARY, "fs": "0" * 64}}},
    "the trust password": {"config": {"core.trust_password": CANARY}},
    "a certificate's password": {"type": "client", "password": CANARY},
    "a token operation": envelope(TOKEN, "async"),
    "pending tokens": envelope({"running": [TOKEN]}),
    "a trust token": {"type": "client", "trust_token": CANARY},
    "a cluster's token": {"cluster_token": CANARY},
    "a cluster's password": {"cluster_password": CANARY},
    "an image's secret": {"source": {"type": "image", "secret": CANARY}},
    "a cluster's key": {"cluster_certificate_key": CANARY},
    "a key in a file's text": {"config": {"user.user-data": f"#cloud-config\n{PEM}"}},
    **{
        f"the server's {key}": {"config": {key: CANARY}}
        for key in (
            "candid.api.key",
            "maas.api.key",
            "rbac.api.key",
            "rbac.agent.private_key",
            "loki.auth.password",
            "oidc.client.secret",
        )
    },
    **{
        f"a pool's or bucket's {key}": {"config": {key: CANARY}}
        for key in (
            "alletra.user.password",
            "powerflex.user.password",
            "powerstore.user.password",
            "pure.api.token",
        )
    },
    "a bucket's keys": {"access-key": "short", "secret-key": CANARY},
    "a bucket's access key": {"access-key": CANARY},
    "a peer's password": {"config": {"bgp.peers.one.password": CANARY}},
    "a zone's TSIG key": {"config": {"peers.one.two.key": CANARY}},
    "a proxy's password": {"config": {"core.proxy_https": f"http://me:{CANARY}@proxy:3128"}},
    "an image's URL": {"source": {"url": f"https://me:{CANARY}@images/x?y=z"}},
    "a variable": {"environment": {"DB_PASSWORD": CANARY}, "command": ["mysql"]},
    "an option": {"command": ["mysql", f"--password={CANARY}"]},
    "an exec's environment": {"command": ["env"], "environment": {"GREETING": CANARY}},
    **{
        f"an instance's {key}": {"expanded_config": {key: CANARY}}
        for key in (
            "environment.GREETING",
            "user.any",
            "user.user-data",
            "cloud-init.user-data",
            "cloud-init.ssh-keys.me",
            "raw.lxc",
        )
    },
    "a DNS provider's environment": {"config": {"acme.provider.environment": f"A={CANARY}"}},
    "a row of a database": {"columns": ["id", "key", "value"], "rows": [[1, "user.x", CANARY]]},
    "a column of a database": {"columns": ["secret"], "rows": [[CANARY]]},
    "a dump of a database": {"text": f"INSERT INTO config VALUES(1,'user.x','{CANARY}');"},
    "a place before the one that tells": {"command": ["sh", CANARY], "secret": CANARY},
    "a key": {"secret": CANARY, "list": {CANARY: 1}},
}

LOGGED: list[tuple[str, Json]] = [
    ("a secret", {"secret": CANARY}),
    ("an operation", dict(EXEC)),
    ("a migration", dict(MIGRATION)),
    ("a TSIG key", {"peers.one.key": CANARY}),
    ("a setting", {"config": {"user.name of mine/": CANARY}}),
    ("an environment", {"command": ["x"], "environment": {"A": "", "B": f'"{CANARY}"'}}),
    ("secrets", {"secrets": {"fs": "a", "other": CANARY}, "tokens": ["b", CANARY]}),
    ("a private key", {"key": PEM}),
]
LOGGING: dict[str, dict[str, Json]] = {
    f"a message that holds {name}, escaped {times} times": event(
        {"message": escaped(json.dumps(value), times), "level": "debug"}, "logging"
    )
    for times in (0, 1, 2)
    for name, value in LOGGED
} | {
    "a message that holds a URL": event(
        {"context": {"url": f"/1.0/operations/x/websocket?secret={CANARY}"}}, "logging"
    )
}

RECURRING: dict[str, list[Update]] = {
    "a URL": [Finished(builders.transaction(request("GET", f"/1.0/x?a={CANARY}&b=1"), response()))],
    "a path": [Finished(builders.transaction(request("GET", f"/1.0/{CANARY}"), response()))],
    "an error": [
        Finished(builders.transaction(answer=response(400, {"error": f"no {CANARY}!"}))),
    ],
    "a header": [Finished(builders.transaction(answer=response(headers=(("Etag", CANARY),))))],
    "a word": [Finished(builders.transaction(request(data=f"n{CANARY}_{CANARY}-{CANARY}x")))],
    "an event": [frame_seen(event({"name": CANARY}, "lifecycle"), 9)],
    "an operation": [
        frame_seen(event(operation_document(400, err=f"cannot use {CANARY}")), 9),
        frame_seen(event(operation_document(200) | {"description": CANARY}), 9),
    ],
    "exec's output": [frame_seen(f"> {CANARY}\n".encode(), 8, Opcode.BINARY)],
}


def upgraded(target: str, number: int) -> Update:
    """A websocket."""
    asked = request("GET", target)
    return Upgraded(
        builders.transaction(asked, response(101), number, Tunnel("websocket", reason="x"))
    )


def answered(value: Json) -> Update:
    """A transaction that was answered with a document."""
    return Finished(builders.transaction(answer=response(202, value)))


def heard(updates: Sequence[Update]) -> str:
    """All that any format says of updates, with and without -v."""
    texts = []
    for verbose in (False, True):
        journal = Journal(Selection(verbose=verbose))
        for update in updates:
            for entry in journal.hear(update):
                texts += [
                    debugformat.text(entry, verbose=verbose),
                    lineformat.line(entry, verbose=verbose),
                    jsonformat.line(entry),
                ]
    return "".join(texts)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_secret_is_nowhere_in_the_document_that_tells_it(name: str) -> None:
    """Whatever the key or place is that makes it one: no format shows it, verbose or not."""
    value = DOCUMENTS[name]
    assert CANARY in json.dumps(value)
    asked = Finished(builders.transaction(request("POST", data=value), response(202, value)))
    text = heard([asked, upgraded("/1.0/events", 9), frame_seen(value, 9)])
    assert "REDACTED-" in text
    assert CANARY not in text


@pytest.mark.parametrize("later", RECURRING)
@pytest.mark.parametrize("name", ["the answer to an exec", "a cluster's key", "an option"])
def test_a_secret_that_was_told_is_nowhere_afterwards(name: str, later: str) -> None:
    """It is known by its value from then on, in URLs, errors, events, headers and output."""
    target = f"/1.0/operations/x/websocket?secret={CANARY}"
    updates = [answered(DOCUMENTS[name]), upgraded("/1.0/events", 9), upgraded(target, 8)]
    text = heard([*updates, *RECURRING[later]])
    assert CANARY not in text
    numbers = set(re.findall(r"REDACTED-\d+", heard([*updates, *RECURRING[later]])))
    assert len(numbers) <= 3, "one secret, one placeholder; an exec's answer has three"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_secret_is_found_in_what_was_harmless_until_then(name: str) -> None:
    """That documents with the same keys held none before lets none pass."""
    value = DOCUMENTS[name]
    before = [
        json.loads(json.dumps(value).replace(CANARY, harmless)) for harmless in ("", "x", "y")
    ]
    redactor = Redactor()
    for document in [*before, *before]:
        redactor.document(document)
    assert CANARY not in json.dumps(redactor.document(value))


@pytest.mark.parametrize("name", LOGGING)
def test_a_logging_event_is_the_first_to_tell_a_secret(name: str) -> None:
    """Even before any answer was seen, escaped copies of documents are read in messages."""
    events = [upgraded("/1.0/events", 9), frame_seen(LOGGING[name], 9)]
    assert CANARY in str(LOGGING[name])
    assert CANARY not in heard(events)


@pytest.mark.parametrize("cut", range(20, 90, 7))
def test_a_document_that_was_cut(cut: int) -> None:
    """What is left of a document that broke off is text, and read as such."""
    data = json.dumps({"a": 1, "core.trust_password": CANARY, "b": 2})[:cut]
    broken = builders.transaction(request("PUT", data=data), None, broken="client left")
    text = heard([Finished(broken)])
    assert CANARY[: max(4, cut - 35)] not in text


def test_a_body_that_is_still_on_its_way_teaches_nothing() -> None:
    """A half of a secret is not taken for one; the whole one is known when it has come."""
    half = response(200, '{"secret": "' + CANARY[:30])
    update = builders.transaction(request(data='{"secret": "' + CANARY[:20]), half)
    on_its_way = update._replace(timing=update.timing._replace(sent=None, ended=None))
    whole = answered({"secret": CANARY})
    again = Finished(builders.transaction(request("GET", f"/1.0/{CANARY}")))
    text = heard([Open(on_its_way, 9), whole, again])
    assert CANARY[:12] not in text
    assert "/1.0/REDACTED-1 " in text


def test_a_secret_split_over_frames() -> None:
    """A message in fragments is read as a whole, so that no half of a secret is printed."""
    text = json.dumps(event({"secret": CANARY}, "logging"))
    at = text.index(CANARY) + 30
    pieces = [
        replace(frame_seen(), frame=builders.frame(text[:at], final=False)),
        replace(frame_seen(), frame=builders.frame(b"", Opcode.CONTINUATION, final=False)),
        replace(frame_seen(), frame=builders.frame(text[at:], Opcode.CONTINUATION)),
    ]
    log = heard([upgraded("/1.0/events", 1), *pieces])
    assert CANARY[:12] not in log
    assert CANARY[-12:] not in log
    assert '"secret": "REDACTED-1"' in log


HEADERS: list[tuple[str, str, str]] = [
    ("Authorization", f"Bearer {CANARY}", "Bearer REDACTED-1"),
    ("authorization", CANARY, "REDACTED-1"),
    ("Proxy-Authorization", f"Basic {CANARY}", "Basic REDACTED-1"),
    ("Cookie", f"session={CANARY}; other={CANARY}", "session=REDACTED-1; other=REDACTED-1"),
    ("Cookie", CANARY, "REDACTED-1"),
    ("Set-Cookie", f"session={CANARY}; Path=/", "session=REDACTED-1; Path=/"),
    ("Macaroons", CANARY, "REDACTED-1"),
    ("X-LXD-oidc-access", CANARY, "REDACTED-1"),
    ("X-Incus-OIDC-refresh", CANARY, "REDACTED-1"),
    ("X-LXD-secret", CANARY, "REDACTED-1"),
    ("X-LXD-properties", f"a=b&secret={CANARY}", "a=b&secret=REDACTED-1"),
    ("Location", f"/x?secret={CANARY}", "/x?secret=REDACTED-1"),
    ("X-Lxd-Fingerprint", FINGERPRINT, FINGERPRINT),
    ("Token-Expiry", "3h", "3h"),
    ("X-Secret", "", ""),
]


@pytest.mark.parametrize(("name", "value", "clean"), HEADERS)
def test_headers(name: str, value: str, clean: str) -> None:
    """Credentials in headers are replaced; their kinds and neighbours are left to read."""
    assert Redactor().headers(((name, value),)) == ((name, clean),)


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, v, _ in HEADERS if CANARY in v and n != "X-LXD-properties"]
)
def test_headers_of_a_request_that_could_not_be_read(name: str, value: str) -> None:
    """Its raw bytes are its body, and the lines in them are headers still."""
    raw = f"GET /1.0 HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\nbroken header\r\n\r\n"
    asked = builders.transaction(request("GET", data=raw, garbled="a header without a colon"))
    assert CANARY not in heard([Finished(asked)])


TEXTS = [
    ('{"secret": "x", "broken', '{"secret": "REDACTED-1", "broken'),
    (r'{"secret":"a\"b\\c"]', '{"secret":"REDACTED-1"]'),
    (r'"{\"token\":\"a\\\"b\",\"x\":\"y\"}', r'"{\"token\":\"REDACTED-1\",\"x\":\"y\"}'),
    ('{"password":"cut', '{"password":"REDACTED-1'),
    (r'{"password":"cut\u00', '{"password":"REDACTED-1'),
    ('{"peers.a.b.key" : "x"}', '{"peers.a.b.key" : "REDACTED-1"}'),
    ('{"environment":{"A":"cut', '{"environment":{"A":"REDACTED-1'),
    ('{"environment":{"A":"x","B":["y"]', '{"environment":{"A":"REDACTED-1","B":["y"]'),
    ('"environment":{"server_version":"5.0.2"}', '"environment":{"server_version":"5.0.2"}'),
    ("user.name: me\nusers: 2\n", "user.name: REDACTED-1\nusers: 2\n"),
    (
        f"map[control:{CANARY} fs:{FINGERPRINT}]",
        "map[control:REDACTED-1 fs:REDACTED-2]",
    ),
    (f"map[0:{CANARY} 1:x]", "map[0:REDACTED-1 1:x]"),
    ("map[id:1 secret:a b fs:2] token: x", "map[id:1 secret:REDACTED-1 fs:2] token: x"),
    ("cannot set 'a.password' to 'x': bad", "cannot set 'a.password' to 'REDACTED-1': bad"),
    ("(1,'user.x','it''s','y')", "(1,'user.x','REDACTED-1','y')"),
    ("PASSWORD=hunter2 x", "PASSWORD=REDACTED-1 x"),
    ('password="hunter2 x" y', 'password="REDACTED-1" y'),
    (r"--token=\"a b\" c", r"--token=\"REDACTED-1\" c"),
    ("/1.0?a=b&secret=%2Fx&c=d", "/1.0?a=b&secret=REDACTED-1&c=d"),
    ("x=password=hunter2", "x=password=REDACTED-1"),
    ("chpasswd:\n  password: hunter2\n  x: y\n", "chpasswd:\n  password: REDACTED-1\n  x: y\n"),
    ("https://me:pw@host/x", "https://me:REDACTED-1@host/x"),
    ("https://host:8443/x@y", "https://host:8443/x@y"),
    (
        "a -----BEGIN PRIVATE KEY-----\nx\ny\n-----END PRIVATE KEY----- b",
        "a -----BEGIN PRIVATE KEY-----REDACTED-1-----END PRIVATE KEY----- b",
    ),
    ("-----BEGIN RSA PRIVATE KEY-----\nthe rest", "-----BEGIN RSA PRIVATE KEY-----REDACTED-1"),
]


@pytest.mark.parametrize(("text", "clean"), TEXTS)
def test_text(text: str, clean: str) -> None:
    """In text that is no document, secrets are known by what stands before them."""
    assert Redactor().text(text) == clean


PUBLIC: list[Json] = [
    {"api_extensions": ["image_create_secret_aliases", "token_auth"]},
    {"certificate_fingerprint": FINGERPRINT, "fingerprint": FINGERPRINT},
    {"certificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
    {"core.remote_token_expiry": "3h", "cluster.join_token_expiry": "1d", "expires_at": "x"},
    {"core.trust_password": True, "password": None, "secret": "", "x": 1.5},
    {"config": {"limits.cpu": "2", "volatile.base_image": FINGERPRINT, "users": "key: x"}},
    {"environment": {"server_version": "5.0.2", "server": "lxd"}},
    {"columns": ["id", "key"], "rows": [[1, "limits.cpu", "2"], None], "type": "select"},
    {"status": "Success", "metadata": {"id": builders.UUID, "class": "task", "metadata": {}}},
    "just text: with a colon, an = and an @",
]


@pytest.mark.parametrize("value", PUBLIC)
def test_what_is_not_secret_stays(value: Json) -> None:
    """Extensions, fingerprints, certificates and ordinary config are what one debugs with."""
    assert cleaned(value) == value


def test_a_password_of_digits() -> None:
    """What should have been a string is a password still; a count or a switch is not text."""
    secret: Json = {"password": 12345678, "tokens": [True, 1.5], "n": 12345678}
    assert cleaned(secret) == {
        "password": "REDACTED-1",
        "tokens": [True, "REDACTED-2"],
        "n": 12345678,
    }


@pytest.mark.parametrize("times", [0, 1, 2])
def test_an_odd_secret_is_known_in_every_spelling(times: int) -> None:
    """What JSON or a URL spells differently is the same secret there, with the same placeholder."""
    redactor = learned(ODD)
    message = escaped(f"-p {ODD}!", times)
    assert redactor.text(message) == "-p REDACTED-1!"
    assert redactor.text("/1.0/x?y=Canary%20%22of%5Ca%3Ccoal%3E%26mine%2F42&z") == (
        "/1.0/x?y=REDACTED-1&z"
    )
    named = escaped(json.dumps({"secret": ODD}), times)
    assert "REDACTED-1" in Redactor().text(named)
    assert redactor.text(named) == escaped('{"secret": "REDACTED-1"}', times)


def test_the_same_key_in_lines_and_in_one() -> None:
    """A private key's line ends are written in many ways; it is the same key."""
    redactor = Redactor()
    first, second = redactor.text(PEM), redactor.text(escaped(PEM, 2))
    assert re.findall(r"REDACTED-\d+", first + second) == ["REDACTED-1"] * 2


def test_secrets_within_words_and_within_secrets() -> None:
    """Several in one word are all found, and of those that begin alike the longest."""
    redactor = learned("abcdefghijkl", "abcdefghijklmnop", "one two three", "one two three four")
    assert redactor.text("nabcdefghijklmnop_abcdefghijklm-") == "nREDACTED-2_REDACTED-1m-"
    assert redactor.text("one two three four, one two three") == "REDACTED-4, REDACTED-3"


def test_a_secret_that_is_a_spelling_of_another() -> None:
    """Where two secrets would read alike, the one that was told first is meant."""
    redactor = learned(escaped(ODD), ODD)
    assert redactor.text(f"{escaped(ODD)} {ODD}") == "REDACTED-1 REDACTED-2"


def test_short_secrets_are_not_looked_for() -> None:
    """A password of ``lxd`` must not take every ``lxd`` out of the log; it goes where it stands."""
    redactor = learned("lxd")
    assert redactor.text("/var/lib/lxd and password=lxd") == "/var/lib/lxd and password=REDACTED-1"


def test_placeholders_are_not_secrets() -> None:
    """What was redacted before stays as it is."""
    assert cleaned({"secret": "REDACTED-7"}) == {"secret": "REDACTED-7"}


@pytest.mark.parametrize("kind", ["{} word-like", "{}-word"])
def test_memory_is_bounded(kind: str) -> None:
    """After very many secrets the oldest are forgotten; the newest are known."""
    redactor = Redactor()
    many = [kind.format(f"{n:012}") for n in range(redact.REMEMBERED + 2)]
    redactor.content(Document({"token": list(many)}))
    again: Json = {"token": [many[-1], many[0]]}
    clean = redactor.content(Document(again))
    newest = len(many)
    assert clean == Document({"token": [f"REDACTED-{newest}", f"REDACTED-{newest + 1}"]})
    assert redactor.text(f"x {many[-2]} y") == f"x REDACTED-{newest - 1} y"


def test_what_is_told_again_is_kept() -> None:
    """Of two that begin alike the one that was told of lately is known longer."""
    redactor = learned("eyJhbGciOiJIUzI1NiIs-1", "eyJhbGciOiJIUzI1NiIs-2")
    others: list[Json] = [f"{n:012}-word" for n in range(redact.REMEMBERED - 1)]
    redactor.document({"token": [*others[1:], "eyJhbGciOiJIUzI1NiIs-2", others[0]]})
    known = redactor.text("eyJhbGciOiJIUzI1NiIs-1 eyJhbGciOiJIUzI1NiIs-2")
    assert known == "eyJhbGciOiJIUzI1NiIs-1 REDACTED-2"


def test_secrets_that_begin_alike() -> None:
    """Of very many that one issuer made, the newest are looked for."""
    tokens = [f"eyJhbGciOiJIUzI1NiIs{n:04}" for n in range(redact.ALIKE + 1)]
    redactor = learned(*tokens)
    assert redactor.text(tokens[-1]) == f"REDACTED-{len(tokens)}"
    assert redactor.text(tokens[0]) == tokens[0]


@pytest.mark.parametrize(
    "others",
    [
        [f"eyJhbGciOiJIUzI1NiIs{n:04}" for n in range(redact.ALIKE + 1)],
        [f"word-like, {n:06}" for n in range(redact.ODD + 1)],
    ],
    ids=["alike", "odd"],
)
def test_a_secret_that_is_told_again(others: list[str]) -> None:
    """It is looked for again, by its name, though others had taken its place."""
    redactor = learned(*others)
    first = others[0]
    assert redactor.text(f"is {first}!") == f"is {first}!"
    again: Json = {"note": f"is {first}!", "password": first}
    told: Json = {"note": "is REDACTED-1!", "password": "REDACTED-1"}
    assert redactor.document(again) == told
    assert redactor.text(f"is {first}!") == "is REDACTED-1!"


def test_parts_and_bytes() -> None:
    """The parts of a body are bodies with headers; bytes that cannot be looked through go."""
    part = Part((("X-Secret", CANARY),), Text(f"password={CANARY}"))
    parts = Parts((part, Part((), None)), 9, "0" * 64, "multipart/form-data")
    clean = Part((("X-Secret", "REDACTED-1"),), Text("password=REDACTED-1"))
    redactor = Redactor()
    assert redactor.content(parts) == replace(parts, parts=(clean, Part((), None)))
    assert redactor.content(Binary(3, "0" * 64, kept=b"abc")) == Binary(3, "0" * 64)
    assert redactor.content(None) is None


def test_a_multipart_body() -> None:
    """Secrets in a part's headers and in its document are found behind the boundary."""
    headers: Headers = (("Content-Type", "multipart/form-data; boundary=b"),)
    raw = (
        f"--b\r\nX-LXD-secret: {CANARY}\r\nContent-Type: application/json\r\n\r\n"
        f'{{"password": "{CANARY}"}}\r\n--b--\r\n'
    )
    text = heard([Finished(builders.transaction(request("POST", data=raw, headers=headers)))])
    assert '"password": "REDACTED-1"' in text
    assert CANARY not in text


def test_show_secrets() -> None:
    """With ``--show-secrets`` all is as it was on the wire."""
    journal = Journal(Selection(secrets=True))
    update = answered({"secret": CANARY})
    assert CANARY in "".join(debugformat.text(entry) for entry in journal.hear(update))
    assert journal.hear(Note("x", AT))


# -- properties

PIECES = st.sampled_from(
    [
        *(
            '"',
            '\\"',
            "\\",
            "{",
            "}",
            ":",
            ": ",
            ",",
            "=",
            "&",
            "?",
            "@",
            "://",
            "\n",
            " ",
            "-",
            ".",
        ),
        *("environment", "user.", "map[", "'", ",'", "[", "server_version"),
        *("password", "secret", "token", "peers.", ".key", "expiry", "Cookie", "authorization"),
        *("-----BEGIN PRIVATE KEY-----", "-----END", "REDACTED-1", "control", "fds", "a", "\u00e9"),
        *("Bearer ", CANARY, ODD, "abcdefghijklmnop"),
    ]
)
HOSTILE = st.lists(PIECES, max_size=20).map("".join)
JSON_VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | HOSTILE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HOSTILE, inner, max_size=4),
    max_leaves=12,
)
CONTENTS: st.SearchStrategy[Content] = st.builds(Document, JSON_VALUES) | st.builds(Text, HOSTILE)


@given(CONTENTS)
def test_redaction_is_idempotent(says: Content) -> None:
    """What was redacted is left as it is, by the same redactor and by one that knows nothing."""
    redactor = Redactor()
    clean = redactor.content(says)
    assert redactor.content(clean) == clean


@given(st.lists(JSON_VALUES, max_size=4))
def test_what_was_seen_before_looks_the_same_again(values: list[Json]) -> None:
    """What is remembered to be clean spares work, and changes nothing."""
    redactor = Redactor()
    for value in values:  # now all secrets are known
        redactor.document(value)
    clean = [redactor.document(value) for value in values]
    assert [redactor.document(value) for value in values] == clean
    assert redactor.document(list(values)) == clean


@given(st.lists(HOSTILE, max_size=4), st.text(min_size=12, max_size=40))
def test_a_known_secret_is_in_no_text(texts: list[str], secret: str) -> None:
    """Once told, a secret of 12 characters or more is in nothing that comes out."""
    redactor = learned(secret)
    clean = redactor.text(f"{secret} ".join(["", *texts, ""]))
    assert secret not in clean or "REDACTED-" in secret


@given(st.text(min_size=1), st.integers(0, 3))
def test_any_password_is_found_at_any_depth(password: str, times: int) -> None:
    """However often JSON was put into JSON, the string ends where it ends."""
    before, after = '{"a": "b", "x password": "', '", "c": "d"}'
    message = escaped(before + escaped(password) + after, times)
    clean = f"{before}REDACTED-1{after}"
    assert Redactor().text(message) == escaped(clean, times)


SIZE = 1 << 18
FLOODS = {
    repr(text[:20]): text
    for text in (
        *("a-" * (SIZE // 2), "a" * SIZE, "." * SIZE, '"' * SIZE, "\\" * SIZE, '\\"' * (SIZE // 2)),
        *("password" * (SIZE // 8), '"' + "password" * (SIZE // 8), "password=" * (SIZE // 9)),
        *("peers." * (SIZE // 6), '"' + "peers." * (SIZE // 6), '"password":"' + "\\x" * SIZE),
        *('"password":"x",' * (SIZE // 15), "expi" * (SIZE // 4), "secret: " * (SIZE // 8)),
        *("://:" * (SIZE // 4) + "@", "://" + "a" * SIZE + "@", '"a"' + " " * SIZE, "\t" * SIZE),
        *('"environment":{' * (SIZE // 15), '"secrets":{"a":"x"' * (SIZE // 18)),
        *('"secrets":{' + '"a":"x",' * (SIZE // 8), '"secrets":{' + "\\" * SIZE),
        *('"user.' * (SIZE // 6), '"user.' + "a" * SIZE, "map[" + " secret:" * (SIZE // 8)),
        *("map[secret:" + "a " * (SIZE // 2), "map[secret:" + " a:" * (SIZE // 3)),
        *("'user.a','" * (SIZE // 10), "'user.a'," + "'" * SIZE, "user." * (SIZE // 5)),
        *("-----BEGIN " * (SIZE // 11), "-----BEGIN PRIVATE KEY-----" * (SIZE // 27)),
    )
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("flood", FLOODS)
def test_hostile_text_costs_time_in_proportion_to_its_length(flood: str) -> None:
    """What looks like the beginning of a secret again and again is looked through once."""
    redactor = learned("abcdefghijklmnop", "a" * 14, "a" * 13 + "b", ODD)
    redactor.text(FLOODS[flood])


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["odd secret {}", "aaaaaaaaaaaa{}"])
def test_very_many_secrets_do_not_slow_it_down(kind: str) -> None:
    """A document of secrets costs time in proportion to its length too."""
    redactor = Redactor()
    many = [kind.format(number) for number in range(4_000)]
    redactor.content(Document({"token": list(many)}))
    redactor.content(Document(list(many)))


def test_more_keys_may_be_secret() -> None:
    """Whoever writes a document down for long may have more taken out of it."""
    config: dict[str, Json] = {"a": "x", "b": "y", "password": CANARY}
    assert Redactor().document({"config": config}, lambda key, _: key == "a") == {
        "config": {"a": "REDACTED-1", "b": "y", "password": "REDACTED-2"}
    }
    assert Redactor().document(config) == {"a": "x", "b": "y", "password": "REDACTED-1"}


def test_what_a_key_means_is_told_by_its_neighbours_and_by_who_asks() -> None:
    """That a key told of nothing where it was seen before is not held against it."""
    redactor = Redactor()
    odd: dict[str, Json] = {"columns": "x", "rows": "y"}
    assert redactor.document(odd) == odd
    table: dict[str, Json] = {"columns": ["token"], "rows": [["x"]]}
    assert redactor.document(table) == table | {"rows": [["REDACTED-1"]]}
    plain: dict[str, Json] = {"a": "x", CANARY: "y"}
    assert redactor.document(plain) == redactor.document(plain) == plain
    assert redactor.document(plain, lambda key, _: key == "a") == plain | {"a": "REDACTED-1"}
    assert redactor.document(plain) == plain
    redactor.document({"token": CANARY})
    assert redactor.document(plain) == {"a": "x", "REDACTED-2": "y"}


def test_what_is_known_to_be_clean_is_looked_at_again_when_a_secret_is_told() -> None:
    """However many texts were found to hold none, and whichever of them was."""
    redactor = Redactor()
    texts: list[Json] = [f"{n:012} is clean" for n in range(redact.CLEAN + 1)]
    assert redactor.document(texts) == texts
    assert redactor.document(texts[-2:]) == texts[-2:]
    redactor.document({"token": f"{redact.CLEAN:012}"})
    assert redactor.document(texts[-1]) == "REDACTED-1 is clean"


def test_names_tell_what_stands_under_them() -> None:
    """Credentials by what their names hold, settings by what theirs begin with."""
    assert [redact.is_credential(name) for name in ("trust_token", "name")] == [True, False]
    assert [redact.is_setting(name, None) for name in ("user.x", "limits.cpu")] == [True, False]
