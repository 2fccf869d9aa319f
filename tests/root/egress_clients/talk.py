"""Conversations with a proxy from inside a sandbox, byte by byte. Standard library only.

stdin: a JSON array of objects; each is one connection, all at once, in a thread each:

    to        [host, port], or the path of a unix socket
    send      array of hex strings, one send each; `pause_s` between them
    shut      end our side behind what was sent
    read_s    how long to wait for more (2 s), or for the end of file
    enough    stop reading once so many bytes came
    hold_s    keep the connection open so long behind all that

stdout: a JSON array of `{"got": hex, "end": "eof" | "more" | "timeout" | the name of the error, "took_s"}` in the same order.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

GOT_LIMIT = 1 << 20


def converse(asked: dict[str, Any]) -> dict[str, Any]:
    began, got, end = time.monotonic(), b"", ""
    to = asked["to"]
    try:
        with socket.socket(socket.AF_UNIX if isinstance(to, str) else socket.AF_INET) as connection:
            connection.settimeout(asked.get("read_s", 2))
            connection.connect(to if isinstance(to, str) else tuple(to))
            try:
                for number, piece in enumerate(asked.get("send", ())):
                    if number:
                        time.sleep(asked.get("pause_s", 0))
                    connection.sendall(bytes.fromhex(piece))
                if asked.get("shut"):
                    connection.shutdown(socket.SHUT_WR)
            except OSError as error:
                # What was answered before the other side stopped listening is still there to be read.
                end = name_of(error)
            while len(got) < min(asked.get("enough", GOT_LIMIT), GOT_LIMIT):
                piece = connection.recv(65536)
                if not piece:
                    end = "eof"
                    break
                got += piece
            time.sleep(asked.get("hold_s", 0))
    except OSError as error:
        end = name_of(error)
    return {"got": got.hex(), "end": end or "more", "took_s": time.monotonic() - began}


def name_of(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno or 0, str(error))


if __name__ == "__main__":
    conversations = json.load(sys.stdin)
    with ThreadPoolExecutor(len(conversations)) as pool:
        print(json.dumps(list(pool.map(converse, conversations))))
