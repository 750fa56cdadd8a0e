"""Credentials out, placeholders in: one secret, one placeholder, wherever it turns up again.

Pure. What is secret is told by the key it stands under (the list is in docs/redaction.md), and
from then on the value is known everywhere: in URLs, in events, in escaped copies in log messages.
Hostile text costs time in proportion to its length: each run is looked through once, from its
beginning, and possessively.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from lxdtap import lxd
from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text
from lxdtap.transaction import Headers

SHORTEST = 12
"""Characters from which on a secret is looked for elsewhere too; shorter ones are too common."""
LONGEST = 4096
"""Characters up to which it is."""
REMEMBERED = 10_000
"""Secrets kept in mind; the oldest are forgotten first."""
ODD = 400
"""Spellings that are looked for of secrets that are not one word; each costs a search."""
ALIKE = 16
"""Secrets that are looked for of those that begin alike, as an issuer's tokens do."""

_NAMES = (
    r"pass(?:word|wd|phrase)|secret|token|credential|macaroon"
    r"|(?:api|private|access|certificate)[._-]?key"
)
_HEADERS = r"(?:proxy-)?authorization\Z|(?:set-)?cookie\Z|x-(?:lxd|incus)-oidc"
# A time is none, as in core.remote_token_expiry.
_KEY = re.compile(rf"(?!.*expir)(?:.*(?:{_NAMES})|peers\..*\.key\Z)", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(rf"(?!.*expir)(?:.*(?:{_NAMES})|{_HEADERS})", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(rf"[0-9A-Za-z_-]{{{SHORTEST},}}")
_PLACEHOLDER = re.compile(r"REDACTED-\d+")
_PAIR = re.compile(r"=([^;]+)")


def _run(characters: str) -> str:
    """The pattern of a run of characters that holds such a name; to be tried where one begins."""
    run = f"[{characters}]"
    named = rf"(?:(?={run}*?(?:{_NAMES}))|(?=peers\.{run}*?\.key(?!{run})))"
    return rf"(?!{run}*?expir){named}{run}++"


_NAME = _run(r"\w.-")
_KEY_IN_JSON = _run(r"\w. -")


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.MULTILINE)


# A key and its string in JSON text at any depth of escaping: "password": "x", \"password\":\"x\".
# At the depth where ``b`` backslashes stand before a quote, the string ends at the first quote
# that has as many, after any multiples of 2b+2; all other backslashes are the string's own.
_MEMBER = _pattern(
    rf'(?P<open>(?<!\\)(?P<b>\\*+)"{_KEY_IN_JSON}(?P=b)"\s*+:\s*+(?P=b)")'
    r'(?P<value>(?:[^"\\]++|(?:(?P=b){2}\\\\)++|(?!(?P=b)")\\++"?)++)'
)
# A websocket's secret in the same, under the name of its stream.
_STREAM = _pattern(
    r'(?P<open>"(?:\d{1,3}|control|fs|criu|state)\\*+"\s*+:\s*+\\*+")(?P<value>[0-9a-f]{64})'
)
# A parameter of a query, an option of a command, an assignment.
_PARAMETER = _pattern(
    rf"(?P<open>(?<![\w.-]){_NAME}=(?P<quote>\\*+[\"'])?+)"
    r"""(?P<value>(?(quote)[^"'\\]++|[^&\s"'\\<>#]++))"""
)
# A header of a request that could not be read, or a line of YAML.
_LINE = _pattern(r"^(?P<open>[ \t]*+(?P<name>[\w.-]++):[ \t]++)(?P<value>[^\s][^\r\n]*+)")
# The password in a URL.
_USER = _pattern(r"(?P<open>://[^\s/:@?#\"'\\]*+:)(?P<value>[^\s/@?#\"'\\]++)(?=@)")
# A private key in PEM, or the beginning of one.
_PRIVATE = _pattern(
    r"(?P<open>-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----)(?P<value>(?:[^-]++|-(?!----END))++)"
)


def _unescaped(match: re.Match[str]) -> str:
    value = match["value"]
    for _ in range((len(match["b"]) + 1).bit_length()):  # 0, 1, 3, 7, … backslashes a quote
        try:
            value = json.loads(f'"{value}"', strict=False)
        except ValueError:  # it was cut, or is no JSON after all
            break
    return str(value)


def _unquoted(match: re.Match[str]) -> str:
    return urllib.parse.unquote(match["value"])


def _in_one_line(match: re.Match[str]) -> str:
    return re.sub(r"\\+[nr]|\s", "", match["value"])


# What a text must hold for the pattern to be tried, and how the secret in it is to be read.
_RULES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    ("-----BEGIN", _PRIVATE, _in_one_line),
    ('"', _MEMBER, _unescaped),
    ('"', _STREAM, lambda match: match["value"]),
    ("=", _PARAMETER, _unquoted),
    ("@", _USER, _unquoted),
)


Also = Callable[[str, Json], bool]
"""Tells of a key and its value whether that is secret."""


class Redactor:
    """Remembers the secrets of one tap, and gives each its placeholder ``REDACTED-n``."""

    def __init__(self) -> None:
        self._placeholders: OrderedDict[str, str] = OrderedDict()
        self._count = 0
        # Those to be found anywhere: words by their beginnings, the others by each spelling.
        self._words: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._least = LONGEST
        self._odd: dict[str, str] = {}
        self._longest_first: list[str] = []

    def document(self, value: Json, also: Also | None = None) -> Json:
        """JSON without its secrets.

        Args:
            value: what it says.
            also: whether the value under a key is secret besides those under known ones.
        """
        return self._document(value, also)

    def content(self, content: Content) -> Content:
        """A body without its secrets."""
        match content:
            case Document():
                return Document(self.document(content.value))
            case Text():
                return replace(content, text=self.text(content.text))
            case Binary():
                return replace(content, kept=b"")  # not to be looked through, so not to be shown
            case Parts():
                parts = tuple(self._part(part) for part in content.parts)
                return replace(content, parts=parts)
        return None

    def headers(self, headers: Headers) -> Headers:
        """Headers without their secrets."""
        return tuple((name, self._header(name, value)) for name, value in headers)

    def text(self, text: str) -> str:
        """Text, a URL or a message without what is known or looks to be secret."""
        text, count = self._known(text), self._count
        for hint, pattern, read in _RULES:
            if hint in text:
                text = self._replace(text, pattern, read)
        if ":" in text:
            text = _LINE.sub(self._line, text)
        return text if self._count == count else self._known(text)

    # -- where secrets stand

    def _replace(
        self, text: str, pattern: re.Pattern[str], read: Callable[[re.Match[str]], str]
    ) -> str:
        return pattern.sub(lambda match: match["open"] + self._placeholder(read(match)), text)

    def _line(self, match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        return match["open"] + (self._header(name, value) if _HEADER.match(name) else value)

    def _header(self, name: str, value: str) -> str:
        if not (value and _HEADER.match(name)):
            return self.text(value)
        kind = name.lower()
        if kind.endswith("cookie") and "=" in value:
            # Only the first pair of Set-Cookie is the cookie (RFC 6265, 4.1.1).
            return _PAIR.sub(self._pair, value, count=kind == "set-cookie")
        scheme, space, credentials = value.partition(" ")
        if kind.endswith("authorization") and space:
            return f"{scheme} {self._placeholder(credentials)}"
        return self._placeholder(value)

    def _pair(self, match: re.Match[str]) -> str:
        return f"={self._placeholder(match[1])}"

    def _part(self, part: Part) -> Part:
        return replace(part, headers=self.headers(part.headers), content=self.content(part.content))

    def _document(self, value: Json, also: Also | None = None) -> Json:
        count = self._count
        clean = self._json(value, also)
        # What it taught may also stand before the place that taught it.
        return clean if self._count == count else self._json(clean, also)

    def _json(self, value: Json, also: Also | None, *, secret: bool = False) -> Json:
        if isinstance(value, str):
            return self._placeholder(value) if secret and value else self.text(value)
        if isinstance(value, list):
            return [self._json(item, also, secret=secret) for item in value]
        if isinstance(value, dict):
            for stream_secret in lxd.operation_streams(value):
                self._placeholder(stream_secret)
            return {
                self.text(key): self._json(item, also, secret=secret or _is_secret(key, item, also))
                for key, item in value.items()
            }
        if secret and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._placeholder(str(value))  # a password of digits, sent as a number
        return value

    # -- what is known

    def _placeholder(self, secret: str) -> str:
        if _PLACEHOLDER.fullmatch(secret):
            return secret
        known = self._placeholders.get(secret)
        if known is not None:
            self._placeholders.move_to_end(secret)
            return known
        self._count += 1
        placeholder = self._placeholders[secret] = f"REDACTED-{self._count}"
        if len(self._placeholders) > REMEMBERED:
            self._placeholders.popitem(last=False)
        if SHORTEST <= len(secret) <= LONGEST:
            self._watch_for(secret, placeholder)
        return placeholder

    def _watch_for(self, secret: str, placeholder: str) -> None:
        if not _WORD.fullmatch(secret):
            for spelling in _spellings(secret):
                self._watch_for_odd(spelling, placeholder)
            return
        self._least = min(self._least, len(secret))
        alike = self._words.setdefault(secret[:SHORTEST], {})
        alike[secret] = placeholder
        if len(alike) > ALIKE:
            del alike[next(iter(alike))]
        if len(self._words) > REMEMBERED:
            self._words.popitem(last=False)

    def _watch_for_odd(self, spelling: str, placeholder: str) -> None:
        if spelling in self._odd:
            return
        self._odd[spelling] = placeholder
        insort(self._longest_first, spelling, key=lambda text: -len(text))
        if len(self._odd) > ODD:
            oldest = next(iter(self._odd))
            del self._odd[oldest]
            self._longest_first.remove(oldest)

    def _known(self, text: str) -> str:
        if len(text) < SHORTEST:
            return text
        for spelling in self._longest_first:
            if spelling in text:
                text = text.replace(spelling, self._odd[spelling])
        return _WORD.sub(self._known_word, text) if self._words else text

    def _known_word(self, match: re.Match[str]) -> str:
        """A word without the secrets that it is or holds (``nSECRET`` in an escaped line)."""
        word: str = match[0]
        clean, done = "", 0
        for at in range(len(word) - self._least + 1):
            alike = self._words.get(word[at : at + SHORTEST])
            if alike is not None and at >= done and word.startswith(tuple(alike), at):
                found = max((s for s in alike if word.startswith(s, at)), key=len)
                clean += word[done:at] + alike[found]
                done = at + len(found)
        return clean + word[done:]


def _is_secret(key: str, value: Json, also: Also | None) -> bool:
    return bool(_KEY.match(key)) or (also is not None and also(key, value))


def _spellings(secret: str) -> set[str]:
    """A secret as it is, in a URL, and in JSON that was put into strings up to twice."""
    once = json.dumps(secret, ensure_ascii=False)[1:-1]
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    url = urllib.parse.quote(secret, safe="", errors="surrogatepass")
    return {secret, url, once, twice}
