"""Who is served, and how: every session's listeners and policy, handed to coworkd-egress and told it anew.

Rules
- coworkd-egress may come and go: every session that is served is handed over again, on the same listeners. While it is away a change
  holds all the same: nothing gets out until it has heard of it. One that served a session before closes what is forbidden by then.
- Where a session's TLS is inspected, the certificate of the one who does it is trusted before the session is served.
- A session that cannot be handed over reaches nothing; that is told (`on_problem`), and tried again every `MEND_S`.
- One thing at a time is said about sessions (`_turn`): what was composed first is told first, and descriptors are sent while they are
  open. Whoever has its turn is not cancelled.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import trio
from msgspec import Struct, structs

from coworkd.model import egress as words
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.services.egress_link import EgressLink

MEND_S = 5.0
_TOLD = 3
"""Sessions without a way out that are told by name."""
_log = logging.getLogger("coworkd.egress")

Admit = Callable[[], Awaitable[tuple[words.Allowance, ...]]]


class InspectionTrust(Protocol):
    """Where the certificate of the inspection becomes trusted, and what a host has had trusted."""

    @property
    def installed_pem(self) -> str: ...

    async def set_inspection_ca(self, pem: bytes | None) -> None: ...


class Served(Struct):
    """One session that is served; owns its listeners."""

    base: words.SessionEgress
    listeners: tuple[int, ...]
    allowances: tuple[words.Allowance, ...] = ()
    pid: int | None = None
    """The coworkd-egress that has them."""
    close_forbidden: bool = False
    """It has still to close what is forbidden."""

    def effective(self, now: float) -> words.SessionEgress:
        kept = tuple(allowance for allowance in self.allowances if allowance.until > now)
        return structs.replace(self.base, allowances=(*self.base.allowances, *kept))


class Serving:
    """The sessions that are served. Owns their listeners."""

    def __init__(
        self,
        link: EgressLink,
        trust: InspectionTrust,
        *,
        on_problem: Callable[[str | None], None],
        clock: Callable[[], float],
    ) -> None:
        self._link = link
        self._trust = trust
        self._on_problem = on_problem
        self._clock = clock
        self._served: dict[str, Served] = {}
        self._turn = trio.Lock()
        self._kept: tuple[str, ...] = ()
        """What coworkd-egress served when it began."""
        self._inspector: int | None = None
        """The pid of the coworkd-egress whose CA is trusted."""
        self._stranded: dict[str, str] = {}
        """Session → why it could not be handed over."""

    def find(self, session: str) -> Served | None:
        """A session that is served."""
        return self._served.get(session)

    def close(self) -> None:
        """Let go of every listener; coworkd-egress and the launcher have their own."""
        for served in self._served.values():
            _close(served.listeners)
        self._served.clear()

    async def serve(self, session: str, egress: words.SessionEgress, listeners: tuple[int, ...], /) -> None:
        """See `ports.EgressPort.serve_session`."""
        async with self._in_turn():
            known = self._served.get(session)
            if known is None:
                self._served[session] = Served(base=egress, listeners=listeners)
            else:
                _close(known.listeners)
                known.base, known.listeners, known.pid = egress, listeners, None
            await self._hand_over(session)

    async def change(self, session: str, egress: words.SessionEgress, /, *, close_forbidden: bool) -> int:
        """See `ports.EgressPort.change`."""
        async with self._in_turn():
            served = self._served.get(session)
            if served is None:
                return 0
            before = served.base
            served.base = egress
            try:
                return await self._tell(session, served, close_forbidden=close_forbidden)
            except CoworkError:
                served.base = before
                raise

    async def stop(self, session: str, /) -> None:
        """See `ports.EgressPort.stop`."""
        async with self._in_turn():
            served = self._served.pop(session, None)
            if served is not None:
                _close(served.listeners)
            self._note(session, None)
            await self._stop(session)

    async def allow(self, session: str, served: Served, admit: Admit) -> None:
        """Have `admit` add to the allowances of `served`, in its turn. Raises what it raises, `Unavailable` for a session that was closed
        since it was found, and what keeps coworkd-egress from hearing of it.
        """
        async with self._in_turn():
            if self._served.get(session) is not served:
                raise Unavailable(f"session {session} was closed meanwhile; allow it again")
            before = served.allowances
            served.allowances = await admit()
            try:
                await self._tell(session, served, close_forbidden=False)
            except CoworkError:
                served.allowances = before
                raise

    # -- coworkd-egress comes and goes ----------------------------------------------------------------------------

    async def hand_over_all(self, kept: tuple[str, ...]) -> None:
        """Another conversation has begun, with one that has the sessions `kept`."""
        self._kept = kept
        for served in self._served.values():
            served.pid = None
        for session in list(self._served):
            async with self._in_turn():
                await self._hand_over(session)

    async def stop_kept(self) -> None:
        """Have coworkd-egress stop what it kept and nobody has taken over."""
        for session in self._kept:
            async with self._in_turn():
                if session not in self._served:
                    await self._stop(session)

    async def mend(self) -> None:
        """Try again what could not be handed over. Never returns."""
        while True:
            await trio.sleep(MEND_S)
            for session in list(self._stranded):
                async with self._in_turn():
                    await self._hand_over(session)

    async def trust_changed(self) -> None:
        """A host has installed or removed certificates: whoever inspects verifies servers by them from now on. Never fails."""
        async with self._in_turn():
            if self._inspector is None or self._link.pid != self._inspector:
                return  # told with the first session whose TLS is inspected
            try:
                await self._link.ask(words.TrustRoots(id=0, pem=self._trust.installed_pem))
            except CoworkError as error:
                self._inspector = None
                _log.warning("coworkd-egress was not told which certificates are trusted now: %s", error.message)

    # -- inside -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        with trio.CancelScope(shield=True):
            async with self._turn:
                yield

    async def _stop(self, session: str) -> None:
        with contextlib.suppress(Unavailable):  # stopped when it begins, if it has it still
            await self._link.ask(words.Stop(id=0, session=session))

    async def _hand_over(self, session: str) -> None:
        """Have a session served as far as that goes now."""
        served = self._served.get(session)
        if served is None or served.pid is not None:
            return
        try:
            await self._tell(session, served, close_forbidden=session in self._kept)
        except CoworkError as error:
            self._note(session, error.message)

    def _note(self, session: str, problem: str | None) -> None:
        """Why a session cannot be handed over, or None; told where it has changed."""
        if self._stranded.get(session) == problem:
            return
        if problem is None:
            del self._stranded[session]
        else:
            _log.error("session %s has no way out: %s", session, problem)
            self._stranded[session] = problem
        self._tell_problem()

    def _tell_problem(self) -> None:
        stranded = [f"session {name} has no way out: {why}" for name, why in sorted(self._stranded.items())]
        more = len(stranded) - _TOLD
        if more > 0:
            stranded[_TOLD:] = [f"{more} more sessions have none"]
        self._on_problem("; ".join(stranded) or None)

    async def _tell(self, session: str, served: Served, *, close_forbidden: bool) -> int:
        """Have coworkd-egress serve a session as `served` says now; how many connections that closed.

        One that is away hears of it when it begins. Raises what stands in the way of one that is there.
        """
        served.close_forbidden |= close_forbidden
        try:
            return await self._tell_now(session, served)
        except Unavailable as error:
            _log.info("session %s waits for its way out: %s", session, error.message)
            return 0

    async def _tell_now(self, session: str, served: Served) -> int:
        pid = self._link.pid
        await self._trust_inspector(served.base)
        egress = served.effective(self._clock())
        if served.pid != pid or pid is None:
            await self._link.ask(words.Serve(id=0, session=session, egress=egress), served.listeners)
            served.pid = pid
            self._note(session, None)
            if not served.close_forbidden or session not in self._kept:
                served.close_forbidden = False
                return 0
        done = await self._link.ask(
            words.Change(id=0, session=session, egress=egress, close_forbidden=served.close_forbidden)
        )
        assert isinstance(done, words.Done)
        served.close_forbidden = False
        return done.closed

    async def _trust_inspector(self, egress: words.SessionEgress) -> None:
        if self._link.pid == self._inspector or not any(layer.inspect for layer in egress.settings):
            return
        inspector = self._link.pid
        made = await self._link.ask(words.GetCa(id=0))
        assert isinstance(made, words.CaMade)
        await self._trust.set_inspection_ca(made.pem)
        await self._link.ask(words.TrustRoots(id=0, pem=self._trust.installed_pem))
        self._inspector = inspector


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
