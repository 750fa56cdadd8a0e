"""The scenarios of the cassettes in ``cassettes/``: what is done in each, and what that says.

``make cassettes`` does them with real daemons and records it; tests/process/test_cassettes.py does
them again with the recordings. To add one, add it to :data:`SCENARIOS` and record it.

Each daemon starts with an image ``bb`` (busybox) and a running container ``c1``. A scenario ends
with status 0: so ``lxdtap replay --strict`` has the last word.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from lxdtap.endpoint import Kind

CASSETTES = Path(__file__).parent.parent / "cassettes"
PATIENCE = 60
"""Seconds that a scenario may take before it counts as hung."""

WORDS: Mapping[str, Mapping[Kind, str]] = {
    "$LX": {"lxd": "lxc", "incus": "incus"},
    "$SOCKET": {"lxd": "$LXD_SOCKET", "incus": "$INCUS_SOCKET"},
    "$SNAPSHOT": {"lxd": "lxc snapshot", "incus": "incus snapshot create"},
    "$RESTORE": {"lxd": "lxc restore", "incus": "incus snapshot restore"},
    "$TRUST": {"lxd": "lxc config trust add --name", "incus": "incus config trust add"},
}
"""What the two call differently."""

VERSIONS: Mapping[Kind, str] = {"lxd": "5.0.2", "incus": "6.0.4"}
"""The daemons and clients that are recorded; other versions of the clients ask other things."""


@dataclass(frozen=True)
class Scenario:
    """What is done.

    Attributes:
        name: of its cassette.
        about: what is to be seen, in a few words.
        needs: the programs it takes, and Python's packages; ``$LX`` is the daemon's own client.
        script: for the shell.
        says: what comes out, with each of the kinds.
        kinds: the daemons it is recorded from.
    """

    name: str
    about: str
    needs: Sequence[str]
    script: str
    says: str
    kinds: Sequence[Kind] = ("lxd", "incus")


ASK = 'ask() { curl --silent --show-error --unix-socket "$SOCKET" "$@"; }\n'
"""For scripts: curl, with the daemon; a host has to be named, which one does not matter."""

SCENARIOS = (
    Scenario(
        "first-look",
        "a server that is looked at, a command in its container, and a container that is launched",
        ("$LX",),
        """\
        $LX list --format csv --columns ns
        $LX list > list
        $LX info > server
        $LX info c1 > instance
        $LX config show c1 > configuration
        $LX image list --format csv --columns ld
        $LX image info bb > image
        $LX profile list > profiles
        $LX profile show default > profile
        $LX project list > projects
        $LX storage list > pools
        $LX query /1.0/projects > names
        $LX query /1.0/instances > instances
        $LX exec c1 -- echo hello
        $LX launch bb w1 --quiet
        $LX list --format csv --columns ns
        $LX list > list
        $LX stop w1 --force
        $LX delete w1
        """,
        """\
        c1,RUNNING
        bb,bb
        hello
        c1,RUNNING
        w1,RUNNING
        """,
    ),
    Scenario(
        "launch",
        "a container is made of an image, started, stopped and deleted",
        ("$LX",),
        """\
        $LX launch bb w1 --quiet
        $LX list --format csv --columns ns
        $LX stop w1 --force
        $LX list --format csv --columns ns
        $LX delete w1
        $LX list --format csv --columns ns
        $LX info w1 || echo "exit status $?"
        """,
        """\
        c1,RUNNING
        w1,RUNNING
        c1,RUNNING
        w1,STOPPED
        c1,RUNNING
        exit status 1
        """,
    ),
    Scenario(
        "exec",
        "commands in a container: their streams, input, environment, exit status, failure",
        ("$LX",),
        """\
        $LX exec c1 -- sh -c 'echo out; echo oops >&2' 2> errors; cat errors
        echo typed | $LX exec c1 -- cat
        $LX exec c1 --cwd /tmp --env GREETING=hello -- sh -c 'echo $GREETING from $PWD'
        $LX exec c1 -- sh -c 'exit 7' || echo "exit status $?"
        $LX exec c1 -- nonesuch || echo "exit status $?"
        """,
        """\
        out
        oops
        typed
        hello from /tmp
        exit status 7
        exit status 127
        """,
    ),
    Scenario(
        "files",
        "a tree, and a file of 100 KB, into a container and out again",
        ("$LX",),
        r"""
        mkdir -p site/css; echo '<h1>hello</h1>' > site/index.html; echo 'h1 {}' > site/css/a.css
        seq -f %08.0f 11112 | tr 0 '\000' > big
        $LX file push --quiet --recursive site c1/root
        $LX file push --quiet --mode 0640 big c1/root/big
        $LX exec c1 -- stat -c '%a %s' /root/big /root/site/css/a.css
        $LX file pull --quiet c1/root/big back; cmp big back && echo same
        $LX file pull --quiet --recursive c1/root/site copy
        cat copy/site/index.html copy/site/css/a.css
        $LX file delete c1/root/big
        $LX file pull c1/root/big gone || echo "exit status $?"
        $LX exec c1 -- rm -r /root/site
        """,
        """\
        640 100008
        644 6
        same
        <h1>hello</h1>
        h1 {}
        exit status 1
        """,
    ),
    Scenario(
        "images",
        "an image is imported, looked at, exported and deleted",
        ("$LX", "tar"),
        """\
        umask 022; mkdir -p image/rootfs/etc; echo hello > image/rootfs/etc/motd
        echo 'architecture: x86_64' > image/metadata.yaml
        echo 'creation_date: 1700000000' >> image/metadata.yaml
        echo 'properties: {description: tiny}' >> image/metadata.yaml
        cd image; tar --sort name --mtime @0 --owner root:0 --group root:0 -cf ../t.tar *; cd ..
        $LX image import t.tar --alias tiny --quiet > imported
        $LX image list tiny --format csv --columns ld
        $LX image export tiny exported > said; cmp t.tar exported.tar && echo same
        $LX image delete tiny
        $LX image list tiny --format csv --columns ld
        """,
        """\
        tiny,tiny
        same
        """,
    ),
    Scenario(
        "snapshots",
        "a snapshot is made, gone back to, and deleted",
        ("$LX",),
        """\
        $LX exec c1 -- sh -c 'echo before > /root/note'
        $SNAPSHOT c1 s1
        $LX exec c1 -- sh -c 'echo after > /root/note'
        $LX exec c1 -- cat /root/note
        $RESTORE c1 s1
        $LX exec c1 -- cat /root/note
        $LX query --request DELETE --wait /1.0/instances/c1/snapshots/s1 > deleted
        $LX query /1.0/instances/c1/snapshots | head -n 1
        $LX exec c1 -- rm /root/note
        """,
        """\
        after
        before
        []
        """,
    ),
    Scenario(
        "failed-start",
        "a container cannot be started: an operation that failed, behind HTTP 200",
        ("$LX",),
        """\
        $LX init bb w1 --quiet --config raw.lxc='lxc.init.cmd = /nonesuch'
        $LX start w1 --quiet 2> errors || echo "exit status $?"
        grep -o 'forkstart w1\\|exit status 1' errors
        $LX list w1 --format csv --columns ns
        """,
        """\
        exit status 1
        forkstart w1
        exit status 1
        w1,STOPPED
        """,
    ),
    Scenario(
        "refusals",
        "what is refused: 404, 409, 400, and 412 for a change of what has changed since",
        ("curl",),
        ASK
        + """\
        status() { ask --output answer --write-out '%{http_code}\\n' "$@"; }
        status http://x/1.0/instances/nonesuch; grep -o 'Instance not found' answer
        ask --output image http://x/1.0/images/aliases/bb
        target=$(grep -o '[0-9a-f]\\{64\\}' image)
        status --data '{"name": "bb", "target": "'$target'"}' http://x/1.0/images/aliases
        status --data '{"name": ' http://x/1.0/profiles
        status --data '{"name": "p1", "description": "first"}' http://x/1.0/profiles
        status --dump-header headers http://x/1.0/profiles/p1
        etag=$(grep -i '^etag' headers | tr -d '\\r' | cut -d ' ' -f 2)
        put() { status --request PUT --header "If-Match: $etag" "$@" http://x/1.0/profiles/p1; }
        put --data '{"description": "mine"}'
        put --data '{"description": "yours"}'; grep -o '"error_code":412' answer
        ask http://x/1.0/profiles/p1 | grep -o '"description":"[^"]*"'
        status --request DELETE http://x/1.0/profiles/p1
        """,
        """\
        404
        Instance not found
        409
        400
        201
        200
        200
        412
        "error_code":412
        "description":"mine"
        200
        """,
    ),
    Scenario(
        "cancel",
        "an operation is waited for, and cancelled meanwhile",
        ("curl",),
        ASK
        + """\
        image=$(ask http://x/1.0/images | grep -o '/1.0/images/[0-9a-f]*')
        operation=$(ask --data '{}' http://x$image/secret | grep -o '/1.0/operations/[0-9a-f-]*')
        ask http://x$operation | grep -o '"status":"Running"'
        ask http://x$operation/wait > waited & sleep 0.3
        ask --request DELETE http://x$operation | grep -o '"status":"Success"'
        wait; grep -o '"status":"Cancelled"' waited
        """,
        """\
        "status":"Running"
        "status":"Success"
        "status":"Cancelled"
        """,
    ),
    Scenario(
        "events",
        "lifecycle events of a profile that comes and goes, as they happen",
        ("$LX",),
        """\
        $LX monitor --type lifecycle --format json > seen & watcher=$!
        sleep 0.5; $LX profile create p1; $LX profile delete p1
        until grep -q profile-deleted seen; do sleep 0.05; done
        kill $watcher; wait; grep -o '"action":"profile-[a-z]*"' seen | sort -u
        """,
        """\
        Profile p1 created
        Profile p1 deleted
        "action":"profile-created"
        "action":"profile-deleted"
        """,
    ),
    Scenario(
        "trust",
        "a token for a new client is made, listed and revoked; its secret is redacted",
        ("$LX",),
        """\
        $TRUST ci > token; tail -n 1 token | base64 -d | grep -o '"client_name":"ci"'
        $LX config trust list-tokens --format csv | cut -d , -f 1
        $LX config trust revoke-token ci
        $LX config trust list-tokens --format csv
        """,
        """\
        "client_name":"ci"
        ci
        Certificate add token for ci deleted
        """,
    ),
    Scenario(
        "pylxd",
        "a Python program: an instance, commands and a file in it, an exception",
        ("pylxd",),
        """\
        python3 -W ignore - << 'END'
        import pylxd
        client = pylxd.Client()
        source = {"type": "image", "alias": "bb"}
        made = client.instances.create({"name": "w1", "source": source}, wait=True)
        made.start(wait=True)
        print(made.name, made.status)
        said = made.execute(["sh", "-c", "echo out; echo oops >&2; exit 3"])
        print(said.exit_code, repr(said.stdout), repr(said.stderr))
        print(made.execute(["cat"], stdin_payload="typed\\n").stdout, end="")
        made.files.put("/root/note", b"\\x00\\xff" * 10, mode=0o600)
        print(made.files.get("/root/note") == b"\\x00\\xff" * 10)
        made.stop(wait=True, force=True)
        made.delete(wait=True)
        print([each.name for each in client.instances.all()])
        try:
            client.instances.get("w1")
        except pylxd.exceptions.NotFound as error:
            print(type(error).__name__, error)
        END
        """,
        """\
        w1 Running
        3 'out\\n' 'oops\\n'
        typed
        True
        ['c1']
        NotFound Instance not found
        """,
        ("lxd",),
    ),
)


@dataclass(frozen=True)
class Recording:
    """A scenario with one kind of daemon: what there is a cassette of."""

    scenario: Scenario
    kind: Kind

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.scenario.name}"

    @property
    def path(self) -> Path:
        return CASSETTES / f"{self.name}.yaml"

    @property
    def client(self) -> str:
        return WORDS["$LX"][self.kind]

    @cached_property
    def script(self) -> str:
        """The commands, as they are typed."""
        text = _dedented(self.scenario.script)
        for word, meaning in WORDS.items():
            text = text.replace(word, meaning[self.kind])
        return text

    @property
    def says(self) -> str:
        return _dedented(self.scenario.says)

    def lacks(self) -> str | None:
        """Why it cannot be done here, or None."""
        for need in self.scenario.needs:
            name = self.client if need == "$LX" else need
            if name == "pylxd":
                found = find_spec(name) is not None
            else:
                found = shutil.which(name) is not None
            if not found:
                return f"not installed: {name}"
        return self._other_client() if "$LX" in self.scenario.needs else None

    def _other_client(self) -> str | None:
        """A client of another version asks other things than were recorded."""
        command = [self.client, "--version"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout
        version, wanted = said.split()[0] if said else "none", VERSIONS[self.kind]
        if version == wanted:
            return None
        return f"{self.client} is {version}, and was {wanted} when it was recorded"

    def environment(self, home: Path) -> dict[str, str]:
        """What the commands get: nothing of who runs them, and a client past its first run."""
        steering = ("LXD_", "INCUS_", "LXDTAP_", "XDG_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
        configuration = home / "conf"
        if not configuration.exists():
            configuration.mkdir()
            (configuration / "config.yml").write_text(CONFIGURATION[self.kind])
        return kept | {
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            f"{self.kind.upper()}_CONF": str(configuration),
        }


CONFIGURATION: Mapping[Kind, str] = {
    "lxd": "default-remote: local\nremotes:\n  local: {addr: 'unix://', public: false}\n",
    "incus": "default-remote: local\nremotes:\n"
    "  local: {addr: 'unix://', protocol: incus, public: false}\n",
}

RECORDINGS = tuple(Recording(scenario, kind) for scenario in SCENARIOS for kind in scenario.kinds)


def _dedented(text: str) -> str:
    """Without the margin of eight, which not all lines of a script that is put together have."""
    return "".join(line.removeprefix(" " * 8) for line in text.lstrip("\n").splitlines(True))
