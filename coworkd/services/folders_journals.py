"""Where guarded folders remember what their session has made in them. Blocking: for a worker thread.

Layout: `STATE/folders/SESSION/NAME.DIGEST`, the directories 0700. The digest is of the source: what was made in one source says nothing
about another that is mounted under the same name, whatever a crash has left. The file itself is the file system's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from coworkd.model.errors import DiskFailed
from coworkd.system.remove_tree import remove_tree
from coworkd.system.sha256 import hex_digest


class Journals:
    """The journals below one state directory."""

    def __init__(self, state_dir: str) -> None:
        self._directory = os.path.join(state_dir, "folders")

    def path(self, session: str, name: str, source: bytes) -> bytes:
        """Of the folder `name` with that source."""
        return os.path.join(self._directory, session, _file_name(name, source)).encode()

    def prepare(self, session: str, kept: Iterable[tuple[str, bytes]]) -> None:
        """Make the session's directory, where one is needed, and take away every journal but those of `kept` (name, source).

        Raises `DiskFailed`.
        """
        directory = os.path.join(self._directory, session)
        wanted = {_file_name(name, source) for name, source in kept}
        if not wanted and not os.path.lexists(directory):  # a session without folders opens on a disk that is full
            return
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            os.makedirs(directory, 0o700, exist_ok=True)
            for name in os.listdir(directory):
                if name not in wanted:
                    os.unlink(os.path.join(directory, name))
        except OSError as error:
            raise DiskFailed(f"{directory}: {error.strerror}", errno=error.errno, path=directory) from error

    def forget(self, session: str) -> None:
        """Remove all of a session's; they may be gone. Raises `DiskFailed`."""
        directory = os.path.join(self._directory, session)
        try:
            if os.path.lexists(directory):
                remove_tree(directory)
        except OSError as error:
            raise DiskFailed(f"{directory}: {error.strerror}", errno=error.errno, path=directory) from error


def _file_name(name: str, source: bytes) -> str:
    return f"{name}.{hex_digest(source)[:16]}"
