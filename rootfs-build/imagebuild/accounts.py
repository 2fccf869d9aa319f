"""Users and groups of the image: the distribution's own, those of sysusers.d, ours. Numbers are the same in every build.

Parses sysusers.d(5) as far as packages and our own files use it: `u`, `g` and `m` lines with fixed numbers, `-`, or UID:GID. No password
is ever set: every account is locked, so that a login needs more than this image has.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from imagebuild.trouble import Trouble

_SYSTEM_IDS = range(999, 99, -1)
"""Numbers that `-` gets, from the top down (sysusers.d(5))."""
_NOLOGIN = "/usr/sbin/nologin"


@dataclass
class Accounts:
    """passwd(5) and group(5) as they will be."""

    users: dict[str, tuple[int, int, str, str, str]] = field(default_factory=dict)
    """Name to uid, gid, description, home, shell."""
    groups: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    @classmethod
    def parse(cls, passwd: str, group: str) -> Accounts:
        """From the texts of passwd(5) and group(5)."""
        accounts = cls()
        for line in passwd.splitlines():
            name, _, uid, gid, gecos, home, shell = line.split(":")
            accounts.users[name] = (int(uid), int(gid), gecos, home, shell)
        for line in group.splitlines():
            group_name, _, number, members = line.split(":")
            accounts.groups[group_name] = (int(number), [member for member in members.split(",") if member])
        return accounts

    def add_sysusers(self, texts: Iterable[str]) -> None:
        """Add what sysusers.d files want, groups and numbered ones first as systemd-sysusers does. Raises `Trouble`."""
        lines = [shlex.split(line, comments=True) for text in texts for line in text.splitlines()]
        wanted = [[*line, "-", "-", "-", "-"][:6] for line in lines if line]
        for kind in ("g", "u", "m"):
            for numbered in (True, False):
                for line in wanted:
                    if line[0].rstrip("!-+") == kind and (line[2] != "-") == numbered:
                        self._add(kind, *line[1:])

    def _add(self, kind: str, name: str, number: str, gecos: str, home: str, shell: str) -> None:
        if kind == "m":
            gid, members = self.groups[number]
            self.groups[number] = (gid, sorted({*members, name}))
        elif kind == "g":
            self.group(name, None if number == "-" else int(number))
        else:
            uid, _, own_gid = number.partition(":")
            wanted = None if uid == "-" else int(uid)
            where = "/" if home == "-" else home
            self.user(
                name,
                wanted,
                gid=int(own_gid) if own_gid else None,
                gecos="" if gecos == "-" else gecos,
                home=where,
                shell=shell,
            )

    def group(self, name: str, gid: int | None = None) -> int:
        """The gid of `name`, added where it is not there."""
        if name not in self.groups:
            self.groups[name] = (self._free() if gid is None else gid, [])
        return self.groups[name][0]

    def user(
        self,
        name: str,
        uid: int | None = None,
        *,
        gid: int | None = None,
        gecos: str = "",
        home: str = "/",
        shell: str = "-",
    ) -> int:
        """The uid of `name`, added with a group of the same name and number where it is not there."""
        if name not in self.users:
            number = uid if uid is not None else self.groups[name][0] if name in self.groups else self._free()
            if any(number == user[0] for user in self.users.values()):
                raise Trouble(f"the user {name} cannot have the number {number}: another has it")
            own = gid if gid is not None else self.group(name, number)
            self.users[name] = (number, own, gecos, home, _NOLOGIN if shell == "-" else shell)
        return self.users[name][0]

    def compose(self) -> dict[str, str]:
        """The four files by their names, all passwords locked."""
        passwd = "".join(
            f"{name}:x:{uid}:{gid}:{rest[0]}:{rest[1]}:{rest[2]}\n" for name, (uid, gid, *rest) in self.users.items()
        )
        group = "".join(f"{name}:x:{gid}:{','.join(members)}\n" for name, (gid, members) in self.groups.items())
        shadow = "".join(f"{name}:!*:19000:0:99999:7:::\n" for name in self.users)
        gshadow = "".join(f"{name}:*::{','.join(members)}\n" for name, (_, members) in self.groups.items())
        return {"passwd": passwd, "group": group, "shadow": shadow, "gshadow": gshadow}

    def _free(self) -> int:
        taken = {user[0] for user in self.users.values()} | {group[0] for group in self.groups.values()}
        return next(number for number in _SYSTEM_IDS if number not in taken)
