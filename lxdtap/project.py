"""What a project says of its recordings: ``[tool.lxdtap]`` in its pyproject.toml, and functions."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from lxdtap.errors import ProjectError

if TYPE_CHECKING:
    from lxdtap.record.save import Hook

NAME = "pyproject.toml"


def redactions(directory: str) -> list[str]:
    """The ``redact`` list of the project that a directory is in: the nearest one above.

    Raises:
        ProjectError: the file cannot be read, or the list is none of texts.
    """
    folder, above = directory, os.path.dirname(directory)
    while not os.path.isfile(os.path.join(folder, NAME)):
        if above == folder:
            return []
        folder, above = above, os.path.dirname(above)
    return _redactions(os.path.join(folder, NAME))


def _redactions(file: str) -> list[str]:
    import tomllib  # most taps are started where there is none

    try:
        with open(file, encoding="utf-8") as opened:
            settings: Any = tomllib.loads(opened.read())
    except (OSError, ValueError) as error:
        raise ProjectError(f"cannot read {file}: {error}; mend it") from error
    found = settings
    for name, otherwise in (("tool", {}), ("lxdtap", {}), ("redact", [])):
        found = found.get(name, otherwise) if isinstance(found, dict) else None
    if not (isinstance(found, list) and all(isinstance(text, str) for text in found)):
        raise ProjectError(f"redact in [tool.lxdtap] of {file} is no list of texts; mend it")
    return found


def hook(name: str) -> Hook:
    """The function that ``MODULE:FUNCTION`` names, of a module that Python finds from here.

    Raises:
        ProjectError: there is none.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Hook = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise ProjectError(f"cannot use {name}: {error!r}; give MODULE:FUNCTION") from error
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise ProjectError(f"{name} cannot be called; give MODULE:FUNCTION")
    return found
