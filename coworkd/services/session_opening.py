"""Which sessions are open: their namespaces in the launcher, their way out in coworkd-egress. Made from records, whenever needed.

Rules
- The launcher comes first, for it makes the listeners; a session that could not be opened there has no way out either.
- Another launcher than before knows no session (`generation`). A way out that is missing stops no session.
- Its folders come last, and one that fails leaves it open: the caller says whether it may be used like that (`FoldersPort.lacks`).
- With its way out a session has the variables of the mirrors that its profile's settings lead to; a request adds none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from coworkd.model.egress import SessionEgress
from coworkd.model.launch import OpenSession
from coworkd.model.layout import GuestLayout
from coworkd.model.limits import CgroupLimits
from coworkd.model.policy import EffectivePolicy, LimitsPolicy
from coworkd.model.ports import (
    EgressPort,
    FoldersPort,
    GroupsPort,
    GroupState,
    LauncherPort,
    SessionPolicyPort,
    ToolsPort,
    TrustPort,
)
from coworkd.model.session import FailedFolder, SessionRecord, SessionView
from coworkd.sandbox.limits import session_limits
from coworkd.sandbox.tree import compose_tree, sandbox_home

_ROUNDED_BYTES, _ROUNDED_CPUS = 64 * 1024, 0.001


class Opened(Struct, frozen=True, kw_only=True):
    """What was told at an opening."""

    failed: tuple[FailedFolder, ...]
    """Optional folders that are not there."""
    told: tuple[str, ...]
    """What is not as asked."""


class OnTurn(Protocol):
    """Told, synchronously, that a session has opened or closed."""

    def __call__(self, session: str, *, is_open: bool) -> None: ...


class Openings:
    """Opens and closes; one verb at a time works on a session, which is the caller's to see to."""

    def __init__(
        self,
        *,
        launcher: LauncherPort,
        groups: GroupsPort,
        folders: FoldersPort,
        egress: EgressPort,
        policies: SessionPolicyPort,
        trust: TrustPort,
        tools: ToolsPort | None = None,
        home_path: Callable[[str], str],
        layout: GuestLayout,
    ) -> None:
        self._launcher = launcher
        self._groups = groups
        self._folders = folders
        self._egress = egress
        self._policies = policies
        self._trust = trust
        self._tools = tools
        self._home_path = home_path
        self._layout = layout
        self._generations: dict[str, int] = {}
        self._limits: dict[str, LimitsPolicy] = {}
        self._tool_variables: dict[str, dict[str, str]] = {}
        self.on_turn: OnTurn = _nobody

    def is_open(self, name: str) -> bool:
        return self._generations.get(name) == self._launcher.generation

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are open."""
        return tuple(name for name in self._generations if self.is_open(name))

    async def open(self, record: SessionRecord, policy: EffectivePolicy) -> Opened:
        """Open it, or find it open, with its folders.

        Raises `MountFailed`, `SandboxSetupFailed`, `Unavailable`, `InvalidParams` for the record's settings, and for a required folder
        what `FoldersPort.mount_all` does; the session is open then.
        """
        egress, narrowed = self._policies.compose_egress(policy, record.egress)
        limits = policy.profile.limits
        tools = None if self._tools is None else self._tools.directory
        generation = self._launcher.generation
        answer = await self._launcher.open_session(
            OpenSession(
                id=0,
                session=record.name,
                uid=record.uid,
                gid=record.gid,
                tree=compose_tree(
                    name=record.name,
                    uid=record.uid,
                    home=self._home_path(record.name).encode(),
                    tmp_max_bytes=limits.tmp_max_bytes,
                    layout=self._layout,
                    trust=self._trust.directory.encode(),
                    tools=None if tools is None else tools.encode(),
                ),
                limits=session_limits(limits),
                paused=record.paused,
            )
        )
        self._generations[record.name] = generation
        self._limits[record.name] = limits
        self._heed(record.name, egress)
        await self._egress.serve_session(record.name, egress, answer.listeners)
        self.on_turn(record.name, is_open=True)
        failed = await self._folders.mount_all(record, policy, left=answer.folders)
        return Opened(failed=failed, told=(*answer.degraded, *narrowed))

    async def change(self, name: str, egress: SessionEgress, *, close_forbidden: bool) -> int:
        """See `ports.EgressPort.change`; commands that start from now on get the variables that go with it."""
        closed = await self._egress.change(name, egress, close_forbidden=close_forbidden)
        self._heed(name, egress)
        return closed

    async def limit(self, name: str, limits: LimitsPolicy) -> GroupState | None:
        """Let an open session have other limits, its running commands included; None for one that is not open. Raises as `GroupsPort`."""
        if not self.is_open(name):
            return None
        state = await self._groups.set_limits(name, None, session_limits(limits))
        self._limits[name] = limits
        return state

    async def settle_limits(self, name: str) -> None:
        """An earlier coworkd may have ended between its record of other limits and these. Raises as `GroupsPort`."""
        limits = self._limits.get(name)
        state = await self.measure(name)
        if limits is not None and state is not None and _differ(state.limits, session_limits(limits)):
            await self.limit(name, limits)

    async def measure(self, name: str) -> GroupState | None:
        """What an open session takes, None for one that is not open. Raises as `GroupsPort`."""
        return await self._groups.measure(name, None) if self.is_open(name) else None

    async def freeze(self, name: str, *, frozen: bool) -> bool:
        """Stop the commands of a session, or let them go on; one that is not open has none. Raises as `GroupsPort`."""
        return await self._groups.freeze(name, frozen=frozen) if self.is_open(name) else frozen

    async def close(self, name: str) -> None:
        """Close it in both; one that is not open is passed over. Raises `InvalidState` where commands of it run."""
        await self._folders.unmount_all(name)
        await self._launcher.close_session(name)
        self._generations.pop(name, None)
        self._limits.pop(name, None)
        self._tool_variables.pop(name, None)
        self.on_turn(name, is_open=False)
        await self._egress.stop(name)

    def view(self, record: SessionRecord) -> SessionView:
        """What starting a command needs to know."""
        return SessionView(
            name=record.name,
            uid=record.uid,
            gid=record.gid,
            home=sandbox_home(record.name),
            profile=record.profile,
            limits=record.limits,
            env=record.env,
            folders=record.folders,
            proxied=True,
            trust_bundle=self._trust.bundle_path_inside,
            own_limits=self._limits.get(record.name),
            tool_variables=self._tool_variables.get(record.name, {}),
        )

    def _heed(self, name: str, egress: SessionEgress) -> None:
        self._tool_variables[name] = egress.settings[0].preset_env if egress.settings else {}


def _differ(held: CgroupLimits, wanted: CgroupLimits) -> bool:
    """Whether the kernel holds a session to something else; it rounds to pages and microseconds, and tells nothing of what it lacks."""
    for name in CgroupLimits.__struct_fields__:
        is_held, is_wanted = getattr(held, name), getattr(wanted, name)
        allowed = _ROUNDED_BYTES if name.endswith("_bytes") else _ROUNDED_CPUS
        if is_held is not None and is_wanted is not None and abs(is_held - is_wanted) > allowed:
            return True
    return False


def _nobody(session: str, *, is_open: bool) -> None:
    """Nobody is told."""
