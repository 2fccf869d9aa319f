"""The trust on disk: what a host installed, and what the sandboxes see of it. Blocking verbs.

Layout, below `STATE/trust/`
- `installed/NAME.pem`, 0600: what `ca.install` was given under NAME, made anew from the certificates.
- `current/`, 0755, which sessions have at `/etc/coworkd/trust`: `ca-bundle.pem`, all that is trusted, for the variables that name a file.
- `current/certs/`, 0755, made to stand where the guest has `/etc/ssl/certs`: the same links and files, with `ca-certificates.crt`,
  the hashed links of OpenSSL and `java/cacerts` knowing the added ones too; so it holds for tools that look at no variable.

Rules
- Both directories keep their inodes for ever, for they are bound into live sessions; every file in them is replaced by rename(2), so
  that whoever opens one reads the old or the new, and a running session sees the new one at once.
- A change is prepared whole, under other names, before anything is renamed: what the disk refuses changes nothing. Only `installed/` is
  fsynced: what a crash leaves of `current/` is made anew from it at the next start.

Not here: judging certificates (`trust_pem`), who may ask, the audit log.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from coworkd.model.errors import CoworkError, DiskFailed
from coworkd.services.trust_der import subject_hash
from coworkd.services.trust_java import compose_truststore
from coworkd.services.trust_pem import Certificate, parse_authorities, read_authorities

SYSTEM_CERTS = "/etc/ssl/certs"
BUNDLE = "ca-bundle.pem"
_CERTS = "certs"
_SYSTEM_BUNDLE = "ca-certificates.crt"
_OURS = "coworkd-"
_NEW = ".new"
_MAX_LINKS = 16
_MAX_FILE_BYTES = 16 * 1024 * 1024
_log = logging.getLogger("coworkd.trust")


class Change:
    """A change that is written and not yet seen; `commit` shows it, `abandon` forgets it. One of the two is called, once."""

    def __init__(self) -> None:
        self._renames: list[tuple[str, str]] = []
        self._removals: list[str] = []
        self._durable: list[str] = []

    def keep(self, path: str, data: bytes) -> None:
        """Replace `path` by a file of root's alone that is durable by `commit`. Raises `OSError`."""
        self._write(path, data, 0o600, durable=True)
        self._durable.append(os.path.dirname(path))

    def show(self, path: str, data: bytes) -> None:
        """Replace `path` by a file for everybody, which `load` can make again. Raises `OSError`."""
        self._write(path, data, 0o644, durable=False)

    def link(self, path: str, target: str) -> None:
        """Replace `path` by a symbolic link. Raises `OSError`."""
        new = _new_name(path)
        self._renames.append((new, path))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(target, new)

    def remove(self, path: str, *, durable: bool = False) -> None:
        self._removals.append(path)
        if durable:
            self._durable.append(os.path.dirname(path))

    def commit(self) -> None:
        """Raises `OSError` where the file system itself fails half-way; `load` mends that."""
        for new, path in self._renames:
            os.rename(new, path)
        for path in self._removals:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        for directory in self._durable:
            _sync(directory)

    def abandon(self) -> None:
        for new, _ in self._renames:
            with contextlib.suppress(OSError):
                os.unlink(new)

    def _write(self, path: str, data: bytes, mode: int, *, durable: bool) -> None:
        new = _new_name(path)
        self._renames.append((new, path))
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)


class TrustFiles:
    """The files of one state directory. Not thread-safe: its owner makes one call at a time."""

    def __init__(self, state_dir: str, *, system_certs: str = SYSTEM_CERTS) -> None:
        self._installed = os.path.join(state_dir, "trust", "installed")
        self.directory = os.path.join(state_dir, "trust", "current")
        self._certs = os.path.join(self.directory, _CERTS)
        self._system = system_certs

    def load(self, *, now: float) -> dict[str, tuple[Certificate, ...]]:
        """Make the directories and tell what is installed. What cannot be used any more (it expired) is left out, and told.

        Raises `DiskFailed`.
        """
        try:
            os.makedirs(os.path.dirname(self._installed), 0o700, exist_ok=True)
            os.makedirs(self._installed, 0o700, exist_ok=True)
            for directory in (self.directory, self._certs, os.path.join(self._certs, "java")):
                os.makedirs(directory, exist_ok=True)
                os.chmod(directory, 0o755)  # noqa: S103  sandboxes read them
            for directory in (self._installed, self.directory, self._certs):
                _sweep(directory)
            names = sorted(name.removesuffix(".pem") for name in os.listdir(self._installed) if name.endswith(".pem"))
        except OSError as error:
            raise DiskFailed(f"{self.directory} cannot be made: {error.strerror}", errno=error.errno) from error
        found = {}
        for name in names:
            path = self._path_of(name)
            try:
                found[name] = parse_authorities(_read(path).decode("ascii", "replace"), now=now)
            except (OSError, CoworkError) as error:
                _log.warning("the certificates of %s are not trusted: %s", path, error)
        return found

    def prepare(
        self,
        installed: Mapping[str, Sequence[Certificate]],
        inspection: Sequence[Certificate],
        *,
        now: float,
        put: str | None = None,
        removed: str | None = None,
    ) -> Change:
        """Write all that `installed` (and the inspection's CA) makes of the trust; `put` is a name whose file is new, `removed` one that
        goes. Raises `DiskFailed`, and then nothing is left of it.
        """
        change = Change()
        try:
            if put is not None:
                change.keep(self._path_of(put), _join(installed[put]))
            if removed is not None:
                change.remove(self._path_of(removed), durable=True)
            self._prepare_current(change, [*_flat(installed), *inspection], now)
        except OSError as error:
            change.abandon()
            raise DiskFailed(f"the certificates cannot be written: {error.strerror}", errno=error.errno) from error
        except BaseException:
            change.abandon()
            raise
        return change

    def _prepare_current(self, change: Change, added: Sequence[Certificate], now: float) -> None:
        system = self._system_bundle()
        bundle = system + (b"" if not system or system.endswith(b"\n") else b"\n") + _join(added)
        change.show(os.path.join(self.directory, BUNDLE), bundle)
        wanted = self._copy_system(change)
        change.show(os.path.join(self._certs, _SYSTEM_BUNDLE), bundle)
        wanted.add(_SYSTEM_BUNDLE)
        self._add_ours(change, added, wanted)
        java = os.path.join(self._certs, "java", "cacerts")
        if os.path.isdir(os.path.join(self._system, "java")):
            authorities = [*read_authorities(system.decode("latin-1")), *added]
            aliases = {f"{_OURS}{one.sha256[:32]}": one.der for one in authorities}
            change.show(java, compose_truststore(aliases, made_at=now))
        else:
            change.remove(java)
        for name in os.listdir(self._certs):
            if name not in wanted and name != "java" and not name.endswith(_NEW):
                change.remove(os.path.join(self._certs, name))

    def _system_bundle(self) -> bytes:
        try:
            return _read(os.path.join(self._system, _SYSTEM_BUNDLE))
        except FileNotFoundError:
            return b""

    def _copy_system(self, change: Change) -> set[str]:
        """Links as links (they lead below /usr, which sandboxes have), files that everybody may read as files; returns the names."""
        names = set()
        with contextlib.suppress(FileNotFoundError), os.scandir(self._system) as entries:
            for entry in entries:
                path = os.path.join(self._certs, entry.name)
                if entry.name == _SYSTEM_BUNDLE or entry.name.startswith(_OURS):
                    continue
                if entry.is_symlink():
                    target = os.readlink(entry.path)
                    if not os.path.islink(path) or os.readlink(path) != target:
                        change.link(path, target)
                elif entry.is_file() and entry.stat().st_mode & 0o004:
                    change.show(path, _read(entry.path))
                else:
                    continue
                names.add(entry.name)
        return names

    def _add_ours(self, change: Change, added: Sequence[Certificate], wanted: set[str]) -> None:
        """One file each and its hashed link, behind those that have the same hash."""
        for certificate in added:
            name = f"{_OURS}{certificate.sha256[:32]}.pem"
            if name in wanted:
                continue
            change.show(os.path.join(self._certs, name), certificate.pem.encode())
            wanted.add(name)
            digest = subject_hash(certificate.der)
            link = next((f"{digest}.{n}" for n in range(_MAX_LINKS) if f"{digest}.{n}" not in wanted), None)
            if link is not None:
                change.link(os.path.join(self._certs, link), name)
                wanted.add(link)

    def _path_of(self, name: str) -> str:
        return os.path.join(self._installed, f"{name}.pem")


def _flat(installed: Mapping[str, Sequence[Certificate]]) -> list[Certificate]:
    return [certificate for name in sorted(installed) for certificate in installed[name]]


def _join(certificates: Iterable[Certificate]) -> bytes:
    """PEM of all, each once."""
    return "".join(dict.fromkeys(certificate.pem for certificate in certificates)).encode()


def _new_name(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{_NEW}")


def _sweep(directory: str) -> None:
    """Remove what a change that was cut off has left."""
    for name in os.listdir(directory):
        if name.startswith(".") and name.endswith(_NEW):
            os.unlink(os.path.join(directory, name))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise OSError(27, f"{path} is larger than {_MAX_FILE_BYTES} bytes")
    return data


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
