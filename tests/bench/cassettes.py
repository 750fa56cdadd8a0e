"""Cassettes to load and save, for lxdtap and for vcrpy: the same data, in each one's own text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from lxdtap.cassette import reading, writing
from lxdtap.cassette.model import Cassette, Interaction, Server
from lxdtap.transaction import Body, Request, Response, Timing, Transaction

BASE = "http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket"
MS = 1_000_000
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Contender:
    """How one saves and loads what it was given."""

    save: Callable[[], object]
    load: Callable[[], object]


def document(number: int) -> bytes:
    """An answer of the size of a small instance's."""
    config = {f"key.{each}": f"value > of some length {number + each}" for each in range(34)}
    metadata = config | {"list": [1, 2, {"a": None}], "created_at": "2022-01-01T00:00:00.123Z"}
    envelope = {"type": "sync", "status": "Success", "status_code": 200, "metadata": metadata}
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def interaction(number: int) -> Interaction:
    """One exchange."""
    agent = ("User-Agent", "LXD 5.0.2 (Linux; x86_64; 6.1.0; Debian GNU/Linux; 12)")
    asked = (("Host", "unix.socket"), agent, ("Accept-Encoding", "gzip"), ("Connection", "close"))
    data = document(number)
    length = ("Content-Length", str(len(data)))
    date = ("Date", "Mon, 23 Nov 2026 12:53:26 GMT")
    answered = (("Content-Type", "application/json"), ("Etag", '"' + 64 * "a" + '"'), date, length)
    told = Transaction(
        number,
        BASE,
        Request("GET", f"/1.0/instances/c{number}", headers=asked),
        Timing(
            number * MS, number * MS, number * MS + 1777, number * MS + 200_000, number * MS * 2
        ),
        Response(200, "OK", headers=answered, body=Body(len(data), data)),
        connection=number,
    )
    return Interaction(told)


def cassette(count: int) -> Cassette:
    """So many of them."""
    found = tuple(interaction(number) for number in range(1, count + 1))
    return Cassette(Server("lxd", BASE, "5.0.2"), found)


def ours(cassette: Cassette) -> Contender:
    """Saving and loading."""
    whole = "".join(writing.text(cassette, lambda _: None)).encode()
    pieces = [whole[start : start + PIECE] for start in range(0, len(whole), PIECE)]
    return Contender(
        lambda: sum(len(each) for each in writing.text(cassette, lambda _: None)),
        lambda: reading.read(pieces),
    )


def vcrpys(cassette: Cassette) -> Contender | None:
    """The same by vcrpy; None: it is not installed."""
    try:
        from vcr import request, serialize
        from vcr.serializers import yamlserializer
    except ImportError:
        return None
    requests, responses = [], []
    for each in cassette.interactions:
        asked, answer = each.transaction.request, each.transaction.response
        assert answer is not None
        url = f"http://lxd{asked.target}"
        requests.append(request.Request(asked.method, url, None, dict(asked.headers)))
        headers = {name: [value] for name, value in answer.headers}
        status = {"code": answer.status, "message": answer.reason}
        body = {"string": answer.body.captured}
        responses.append({"status": status, "headers": headers, "body": body})
    both = {"requests": requests, "responses": responses}
    text = serialize.serialize(both, yamlserializer)
    return Contender(
        lambda: serialize.serialize(both, yamlserializer),
        lambda: serialize.deserialize(text, yamlserializer),
    )
