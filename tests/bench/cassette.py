"""Saving and loading cassettes, beside vcrpy where it is installed: medians, and ratios to it.

The data are interactions with a real-sized JSON body (1.4 KB), the same for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from lxdtap.cassette import reading, writing
from lxdtap.cassette.model import Cassette, Interaction, Server
from lxdtap.transaction import Body, Request, Response, Timing, Transaction

BASE = "http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket"
MS = 1_000_000
PIECE = 1 << 16


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


def ours(cassette: Cassette) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Saving and loading."""
    whole = "".join(writing.text(cassette, lambda _: None)).encode()
    pieces = [whole[start : start + PIECE] for start in range(0, len(whole), PIECE)]
    assert reading.read(pieces) == cassette
    return lambda: list(writing.text(cassette, lambda _: None)), lambda: reading.read(pieces)


def vcrpys(cassette: Cassette) -> tuple[Callable[[], Any], Callable[[], Any]] | None:
    """The same by vcrpy; None: it is not installed."""
    try:
        from vcr import request, serialize  # type: ignore[import-not-found]
        from vcr.serializers import yamlserializer  # type: ignore[import-not-found]
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
    return (
        lambda: serialize.serialize(both, yamlserializer),
        lambda: serialize.deserialize(text, yamlserializer),
    )


def milliseconds(action: Callable[[], Any]) -> float:
    """What it takes."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1e3


def main() -> None:
    """Measure, alternating, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    numbers = range(1, options.interactions + 1)
    cassette = Cassette(Server("lxd", BASE, "5.0.2"), tuple(map(interaction, numbers)))
    contenders = {"lxdtap": ours(cassette), "vcrpy": vcrpys(cassette)}
    present = {name: both for name, both in contenders.items() if both is not None}
    seen: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for name, (save, load) in present.items():
            seen.setdefault((name, "save"), []).append(milliseconds(save))
            seen.setdefault((name, "load"), []).append(milliseconds(load))
    for (name, what), times in seen.items():
        print(f"{name:8} {what} {options.interactions}: {statistics.median(times):8.0f} ms")


if __name__ == "__main__":
    main()
