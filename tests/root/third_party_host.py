"""A host that is not ours: pynvim's MessagePack-RPC client, unchanged, drives the coworkd whose socket is argv[1].

Built from its parts, as `pynvim.msgpack_rpc.session` does, but without the greeting of Neovim's that its convenience
function sends first. Prints what it saw as JSON; a process of its own, since its event loop leaves sockets to the collector.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pynvim.msgpack_rpc.async_session import AsyncSession
from pynvim.msgpack_rpc.event_loop import EventLoop
from pynvim.msgpack_rpc.msgpack_stream import MsgpackStream
from pynvim.msgpack_rpc.session import Session


def main(path: str) -> dict[str, Any]:
    host = Session(AsyncSession(MsgpackStream(EventLoop("socket", path))))
    host.error_wrapper = lambda error: RuntimeError(error)
    hello: Any = host.request("hello", {"client": "pynvim", "protocol": {"min": 1, "max": 1}})
    host.request("session.ensure", {"name": "third-party"})
    argv = ["sh", "-c", "printf '\\377'; exit 3"]
    ran: Any = host.request("process.run", {"session": "third-party", "argv": argv})
    host.request("process.start", {"session": "third-party", "argv": ["echo", "hi"]})
    followed, message = b"", host.next_message()
    while message.name != "process.exit":
        followed += message.args[0]["data"]
        message = host.next_message()
    try:
        refused = str(host.request("process.rum", {}))
    except RuntimeError as error:
        refused = error.args[0]["message"]
    host.request("session.delete", {"session": "third-party", "force": True})
    host.close()
    return {
        "protocol": hello["protocol"],
        "code": ran["exit"]["code"],
        "stdout": ran["stdout"].hex(),
        "followed": followed.decode(),
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
