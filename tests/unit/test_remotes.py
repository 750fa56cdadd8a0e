"""What the names of remotes stand for, by the configurations of lxc and incus."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lxdtap.endpoint import Endpoint, HttpsEndpoint
from lxdtap.errors import NoDaemonError
from lxdtap.remotes import Machine

LXC = "/h/.config/lxc"
SNAP = "/h/snap/lxd/common/config"
INCUS = "/h/.config/incus"


def remotes(**addresses: str) -> str:
    """A configuration with these remotes, as lxc writes it."""
    return "remotes:\n" + "".join(
        f"  {name}:\n    addr: {address}\n    public: false\n"
        for name, address in addresses.items()
    )


def machine(files: dict[str, str], **environ: str) -> Machine:
    """One with these files, and sockets in the usual places of both daemons."""
    return Machine(environ, "/h", files.get, lambda path: path.startswith("/var/lib/"))


def refused(ask: Callable[[], object]) -> str:
    with pytest.raises(NoDaemonError) as caught:
        ask()
    return str(caught.value)


def test_https() -> None:
    """Address, our certificate, and the pinned one are the remote's."""
    files = {f"{LXC}/config.yml": remotes(far="https://h:8443"), f"{LXC}/servercerts/far.crt": ""}
    assert machine(files).named("far") == HttpsEndpoint(
        "https://h:8443",
        f"remote far of lxc, {LXC}/config.yml",
        f"{LXC}/client.crt",
        f"{LXC}/client.key",
        f"{LXC}/servercerts/far.crt",
        "",
        "lxd",
    )


def test_an_authority_of_ones_own() -> None:
    """Nothing is pinned where nothing is stored; in a PKI client.ca vouches."""
    files = {f"{INCUS}/config.yml": remotes(far="https://[::1]"), f"{INCUS}/client.ca": ""}
    found = machine(files).named("far")
    assert isinstance(found, HttpsEndpoint)
    assert (found.server_certificate, found.authority) == ("", f"{INCUS}/client.ca")
    assert (found.base, found.kind) == ("https://[::1]:443", "incus")


@pytest.mark.parametrize("address", ["unix:///a/unix.socket", "unix:/a/unix.socket"])
def test_unix(address: str) -> None:
    """A remote may be a socket."""
    files = {f"{INCUS}/config.yml": remotes(near=address)}
    title = f"remote near of incus, {INCUS}/config.yml"
    assert machine(files).named("near") == Endpoint("/a/unix.socket", title, "incus")


@pytest.mark.parametrize(
    ("places", "path"),
    [
        ([LXC], "/var/lib/lxd/unix.socket"),
        ([INCUS], "/var/lib/incus/unix.socket"),
        ([LXC, INCUS], "/var/lib/lxd/unix.socket"),
    ],
)
def test_local(places: list[str], path: str) -> None:
    """Both clients have "local", whatever is written there: the daemon they use by default."""
    files = {f"{place}/config.yml": remotes(local="https://other") for place in places}
    found = machine(files).named("local")
    assert isinstance(found, Endpoint)
    assert found.path == path


def test_local_is_of_its_client() -> None:
    """Another client's variables have no say in it."""
    found = machine({f"{INCUS}/config.yml": ""}, LXD_DIR="/elsewhere").named("local")
    assert isinstance(found, Endpoint)
    assert found.path == "/var/lib/incus/unix.socket"


def test_variables_move_the_configuration() -> None:
    """LXD_CONF and INCUS_CONF are looked in instead, and alone."""
    files = {"/x/config.yml": remotes(far="https://x"), f"{LXC}/config.yml": remotes(b="https://b")}
    for variable, kind in (("LXD_CONF", "lxd"), ("INCUS_CONF", "incus")):
        found = machine(files, **{variable: "/x"}).named("far")
        assert (found.base, found.kind) == ("https://x:443", kind)
    assert "there are far, local;" in refused(lambda: machine(files, LXD_CONF="/x").named("b"))


def test_the_machines_remotes() -> None:
    """They have the machine's pinned certificates and the user's own; the user's come first."""
    files = {
        f"{LXC}/config.yml": remotes(both="https://user"),
        f"{SNAP}/config.yml": remotes(both="https://snap", snap="https://snap"),
        f"{SNAP}/client.crt": "",
        "/etc/lxd/config.yml": remotes(both="https://all", far="https://all"),
        "/etc/lxd/servercerts/far.crt": "",
    }
    found = machine(files).named("far")
    assert isinstance(found, HttpsEndpoint)
    assert found.server_certificate == "/etc/lxd/servercerts/far.crt"
    assert found.certificate == f"{SNAP}/client.crt"
    assert machine(files).named("both").base == "https://user:443"
    snap = machine(files).named("snap")
    assert isinstance(snap, HttpsEndpoint)
    assert snap.key == f"{SNAP}/client.key"
    moved = {"/g/config.yml": remotes(far="https://moved")}
    assert machine(moved, LXD_GLOBAL_CONF="/g").named("far").base == "https://moved:443"


def test_an_unknown_name() -> None:
    """The names there are are told, or where they were looked for."""
    files = {
        f"{LXC}/config.yml": remotes(a="https://a"),
        f"{INCUS}/config.yml": remotes(b="unix:x"),
    }
    said = refused(lambda: machine(files).named("c"))
    assert said == "no remote c: there are a, b, local; see `lxc remote list`"
    said = refused(lambda: machine({}).named("local"))
    assert said.startswith(f"no remote local: no config.yml in {LXC}, {SNAP}, {INCUS}; ")


def test_a_name_that_is_two() -> None:
    """Both clients may have it, if they mean the same."""
    files = {
        f"{LXC}/config.yml": remotes(a="https://a"),
        f"{INCUS}/config.yml": remotes(a="unix:x"),
    }
    said = refused(lambda: machine(files).named("a"))
    assert "remote a is two: https://a (lxc) and unix:x (incus); " in said
    files[f"{INCUS}/config.yml"] = files[f"{LXC}/config.yml"]
    assert machine(files).named("a").kind == "lxd"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{addr: 'https://h', protocol: simplestreams}", ", speaks simplestreams: only LXD"),
        ("{addr: 'https://h', auth_type: oidc}", ", wants oidc: lxdtap has client certificates"),
        ("{addr: 'https://h', auth_type: candid}", ", wants candid: lxdtap"),
        ("{addr: 'http://h'}", "'http://h' is not https://HOST"),
        ("{public: true}", "'' is not https://HOST"),
    ],
)
def test_what_cannot_be_tapped(settings: str, said: str) -> None:
    """Image servers, and daemons that want to know who we are in another way."""
    files = {f"{LXC}/config.yml": f"remotes: {{far: {settings}}}"}
    assert said in refused(lambda: machine(files).named("far"))


@pytest.mark.parametrize("text", ["", "[]", "remotes: 1", "remotes: {far: x}"])
def test_an_odd_configuration(text: str) -> None:
    """Has no remotes but the one that all have."""
    said = refused(lambda: machine({f"{LXC}/config.yml": text}).named("far"))
    assert "there are local;" in said


def test_no_yaml() -> None:
    """The file and the line are told."""
    for text, line in (("a: b\nc: [\n", 3), ("a: \x00", 0)):
        said = refused(lambda text=text: machine({f"{LXC}/config.yml": text}).named("a"))  # type: ignore[misc]
        assert said == f"{LXC}/config.yml is not YAML, in line {line}: correct it"


def test_names_are_strings() -> None:
    """As in Go: YAML's other types have no say."""
    assert machine({f"{LXC}/config.yml": remotes(**{"1": "https://h"})}).named("1").kind == "lxd"


def test_by_address() -> None:
    """An address that is a remote's brings all that the remote has."""
    files = {
        f"{LXC}/config.yml": "remotes: {odd: {addr: 'https://h:1', auth_type: oidc}}",
        f"{INCUS}/config.yml": remotes(near="unix:///a", other="https://h:2", far="https://h:1"),
        f"{INCUS}/servercerts/far.crt": "",
    }
    found = machine(files).at("https://H:1/")
    assert found == machine(files).named("far")


def test_by_an_unknown_address() -> None:
    """Another gets the first certificate that there is, or none."""
    assert machine({}).at("https://h") == HttpsEndpoint(
        "https://h:8443", "--upstream or LXDTAP_UPSTREAM"
    )
    found = machine({f"{INCUS}/client.crt": ""}).at("https://h")
    assert (found.certificate, found.key) == (f"{INCUS}/client.crt", f"{INCUS}/client.key")
    assert found.kind is None
