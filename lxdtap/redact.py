"""Credentials out, placeholders in: one secret, one placeholder, wherever it turns up again.

Pure. What is secret is told by the key it stands under (the list is in docs/redaction.md), and
from then on the value is known everywhere: in URLs, in events, in escaped copies in log messages.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace

from lxdtap import lxd
from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text
from lxdtap.transaction import Headers

SHORTEST = 12
"""Characters from which on a secret is looked for elsewhere too; shorter ones are too common."""
REMEMBERED = 10_000
"""Secrets kept in mind; the oldest are forgotten first."""

_KEY_TEXT = (
    r"pass(?:word|wd|phrase)|secret|token|credential|macaroon"
    r"|(?:api|private|access|certificate)[._-]?key"
)
_KEY = re.compile(rf"{_KEY_TEXT}|^peers\..*\.key$", re.IGNORECASE)
_HEADER = re.compile(
    rf"{_KEY_TEXT}|^(?:proxy-)?authorization$|^(?:set-)?cookie$|^x-(?:lxd|incus)-oidc",
    re.IGNORECASE,
)
_QUERY = re.compile(rf"(\b[\w.-]*(?:{_KEY_TEXT})[\w.-]*=)([^&\s\"'\\<>#]+)", re.IGNORECASE)
# A key and its string in JSON text, at any depth of escaping: "password": "x", \"password\":\"x\".
_MEMBER = re.compile(
    rf'(?P<open>(?P<quote>\\*")[\w. -]*(?:{_KEY_TEXT})[\w. -]*(?P=quote)\s*:\s*(?P=quote))'
    r'(?P<value>[^"\\]+)',
    re.IGNORECASE,
)
_WORD = re.compile(rf"[0-9A-Za-z_-]{{{SHORTEST},}}")
_PLACEHOLDER = re.compile(r"REDACTED-\d+")


class Redactor:
    """Remembers the secrets of one tap, and gives each its placeholder ``REDACTED-n``."""

    def __init__(self) -> None:
        self._placeholders: OrderedDict[str, str] = OrderedDict()
        self._count = 0
        self._lengths: set[int] = set()
        self._odd: set[str] = set()  # secrets that are not one word

    def content(self, content: Content) -> Content:
        """A body without its secrets."""
        match content:
            case Document():
                for secret in lxd.streams(content.value):
                    self._placeholder(secret)
                return Document(self._json(content.value))
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
        return tuple(
            (name, self._placeholder(value) if value and _HEADER.search(name) else self.text(value))
            for name, value in headers
        )

    def text(self, text: str) -> str:
        """Text, a URL or a message without what is known or looks to be secret."""
        text = _MEMBER.sub(lambda m: m["open"] + self._placeholder(m["value"]), text)
        text = _QUERY.sub(lambda m: m[1] + self._placeholder(m[2]), text)
        return self._known(text)

    def _part(self, part: Part) -> Part:
        return replace(part, headers=self.headers(part.headers), content=self.content(part.content))

    def _json(self, value: Json, *, secret: bool = False) -> Json:
        if isinstance(value, str):
            return self._placeholder(value) if secret and value else self.text(value)
        if isinstance(value, list):
            return [self._json(item, secret=secret) for item in value]
        if isinstance(value, dict):
            return {
                key: self._json(item, secret=secret or bool(_KEY.search(key)))
                for key, item in value.items()
            }
        return value

    def _placeholder(self, secret: str) -> str:
        if _PLACEHOLDER.fullmatch(secret):
            return secret
        known = self._placeholders.get(secret)
        if known is not None:
            self._placeholders.move_to_end(secret)
            return known
        self._count += 1
        self._placeholders[secret] = f"REDACTED-{self._count}"
        if len(secret) >= SHORTEST:
            self._watch_for(secret)
        if len(self._placeholders) > REMEMBERED:
            self._odd.discard(self._placeholders.popitem(last=False)[0])
        return self._placeholders[secret]

    def _watch_for(self, secret: str) -> None:
        if _WORD.fullmatch(secret):
            self._lengths.add(len(secret))
        else:
            self._odd.add(secret)

    def _known(self, text: str) -> str:
        for secret in self._odd:
            if secret in text:
                text = text.replace(secret, self._placeholders[secret])
        return _WORD.sub(self._known_word, text) if self._lengths else text

    def _known_word(self, match: re.Match[str]) -> str:
        """A word without the secret that it is or holds (``nSECRET`` in an escaped line)."""
        word: str = match[0]
        for length in self._lengths:
            for start in range(len(word) - length + 1):
                secret = word[start : start + length]
                if secret in self._placeholders:
                    return word.replace(secret, self._placeholders[secret])
        return word
