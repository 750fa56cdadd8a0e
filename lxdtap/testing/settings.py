"""What a test wants of its cassettes: modes, their precedence, the names of files. Pure.

Nothing else of lxdtap is imported here: pytest loads this in every run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Mode = Literal["none", "once", "all"]
MODES: tuple[Mode, ...] = get_args(Mode)

_LONGEST_NAME = 180
"""Bytes of a file's name, which has at most 255; drafts of it have longer ones."""
_UNSAFE = re.compile(r"[^\w.,=+@\[\]-]")
_NAMES = ("redact_keys", "redact_headers", "redact_query")
_FLAGS = ("allow_repeats", "strict", "redact_payload")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is wanted.

    Attributes:
        record_mode: none: only ever replay; once: record what is missing; all: record afresh.
        allow_repeats: whether a change may be made more often than it was recorded.
        strict: whether what was recorded and not asked for fails the test.
        upstream: the daemon's socket, its directory or its https address; empty: the one that
            clients would use.
        remote: the daemon, by the name that lxc or incus has for it; empty: by ``upstream``.
        before_record: takes each interaction as it would be written, and gives the one to write,
            or None for none.
        redact_keys: members of JSON documents that are secret too.
        redact_headers: headers that are.
        redact_query: parameters of URLs that are.
        redact_payload: whether commands, exec's data and files are left out.
    """

    record_mode: Mode = "none"
    allow_repeats: bool = False
    strict: bool = False
    upstream: str = ""
    remote: str = ""
    before_record: Callable[[Any], Any] | None = None
    redact_keys: tuple[str, ...] = ()
    redact_headers: tuple[str, ...] = ()
    redact_query: tuple[str, ...] = ()
    redact_payload: bool = False


KEYS = tuple(field.name for field in fields(Settings))


def mode(text: object) -> Mode:
    """The record mode of this name.

    Raises:
        ValueError: there is none.
    """
    for known in MODES:
        if text == known:
            return known
    if text == "new_episodes":
        raise ValueError(
            "record mode new_episodes is not offered: what was replayed does not exist on the live"
            " daemon, so nothing new could follow it there; use once, or all to record afresh"
        )
    raise ValueError(f"record mode {text!r} is not known: use one of {', '.join(MODES)}")


def merged(*layers: Mapping[str, Any]) -> Settings:
    """The settings of several places, the weightiest last; None in one says nothing.

    Raises:
        ValueError: a key is not known, or its value cannot be.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key not in KEYS:
                raise ValueError(f"{key!r} is no setting: use one of {', '.join(KEYS)}")
            if value is not None:
                values[key] = _checked(key, value)
    return Settings(**values)


def _checked(key: str, value: Any) -> object:  # noqa: ANN401 - whatever a user may write
    if key == "record_mode":
        return mode(value)
    if key in _FLAGS:
        return _of(bool, key, value, "True or False")
    if key in _NAMES:
        names = (value,) if isinstance(value, str) else tuple(value)
        return tuple(_of(str, key, name, "a list of names") for name in names)
    if key == "before_record" and not callable(value):
        raise ValueError(f"before_record is {value!r}, which cannot be called")
    return str(value) if key in ("upstream", "remote") else value


def _of(kind: type, key: str, value: object, what: str) -> object:
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {value!r}: it has to be {what}")
    return value


def default_name(classes: Iterable[str], test: str) -> str:
    """The name of a test's cassette: ``Class.test[parameters]``, as a file may be called.

    Two tests never have the same: where something had to be changed, the name ends in a hash.
    """
    whole = ".".join([*classes, test])
    name = _UNSAFE.sub("-", whole)
    if len(name.encode()) > _LONGEST_NAME:
        name = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    if name != whole:
        name += f"-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return name


def file_name(name: str) -> str:
    """The file of a cassette of this name."""
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
