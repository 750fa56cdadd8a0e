"""The peers' packages: from Debian, and mitmproxy from PyPI, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"
ENVIRONMENT = BUILD / "mitmproxy"
MITMDUMP = ENVIRONMENT / "bin" / "mitmdump"

DEBIAN = {
    "nginx": "nginx-light",
    "h2load": "nghttp2-client",
    "haproxy": "haproxy",
    "socat": "socat",
    "strace": "strace",
}
"""Each tool, and Debian's package that has it."""
NEEDED = ("nginx", "h2load")
"""Without these nothing can be measured."""
TOOLS = frozenset({"nginx", "haproxy", "socat", "mitmdump", "strace"})


def is_root() -> bool:
    """Whether we are."""
    return os.geteuid() == 0


def missing(tool: str) -> str:
    """Why a tool cannot be measured here; empty if it can."""
    if tool == "mitmdump":
        return "" if MITMDUMP.exists() else "mitmproxy could not be installed from PyPI"
    return "" if shutil.which(tool) else f"not installed: apt-get install {DEBIAN[tool]}"


def install(tell: Callable[[str], None], *, mitmproxy: bool) -> None:
    """Install what is missing: Debian's as root only, mitmproxy under ``build/``."""
    absent = [package for tool, package in DEBIAN.items() if shutil.which(tool) is None]
    if absent and is_root() and shutil.which("apt-get"):
        tell(f"installing {' '.join(absent)}")
        _run(tell, ["apt-get", "-q", "update"])
        _run(tell, ["apt-get", "-q", "install", "--yes", "--no-install-recommends", *absent])
    if mitmproxy and not MITMDUMP.exists():
        tell("installing mitmproxy into build/mitmproxy")
        pip = str(ENVIRONMENT / "bin" / "pip")
        if _run(tell, [sys.executable, "-m", "venv", str(ENVIRONMENT)]):
            _run(tell, [pip, "install", "--quiet", "--disable-pip-version-check", "mitmproxy"])
    still = [DEBIAN[tool] for tool in NEEDED if shutil.which(tool) is None]
    if still:
        raise SystemExit(
            f"bench: not installed: {' '.join(still)}; apt-get install {' '.join(still)}"
        )


def _run(tell: Callable[[str], None], command: Sequence[str]) -> bool:
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        tell(f"{' '.join(command[:3])} failed: {' '.join(last)}")
    return not done.returncode


def versions() -> dict[str, str]:
    """Of each peer, as it says itself."""
    asked = {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "socat": ["socat", "-V"],
        "h2load": ["h2load", "--version"],
        "mitmproxy": [str(MITMDUMP), "--version"],
        "LXD": ["lxd", "--version"],
    }
    return {name: _version(command) for name, command in asked.items()}


def _version(command: Sequence[str]) -> str:
    """The first word that is one."""
    if shutil.which(command[0]) is None:
        return "absent"
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    for word in (done.stdout + done.stderr).replace("/", " ").split():
        if word[:1].isdigit() and "." in word:
            return word.rstrip(",")
    return "unknown"
