"""Credentials out, placeholders in: nowhere does a secret stay that lxdtap could know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap import debugformat, jsonformat, lineformat, redact
from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text
from lxdtap.entries import Entry
from lxdtap.journal import Journal, Selection
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
    "a place before the one that tells": {"command": ["sh", CANARY], "secret": CANARY},
    "a key": {"secret": CANARY, "list": {CANARY: 1}},
}

LOGGING: dict[str, Json] = {
    f"a message that holds {name}, escaped {times} times": event(
        {"message": escaped(json.dumps(value), times), "level": "debug"}, "logging"
    )
    for times in (0, 1, 2)
    for name, value in (
        ("a secret", {"secret": CANARY}),
        ("an operation", EXEC),
        ("a migration", MIGRATION),
        ("a TSIG key", {"peers.one.key": CANARY}),
        ("a private key", {"key": PEM}),
    )
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
    asked = request("GET", target, headers=(("X-Canary", CANARY),))
    return Upgraded(
        builders.transaction(asked, response(101), number, Tunnel("websocket", reason="x"))
    )


def answered(value: Json) -> Update:
    """A transaction that was answered with a document."""
    return Finished(builders.transaction(answer=response(202, value)))


def logged(updates: Sequence[Update], *, secrets: bool = False) -> list[str]:
    """What each of the three formats makes of updates, with and without -v."""
    logs = []
    for verbose in (False, True):
        formats: list[Callable[[Entry], str]] = [
            lambda entry, v=verbose: debugformat.text(entry, verbose=v),  # type: ignore[misc]
            lambda entry, v=verbose: lineformat.line(entry, verbose=v),  # type: ignore[misc]
            jsonformat.line,
        ]
        for form in formats:
            journal = Journal(Selection(verbose=verbose, secrets=secrets))
            opening = [
                upgraded(f"/1.0/operations/x/websocket?secret={'1' * 64}", 8),
                upgraded("/1.0/events", 9),
            ]
            entries = [entry for update in updates for entry in journal.hear(update)]
            # Connections are opened afterwards where the log is to know their frames.
            assert entries or not updates or opening
            logs.append("".join(form(entry) for entry in entries))
    return logs


def heard(updates: Sequence[Update]) -> str:
    """All that any format, with and without -v, says of updates between two that have nothing."""
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
