"""Removing an entry with all below it, a slice at a time: however deep it goes, never through a symbolic link.

Rules
- A slice ends after `SLICE_S`, and has removed something by then or fails: asking again comes to an end.
- The first entry that may not go ends it, and is named; what went before it is gone. A mount below the top is one (EXDEV): a removal of a
  home does not go into its folders.
- Others may work in the tree meanwhile: what they remove is fine, what they keep adding ends in ENOTEMPTY.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from coworkd.model.files import FileFault, RemoveSome, SomeRemoved
from coworkd.system.descent import Descent
from coworkd.system.openat2 import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from coworkd.workers.files_view import open_parent, refuse_kernel_files

SLICE_S = 1.0
_RESCANS = 64
_LOOK = os.O_PATH | os.O_DIRECTORY


class _Enough(Exception):
    """The slice is over."""


class _Stopped(Exception):
    def __init__(self, error: OSError, below: bytes) -> None:
        super().__init__(str(error))
        self.error = error
        self.below = below


def remove_some(request: RemoveSome) -> SomeRemoved | FileFault:
    """One slice. Raises `OSError` for the entry itself; what lies below it is told by a `FileFault`."""
    parent, name = open_parent(request.path)
    removal = _Removal(time.monotonic() + SLICE_S)
    try:
        removal.remove(parent, name, recursive=request.recursive)
    except _Enough:
        return SomeRemoved(id=request.id, entries=removal.entries, more=True)
    except FileNotFoundError:
        if not (request.again or removal.entries):
            raise
    except _Stopped as stopped:
        path = request.path.rstrip(b"/") + (b"/" + stopped.below if stopped.below else b"")
        error = stopped.error
        return FileFault(
            id=request.id, errno=error.errno, message=error.strerror or str(error), path=path, entries=removal.entries
        )
    finally:
        os.close(parent)
    return SomeRemoved(id=request.id, entries=removal.entries, more=False)


class _Removal:
    def __init__(self, deadline: float) -> None:
        self.entries = 0
        self._deadline = deadline

    def remove(self, parent: int, name: bytes, *, recursive: bool) -> None:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
        elif recursive:
            self._remove_tree(parent, name)
        else:
            os.rmdir(name, dir_fd=parent)
        self.entries += 1

    def _remove_tree(self, parent: int, name: bytes) -> None:
        for again in range(_RESCANS):
            self._empty(parent, name)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                # A scan may miss an entry when others are removed under it.
                if error.errno != errno.ENOTEMPTY or again == _RESCANS - 1:
                    raise
            else:
                return

    def _empty(self, parent: int, name: bytes) -> None:
        with Descent(parent) as place:
            names: list[bytes] = []
            rescans = 0
            self._enter(place, name, names)
            while True:
                below = self._empty_of_files(place, names)
                if below is not None:
                    self._enter(place, below, names)
                    names.append(below)
                elif not names:
                    return
                else:
                    place.leave()
                    rescans = 0 if self._remove_directory(place, names, rescans) else rescans + 1
                    names.pop()

    def _enter(self, place: Descent, name: bytes, above: list[bytes]) -> None:
        try:
            # A folder that is mounted here is not the tree's, and stays as it is.
            os.close(openat2(place.fd, name, _LOOK, resolve=RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS))
            place.enter(name)
            refuse_kernel_files(place.fd)
        except OSError as error:
            if error.errno == errno.EXDEV:
                error = OSError(errno.EXDEV, "something is mounted there, and a removal does not go into it")
            raise _Stopped(error, b"/".join((*above, name)) if place.depth else b"") from error

    def _remove_directory(self, place: Descent, names: list[bytes], rescans: int) -> bool:
        """Whether it is gone; one that is not empty after all is looked at again."""
        try:
            os.rmdir(names[-1], dir_fd=place.fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or rescans >= _RESCANS:
                raise _Stopped(error, b"/".join(names)) from error
            return False
        self._count()
        return True

    def _empty_of_files(self, place: Descent, above: list[bytes]) -> bytes | None:
        """Remove what is no directory, up to the first directory, which is told; None when the directory is empty."""
        with os.scandir(place.fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    return name
                try:
                    os.unlink(name, dir_fd=place.fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _Stopped(error, b"/".join((*above, name))) from error
                self._count()
        return None

    def _count(self) -> None:
        self.entries += 1
        if time.monotonic() > self._deadline:
            raise _Enough
