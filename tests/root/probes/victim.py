"""What bob runs while others are probed: one secret of every kind, then it waits for the end of its stdin. Standard library only."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys

SYSV_KEY = 0x0B0B
IPC_CREAT = 0o1000


def main() -> None:
    secret, mq_open = sys.argv[1], int(sys.argv[2])
    home = os.environ["HOME"]
    places = {"file": f"{home}/{secret}", "tmp": f"/tmp/{secret}", "shm": f"/dev/shm/{secret}"}
    for place in places.values():
        with open(place, "w") as file:
            file.write(secret)
    kept = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6)]
    for address in ("\0" + secret, f"/tmp/{secret}.sock"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        kept.append(listener)
    libc = ctypes.CDLL(None, use_errno=True)
    made = [
        libc.shmget(SYSV_KEY, 4096, IPC_CREAT | 0o666),
        libc.semget(SYSV_KEY, 1, IPC_CREAT | 0o666),
        libc.msgget(SYSV_KEY, IPC_CREAT | 0o666),
        libc.syscall(ctypes.c_long(mq_open), secret.encode(), os.O_CREAT | os.O_RDWR, 0o666, None),
    ]
    if -1 in made:
        raise OSError(ctypes.get_errno(), f"an IPC object could not be made: {made}")
    told = {
        **places,
        "name": os.path.basename(home),
        "home": home,
        "secret": secret,
        "sysv_key": SYSV_KEY,
        "queue": secret,
        "abstract": secret,
        "path_socket": f"/tmp/{secret}.sock",
        "port": kept[0].getsockname()[1],
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
    }
    print(json.dumps(told), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
