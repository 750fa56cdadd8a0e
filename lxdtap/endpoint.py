"""Where a daemon is: the order of the search, and how an address is spelled.

Pure: what the environment holds and which files exist are handed in.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from lxdtap.errors import NoneFoundError

Kind = Literal["lxd", "incus"]

SOCKET = "unix.socket"
"""The daemon's socket in its directory (LXD's client/connection.go, and Incus')."""
LONGEST_PATH = 107
"""Bytes of a unix socket's path, without the final NUL (unix(7): ``sun_path`` has 108)."""
HTTPS_PORT = 8443
"""Where lxc looks for a daemon unless told otherwise (LXD's shared/network.go)."""

_VARIABLES: tuple[tuple[str, Kind], ...] = (
    ("LXD_SOCKET", "lxd"),
    ("LXD_DIR", "lxd"),
    ("INCUS_SOCKET", "incus"),
    ("INCUS_DIR", "incus"),
)
_ORGANIZATIONS: dict[str, Kind] = {
    "LXD": "lxd",
    "linuxcontainers.org": "lxd",
    "Linux Containers": "incus",
}
_DIRECTORIES: tuple[tuple[str, Kind], ...] = (
    ("/var/snap/lxd/common/lxd", "lxd"),
    ("/var/lib/lxd", "lxd"),
    ("/run/incus", "incus"),
    ("/var/lib/incus", "incus"),
)


class Endpoint(NamedTuple):
    """A daemon's unix socket.

    Attributes:
        path: of the socket.
        found_by: what named it, for messages: an option, a variable, or the usual place.
        kind: which daemon it is, where that is known from how it was found.
    """

    path: str
    found_by: str
    kind: Kind | None = None

    @property
    def base(self) -> str:
        """The address as URLs show it: ``http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket``."""
        return base_url(self.path)


class HttpsEndpoint(NamedTuple):
    """A daemon behind https. Files are PEM.

    Attributes:
        base: its address as URLs show it: ``https://host:8443``.
        found_by: what named it, for messages.
        certificate: the client's.
        key: of the client's certificate.
        server_certificate: the one that the server has to show; empty: an authority vouches.
        authority: the authority's certificate; empty: those that the system trusts.
        kind: which daemon it is, where that is known.
    """

    base: str
    found_by: str
    certificate: str = ""
    key: str = ""
    server_certificate: str = ""
    authority: str = ""
    kind: Kind | None = None


def base_url(path: str) -> str:
    """The ``http+unix`` spelling of a socket's path, as requests-unixsocket introduced it."""
    return "http+unix://" + urllib.parse.quote_plus(path)


def socket_path(text: str) -> str:
    """The path that an address names: a path, ``unix:PATH``, ``unix://PATH`` or ``http+unix://…``.

    The ``unix`` ones as LXD reads them (lxc/config/remote.go): ``unix://x`` is a relative path.

    Raises:
        ValueError: it names no unix socket.
    """
    scheme, colon, rest = text.partition("://")
    if scheme == "http+unix" and colon:
        # The path is the URL's authority, quoted; what follows it is not the socket's.
        path = rest if rest.startswith("/") else urllib.parse.unquote_plus(rest.partition("/")[0])
    elif text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
    else:
        path = "" if colon else text
    if not path:
        raise ValueError(f"{text!r} is not the path of a unix socket")
    return path


def https_address(text: str, port: int = HTTPS_PORT) -> tuple[str, int]:
    """The host and the port of ``https://HOST[:PORT]``; without one it is ``port``.

    Raises:
        ValueError: it is something else.
    """
    url = urllib.parse.urlsplit(text)
    beside = (url.path.strip("/"), url.query, url.fragment, url.username, url.password)
    if url.scheme != "https" or not url.hostname or any(beside):
        raise ValueError(f"{text!r} is not https://HOST or https://HOST:PORT")
    return url.hostname, url.port or port


def https_base(host: str, port: int) -> str:
    """The address as URLs show it."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def with_socket_name(path: str, is_directory: Callable[[str], bool]) -> str:
    """The socket's path where a directory was given."""
    return f"{path.rstrip('/')}/{SOCKET}" if is_directory(path) else path


def discover(
    environ: Mapping[str, str], exists: Callable[[str], bool], only: Kind | None = None
) -> Endpoint:
    """The daemon that clients here would talk to: by their variables, else in the usual places.

    A variable decides even where nothing is there: clients do not look further either.

    Args:
        environ: the environment.
        exists: whether there is a socket at a path.
        only: this kind of daemon; None: any.

    Raises:
        NoneFoundError: no variable is set, and no usual place has a socket.
    """
    for name, kind in _VARIABLES:
        value = environ.get(name)
        if value and only in (None, kind):
            path = value if name.endswith("SOCKET") else f"{value.rstrip('/')}/{SOCKET}"
            return Endpoint(path, name, kind)
    for directory, kind in _DIRECTORIES:
        path = f"{directory}/{SOCKET}"
        if only in (None, kind) and exists(path):
            return Endpoint(path, "its usual place", kind)
    places = ", ".join(f"{directory}/{SOCKET}" for directory, _ in _DIRECTORIES)
    variables = ", ".join(name for name, _ in _VARIABLES)
    raise NoneFoundError(
        f"no LXD or Incus daemon found: none of {variables} is set, and none of {places} exists;"
        " start the daemon, install one (Debian: apt-get install lxd), or name its socket with"
        " --upstream PATH"
    )


def kind_of(program: str, path: str) -> Kind:
    """Which daemon it is, by the name of the program that listens, else by the socket's path.

    Nothing is asked of the daemon: a tap sends no request of its own.
    """
    return "incus" if "incus" in program or (program != "lxd" and "incus" in path) else "lxd"


def kind_by_organization(name: str) -> Kind | None:
    """Which daemon made itself a certificate with this organization as its subject.

    LXD's and Incus' shared/cert.go; None: neither did.
    """
    return _ORGANIZATIONS.get(name)


def client_environment(kind: Kind, path: str, *, remote: bool = False) -> dict[str, str]:
    """What to set so that clients of this kind of daemon use the socket at ``path``.

    Both variables, because Go clients prefer ``*_SOCKET`` (client/connection.go) and the others
    read only ``*_DIR``. Where a remote is tapped it may well be the client's default, which would
    lead past the tap: then a third makes that the socket (lxc/config/file.go).
    """
    prefix = kind.upper()
    directory = path.rpartition("/")[0] or "/"
    variables = {f"{prefix}_DIR": directory, f"{prefix}_SOCKET": path}
    if remote:
        variables["LXC_REMOTE" if kind == "lxd" else "INCUS_REMOTE"] = "local"
    return variables
