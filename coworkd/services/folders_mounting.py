"""One folder is mounted, taken away, or given another rule: what the launcher, the stages and the guard are asked for, in which order.

Rules
- What stands is known: nothing is asked for twice, and nothing that is mounted is without its guard.
- A folder that cannot be is `Failing` with its reason; what keeps every folder from being (no launcher) is raised.
- The guard lets go before a folder is taken away, and takes hold before it is told as mounted.
"""

from __future__ import annotations

import errno
import logging
import os

import trio

from coworkd.model.errors import (
    CoworkError,
    DiskFailed,
    InvalidParams,
    InvalidState,
    MountFailed,
    PolicyDenied,
    Unavailable,
)
from coworkd.model.folder import DeleteRule
from coworkd.model.launch import MountFolder
from coworkd.model.policy import Profile
from coworkd.model.ports import EventPort, FolderLauncherPort, GuardPort, MountedFolder, StagePort, UnmountedFolder
from coworkd.model.session import FolderGrant
from coworkd.services.folders_journals import Journals
from coworkd.services.folders_judging import FolderRules, Place
from coworkd.services.folders_live import Failing, LiveFolders, Standing
from coworkd.services.folders_words import describe_failure

DEADLINE_S = 5.0
_SOURCES = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
_TRIES = 24
_PAUSE_S = 0.25
"""For as long as the launcher's own deadlines, which end whatever is under way."""
_log = logging.getLogger("coworkd.folder")


class Mounter:
    """Mounts and unmounts; `live` says what stands. One verb at a time works on a session, which is the caller's to see to."""

    def __init__(
        self,
        *,
        launcher: FolderLauncherPort,
        stages: StagePort,
        guard: GuardPort,
        rules: FolderRules,
        journals: Journals,
        events: EventPort,
    ) -> None:
        self._launcher = launcher
        self._stages = stages
        self._guard = guard
        self._rules = rules
        self._journals = journals
        self._events = events
        self.live = LiveFolders(lambda: launcher.generation)

    def let_go_of_stale(self, session: str) -> None:
        """Another launcher has nothing of what this one had."""
        for name in self.live.stale(session):
            self._guard.unwatch(session, name)
        self.live.of(session)

    def let_go(self, session: str) -> None:
        """The session is about to be closed, and with it the launcher takes away all that is mounted in it."""
        for name in (*self.live.stale(session), *self.live.look(session)):
            self._guard.unwatch(session, name)
        self.live.drop(session)

    async def mount(self, session: str, grant: FolderGrant, profile: Profile) -> Standing | Failing:
        """Let it stand as `grant` says. Raises `Unavailable` where the launcher is away."""
        asks = grant.mode == "rw" and profile.sandbox.ask_delete
        generation = self._launcher.generation
        standing = self.live.standing(session, grant.name)
        try:
            self._rules.judge_one(grant, profile)
            if standing is None:
                found = await self._mount(session, grant, asks)
            else:
                found = await self._adjust(session, standing, grant, asks)
        except (MountFailed, DiskFailed, InvalidParams, InvalidState, PolicyDenied) as error:
            failing = Failing(grant, describe_failure(grant, self._path(grant), error))
            self._tell_failing(session, failing)
            return failing
        if self._launcher.generation != generation:  # what stands then stands in nothing
            self._guard.unwatch(session, grant.name)
            raise Unavailable(
                f"the launcher went away while folder {grant.name!r} was mounted; it is being started again",
                folder=grant.name,
            )
        self.live.of(session)[grant.name] = found
        if standing is None:
            self._tell_mounted(session, found)
        return found

    async def take_away(self, session: str, name: str, *, lazy: bool = True) -> UnmountedFolder:
        """It is not seen any more; with `lazy` false one that is in use stays as it is, and is told as `busy`.

        Raises `MountFailed`, and `Unavailable` where it may still be there.
        """
        if lazy:  # a guard that still listened would take the end of its file system for a failure
            self._let_go_of(session, name)
        generation = self._launcher.generation
        try:
            gone = await self._launcher.unmount_folder(session, name, lazy=lazy)
        except Unavailable:  # a launcher that has gone has taken all it mounted along
            if self._launcher.generation == generation:
                raise
            gone = UnmountedFolder(busy=False, leftovers=())
        if gone.busy and not lazy:
            return gone
        self._let_go_of(session, name)
        if gone.leftovers:
            _log.warning("folder %s of session %s: %s", name, session, "; ".join(gone.leftovers))
        self._events.publish(
            "folder.unmounted", {"session": session, "name": name, "busy": gone.busy, "leftovers": gone.leftovers}
        )
        return gone

    async def clear(self, session: str, name: str, *, lazy: bool = True) -> UnmountedFolder:
        """What an earlier coworkd may have left there goes; what it had begun comes to its end first.

        Raises `MountFailed`, `Unavailable` where it may still be there.
        """
        for _ in range(_TRIES):
            try:
                return await self.take_away(session, name, lazy=lazy)
            except MountFailed as error:
                if (error.details.get("stage"), error.details.get("errno")) != ("folder", errno.EBUSY):
                    raise
                await trio.sleep(_PAUSE_S)
        return await self.take_away(session, name, lazy=lazy)

    def _let_go_of(self, session: str, name: str) -> None:
        self._guard.unwatch(session, name)
        self.live.of(session).pop(name, None)

    def fail(self, session: str, name: str, reason: str) -> bool:
        """What served it has ended; whether it stood."""
        standing = self.live.standing(session, name)
        if standing is not None:
            error = Unavailable(f"folder {name!r}: {reason}", folder=name)
            self.live.of(session)[name] = Failing(standing.grant, error)
        return standing is not None

    def allows(self, grant: FolderGrant, profile: Profile) -> bool:
        """Whether it may be, by what is configured now."""
        try:
            self._rules.judge_one(grant, profile)
        except (InvalidParams, PolicyDenied):
            return False
        return True

    # -- inside -------------------------------------------------------------------------------------------------

    async def _mount(self, session: str, grant: FolderGrant, asks: bool) -> Standing:
        place = self._rules.place(grant)
        stage = b""
        if grant.mode == "staged":
            stage = await self._prepare_stage(session, grant, place)
        mounted = await self._ask(self._request(session, grant, place, stage, asks))
        changed_in = stage + b"/upper" if stage else place.path
        await self._guard.watch(session, grant.name, mounted, changed_in, grant.mode)
        if mounted.mounted_as == "guarded":
            # One that stood already, from before a restart, may have another rule than was asked for now.
            await self._rule(session, grant, asks)
        return Standing(grant, mounted.mounted_as, mounted.degraded, asks)

    async def _prepare_stage(self, session: str, grant: FolderGrant, place: Place) -> bytes:
        try:
            return await self._stages.prepare(session, grant.name, (place.root, place.source))
        except DiskFailed as error:
            number = error.details.get("errno")
            if number not in _SOURCES:  # of the session disk
                raise
            said = (
                "only a directory can be staged, named without symbolic links"
                if number == errno.ENOTDIR
                else error.message
            )
            raise MountFailed(said, errno=number, stage="source") from error

    async def _ask(self, request: MountFolder) -> MountedFolder:
        """What an earlier coworkd had mounted there in another way goes first; what it had begun comes to its end first."""
        for _ in range(_TRIES):
            try:
                return await self._launcher.mount_folder(request)
            except MountFailed as error:
                if error.details.get("stage") != "folder":
                    raise
                number = error.details.get("errno")
                if number == errno.EEXIST:
                    await self._launcher.unmount_folder(request.session, request.name)
                elif number == errno.EBUSY:
                    await trio.sleep(_PAUSE_S)
                else:
                    raise
        return await self._launcher.mount_folder(request)

    async def _rule(self, session: str, grant: FolderGrant, asks: bool) -> None:
        """Fails closed: a file system that does not take its rule is taken away."""
        try:
            await self._guard.set_mode(session, grant.name, grant.mode, asks)
        except CoworkError as error:
            await self.take_away(session, grant.name)
            raise MountFailed(f"its file system does not take its rule: {error.message}", errno=errno.EIO) from error

    def _request(self, session: str, grant: FolderGrant, place: Place, stage: bytes, asks: bool) -> MountFolder:
        guardable = grant.mode in ("rw", "rwd")
        return MountFolder(
            id=0,
            session=session,
            name=grant.name,
            root=place.root,
            source=place.source,
            mode=grant.mode,
            deletes=_rule(grant, asks=asks),
            journal=self._journals.path(session, grant.name, place.path) if guardable else b"",
            stage=stage,
            apart_from=self._rules.own_directories,
            deadline_s=DEADLINE_S,
        )

    async def _adjust(self, session: str, standing: Standing, grant: FolderGrant, asks: bool) -> Standing:
        """It stands: only its rule may differ."""
        if standing.mounted_as == "guarded" and (standing.grant.mode, standing.asks) != (grant.mode, asks):
            await self._rule(session, grant, asks)
            self._events.publish("folder.mode", {"session": session, "name": grant.name, "mode": grant.mode})
        return standing._replace(grant=grant, asks=asks)

    def _tell_mounted(self, session: str, standing: Standing) -> None:
        grant = standing.grant
        self._events.publish(
            "folder.mounted",
            {
                "session": session,
                "name": grant.name,
                "mode": grant.mode,
                "mounted_as": standing.mounted_as,
                "degraded": standing.degraded,
            },
        )

    def _tell_failing(self, session: str, failing: Failing) -> None:
        name, why = failing.grant.name, failing.error.message
        self.live.of(session)[name] = failing
        _log.warning("session %s: %s", session, why)
        self._events.publish("folder.failed", {"session": session, "name": name, "error": why})

    async def prepare(self, session: str, folders: tuple[FolderGrant, ...]) -> None:
        """What folders need on the session disk, and no more. Where it refuses, the folders that need it fail one by one."""
        kept = [(grant.name, os.fsencode(self._path(grant))) for grant in folders if grant.mode in ("rw", "rwd")]
        try:
            await trio.to_thread.run_sync(self._journals.prepare, session, kept)
        except DiskFailed as error:
            _log.error("the journals of session %s: %s", session, error.message)

    def _path(self, grant: FolderGrant) -> str:
        """As one path of the guest, where its source is one."""
        try:
            return self._rules.path(grant)
        except InvalidParams:
            return grant.source


def _rule(grant: FolderGrant, *, asks: bool) -> DeleteRule:
    if grant.mode == "rwd":
        return "allow"
    return "ask" if asks else "deny"
