"""What Python's clients and curl do in the tests of replay: each of them all that it can.

They list and look, make an instance and wait for what that takes, run a command in it, carry files
in and out, stop and delete it, and ask for what is not there.
"""

from __future__ import annotations

API = """\
from lxdtap import API, APIException, APINotFoundException

api = API.factory()
print(api.get("instances").metadata, api.get("instances/c1").metadata["status"])
source = {"type": "image", "alias": "bb"}
made = api.post("instances", json={"name": "w1", "source": source}).wait()
print(made.metadata["description"], made.metadata["status"])
api.put("instances/w1/state", json={"action": "start"}).wait(timeout=30)
print(api.get("instances/w1/state").metadata["status"])

command = {"command": ["sh", "-c", "echo out; echo oops >&2; exit 3"], "record-output": True}
said = api.post("instances/w1/exec", json=command).wait().metadata["metadata"]
print(said["return"], *(api.get(said["output"][each]).response.text for each in "12"))

note, kind = {"path": "/root/note"}, {"X-LXD-type": "file", "X-Incus-type": "file"}
api.post("instances/w1/files", params=note, data=b"\\x00\\xff" * 100_000, headers=kind)
print(len(api.get("instances/w1/files", params=note).response.content))
api.delete("instances/w1/files", params=note)

api.put("instances/w1/state", json={"action": "stop", "force": True}).wait()
try:
    api.put("instances/w1/state", json={"action": "stop"}).wait()
except APIException as error:
    print(error.error)
api.delete("instances/w1").wait()
try:
    api.get("instances/w1")
except APINotFoundException as error:
    print(error.error, error.result.response.status_code)
"""

ASYNC_API = """\
import asyncio
from lxdtap import APIException, APINotFoundException, AsyncAPI

async def main():
    async with AsyncAPI.factory() as api:
        found = await asyncio.gather(*(api.get(f"instances{each}") for each in ("", "/c1")))
        print(found[0].metadata, found[1].metadata["status"])
        source = {"type": "image", "alias": "bb"}
        made = await asyncio.gather(
            *(api.post("instances", json={"name": f"w{n}", "source": source}) for n in (1, 2))
        )
        print([(await each.wait(60)).metadata["status"] for each in made])
        started = await api.put("instances/w1/state", json={"action": "start"})
        print((await started.wait(timeout=60)).metadata["status"])

        line = "echo out; echo oops >&2; exit 3"
        command = {"command": ["sh", "-c", line], "record-output": True}
        said = await (await api.post("instances/w1/exec", json=command)).wait()
        output = said.metadata["metadata"]["output"]
        print(said.metadata["metadata"]["return"])
        print(*[(await api.get(output[each])).response.text for each in "12"])

        note, kind = {"path": "/root/note"}, {"X-LXD-type": "file", "X-Incus-type": "file"}
        path = "instances/w1/files"
        await api.post(path, params=note, data=b"\\x00\\xff" * 100_000, headers=kind)
        print(len((await api.get(path, params=note)).response.content))

        stop = {"action": "stop", "force": True}
        await (await api.put("instances/w1/state", json=stop)).wait()
        gone = await asyncio.gather(*(api.delete(f"instances/w{n}") for n in (1, 2)))
        await asyncio.gather(*(each.wait() for each in gone))
        try:
            await api.get("instances/w1")
        except APINotFoundException as error:
            print(error.error, error.result.response.status_code)

asyncio.run(main())
"""

CURL = """\
ask() { curl --silent --show-error --unix-socket "$SOCKET" "$@"; }
said() { grep -o "\\"$1\\":\\"[^\\"]*\\"" | tail -n 1; }
done_by() {
    operation=$(ask "$@" | grep -o '/1.0/operations/[0-9a-f-]*' | head -n 1)
    ask "http://x$operation/wait?timeout=30" > ended; said status < ended
}
w1=http://x/1.0/instances/w1
ask http://x/1.0/instances; ask http://x/1.0/instances/c1 | said status
done_by --data '{"name": "w1", "source": {"type": "image", "alias": "bb"}}' http://x/1.0/instances
done_by --request PUT --data '{"action": "start"}' $w1/state; ask $w1/state | said status

run='"sh", "-c", "echo out; echo oops >&2; exit 3"'
done_by --data '{"command": ['"$run"'], "record-output": true}' $w1/exec
grep -o '"return":[0-9]*' ended
for log in $(grep -o '/1.0/[^"]*\\.std[a-z]*' ended); do ask http://x$log; done

seq 1 9999 > note; bytes='Content-Type: application/octet-stream'
ask --data-binary @note --header "$bytes" "$w1/files?path=/root/note" | said status
ask "$w1/files?path=/root/note" | cmp - note && echo same

done_by --request PUT --data '{"action": "stop", "force": true}' $w1/state
done_by --request PUT --data '{"action": "stop"}' $w1/state; said 'err[a-z]*' < ended
done_by --request DELETE $w1; ask --write-out '%{http_code}\\n' $w1
"""
