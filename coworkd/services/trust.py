"""Certificates: what a host adds to the trust that sandboxes see, and the inspection's own CA beside it.

Rules
- All or nothing: a file with one bad certificate changes nothing, and what the disk refuses changes nothing. `ca.install` and `ca.remove`
  are durable in the audit log before anything is seen; the name of an earlier install is replaced.
- The guest's own trust is never reduced: what is installed comes to it, for every session, live ones included (`trust_files`).
- An inspection CA lives as long as its coworkd-egress and is written nowhere but into what sandboxes see.

It does not say which variables a command gets: `sandbox.environment` does, where `bundle_path_inside` is not None.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from coworkd.model import calls
from coworkd.model.errors import DiskFailed, InvalidParams, LimitExceeded, NotFound
from coworkd.model.ports import AuditPort
from coworkd.services.trust_files import BUNDLE, SYSTEM_CERTS, Change, TrustFiles
from coworkd.services.trust_pem import Certificate, parse_authorities

INSIDE = "/etc/coworkd/trust"
"""Where a session has `Trust.directory`."""
MAX_NAMES = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class Trust:
    """The trust of one guest. `load` before anything else."""

    def __init__(
        self,
        state_dir: str,
        audit: AuditPort,
        *,
        clock: Callable[[], float] = time.time,
        system_certs: str = SYSTEM_CERTS,
        on_change: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`on_change` is awaited when other certificates are installed than before; the call that did it is answered behind it."""
        self._files = TrustFiles(state_dir, system_certs=system_certs)
        self._audit = audit
        self._clock = clock
        self._on_change = on_change
        self._installed: dict[str, tuple[Certificate, ...]] = {}
        self._inspection: tuple[Certificate, ...] = ()
        self._turn = trio.Lock()

    @property
    def directory(self) -> str:
        """What is bound at `INSIDE`; `certs` in it stands for `/etc/ssl/certs`. The same inodes for ever."""
        return self._files.directory

    @property
    def bundle_path_inside(self) -> str | None:
        """The file that holds all that is trusted, as a sandbox sees it; None while that is what the guest came with."""
        return f"{INSIDE}/{BUNDLE}" if self._installed or self._inspection else None

    @property
    def installed_pem(self) -> str:
        """What was installed, without the guest's own and the inspection's: for whoever verifies servers on behalf of sandboxes."""
        found = {one.sha256: one.pem for name in sorted(self._installed) for one in self._installed[name]}
        return "".join(found.values())

    async def load(self) -> None:
        """Read what is installed and make anew what sandboxes see. Raises `DiskFailed`."""
        async with self._turn:
            now = self._clock()
            self._installed = await trio.to_thread.run_sync(partial(self._files.load, now=now))
            self._commit(await self._prepare(self._installed, self._inspection))

    async def set_inspection_ca(self, pem: bytes | None) -> None:
        """The CA of the coworkd-egress that serves now, in place of the last one's; None for none. Raises `DiskFailed`, `InvalidParams`."""
        inspection = () if pem is None else parse_authorities(pem.decode("ascii", "replace"), now=self._clock())
        async with self._turn:
            if inspection != self._inspection:
                change = await self._prepare(self._installed, inspection)
                self._commit(change)
                self._inspection = inspection

    async def install(self, params: calls.CaInstall, /) -> calls.CaInstalled:
        """Trust the authorities in `params.pem` under a name. Raises `InvalidParams`, `LimitExceeded`, `DiskFailed`."""
        name = _parse_name(params.name)
        found = await trio.to_thread.run_sync(partial(parse_authorities, params.pem, now=self._clock()))
        async with self._turn:
            if name not in self._installed and len(self._installed) >= MAX_NAMES:
                raise LimitExceeded(f"{MAX_NAMES} names have certificates already; remove one (ca.remove)", key="name")
            installed = {**self._installed, name: found}
            change = await self._prepare(installed, self._inspection, put=name)
            fields = {
                "name": name,
                "sha256": found[0].sha256,
                "certificates": [f"{one.sha256} {one.subject}" for one in found],
            }
            await self._record_and_commit("ca.install", fields, change, installed)
        await self._on_change()
        return calls.CaInstalled(installed=_told(name, found))

    async def list(self) -> calls.CaInstalled:
        """What was installed, by name."""
        told = [each for name in sorted(self._installed) for each in _told(name, self._installed[name])]
        return calls.CaInstalled(installed=tuple(told))

    async def remove(self, params: calls.CaName, /) -> calls.Empty:
        """Trust what was installed under a name no more. Raises `NotFound`, `DiskFailed`."""
        name = _parse_name(params.name)
        async with self._turn:
            if name not in self._installed:
                raise NotFound(f"no certificates are installed as {name!r}; ca.list tells the names", key="name")
            installed = {other: found for other, found in self._installed.items() if other != name}
            change = await self._prepare(installed, self._inspection, removed=name)
            fields = {"name": name, "sha256": self._installed[name][0].sha256}
            await self._record_and_commit("ca.remove", fields, change, installed)
        await self._on_change()
        return calls.Empty()

    async def _record_and_commit(
        self, kind: str, fields: Mapping[str, object], change: Change, installed: dict[str, tuple[Certificate, ...]]
    ) -> None:
        # Shielded: a cancellation between the two would leave a record of what never was.
        with trio.CancelScope(shield=True):
            try:
                await self._audit.record(kind, fields)
            except BaseException:
                change.abandon()
                raise
            self._commit(change)
            self._installed = installed

    async def _prepare(
        self,
        installed: dict[str, tuple[Certificate, ...]],
        inspection: tuple[Certificate, ...],
        *,
        put: str | None = None,
        removed: str | None = None,
    ) -> Change:
        prepare = partial(self._files.prepare, installed, inspection, now=self._clock(), put=put, removed=removed)
        return await trio.to_thread.run_sync(prepare)

    def _commit(self, change: Change) -> None:
        try:
            change.commit()
        except OSError as error:
            raise DiskFailed(
                f"the certificates are changed in part: {error.strerror}; the next start makes them whole again",
                errno=error.errno,
            ) from error


def _parse_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidParams(
            f"{name[:80]!r} is no name for certificates: lower-case letters, digits, '.', '_' and '-', at most 64, a letter or"
            " digit first",
            key="name",
        )
    return name


def _told(name: str, found: tuple[Certificate, ...]) -> tuple[calls.InstalledCa, ...]:
    return tuple(
        calls.InstalledCa(name=name, subject=one.subject, sha256=one.sha256, not_after=one.not_after) for one in found
    )
