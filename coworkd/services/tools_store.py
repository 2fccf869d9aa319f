"""Tools on the session disk: versions beside one another, and which of them commands get.

    STATE/tools/tree/                     bound read-only at /opt/tools of every sandbox
        NAME/VERSION/root/…               what was fetched
        NAME/VERSION/bin/COMMAND          → ../root/PATH
        NAME/current                      → VERSION
        bin/COMMAND                       → ../NAME/current/bin/COMMAND
    STATE/tools/records/NAME@VERSION.json
    STATE/tools/incoming/…                being fetched, or on its way out; emptied at start

Rules
- One rename of `NAME/current` switches every command of a tool at once. What runs keeps the files it has open; the version it came
  from stays until it is pruned, never while it is current.
- A version is there when its directory and its record are; `open` takes away what a crash left of either without the other.
- What is new is on the disk before it is named, what goes is unnamed before it is removed.

Blocking; one caller at a time. Nothing here looks at the host's share.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping

import msgspec

from coworkd.model.calls_tools import ToolInfo
from coworkd.model.errors import UNDECODABLE
from coworkd.system.remove_tree import remove_tree

_RECORD = re.compile(r"(?P<name>[^@]+)@(?P<version>[^@]+)\.json\Z")


class ToolStore:
    """`open` first. Raises `OSError` throughout, for the disk."""

    def __init__(self, directory: str) -> None:
        self.tree = os.path.join(directory, "tree")
        self._records = os.path.join(directory, "records")
        self._incoming = os.path.join(directory, "incoming")
        self._tools: dict[tuple[str, str], ToolInfo] = {}

    def open(self) -> None:
        """Make what is missing, clear what was not finished, read what is there."""
        for path, mode in (
            (os.path.dirname(self.tree), 0o700),
            (self.tree, 0o755),
            (os.path.join(self.tree, "bin"), 0o755),
            (self._records, 0o700),
            (self._incoming, 0o700),
        ):
            os.makedirs(path, mode, exist_ok=True)
            os.chmod(path, mode)
        for name in os.listdir(self._incoming):
            remove_tree(os.path.join(self._incoming, name))
        self._tools = {}
        for file in os.listdir(self._records):
            self._read_record(file)
        self._drop_unrecorded()
        self._mend_commands()

    def every(self) -> list[ToolInfo]:
        """Every version, by name, the newest first."""
        found = [self._told(info) for info in self._tools.values()]
        return sorted(found, key=lambda info: (info.name, -info.installed_at))

    def get(self, name: str, version: str) -> ToolInfo | None:
        info = self._tools.get((name, version))
        return None if info is None else self._told(info)

    def versions(self, name: str) -> list[ToolInfo]:
        """The newest first."""
        return [info for info in self.every() if info.name == name]

    def owner_of(self, command: str) -> str | None:
        """The tool that the command belongs to now."""
        with contextlib.suppress(OSError):
            return os.readlink(os.path.join(self.tree, "bin", command)).split("/")[1]
        return None

    def make_incoming(self) -> str:
        """An empty directory to fetch into: `root` in it. `drop_incoming` or `place` ends it."""
        path = os.path.join(self._incoming, secrets.token_hex(8))
        os.mkdir(path)
        _make_readable(os.path.join(path, "root"))
        return path

    def drop_incoming(self, path: str) -> None:
        remove_tree(path)

    def place(self, path: str, info: ToolInfo, commands: Mapping[str, str]) -> None:
        """Give what was fetched its place. It is not in use yet."""
        links = os.path.join(path, "bin")
        _make_readable(links)
        for command, target in commands.items():
            os.symlink(f"../root/{target}", os.path.join(links, command))
        os.chmod(path, 0o755)  # noqa: S103 - sandboxes read it
        _sync(links)
        _sync(path)
        own = os.path.join(self.tree, info.name)
        with contextlib.suppress(FileExistsError):
            _make_readable(own)
        place = os.path.join(own, info.version)
        remove_tree(place)  # of a version whose record could not be written
        os.rename(path, place)
        _sync(own)
        _sync(self.tree)
        self._write_record(info)
        self._tools[info.name, info.version] = info

    def switch(self, name: str, version: str) -> None:
        """Commands that start from now on get this version."""
        commands = self._tools[name, version].commands
        bins = os.path.join(self.tree, "bin")
        for command in commands:
            _link(f"../{name}/current/bin/{command}", os.path.join(bins, command))
        own = os.path.join(self.tree, name)
        _link(version, os.path.join(own, "current"))
        _sync(own)
        self._drop_commands(name, keep=commands)
        _sync(bins)

    def remove(self, name: str, version: str) -> None:
        """Take a version away. With the last one the tool's commands go."""
        current = self.current(name) == version
        own = os.path.join(self.tree, name)
        if current:
            self._drop_commands(name, keep=())
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(own, "current"))
        trash = os.path.join(self._incoming, secrets.token_hex(8))
        os.rename(os.path.join(own, version), trash)
        os.unlink(self._record_path(name, version))
        _sync(self._records)
        self._tools.pop((name, version), None)
        remove_tree(trash)
        with contextlib.suppress(OSError):  # others are in it
            os.rmdir(own)

    def current(self, name: str) -> str | None:
        """The version in use."""
        with contextlib.suppress(OSError):
            return os.readlink(os.path.join(self.tree, name, "current"))
        return None

    # -- inside

    def _told(self, info: ToolInfo) -> ToolInfo:
        return msgspec.structs.replace(info, current=self.current(info.name) == info.version)

    def _read_record(self, file: str) -> None:
        path = os.path.join(self._records, file)
        match = _RECORD.match(file)
        info: ToolInfo | None = None
        if match is not None:
            with open(path, "rb") as stream, contextlib.suppress(*UNDECODABLE):
                info = msgspec.json.decode(stream.read(), type=ToolInfo)
        if (
            match is None
            or info is None
            or (info.name, info.version) != (match["name"], match["version"])
            or not os.path.isdir(os.path.join(self.tree, info.name, info.version))
        ):
            os.unlink(path)
        else:
            self._tools[info.name, info.version] = info

    def _drop_unrecorded(self) -> None:
        for name in os.listdir(self.tree):
            own = os.path.join(self.tree, name)
            if name == "bin" or os.path.islink(own):
                continue
            for version in os.listdir(own):
                left = os.path.join(own, version)
                if version == "current" or (name, version) in self._tools:
                    continue
                if os.path.islink(left):  # a switch that was not finished
                    os.unlink(left)
                else:
                    remove_tree(left)
            current = self.current(name)
            if current is not None and (name, current) not in self._tools:
                os.unlink(os.path.join(own, "current"))
            with contextlib.suppress(OSError):
                os.rmdir(own)

    def _mend_commands(self) -> None:
        """A crash in the middle of a switch leaves commands of neither version, or lacks some."""
        bins = os.path.join(self.tree, "bin")
        wanted = {
            command: name
            for (name, version), info in self._tools.items()
            if self.current(name) == version
            for command in info.commands
        }
        for command in os.listdir(bins):
            if wanted.get(command) != self.owner_of(command):
                os.unlink(os.path.join(bins, command))
        for command, name in wanted.items():
            if self.owner_of(command) is None:
                _link(f"../{name}/current/bin/{command}", os.path.join(bins, command))

    def _drop_commands(self, name: str, *, keep: tuple[str, ...]) -> None:
        bins = os.path.join(self.tree, "bin")
        for command in os.listdir(bins):
            if command not in keep and self.owner_of(command) == name:
                os.unlink(os.path.join(bins, command))

    def _record_path(self, name: str, version: str) -> str:
        return os.path.join(self._records, f"{name}@{version}.json")

    def _write_record(self, info: ToolInfo) -> None:
        temporary = os.path.join(self._records, f".{secrets.token_hex(8)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as stream:
                stream.write(msgspec.json.encode(info))
                stream.flush()
                os.fsync(fd)
            os.rename(temporary, self._record_path(info.name, info.version))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(self._records)


def _make_readable(path: str) -> None:
    """A directory that sandboxes see, whatever the umask of this process is."""
    os.mkdir(path)
    os.chmod(path, 0o755)  # noqa: S103 - sandboxes read it


def _link(target: str, path: str) -> None:
    """A symbolic link in the place of whatever has the name, by one rename."""
    temporary = f"{path}.{secrets.token_hex(4)}"
    os.symlink(target, temporary)
    os.rename(temporary, path)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
