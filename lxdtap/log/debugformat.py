r"""The DEBUG text: a block for each transaction, and back from text to blocks.

A block is ``request summary``, one space, ``response summary``, and a line of 24 ``=``::

    PUT http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket/1.0/instances/c1/state
    {
            "action": "stop"
    } HTTP/202
    {
            "type": "async"
    }
    ========================

docs/debug-format.md has the grammar. No line of traffic can pass for one of ours: JSON is
re-indented, text stands behind a tab, everything else is escaped to one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import orjson

from lxdtap.content import Binary, Content, Document, Part, Parts, Text
from lxdtap.log.entries import Entry, FrameEntry, NoteEntry, OperationEntry, TransactionEntry
from lxdtap.terminal import Paint, escape, escape_json, escape_token, plain, unescape
from lxdtap.transaction import Count, Frame, Headers, Opcode, Transaction, Tunnel

SEPARATOR = "=" * 24
PART = "--"
CUT = "(its end was not kept)"

_KEY = re.compile(r'^(\t+)("(?:[^"\\]++|\\.)*+")(?=: )', re.MULTILINE)


def text(entry: Entry, *, verbose: bool = False, paint: Paint = plain) -> str:
    """An entry's block, with its final newline; empty for what the DEBUG text has no block for."""
    match entry:
        case TransactionEntry():
            lines = _transaction(entry, verbose=verbose, paint=paint)
        case FrameEntry():
            lines = _frame(entry, paint)
        case NoteEntry():
            lines = f"# lxdtap: {escape(entry.text)}"
        case OperationEntry():
            return ""  # the event that told of it is shown itself
        case _:
            assert_never(entry)
    return f"{lines}\n{paint('dim', SEPARATOR)}\n"


def request_summary(transaction: Transaction, request: Content, paint: Paint = plain) -> str:
    """``METHOD URL`` and, where there is one, the body on the lines below."""
    head = _request_line(transaction, paint)
    return head if request is None else f"{head}\n{body(request, paint)}"


def response_summary(status: int, response: Content, paint: Paint = plain) -> str:
    """``HTTP/STATUS`` and, where there is one, the body on the lines below."""
    role = "good" if status < 300 else "odd" if status < 400 else "bad"
    head = paint(role, f"HTTP/{status}")
    return head if response is None else f"{head}\n{body(response, paint)}"


def body(says: Content, paint: Paint = plain) -> str:
    """What a body says, on lines of its own."""
    match says:
        case Document():
            return indented(says, paint)
        case Text():
            size = len(says.text.encode("utf-8", "surrogatepass"))
            return f"<{says.media_type or 'text'}, {size} bytes\n{_tabbed(says.text)}>"
        case Binary():
            return f"<{says.media_type or 'binary'}, {says.size} bytes, sha256 {says.sha256}>"
        case Parts():
            head = f"<{says.media_type}, {says.size} bytes, sha256 {says.sha256}"
            return "\n".join([head, *(_part(part) for part in says.parts), ">"])
    return ""


def indented(document: Document, paint: Paint = plain) -> str:
    """JSON indented by one tab a level, safe to print, and still the same JSON."""
    lines = _indented(document)
    if not lines.isascii() or "\x7f" in lines:  # of ASCII, JSON's own escapes leave only that
        lines = escape_json(lines)
    if paint is plain:
        return lines
    return _KEY.sub(lambda m: m[1] + paint("key", m[2]), lines)


def _indented(document: Document) -> str:
    """By orjson, in a third of json's time, and by two spaces a level, of which tabs are made."""
    try:
        # Else it is in a string, which is not to be changed.
        if not _in_a_string(document.compact or orjson.dumps(document.value)):
            lines = orjson.dumps(document.value, option=orjson.OPT_INDENT_2)
            return lines.replace(_LEVEL, b"\t").decode()
    except TypeError:  # half a character, or a number of more than 64 bits
        pass
    return _encode(document.value)


_LEVEL = b"  "
_in_a_string = re.compile(_LEVEL).search
_encode = json.JSONEncoder(ensure_ascii=False, indent="\t").encode


def _request_line(transaction: Transaction, paint: Paint) -> str:
    method = escape_token(transaction.request.method)
    if method.startswith("#"):  # a token may (RFC 9110, 9.1), but then it looks like a remark
        method = f"\\x23{method[1:]}"
    return f"{paint('method', method)} {paint('url', escape_token(transaction.url))}"


def _tabbed(text_: str) -> str:
    r"""Lines behind a tab; a text that does not end with a newline ends with a single ``\``."""
    lines = text_.split("\n")
    last = lines.pop()
    shown = "".join(f"\t{escape(line)}\n" for line in lines)
    return f"{shown}\t{escape(last)}\\\n" if last else shown


def _part(part: Part) -> str:
    lines = [PART, *(escape(f"{name}: {value}") for name, value in part.headers), ""]
    if part.content is not None:
        lines += body(part.content).split("\n")
    if part.cut:
        lines.append(CUT)
    return "\n".join(f"\t{line}" for line in lines)


def _transaction(entry: TransactionEntry, *, verbose: bool, paint: Paint) -> str:
    transaction = entry.transaction
    asked = request_summary(transaction, entry.request, paint)
    lines = [f"{asked} {_outcome(entry, paint)}"]
    lines += [f"# {escape(remark)}" for remark in _remarks(entry)]
    if verbose:
        lines += _details(entry)
    return "\n".join(lines)


def _outcome(entry: TransactionEntry, paint: Paint) -> str:
    transaction = entry.transaction
    if transaction.tunnel is not None and entry.state != "upgraded":
        verb = "open for" if entry.state == "open" else "closed after"
        return f"{verb} {seconds(entry.seconds)}: {_tunnel(entry, transaction.tunnel)}"
    if entry.state == "open":
        return paint("odd", f"open for {seconds(entry.seconds)}: {_progress(transaction)}")
    if transaction.response is None:
        return paint("bad", f"no answer: {escape(transaction.broken or 'it is not HTTP')}")
    return response_summary(transaction.response.status, entry.response, paint)


def _progress(transaction: Transaction) -> str:
    sent = transaction.request.body.size
    response = transaction.response
    if response is None:
        return f"{sent} bytes sent, no answer yet"
    return f"{sent} bytes sent, HTTP/{response.status} and {response.body.size} bytes received"


def _tunnel(entry: TransactionEntry, tunnel: Tunnel) -> str:
    name = f"{escape(tunnel.protocol)} {escape(entry.stream)}".rstrip()
    counts = f"sent {_count(tunnel.sent)}, received {_count(tunnel.received)}"
    code = f", close code {tunnel.close_code}" if tunnel.close_code is not None else ""
    return f"{name}, {counts}{code}"


def _count(count: Count) -> str:
    size = f"{count.size} bytes"
    if not count.frames:
        return size
    return f"{size} in {count.frames} frame{'s' if count.frames > 1 else ''}"


def _remarks(entry: TransactionEntry) -> Iterator[str]:
    transaction, tunnel = entry.transaction, entry.transaction.tunnel
    if transaction.request.garbled:
        yield f"the request could not be followed: {transaction.request.garbled}"
    if entry.state == "upgraded" and tunnel is not None:
        yield f"upgraded to {tunnel.protocol} {entry.stream}".rstrip()
    if tunnel is not None and tunnel.reason:
        yield f"not followed: {tunnel.reason}"
    if tunnel is not None and tunnel.ended:
        yield tunnel.ended
    if transaction.broken and transaction.response is not None:
        yield f"broken off: {transaction.broken}"
    if transaction.own:
        yield "answered by lxdtap, not by the daemon"


def _details(entry: TransactionEntry) -> Iterator[str]:
    """What ``-v`` adds: timing, peer, sizes and both heads."""
    transaction, peer = entry.transaction, entry.transaction.peer
    waited = transaction.timing.waited
    facts = [f"number {transaction.number}", f"took {seconds(entry.seconds)}"]
    if waited is not None:
        facts.append(f"{seconds(waited)} to the answer")
    if peer is not None:
        facts.append(f"from pid {peer.pid} uid {peer.uid} gid {peer.gid}")
    yield f"# {', '.join(facts)}"
    yield from _headers(">", transaction.request.headers)
    if transaction.response is not None:
        for status in transaction.response.interim:
            yield f"< HTTP/{status}"
        yield from _headers("<", transaction.response.headers)


def _headers(mark: str, headers: Headers) -> Iterator[str]:
    for name, value in headers:
        yield escape(f"{mark} {name}: {value}")


def _frame(entry: FrameEntry, paint: Paint) -> str:
    words = [entry.direction.value, entry.stream, kind(entry.frame)]
    head = f"{_request_line(entry.transaction, paint)} {' '.join(escape(w) for w in words if w)}"
    return head if entry.content is None else f"{head}\n{body(entry.content, paint)}"


def kind(frame: Frame) -> str:
    """A frame's kind in words: ``text``, ``binary fragment``, ``ping`` and so on."""
    name = frame.opcode.name.lower()
    fragment = not frame.final or frame.opcode is Opcode.CONTINUATION
    return f"{name} fragment" if fragment else name


def seconds(value: float) -> str:
    """A duration for people: such as ``0.8 ms`` or ``12.3 s``."""
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.1f} ms"


# -- and back


@dataclass(frozen=True, slots=True)
class Block:
    """A block of DEBUG text, read again.

    Attributes:
        method: empty for a note.
        url: as it was on the wire, credentials aside.
        request: what the request's body says; a frame's payload stands in ``response``.
        outcome: what follows the request summary: ``HTTP/200``, ``received text``, …
        response: what stands below the outcome.
        remarks: the lines after that, without their ``# ``, headers of ``-v`` included.
    """

    method: str
    url: str
    request: Content
    outcome: str
    response: Content
    remarks: tuple[str, ...] = ()


_BINARY = re.compile(r"<([^,\n]+), (\d+) bytes, sha256 ([0-9a-f]{64})>")
_TEXT = re.compile(r"<([^,\n]+), \d+ bytes\n((?:\t.*\n)*)>")
_PARTS = re.compile(r"<([^,\n]+), (\d+) bytes, sha256 ([0-9a-f]{64})\n((?:\t.*\n)*)>")


def parse(log: str) -> list[Block]:
    """The blocks of a DEBUG text without colours; a block cut off at the end is left out.

    Raises:
        ValueError: it is not DEBUG text; the message says where.
    """
    blocks = []
    *texts, _ = re.split(rf"^{SEPARATOR}\n", log, flags=re.MULTILINE)
    for number, block in enumerate(texts, start=1):
        try:
            blocks.append(_block(block))
        except (IndexError, RecursionError, ValueError) as error:
            first = block.partition("\n")[0]
            raise ValueError(f"block {number} is not DEBUG text: {first!r}") from error
    return blocks


def _block(block: str) -> Block:
    head, _, rest = block.partition("\n")
    if head.startswith("# lxdtap: "):  # with its space: "#" alone may be a method (RFC 9110, 5.6.2)
        return Block("", "", None, "", None, (unescape(head[2:]),))
    method, url, *outcomes = head.split(" ", 2)
    request: Content = None
    if not outcomes:
        request, rest = _body(rest)
        outcome, _, rest = rest.removeprefix(" ").partition("\n")
        outcomes = [outcome]
    response: Content = None
    if rest and not rest.startswith("# "):
        response, rest = _body(rest)
    remarks = tuple(unescape(line.removeprefix("# ")) for line in rest.split("\n") if line)
    return Block(unescape(method), unescape(url), request, unescape(outcomes[0]), response, remarks)


def _body(rest: str) -> tuple[Content, str]:
    """What a body said, and the text after it."""
    match = _BINARY.match(rest)
    if match:
        return Binary(int(match[2]), match[3], _media_type(match[1])), rest[match.end() :]
    match = _TEXT.match(rest)
    if match:
        return Text(_untabbed(match[2]), _media_type(match[1])), rest[match.end() :]
    match = _PARTS.match(rest)
    if match:
        lines = [line[1:] for line in match[4].split("\n")[:-1]]
        parts = Parts(_parts(lines), int(match[2]), match[3], _media_type(match[1]))
        return parts, rest[match.end() :]
    value, end = json.JSONDecoder().raw_decode(rest)
    return Document(value), rest[end:]


def _media_type(shown: str) -> str:
    return "" if shown in ("text", "binary") else shown


def _untabbed(lines: str) -> str:
    shown = "".join(line[1:] + "\n" for line in lines.split("\n")[:-1])
    # An odd number of backslashes at the end: the last one is the mark for "no newline here".
    backslashes = len(shown) - 1 - len(shown[:-1].rstrip("\\"))
    return unescape(shown[:-2] if backslashes % 2 else shown)


def _parts(lines: list[str]) -> tuple[Part, ...]:
    parts: list[list[str]] = []
    for line in lines:
        if line == PART:
            parts.append([])
        else:
            parts[-1].append(line)
    return tuple(_read_part(part) for part in parts)


def _read_part(lines: list[str]) -> Part:
    cut = lines[-1] == CUT
    empty = lines.index("")
    pairs = (line.partition(": ") for line in lines[:empty])
    headers = tuple((unescape(name), unescape(value)) for name, _, value in pairs)
    rest = "\n".join(lines[empty + 1 : -1 if cut else None])
    return Part(headers, _body(rest)[0] if rest else None, cut)
