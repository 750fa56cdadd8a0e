"""Bring a daemon to a state, step by step, whatever it is in: each step may be done again.

::

    python shortcuts.py image.tar.xz     # c1 runs from this image, and is then gone again

With ``DEBUG=1`` every transaction is printed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from lxdtap import API, APINotFoundException, APIResult


def image_present(api: API, path: str) -> str:
    """The fingerprint of the image in a file, which is uploaded where the daemon lacks it."""
    with Path(path).open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            api.get(f"images/{fingerprint}")
        except APINotFoundException:
            file.seek(0)
            api.post("images", data=file).wait()
    return fingerprint


def image_alias_present(api: API, fingerprint: str, name: str) -> None:
    """Make a name stand for an image, and for no other."""
    try:
        known = api.get(f"images/aliases/{name}").metadata["target"]
    except APINotFoundException:
        api.post("images/aliases", json={"name": name, "target": fingerprint})
        return
    if known != fingerprint:
        api.put(f"images/aliases/{name}", json={"target": fingerprint})


def container_absent(api: API, name: str) -> bool:
    """Delete a container, running or not; whether there was one."""
    try:
        container_stopped(api, name)
        api.delete(f"instances/{name}").wait()
    except APINotFoundException:
        return False
    return True


def container_apply(api: API, name: str, **wanted: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Create a container, or give it what it lacks of this."""
    try:
        known = api.get(f"instances/{name}").metadata
    except APINotFoundException:
        api.post("instances", json={"name": name, **wanted}).wait()
        return
    config = wanted.get("config", {})
    if any(known["config"].get(key) != value for key, value in config.items()):
        api.patch(f"instances/{name}", json={"config": config}).wait()


def container_started(api: API, name: str) -> APIResult | None:
    """Start a container; None where it runs already."""
    return _in_state(api, name, "Running", {"action": "start"})


def container_stopped(api: API, name: str) -> APIResult | None:
    """Stop a container; None where it does not run."""
    return _in_state(api, name, "Stopped", {"action": "stop", "force": True})


def _in_state(api: API, name: str, wanted: str, change: dict[str, Any]) -> APIResult | None:
    if api.get(f"instances/{name}").metadata["status"] == wanted:
        return None
    return api.put(f"instances/{name}/state", json={**change, "timeout": 30}).wait()


def main() -> None:
    """Do it all, twice: the second time there is nothing left to do."""
    with API.factory() as api:
        for _ in range(2):
            fingerprint = image_present(api, sys.argv[1])
            image_alias_present(api, fingerprint, "shortcuts")
            source = {"type": "image", "alias": "shortcuts"}
            container_apply(api, "shortcuts", source=source, config={"user.color": "blue"})
            container_started(api, "shortcuts")
        print(api.get("instances/shortcuts").metadata["status"])
        print("deleted" if container_absent(api, "shortcuts") else "was not there")
        api.delete(f"images/{fingerprint}").wait()


if __name__ == "__main__":
    main()
