"""What people do with LXD and Incus, done directly and through the tap.

``tap(...)`` runs the commands both ways and holds the laws of :mod:`.tapping`: the client, the
daemon and whoever reads the log see one and the same thing. A test adds what is its own.
"""

from __future__ import annotations

import hashlib
import sys

import pytest

from .tapping import Tapping, Terminal

AWAIT = """\
await() { until "$@"; do sleep 0.02; done; }
killed() { { kill -KILL "$1"; wait "$1" || echo $?; } 2> /dev/null; }
"""
"""For scripts: ``await COMMAND`` until it succeeds; the flow's own time limit bounds it."""


LAUNCH = """\
running() { $LX exec w1 -- ps | grep -q '[ /]cat$'; }
$LX launch bb w1
await running
"""
"""For scripts: ``w1``, past the first line of its init."""


def snapshot_commands(tap: Tapping) -> str:
    """LXD and Incus spell the commands for snapshots differently."""
    return tap.by_kind(
        lxd='snapshot() { $LX snapshot "$@"; }\nrestore() { $LX restore "$@"; }\n',
        incus='snapshot() { $LX snapshot create "$@"; }\n'
        'restore() { $LX snapshot restore "$@"; }\n',
    )


# Looking.


def test_list(tap: Tapping) -> None:
    """A list is the same list."""
    said = tap("$LX list; $LX list --format csv --columns ns; $LX list --format json nonesuch")
    assert said.lines[-2:] == ["c1,RUNNING", "[]"]


def test_info(tap: Tapping) -> None:
    """What the client says of an instance and of the server is the same."""
    said = tap("$LX info c1; $LX info")
    assert said.only("GET", "/1.0/instances/c1.*").status == 200


def test_query(tap: Tapping) -> None:
    """Raw queries pass, with a body, with an operation to wait for, and with an odd query."""
    said = tap(
        """\
        $LX query /1.0
        $LX query '/1.0/instances?recursion=1&filter=name%20eq%20c1&x=%2Fa+b&y=%C3%A9'
        $LX query --request POST --data '{"name": "w1"}' /1.0/profiles
        $LX query --request PATCH --data '{"description": "patched"}' /1.0/profiles/w1
        $LX query /1.0/profiles/w1
        $LX query --wait --request PUT --data '{"action": "freeze"}' /1.0/instances/c1/state
        $LX query --wait --request PUT --data '{"action": "unfreeze"}' /1.0/instances/c1/state
        """
    )
    assert said.only("GET", ".*y=%C3%A9").status == 200


def test_warning_list(tap: Tapping) -> None:
    """The daemon's own warnings are listed, none is new."""
    tap("$LX warning list; $LX warning list --format json")


def test_console_log(tap: Tapping) -> None:
    """The console's log is what init wrote to it. LXD forgets it once it was read."""
    said = tap("$LX console --show-log w1", given=AWAIT + LAUNCH)
    assert "hello from init" in said.text


def test_console(tap: Tapping) -> None:
    """A console is attached to and left again with ctrl-a q; the terminal is given back."""

    def person(terminal: Terminal) -> None:
        terminal.expect(b"To detach from the console")
        terminal.await_raw()
        terminal.type(b"spoken\r")
        while not terminal.hears(b"spoken", 0.2):  # the daemon forgets what comes too soon
            terminal.type(b"spoken\r")
        while not terminal.ends(0.2):
            terminal.type(b"\x01")
            terminal.ends(0.05)  # the client misses a q that it reads together with the ctrl-a
            terminal.type(b"q")

    # init resets the terminal (ESC c) as it comes up: before the console is there, or after.
    varies = r"spoken|q|\^A|\^\[c|[\r\n]"
    said = tap("$LX console w1", given=AWAIT + LAUNCH, drive=person, may_vary=varies)
    assert said.tunnel("terminal").carried("received") >= len(b"spoken")
    assert len(said.tunnels("control")) == 1


def test_monitor(tap: Tapping) -> None:
    """Events arrive while they happen, until the one who watches is killed."""
    said = tap(
        AWAIT
        + """\
        seen() { grep -qs profile-created seen && grep -qs profile-deleted seen; }
        happen() { $LX profile create w1; $LX profile delete w1; seen; }
        $LX monitor --type lifecycle --format json > seen & watcher=$!
        await happen > /dev/null
        killed $watcher
        grep -o '"action":"profile-[a-z]*"' seen | sort -u
        """,
        may_break="/1.0/events",
    )
    assert said.lines[-2:] == ['"action":"profile-created"', '"action":"profile-deleted"']


# exec.


def test_exec(tap: Tapping) -> None:
    """What a command writes comes out where it wrote it, and the frames carried just that."""
    said = tap("$LX exec c1 -- sh -c 'echo out; echo oops >&2'")
    assert (said.stdout, said.stderr) == (b"out\n", "oops\n")
    assert said.tunnel("stdout").carried("received") == len(b"out\n")
    assert said.tunnel("stderr").carried("received") == len(b"oops\n")


def test_exec_environment(tap: Tapping) -> None:
    """Environment, directory and user arrive, secrets and odd characters too."""
    said = tap("""$LX exec c1 --env 'TOKEN=a b"c\\é' --cwd /tmp -- sh -c 'pwd; echo "$TOKEN"'""")
    assert said.text == '/tmp\na b"c\\é\n'


def test_exec_stdin(tap: Tapping) -> None:
    """What the client reads on stdin is what the command reads, whole and in order."""
    payload = "".join(f"{number}\n" for number in range(400_000)).encode()
    said = tap("$LX exec c1 -- sha256sum", stdin=payload)
    assert said.text.split()[0] == hashlib.sha256(payload).hexdigest()
    assert said.tunnel("stdin").carried("sent") == len(payload)


def test_exec_large_output(tap: Tapping) -> None:
    """Eight megabytes come out as they went in."""
    said = tap("$LX exec c1 -- seq 1 1140000 > big; wc -c < big; sha256sum < big")
    size, digest = said.text.split()[:2]
    written = "".join(f"{number}\n" for number in range(1, 1_140_001)).encode()
    assert (int(size), digest) == (len(written), hashlib.sha256(written).hexdigest())
    assert said.tunnel("stdout").carried("received") == len(written) > 8_000_000


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exec_status(tap: Tapping, status: int) -> None:
    """The command's exit status is the client's, and so the tap's."""
    tap(f"exec $LX exec c1 -- sh -c 'exit {status}'", status=status)


def test_exec_of_nothing(tap: Tapping) -> None:
    """A command that is not there: status 127, an operation that failed behind HTTP 200."""
    said = tap("exec $LX exec c1 -- nonesuch", status=127)
    assert "Command not found" in said.stderr
    assert said.failed


def test_exec_at_once(tap: Tapping) -> None:
    """Eight commands at once do not hear one another.

    One that says nothing, or does not end, is asked again: without a tap too it is one in 40.
    """
    said = tap(
        """\
        lx() { timeout --foreground -s KILL 5 $LX "$@"; }
        ask() { until lx exec c1 -- sh -c "seq 1 2000 | sed 's/^/$1:/'" > said.$1 &&
                [ -s said.$1 ]; do :; done; }
        for each in 1 2 3 4 5 6 7 8; do ask $each & done
        wait
        cat said.*
        """,
        may_break="/1.0/(events|operations)",
    )
    heard = [f"{each}:{line}" for each in range(1, 9) for line in range(1, 2001)]
    assert said.text.split() == heard
    assert len({each.target for each in said.transactions if each.stream == "stdout"}) >= 8


def test_exec_on_a_terminal(tap: Tapping) -> None:
    """The command sees the size of the person's window, and its new size when that changes."""

    def person(terminal: Terminal) -> None:
        terminal.expect(b"24 80")
        terminal.expect(b"waiting")
        terminal.resize(30, 100)
        terminal.expect(b"30 100")
        terminal.type(b"that is all\n")
        terminal.expect(b"heard that is all")

    script = (  # without a trap on WINCH: busybox's sh forgets what it reads when that comes
        'stty size; echo waiting; until test "$(stty size)" = "30 100"; do sleep 0.05; done; '
        "stty size; read line; echo heard $line; exit 3"
    )
    said = tap(f"exec $LX exec c1 -- sh -c '{script}'", drive=person, status=3)
    assert said.tunnel("control").carried("sent") > 0
    assert said.tunnel("terminal").carried("sent") >= len(b"that is all\n")


def test_exec_gets_signals(tap: Tapping) -> None:
    """A signal to the client is handed on to the command: 128 + 15."""
    said = tap(
        AWAIT
        + """\
        $LX exec c1 -- sh -c 'echo ready; exec sleep 60' > heard & client=$!
        await grep -qs ready heard
        kill -TERM $client
        wait $client
        """,
        status=143,
    )
    assert said.tunnel("control").carried("sent") > 0


def test_exec_dies_with_its_client(tap: Tapping) -> None:
    """A client killed outright takes its command with it: its end is not kept from the daemon."""
    said = tap(
        AWAIT
        + """\
        $LX exec c1 -- sh -c 'echo ready; exec sleep 7777' > heard & client=$!
        await grep -qs ready heard
        killed $client
        gone() { ! $LX exec c1 -- ps | grep -q 7777; }
        await gone
        """,
        may_break="/1.0/(events|operations)",
    )
    assert said.lines == ["137"]


# Files.


def test_file(tap: Tapping) -> None:
    """Five megabytes go in and come out again, with owner and mode."""
    said = tap(
        """\
        seq 1 750000 > big
        $LX file push --uid 7 --mode 0640 big c1/root/big
        $LX exec c1 -- sh -c 'cd /root; stat -c "%a %u %s" big; sha256sum < big'
        $LX file pull c1/root/big back
        sha256sum < back
        $LX file delete c1/root/big
        """
    )
    sent = "".join(f"{number}\n" for number in range(1, 750_001)).encode()
    digest = f"{hashlib.sha256(sent).hexdigest()}  -"
    assert said.lines == [f"640 7 {len(sent)}", digest, digest]
    if tap.daemon.kind == "lxd":
        assert said.only("POST", ".*/files.*big").sent == len(sent)
        assert said.only("GET", ".*/files.*big").received == len(sent)
    else:
        sessions = [each for each in said.transactions if each.protocol == "sftp"]
        assert sum(each.carried("sent") for each in sessions) > len(sent)


def test_file_tree(tap: Tapping) -> None:
    """A directory goes in and comes out with everything in it."""
    said = tap(
        """\
        mkdir -p tree/a/b tree/empty
        echo one > 'tree/a/a name with spaces & more'
        : > tree/a/b/nothing
        ln -s 'a name with spaces & more' tree/a/link
        $LX file push --recursive tree c1/root
        $LX exec c1 -- sh -c 'cd /root; find tree | sort; cat tree/a/link'
        $LX file pull --recursive c1/root/tree back
        diff --recursive --no-dereference --exclude link tree back/tree
        readlink back/tree/a/link
        $LX exec c1 -- rm -r /root/tree
        """
    )
    assert said.lines[-2] == "one"


def test_file_from_stdin(tap: Tapping) -> None:
    """A file may come from stdin and go to stdout."""
    said = tap(
        "$LX file push - c1/root/note; $LX file pull c1/root/note -; $LX file delete c1/root/note",
        stdin=b"\x00\xff binary\r\n",
    )
    assert said.stdout == b"\x00\xff binary\r\n"


def test_file_not_there(tap: Tapping) -> None:
    """To pull what is not there fails as it does without a tap."""
    tap("exec $LX file pull c1/root/nonesuch .", status=1)


# The life of an instance.


def test_launch(tap: Tapping) -> None:
    """A launch creates and starts; its operations are followed to their success."""
    said = tap("$LX launch bb w1 --config user.color=blue; $LX list --format csv --columns ns w1")
    assert said.lines[-1] == "w1,RUNNING"
    assert said.only("POST", r"/1\.0/instances").status == 202
    assert not said.failed


def test_start_and_stop(tap: Tapping) -> None:
    """Start, pause and stop change the instance and nothing else."""
    said = tap(
        """\
        $LX start w1; $LX pause w1; $LX start w1; $LX stop --force w1
        $LX list --format csv --columns ns w1
        """,
        given="$LX init bb w1",
    )
    assert said.lines[-1] == "w1,STOPPED"


def test_snapshot_and_restore(tap: Tapping) -> None:
    """What was changed after a snapshot is as it was, once that is restored."""
    said = tap(
        snapshot_commands(tap)
        + """\
        snapshot w1 first
        $LX config set w1 user.color=red
        restore w1 first
        snapshot w1 second
        $LX config get w1 user.color
        """,
        given="$LX init bb w1 --config user.color=blue",
    )
    assert said.lines[-1] == "blue"


def test_copy(tap: Tapping) -> None:
    """A copy, of an instance and of a snapshot, is a new instance; a refresh updates it."""
    tap(
        snapshot_commands(tap)
        + """\
        snapshot w1 first
        $LX copy w1 w2
        $LX copy w1/first w3
        $LX copy --refresh w1 w2
        """,
        given="$LX init bb w1",
    )


def test_rename(tap: Tapping) -> None:
    """An instance has the new name only."""
    said = tap(
        "$LX rename w1 w2; $LX move w2 w3; $LX list --format csv --columns n w",
        given="$LX init bb w1",
    )
    assert said.lines[-1] == "w3"


def test_delete(tap: Tapping) -> None:
    """What was deleted is gone, running or not."""
    said = tap(
        "$LX delete --force w1 w2; $LX list --format csv --columns n",
        given="$LX launch bb w1; $LX init bb w2",
    )
    assert said.lines == ["c1"]


def test_export_and_import(tap: Tapping) -> None:
    """An instance goes out as a backup and comes back as another instance."""
    said = tap(
        """\
        $LX export w1 backup.tar --compression none
        $LX import backup.tar w2
        $LX list --format csv --columns ns w
        """,
        given="$LX init bb w1",
    )
    assert said.lines[-2:] == ["w1,STOPPED", "w2,STOPPED"]
    backup = said.only("POST", r"/1\.0/instances")
    assert backup.sent == said.only("GET", ".*/backups/.*/export").received > 2_000_000


# Images.


def test_publish(tap: Tapping) -> None:
    """An instance becomes an image that can be launched from."""
    said = tap(
        """\
        $LX publish w1 --alias made --compression none color=blue
        $LX init made w2
        $LX image list --format csv --columns lt
        """,
        given="$LX init bb w1",
    )
    assert "made,CONTAINER" in said.lines


def test_image_unified(tap: Tapping) -> None:
    """A unified image goes in and comes out as the same file, told by its fingerprint."""
    said = tap(
        """\
        $LX image import "$BB" --alias spare
        $LX image alias create also "$(sha256sum "$BB" | cut -c 1-64)"
        $LX image export also out
        ls
        cmp out.tar "$BB" && echo the same
        """
    )
    assert said.lines[-2:] == ["out.tar", "the same"]


def test_image_split(tap: Tapping) -> None:
    """A split image, in a multipart body both ways, comes out as the same two files."""
    said = tap(
        """\
        $LX image import "$BB_METADATA" "$BB_ROOTFS" --alias spare
        $LX image export spare out
        ls
        cmp out "$BB_METADATA" && cmp out.root "$BB_ROOTFS" && echo the same
        $LX init spare w1
        """
    )
    assert "the same" in said.lines


# Configuration.


def test_config(tap: Tapping) -> None:
    """Configuration and devices are set, shown and unset."""
    said = tap(
        """\
        $LX config set w1 user.color=blue limits.memory=64MiB
        $LX config device add w1 there disk source=/usr path=/there readonly=true
        $LX config show w1 | grep -v volatile
        $LX config unset w1 user.color
        $LX config device remove w1 there
        """,
        given="$LX init bb w1",
    )
    assert "  user.color: blue" in said.lines


def test_stale_etag(tap: Tapping) -> None:
    """Who changes what has changed underneath is refused, with 412; If-Match is kept intact."""
    said = tap(
        """\
        ask() { curl --silent --unix-socket "$SOCKET" "$@"; }
        profile=http://unix.socket/1.0/profiles/w1
        etag=$(ask --output /dev/null --write-out '%header{etag}' $profile)
        $LX profile set w1 user.color red
        change='{"config": {"user.color": "green"}}'
        ask --request PUT --header "If-Match: $etag" --data "$change" $profile
        $LX profile get w1 user.color
        """,
        given="$LX profile create w1",
    )
    assert said.lines[-1] == "red"
    refused = [each.target for each in said.transactions if each.status == 412]
    assert refused == ["/1.0/profiles/w1"]


def test_edit_of_what_has_changed(tap: Tapping) -> None:
    """An editor's work on a configuration that changed meanwhile is refused, the person told."""
    editor = """\
#!/bin/sh
$LX profile set w1 user.color red
sed -i 's/^description:.*/description: mine/' "$1"
"""

    def person(terminal: Terminal) -> None:
        terminal.expect(b"Press enter to open the editor again")
        terminal.type(b"\x03")

    said = tap(
        f"""\
        cat > editor <<'EOF'
{editor}EOF
        chmod +x editor
        EDITOR="$PWD/editor" $LX profile edit w1
        """,
        given="$LX profile create w1",
        drive=person,
        status=130,
    )
    assert [each.method for each in said.transactions if each.status == 412] == ["PUT"]


def test_profile(tap: Tapping) -> None:
    """A profile is made, given to an instance, taken back and deleted; another stays."""
    said = tap(
        """\
        $LX profile create w1
        $LX profile set w1 user.color blue
        $LX profile device add w1 there disk source=/usr path=/there
        $LX profile add w1 w1
        $LX config get --expanded w1 user.color
        $LX profile remove w1 w1
        $LX profile copy w1 w2
        $LX profile delete w1
        $LX profile show w2
        """,
        given="$LX init bb w1",
    )
    assert "blue" in said.lines


def test_project(tap: Tapping) -> None:
    """What is made in a project is in that project only."""
    said = tap(
        """\
        $LX project create p1 --config features.images=false --config features.profiles=false
        $LX --project p1 init bb w1
        $LX --project p1 list --format csv --columns n
        $LX list --format csv --columns n
        $LX project show p1
        """
    )
    assert [line for line in said.lines if line in ("w1", "c1")] == ["w1", "c1"]
    assert said.only("POST", r"/1\.0/instances\?project=p1").status == 202


def test_storage_volume(tap: Tapping) -> None:
    """A volume is made, attached, filled, detached and deleted; another stays."""
    said = tap(
        """\
        $LX storage volume create default v1 user.color=blue
        $LX storage volume create default v2
        $LX storage volume attach default v1 w1 data /data
        $LX exec w1 -- sh -c 'echo kept > /data/note; cat /data/note'
        $LX storage volume detach default v1 w1
        $LX storage volume copy default/v1 default/v3
        $LX storage volume delete default v1
        $LX storage volume list default --format csv
        """,
        given="$LX launch bb w1",
    )
    assert "kept" in said.lines


# What fails.


def test_no_such_instance(tap: Tapping) -> None:
    """What is not there is not there: the client says so, the log says 404."""
    said = tap("exec $LX info nonesuch", status=1)
    assert "not found" in said.stderr
    assert said.only("GET", "/1.0/instances/nonesuch.*").status == 404


def test_name_taken(tap: Tapping) -> None:
    """A name cannot be given twice; what had it is untouched."""
    said = tap("exec $LX init bb c1", status=1)
    assert said.failed


def test_start_that_fails(tap: Tapping) -> None:
    """A start that fails does so behind HTTP 200, and the log names the failed operation."""
    said = tap(
        AWAIT
        + """\
        ends() { grep --count 'url="/internal/containers/w1/onstop?' "$DAEMON_LOG" || true; }
        ended() { test $(ends) -gt $before; }
        stopped() { test "$($LX list --format csv --columns s w1)" = STOPPED; }
        before=$(ends)
        $LX start w1 || failed=$?
        await ended
        await stopped
        exit $failed
        """,
        given="$LX init bb w1; $LX config set w1 raw.lxc=lxc.hook.mount=/bin/false",
        status=1,
    )
    assert "forkstart" in said.stderr
    assert [error for error in said.failed if "forkstart" in error]


# Other clients.


def test_waitready(tap: Tapping) -> None:
    """The daemon's own command finds the tap where it finds the daemon."""
    said = tap("$ADMIN waitready --timeout 10")
    assert said.only("GET", "/internal/ready").status == 200


def test_sql(tap: Tapping) -> None:
    """The daemon's database is asked through the tap like anything else."""
    said = tap("$ADMIN sql global 'SELECT name FROM instances'; $ADMIN sql local .dump")
    assert "| c1   |" in said.lines


PYLXD = """\
import pylxd

client = pylxd.Client()
source = {"type": "image", "alias": "bb"}
made = client.instances.create({"name": "w1", "source": source}, wait=True)
made.start(wait=True)
print(made.name, made.status)
said = made.execute(["sh", "-c", "echo out; echo oops >&2; exit 3"])
print(said.exit_code, repr(said.stdout), repr(said.stderr))
print(made.execute(["cat"], stdin_payload="spoken\\n").stdout)
made.files.put("/root/note", b"\\x00\\xff" * 100_000, mode=0o600)
print(len(made.files.get("/root/note")), made.files.delete("/root/note"))
made.stop(wait=True, force=True)
made.delete(wait=True)
print([each.name for each in client.instances.all()])
try:
    client.instances.get("w1")
except pylxd.exceptions.NotFound as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("daemon", ["lxd"], indirect=True)
def test_pylxd(tap: Tapping) -> None:
    """Python's client, which keeps connections and upgrades in its own way, sees no tap."""
    said = tap([sys.executable, "-c", PYLXD])
    assert said.lines[:2] == ["w1 Running", r"3 'out\n' 'oops\n'"]
    assert said.only("POST", ".*/files.*").sent == 200_000


def test_curl_push(tap: Tapping) -> None:
    """Three megabytes that wait for 100 Continue arrive; HEAD tells of them without a body."""
    said = tap(
        """\
        ask() { curl --silent --unix-socket "$SOCKET" "$@"; }
        url=http://unix.socket/1.0/instances/c1/files?path=/root/big
        seq 1 460000 > big
        ask --request POST --upload-file big --header 'Expect: 100-continue' \\
            --header 'X-LXD-mode: 0600' --verbose $url 2> trace
        grep -c '100 Continue' trace
        ask --head $url | grep -v ^Date
        ask --head http://unix.socket/1.0 | grep -v ^Date
        ask $url | cmp - big && echo the same
        ask --request DELETE $url
        """
    )
    assert "the same" in said.lines
    assert said.only("POST", ".*big").sent == said.only("GET", ".*big").received > 3_000_000
    assert said.only("HEAD", ".*big").received == 0


def test_curl_oddities(tap: Tapping) -> None:
    """What no client asks is answered as the daemon answers it, and shown."""
    said = tap(
        """\
        ask() { curl --silent --show-error --path-as-is --unix-socket "$SOCKET" "$@"; }
        for path in / /nope /1.0/ //1.0 /1.0/../1.0/instances /1.0/instances/c%31 '/1.0?' \\
            '/1.0/instances?a="b"' /1.0/events /1.0/instances/c1/sftp; do
            ask --write-out '%{http_code}\\n' "http://unix.socket$path"
        done
        for method in OPTIONS BREW PUT; do
            ask --write-out '%{http_code}\\n' --request $method http://unix.socket/1.0/instances
        done
        ask http://unix.socket/1.0/profiles http://unix.socket/1.0/projects
        """
    )
    assert said.lines.count("404") == 5
    assert said.only("OPTIONS", r"/1\.0/instances").status == 200


STARTTLS = """\
import os, socket, ssl

context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
with socket.socket(socket.AF_UNIX) as plain:
    plain.connect(os.environ.get("LXD_SOCKET") or os.environ["INCUS_SOCKET"])
    plain.sendall(b"STARTTLS\\n")
    with context.wrap_socket(plain) as secret:
        print(secret.version())
        secret.sendall(b"GET /1.0 HTTP/1.0\\r\\nHost: unix.socket\\r\\n\\r\\n")
        answer = b"".join(iter(lambda: secret.recv(65536), b""))
print(answer[:15], b'"auth":"untrusted"' in answer)
"""


def test_starttls(tap: Tapping) -> None:
    """TLS on the unix socket, as lxd-user speaks it, passes unread and still is shown."""
    said = tap([sys.executable, "-c", STARTTLS])
    assert said.lines == ["TLSv1.3", "b'HTTP/1.0 200 OK' True"]
    assert [each.protocol for each in said.transactions] == ["tls"]
