"""A share that hangs or fails: a FUSE file system mounted on DIRECTORY until stdin ends.

    python -m tests.root.share_server DIRECTORY ERRNO

With ERRNO 0 it answers as an empty directory would until a line comes from stdin; from then on nothing is answered any more: who
asks hangs, in the kernel. Else everything is answered with that errno. It says `ready` once it is mounted. Run it in a mount namespace
of its own.
"""

from __future__ import annotations

import errno
import os
import selectors
import struct
import sys

from coworkd.system import mounts

_IN_HEADER = struct.Struct("<IIQQIIII")
_OUT_HEADER = struct.Struct("<IiQ")
_LOOKUP, _GETATTR, _STATFS, _INIT, _OPENDIR = 1, 3, 17, 26, 27
_READDIR, _RELEASEDIR, _ACCESS, _READDIRPLUS = 28, 29, 34, 44
_FORGETS = (2, 42)
_ATTRIBUTES = struct.pack("<QII6Q10I", 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 4321, 4321, 0, 4096, 0)
_GOOD = {
    _GETATTR: _ATTRIBUTES,
    _STATFS: bytes(80),
    _OPENDIR: bytes(16),
    _READDIR: b"",
    _READDIRPLUS: b"",
    _RELEASEDIR: b"",
    _ACCESS: b"",
}
_INIT_REPLY = struct.pack("<IIIIHHIIHH8I", 7, 31, 0, 0, 12, 10, 4096, 1, 1, 0, *([0] * 8))


def main(directory: str, number: int) -> None:
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    mounts.mount(b"share", os.fsencode(directory), b"fuse", mounts.MS_NOSUID | mounts.MS_NODEV, options)
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    for fd in (fuse, 0):
        selector.register(fd, selectors.EVENT_READ)
    hangs = False
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                if not os.read(0, 4096):
                    return
                hangs = True
            else:
                answer(fuse, os.read(fuse, 1 << 17), number, hangs=hangs)


def answer(fuse: int, request: bytes, number: int, *, hangs: bool) -> None:
    _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
    if opcode in _FORGETS or (hangs and opcode != _INIT):
        return
    good = _INIT_REPLY if opcode == _INIT else None if number else _GOOD.get(opcode)
    wrong = 0 if good is not None else number or (errno.ENOENT if opcode == _LOOKUP else errno.ENOSYS)
    data = good or b""
    os.write(fuse, _OUT_HEADER.pack(_OUT_HEADER.size + len(data), -wrong, unique) + data)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
