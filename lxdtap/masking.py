"""Redaction by the names that a user adds to the known ones. Pure."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass

from lxdtap.content import Json
from lxdtap.redact import Also, Redactor
from lxdtap.transaction import Headers

_PARAMETER = r"(?P<open>[?&](?:{})=)(?P<value>[^&#\s\"'<>]+)"


@dataclass(frozen=True, slots=True)
class Masks:
    """What else is secret.

    Attributes:
        keys: members of JSON documents, in any case.
        headers: in any case.
        query: parameters of URLs, as they are spelled.
    """

    keys: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    query: tuple[str, ...] = ()

    def masker(self) -> Redactor:
        """A redactor to which these are secret too."""
        added = self.keys or self.headers or self.query
        return Masker(self.keys, self.headers, self.query) if added else Redactor()


def masks(texts: Iterable[str]) -> Masks:
    """What ``key:NAME``, ``header:NAME`` and ``query:NAME`` mean.

    Raises:
        ValueError: one of them is none of these.
    """
    names: dict[str, list[str]] = {"key": [], "header": [], "query": []}
    for text in texts:
        kind, colon, name = text.partition(":")
        if not (colon and name and kind in names):
            raise ValueError(f"{text!r} is not key:NAME, header:NAME or query:NAME")
        names[kind].append(name)
    return Masks(*(tuple(each) for each in names.values()))


class Masker(Redactor):
    """A redactor to which more is secret.

    Args:
        keys: members of JSON documents, in any case.
        headers: in any case.
        query: parameters of URLs, as they are spelled.
    """

    def __init__(self, keys: Iterable[str], headers: Iterable[str], query: Iterable[str]) -> None:
        super().__init__()
        self._keys = {key.lower() for key in keys}
        self._names = {name.lower() for name in headers}
        names = "|".join(map(re.escape, query))
        self._parameter = re.compile(_PARAMETER.format(names)) if names else None

    def document(self, value: Json, also: Also | None = None) -> Json:
        """JSON without its secrets."""

        def secret(key: str, member: Json) -> bool:
            return key.lower() in self._keys or (also is not None and also(key, member))

        return super().document(value, secret if self._keys else also)

    def headers(self, headers: Headers) -> Headers:
        """Headers without their secrets."""
        if self._names:
            headers = tuple(
                (name, self._mask(value) if value and name.lower() in self._names else value)
                for name, value in headers
            )
        return super().headers(headers)

    def text(self, text: str) -> str:
        """Text without what is known or looks to be secret."""
        if self._parameter is not None:
            text = self._parameter.sub(
                lambda match: match["open"] + self._mask(urllib.parse.unquote_plus(match["value"])),
                text,
            )
        return super().text(text)

    def _mask(self, secret: str) -> str:
        masked = super().document({"": secret}, lambda _key, _value: True)
        assert isinstance(masked, dict)
        return str(masked[""])
