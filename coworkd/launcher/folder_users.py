"""Who still uses a folder that is to go: a bounded look at /proc, for the words that a person reads.

Rules: the session's own processes only, by their uid; at most `_PROCESS_LIMIT` of them and `_FD_LIMIT` descriptors of each, and no stat of
what they have open. A path in another mount namespace is told as that namespace names it; bubblewrap keeps the end of it.
Source: proc(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_PROCESS_LIMIT = 1000
_FD_LIMIT = 256
_NAMED = 5


def find_users(session: str, uid: int, folder: str, *, proc: str = "/proc") -> tuple[str, ...]:
    """One sentence that counts them and names the first, or none. Never raises `OSError`."""
    place = f"/sessions/{session}/mnt/{folder}"
    users = [pid for pid in _own(uid, proc) if any(_is_below(path, place) for path in _paths(f"{proc}/{pid}"))]
    if not users:
        return ("it is in use; it goes with its last user",)
    named = ", ".join(f"{pid} ({_name(f'{proc}/{pid}')})" for pid in users[:_NAMED])
    more = f" and {len(users) - _NAMED} more" if len(users) > _NAMED else ""
    one = len(users) == 1
    return (
        f"{len(users)} {'process uses' if one else 'processes use'} it until {'it ends' if one else 'they end'}: {named}{more}",
    )


def _own(uid: int, proc: str) -> Iterator[int]:
    found = 0
    for name in os.listdir(proc):
        if name.isdecimal() and _uid(f"{proc}/{name}") == uid:
            found += 1
            if found > _PROCESS_LIMIT:
                return
            yield int(name)


def _uid(process: str) -> int | None:
    with contextlib.suppress(OSError), open(f"{process}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                return int(line.split()[1])
    return None


def _paths(process: str) -> Iterator[str]:
    links = [f"{process}/cwd", f"{process}/root", f"{process}/exe"]
    with contextlib.suppress(OSError):
        links += [f"{process}/fd/{name}" for name in os.listdir(f"{process}/fd")[:_FD_LIMIT]]
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue


def _is_below(path: str, place: str) -> bool:
    position = path.find(place)
    return position >= 0 and path[position + len(place) : position + len(place) + 1] in ("", "/", " ")


def _name(process: str) -> str:
    try:
        with open(f"{process}/comm") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return "?"
