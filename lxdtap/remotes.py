"""The remotes that lxc and incus know: where they are, and with which certificates.

Pure: the environment, the home directory and a reader of files are handed in. What is read, as
lxc reads it (LXD's lxc/config/file.go and remote.go; Incus' shared/cliconfig)::

    ~/.config/lxc/config.yml             remotes: {NAME: {addr, protocol, auth_type, ...}}
    ~/.config/lxc/client.crt, .key       what we show
    ~/.config/lxc/client.ca              who vouches for servers, in a PKI
    ~/.config/lxc/servercerts/NAME.crt   what the server has to show
    /etc/lxd/config.yml, servercerts/    remotes of the whole machine
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lxdtap.endpoint import (
    Endpoint,
    HttpsEndpoint,
    Kind,
    discover,
    https_address,
    https_base,
    socket_path,
)
from lxdtap.errors import NoDaemonError

Read = Callable[[str], str | None]
"""A file's text; None where there is no such file."""
_PORT = 443
"""Go's, for an address without a port; `lxc remote add` always writes one."""
_BY_OPTION = "--upstream or LXDTAP_UPSTREAM"
_OURS = ("unix:", "unix://")
"""The daemon that the client talks to by default."""


@dataclass(frozen=True, slots=True)
class _Client:
    """Where a client keeps its configuration; the first of several places is asked first."""

    kind: Kind
    program: str
    variable: str
    in_home: tuple[str, ...]
    global_variable: str
    globally: tuple[str, ...]


_CLIENTS = (
    _Client(
        "lxd",
        "lxc",
        "LXD_CONF",
        (".config/lxc", "snap/lxd/common/config"),
        "LXD_GLOBAL_CONF",
        ("/etc/lxd", "/var/snap/lxd/common/global-conf"),
    ),
    _Client(
        "incus", "incus", "INCUS_CONF", (".config/incus",), "INCUS_GLOBAL_CONF", ("/etc/incus",)
    ),
)


@dataclass(frozen=True, slots=True)
class _Remote:
    """A remote, and where it was found: whose, and the directory of the configuration."""

    name: str
    settings: Mapping[str, Any]
    client: _Client
    directory: str
    own: str  # the directory of client.crt

    @property
    def address(self) -> str:
        return str(self.settings.get("addr", ""))

    @property
    def title(self) -> str:
        return f"remote {self.name} of {self.client.program}, {self.directory}/config.yml"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the remotes are looked up with.

    Attributes:
        environ: the environment.
        home: the user's home directory.
        read: reads a file.
        is_socket: whether there is a socket at a path.
    """

    environ: Mapping[str, str]
    home: str
    read: Read
    is_socket: Callable[[str], bool]

    def named(self, name: str) -> Endpoint | HttpsEndpoint:
        """The daemon that a remote's name stands for.

        Raises:
            NoDaemonError: there is no such remote, it is not a daemon, or it is two.
        """
        remotes = list(self._remotes())
        found = [remote for remote in remotes if remote.name == name]
        if not found:
            raise NoDaemonError(self._unknown(name, remotes))
        first, last = found[0], found[-1]
        if first.address != last.address:
            raise NoDaemonError(
                f"remote {name} is two: {first.address} ({first.client.program}) and {last.address}"
                f" ({last.client.program}); name the one that is meant with --upstream"
            )
        if first.address in _OURS:
            only = first.client.kind if first is last else None
            return discover(self.environ, self.is_socket, only)
        return self._endpoint(first)

    def at(self, url: str) -> HttpsEndpoint:
        """An https address: with what its remote has, if it is one, else lxc's own certificate."""
        wanted = https_base(*https_address(url))
        for remote in self._remotes():
            try:
                if https_base(*https_address(remote.address, _PORT)) == wanted:
                    found = self._endpoint(remote)
                    assert isinstance(found, HttpsEndpoint)
                    return found
            except (ValueError, NoDaemonError):
                continue
        for directory in [each for client in _CLIENTS for each in self._users(client)]:
            if self.read(f"{directory}/client.crt") is not None:
                certificate, key = f"{directory}/client.crt", f"{directory}/client.key"
                return HttpsEndpoint(wanted, _BY_OPTION, certificate, key)
        return HttpsEndpoint(wanted, _BY_OPTION)

    # -- what is there

    def _users(self, client: _Client) -> list[str]:
        given = self.environ.get(client.variable)
        return [given] if given else [f"{self.home}/{place}" for place in client.in_home]

    def _remotes(self) -> Iterator[_Remote]:
        """All remotes, a client's own before the machine's, and each name once a client."""
        for client in _CLIENTS:
            users = self._users(client)
            given = self.environ.get(client.global_variable)
            seen: set[str] = set()
            for directory in [*users, *([given] if given else client.globally)]:
                own = directory if directory in users else self._with_certificate(users)
                for name, settings in self._read_remotes(directory).items():
                    if name not in seen:
                        seen.add(name)
                        yield _Remote(name, settings, client, directory, own)

    def _with_certificate(self, users: list[str]) -> str:
        there = [each for each in users if self.read(f"{each}/client.crt") is not None]
        return (there or users)[0]

    def _read_remotes(self, directory: str) -> dict[str, dict[str, Any]]:
        path = f"{directory}/config.yml"
        text = self.read(path)
        if text is None:
            return {}
        content = _yaml(text, path)
        remotes = content.get("remotes") if isinstance(content, dict) else None
        found = remotes if isinstance(remotes, dict) else {}
        named = {name: settings for name, settings in found.items() if isinstance(settings, dict)}
        return named | {"local": {"addr": "unix://"}}  # lxc has it so, whatever is written there

    def _unknown(self, name: str, remotes: list[_Remote]) -> str:
        if remotes:
            names = ", ".join(sorted({remote.name for remote in remotes}))
            return f"no remote {name}: there are {names}; see `lxc remote list`"
        places = ", ".join(each for client in _CLIENTS for each in self._users(client))
        return (
            f"no remote {name}: no config.yml in {places}; see `lxc remote add`, or use --upstream"
        )

    # -- what it is

    def _endpoint(self, remote: _Remote) -> Endpoint | HttpsEndpoint:
        address, kind = remote.address, remote.client.kind
        if address.startswith("unix:"):
            return Endpoint(socket_path(address), remote.title, kind)
        _check(remote)
        try:
            base = https_base(*https_address(address, _PORT))
        except ValueError as error:
            raise NoDaemonError(f"{remote.title}: {error}; correct its addr") from error
        pinned = f"{remote.directory}/servercerts/{remote.name}.crt"
        authority = f"{remote.own}/client.ca"
        return HttpsEndpoint(
            base,
            remote.title,
            f"{remote.own}/client.crt",
            f"{remote.own}/client.key",
            pinned if self.read(pinned) is not None else "",
            authority if self.read(authority) is not None else "",
            kind,
        )


def _check(remote: _Remote) -> None:
    """Only daemons that know their clients by certificates can be tapped.

    Raises:
        NoDaemonError: it is something else.
    """
    protocol = remote.settings.get("protocol") or remote.client.kind
    if protocol not in ("lxd", "incus"):
        raise NoDaemonError(
            f"{remote.title}, speaks {protocol}: only LXD and Incus can be tapped; name another"
        )
    how = remote.settings.get("auth_type") or "tls"
    if how not in ("tls", "none"):
        raise NoDaemonError(
            f"{remote.title}, wants {how}: lxdtap has client certificates only; add one to the"
            " daemon's trust, and name it with --upstream, --cert and --key"
        )


def _yaml(text: str, path: str) -> object:
    """What a YAML text holds, all scalars as strings: lxc's types are Go's, not YAML's.

    Raises:
        NoDaemonError: it is no YAML.
    """
    import yaml  # only who has remotes pays for it

    try:
        # The base loader makes strings, lists and mappings, which is even less than the safe one.
        return yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise NoDaemonError(f"{path} is not YAML, in line {line}: correct it") from error
