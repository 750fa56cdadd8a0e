"""Secrets out, placeholders in: one secret, one placeholder, wherever it turns up again.

Pure. What is secret is told by the key it stands under (the list is in docs/redaction.md): that
of a credential, or of a setting in which people keep some. From then on the value is known
everywhere: in URLs, in events, in escaped copies in log messages.
Hostile text costs time in proportion to its length: each run is looked through once, from its
beginning, and possessively.
"""

from __future__ import annotations

import functools
import json
import operator
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
CLEAN = 10_000
"""Strings kept in mind that hold no secret: documents say the same again and again."""
LONGEST_CLEAN = 256
"""Characters of these, and of names."""
ALIKE = 16
"""Secrets that are looked for of those that begin alike, as an issuer's tokens do."""

_NAMES = (
    r"pass(?:word|wd|phrase)|secret|token|credential|macaroon"
    r"|(?:api|private|access|certificate)[._-]?key|provider\.environment"
)
_HEADERS = r"(?:proxy-)?authorization\Z|(?:set-)?cookie\Z|x-(?:lxd|incus)-oidc"
# A time is none, as in core.remote_token_expiry.
_KEY = re.compile(rf"(?!.*expir)(?:.*(?:{_NAMES})|peers\..*\.key\Z)", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(rf"(?!.*expir)(?:.*(?:{_NAMES})|{_HEADERS})", re.IGNORECASE | re.DOTALL)
# Settings in which people keep secrets (LXD's doc/reference/instance_options.md).
_SETTINGS = ("environment.", "user.", "cloud-init.", "raw.")
_SETTING = r"(?:environment|user|cloud-init|raw)\."
_SETTING_NAME = re.compile(_SETTING)
_ABOUT = "server_version"
"""Stands in the ``environment`` of ``GET /1.0``, which is the daemon's."""
_TELLING = frozenset({"class", "columns", "environment"})
"""Keys that tell what the rest of an object is, or do if it is something."""
_HARMLESS = frozenset({int, float, bool, type(None)})
"""Types of values that hold no secret, but under the name of one."""
_WORD = re.compile(rf"[0-9A-Za-z_-]{{{SHORTEST},}}")
_PLACEHOLDER = re.compile(r"REDACTED-\d+")
_PAIR = re.compile(r"=([^;]+)")


def _run(characters: str) -> str:
    """The pattern of a run of characters that holds such a name; to be tried where one begins."""
    run = f"[{characters}]"
    named = rf"(?:(?={run}*?(?:{_NAMES}))|(?=peers\.{run}*?\.key(?!{run})))"
    return rf"(?!{run}*?expir){named}{run}++"


_NAME = "(?:" + _SETTING + r"[\w.-]++|" + _run(r"\w.-") + ")"
_KEY_IN_JSON = "(?:" + _SETTING + r'[^"\\]++|' + _run(r"\w. -") + ")"


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
# The same with many values: "environment":{"A":"x"}, "secrets":{"fs":"y"}, "tokens":["z"].
_INSIDE = r'(?:[^"\\]++|(?:(?P=b){2}\\\\)++|(?!(?P=b)")\\++"?)*+'
_MEMBERS = _pattern(
    rf'(?<!\\)(?P<b>\\*+)"(?:environment|{_KEY_IN_JSON})(?P=b)"\s*+:\s*+[\[{{]'
    rf'(?:(?P=b)"{_INSIDE}(?:(?P=b)")?+|(?!(?P=b)")[^\[\]{{}}"])++'
)
_STRING = _pattern(
    rf'(?<!\\)(?P<b>\\*+)"(?P<value>{_INSIDE})(?P<close>(?:(?P=b)")?+)(?P<key>\s*+:)?+'
)
# A member of Go's map, as in map[control:x fs:y].
_ENTRY = _pattern(
    rf"(?P<open>(?<=[\[ ])(?:{_NAME}|\d{{1,3}}(?=:[0-9a-f]{{64}}\b)|(?:control|fs|criu|state)"
    r"(?=:[0-9a-f]{64}\b)):)(?P<value>[^\s\]]++(?: (?![\w.-]++:)[^\s\]]++)*+)"
)
# A member of a row in SQL, VALUES(1,'user.x','y'), or in an error, cannot set 'user.x' to 'y'.
_COLUMN = _pattern(rf"(?P<open>'{_NAME}'(?:\s*+,\s*+| to )')(?P<value>(?:[^']++|'')++)")
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


def _as_it_is(match: re.Match[str]) -> str:
    return str(match["value"])


def _undoubled(match: re.Match[str]) -> str:
    return match["value"].replace("''", "'")


def _in_one_line(match: re.Match[str]) -> str:
    return re.sub(r"\\+[nr]|\s", "", match["value"])


# What a text must hold for the pattern to be tried, and how the secret in it is to be read.
_RULES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    ("-----BEGIN", _PRIVATE, _in_one_line),
    ('"', _MEMBER, _unescaped),
    ('"', _STREAM, _as_it_is),
    ("map[", _ENTRY, _as_it_is),
    ("'", _COLUMN, _undoubled),
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
        self._learnt = 0  # how often something came to be looked for
        # As far as is known now: strings and headers that hold no secret, and of these strings the
        # keys under which none stands.
        self._clean: set[str | tuple[str, str]] = set()
        self._plain: set[str] = set()
        # Those to be found anywhere: words by their beginnings, the others by each spelling.
        self._words: dict[str, tuple[str, ...]] = {}
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
                clean = self.document(content.value)
                return content if clean is content.value else Document(clean)
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
        if self._clean.issuperset(headers):
            return headers
        return tuple([(name, self._header(name, value)) for name, value in headers])

    def text(self, text: str) -> str:
        """Text, a URL or a message without what is known or looks to be secret."""
        if text in self._clean:
            return text
        clean = self._looked_through(text)
        if clean != text:
            return clean
        if len(text) <= LONGEST_CLEAN:
            self._remember(text)
        return text

    def _looked_through(self, text: str) -> str:
        text, learnt = self._known(text), self._learnt
        if '"' in text:
            text = _MEMBERS.sub(self._members, text)
        for hint, pattern, read in _RULES:
            if hint in text:
                text = self._replace(text, pattern, read)
        if ":" in text:
            text = _LINE.sub(self._line, text)
        return text if self._learnt == learnt else self._known(text)

    def _remember(self, clean: str | tuple[str, str]) -> None:
        if len(self._clean) >= CLEAN:
            self._forget()
        self._clean.add(clean)

    def _forget(self) -> None:
        self._clean.clear()
        self._plain.clear()

    # -- where secrets stand

    def _replace(
        self, text: str, pattern: re.Pattern[str], read: Callable[[re.Match[str]], str]
    ) -> str:
        return pattern.sub(lambda match: match["open"] + self._placeholder(read(match)), text)

    def _members(self, match: re.Match[str]) -> str:
        return match[0] if _ABOUT in match[0] else _STRING.sub(self._string, match[0])

    def _string(self, match: re.Match[str]) -> str:
        if match["key"] or not match["value"]:
            return match[0]
        return f'{match["b"]}"{self._placeholder(_unescaped(match))}{match["close"]}'

    def _line(self, match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if _SETTING_NAME.match(name):
            return match["open"] + self._placeholder(value)
        return match["open"] + (self._header(name, value) if _is_secret_header(name) else value)

    def _header(self, name: str, value: str) -> str:
        if value and _is_secret_header(name):
            return self._secret_header(name, value)
        clean = self.text(value)
        if len(name) <= LONGEST_CLEAN and value in self._clean:
            self._remember((name, value))
        return clean

    def _secret_header(self, name: str, value: str) -> str:
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
        learnt = self._learnt
        clean = self._json(value, also)
        # What it taught may also stand before the place that taught it.
        return clean if self._learnt == learnt else self._json(clean, also)

    # Most of what is said was said before: then a look into a set is all that it costs, and what
    # holds no secret is not made anew: a document of 2 KB takes 7 µs instead of 35.

    def _json(self, value: Json, also: Also | None, *, secret: bool = False) -> Json:
        if isinstance(value, dict):
            if not secret and also is None and self._plain.issuperset(value):
                return self._values(value)
            return self._object(value, also, secret=secret)
        if isinstance(value, list):
            items = [self._json(item, also, secret=secret) for item in value]
            return value if all(map(operator.is_, items, value)) else items
        if isinstance(value, str):
            return self._placeholder(value) if secret and value else self.text(value)
        if secret and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._placeholder(str(value))  # a password of digits, sent as a number
        return value

    def _values(self, value: dict[str, Json]) -> Json:
        """An object of whose keys none tells of a secret, nor holds one."""
        clean = self._clean
        changed: dict[str, Json] = {}
        for key, item in value.items():
            kind = type(item)
            if kind is str:
                if item in clean:
                    continue
            elif kind in _HARMLESS:
                continue
            found = self._json(item, None)
            if found is not item:
                changed[key] = found
        return value | changed if changed else value

    def _object(self, value: dict[str, Json], also: Also | None, *, secret: bool) -> Json:
        for stream_secret in lxd.operation_streams(value):
            self._placeholder(stream_secret)
        columns = value.get("columns")
        if not secret and isinstance(columns, list) and isinstance(value.get("rows"), list):
            return self._table(value, columns, also)
        clean: dict[str, Json] = {}
        for key, item in value.items():
            plain = key in self._plain
            name = key if plain else self._name(key)
            hidden = secret or ((not plain or also is not None) and _is_secret(key, item, also))
            known = not hidden and type(item) is str and item in self._clean
            clean[name] = item if known else self._json(item, also, secret=hidden)
        return clean

    def _name(self, key: str) -> str:
        clean = self.text(key)
        if key in self._clean and not (key in _TELLING or _short_member(key)):
            self._plain.add(key)
        return clean

    def _table(self, value: dict[str, Json], columns: list[Json], also: Also | None) -> Json:
        """What a SELECT found (LXD's lxd/api_internal.go): its ``rows`` have no keys."""
        rows = value["rows"]
        assert isinstance(rows, list)
        found: list[Json] = [
            self._row(columns, row, also) if isinstance(row, list) else self._json(row, also)
            for row in rows
        ]
        return {key: found if key == "rows" else self._json(value[key], also) for key in value}

    def _row(self, columns: list[Json], row: list[Json], also: Also | None) -> Json:
        """A row, where a column's name tells what a cell is, or the cell before it."""
        named = zip(row, [*columns, *row], ["", *row], strict=False)
        return [
            self._json(
                cell,
                also,
                secret=any(isinstance(key, str) and _is_secret(key, cell, also) for key in keys),
            )
            for cell, *keys in named
        ]

    # -- what is known

    def _placeholder(self, secret: str) -> str:
        if _PLACEHOLDER.fullmatch(secret):
            return secret
        placeholder = self._placeholders.get(secret, "")
        new = not placeholder
        if new:
            self._count += 1
            placeholder = self._placeholders[secret] = f"REDACTED-{self._count}"
            if len(self._placeholders) > REMEMBERED:
                self._watch_no_more(self._placeholders.popitem(last=False)[0])
        self._placeholders.move_to_end(secret)
        if SHORTEST <= len(secret) <= LONGEST and (new or not self._watched(secret)):
            self._learnt += 1
            self._forget()
            self._watch_for(secret, placeholder)
        return placeholder

    def _watched(self, secret: str) -> bool:
        """Whether it is looked for. It may be known, and others have taken its place there."""
        if _WORD.fullmatch(secret):
            return secret in self._words.get(secret[:SHORTEST], ())
        return self._odd.keys() >= _spellings(secret)

    def _watch_for(self, secret: str, placeholder: str) -> None:
        if not _WORD.fullmatch(secret):
            for spelling in _spellings(secret):
                self._watch_for_odd(spelling, placeholder)
            return
        self._least = min(self._least, len(secret))
        beginning = secret[:SHORTEST]
        self._words[beginning] = (*self._words.get(beginning, ()), secret)[-ALIKE:]

    def _watch_no_more(self, secret: str) -> None:
        alike = self._words.pop(secret[:SHORTEST], ())
        if left := tuple(other for other in alike if other != secret):
            self._words[secret[:SHORTEST]] = left

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
            if alike is not None and at >= done and word.startswith(alike, at):
                found = max((s for s in alike if word.startswith(s, at)), key=len)
                clean += word[done:at] + self._placeholders[found]
                done = at + len(found)
        return clean + word[done:]


def is_setting(key: str, value: Json) -> bool:
    """Whether a member of a document holds what people set for themselves.

    An exec's ``environment`` is, but not that of ``GET /1.0``, which tells of the daemon.
    """
    if key == "environment":
        return not (isinstance(value, dict) and _ABOUT in value)
    return key.startswith(_SETTINGS)


def is_credential(name: str) -> bool:
    """Whether what stands under a name, in JSON or in a query, is a credential."""
    return bool(_KEY.match(name))


def _is_secret(key: str, value: Json, also: Also | None) -> bool:
    named = _short_member(key) if len(key) <= LONGEST_CLEAN else _is_member(key)
    if named or (key == "environment" and is_setting(key, value)):
        return True
    return also is not None and also(key, value)


def _is_member(key: str) -> bool:
    return bool(_KEY.match(key)) or key.startswith(_SETTINGS)


@functools.lru_cache(CLEAN)
def _short_member(key: str) -> bool:
    """Whether secrets stand under a key. The keys of documents are few, and looked at often."""
    return _is_member(key)


@functools.lru_cache(CLEAN)
def _short_header(name: str) -> bool:
    return bool(_HEADER.match(name))


def _is_secret_header(name: str) -> bool:
    return bool(_HEADER.match(name)) if len(name) > LONGEST_CLEAN else _short_header(name)


@functools.lru_cache(ODD)
def _spellings(secret: str) -> frozenset[str]:
    """A secret as it is, in a URL, and in JSON that was put into strings up to twice."""
    once = json.dumps(secret, ensure_ascii=False)[1:-1]
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    url = urllib.parse.quote(secret, safe="", errors="surrogatepass")
    return frozenset((secret, url, once, twice))
