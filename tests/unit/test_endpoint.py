"""Where a daemon is looked for, and how its address is spelled."""

from __future__ import annotations

import pytest

from lxdtap.endpoint import (
    Endpoint,
    base_url,
    client_environment,
    discover,
    https_address,
    https_base,
    kind_by_organization,
    kind_of,
    socket_path,
    with_socket_name,
)
from lxdtap.errors import NoDaemonError

EVERYTHING = {
    "LXD_SOCKET": "/s/lxd.sock",
    "LXD_DIR": "/d/lxd/",
    "INCUS_SOCKET": "/s/incus.sock",
    "INCUS_DIR": "/d/incus",
}


@pytest.mark.parametrize(
    ("unset", "path", "kind"),
    [
        (0, "/s/lxd.sock", "lxd"),
        (1, "/d/lxd/unix.socket", "lxd"),
        (2, "/s/incus.sock", "incus"),
        (3, "/d/incus/unix.socket", "incus"),
    ],
)
def test_variables_decide_in_the_clients_order(unset: int, path: str, kind: str) -> None:
    """LXD_SOCKET before LXD_DIR before Incus' two, whether or not anything is there."""
    names = list(EVERYTHING)[unset:]
    found = discover({name: EVERYTHING[name] for name in names}, lambda _: False)
    assert found == Endpoint(path, names[0], "lxd" if kind == "lxd" else "incus")


@pytest.mark.parametrize(
    ("there", "kind"),
    [
        ("/var/snap/lxd/common/lxd/unix.socket", "lxd"),
        ("/var/lib/lxd/unix.socket", "lxd"),
        ("/run/incus/unix.socket", "incus"),
        ("/var/lib/incus/unix.socket", "incus"),
    ],
)
def test_usual_places(there: str, kind: str) -> None:
    """Without a variable (an empty one is none) the usual places are looked at."""
    found = discover({"LXD_DIR": ""}, lambda path: path == there)
    assert (found.path, found.kind, found.found_by) == (there, kind, "its usual place")


def test_nothing_found_lists_where_it_looked() -> None:
    """Who has no daemon learns every variable and every place that was tried."""
    with pytest.raises(NoDaemonError) as caught:
        discover({}, lambda _: False)
    for word in (*EVERYTHING, "/var/snap/lxd/common/lxd", "/run/incus", "--upstream", "install"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a/b", "/a/b"),
        ("unix:/a/b", "/a/b"),
        ("unix:///a/b", "/a/b"),
        ("http+unix://%2Fa%2Fb", "/a/b"),
        ("http+unix://%2Fa%2Fb/", "/a/b"),
        ("relative", "relative"),
    ],
)
def test_spellings(text: str, path: str) -> None:
    """All spellings of a socket that clients know are understood."""
    assert socket_path(text) == path


@pytest.mark.parametrize("text", ["https://host:8443", "http://x", ""])
def test_no_socket(text: str) -> None:
    """What is no unix socket is refused."""
    with pytest.raises(ValueError, match="not the path of a unix socket"):
        socket_path(text)


def test_base() -> None:
    """The http+unix spelling percent-encodes the whole path."""
    assert base_url("/var/lib/lxd/unix.socket") == "http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket"
    assert Endpoint("/a b", "x").base == "http+unix://%2Fa+b"


def test_a_directory_stands_for_its_socket() -> None:
    """Where a directory is given, the socket in it is meant."""
    assert with_socket_name("/d/", lambda _: True) == "/d/unix.socket"
    assert with_socket_name("/d/s", lambda _: False) == "/d/s"


@pytest.mark.parametrize(
    ("program", "path", "kind"),
    [
        ("lxd", "/x/incus/unix.socket", "lxd"),
        ("incusd", "/x/unix.socket", "incus"),
        ("systemd", "/var/lib/incus/unix.socket", "incus"),
        ("", "/var/lib/lxd/unix.socket", "lxd"),
    ],
)
def test_kind(program: str, path: str, kind: str) -> None:
    """The listening program tells which daemon it is; where it does not, the path does."""
    assert kind_of(program, path) == kind


def test_client_environment() -> None:
    """Both variables of one daemon are set, and none of the other's."""
    assert client_environment("lxd", "/t/unix.socket") == {
        "LXD_DIR": "/t",
        "LXD_SOCKET": "/t/unix.socket",
    }
    assert client_environment("incus", "/s")["INCUS_DIR"] == "/"
    assert client_environment("incus", "/s", remote=True)["INCUS_REMOTE"] == "local"
    assert client_environment("lxd", "/s", remote=True)["LXC_REMOTE"] == "local"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("unix://a/b", "a/b"),
        ("unix:a", "a"),
        ("http+unix:///a/b", "/a/b"),
        ("http+unix://%2Fa+b/1.0/instances", "/a b"),
        ("/a:b", "/a:b"),
    ],
)
def test_odd_spellings(text: str, path: str) -> None:
    """``unix:`` is taken off as LXD takes it off; of a URL the authority is the socket."""
    assert socket_path(text) == path


@pytest.mark.parametrize("text", ["unix:", "unix://", "http+unix://"])
def test_an_address_without_a_path(text: str) -> None:
    """A scheme alone names no socket."""
    with pytest.raises(ValueError, match="not the path of a unix socket"):
        socket_path(text)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://h", "https://h:8443"),
        ("https://Example.ORG:443/", "https://example.org:443"),
        ("https://[::1]", "https://[::1]:8443"),
        ("https://127.0.0.1:1", "https://127.0.0.1:1"),
    ],
)
def test_https(text: str, base: str) -> None:
    """A host and, without a port, lxc's; an IPv6 address in brackets."""
    assert https_base(*https_address(text)) == base


def test_https_with_another_port() -> None:
    """The port to take where none is named can be told."""
    assert https_address("https://h", 443) == ("h", 443)


@pytest.mark.parametrize(
    "text",
    [
        "http://h",
        "https://",
        "https://h/1.0",
        "https://h?x",
        "https://u@h",
        "https://h:x",
        "https:h",
    ],
)
def test_no_https(text: str) -> None:
    """What is more or less than that is refused."""
    with pytest.raises(ValueError, match=r"https://|Port"):
        https_address(text)


def test_kind_by_organization() -> None:
    """The daemons' own certificates say whose they are; others do not."""
    names = ("LXD", "linuxcontainers.org", "Linux Containers", "Example Ltd", "")
    assert [kind_by_organization(name) for name in names] == ["lxd", "lxd", "incus", None, None]


def test_only_one_kind() -> None:
    """The other's variables and places can be left aside."""
    environ = {"LXD_DIR": "/d", "INCUS_DIR": "/i"}
    assert discover(environ, lambda _: True, "incus").path == "/i/unix.socket"
    assert discover({}, lambda _: True, "incus").path == "/run/incus/unix.socket"
    assert discover({"LXD_DIR": "/d"}, lambda _: True, "incus").found_by == "its usual place"
