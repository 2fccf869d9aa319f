"""One command: what was asked, what has become of it, and its descriptors. Its sandbox is a `bwrap`.

`notices` turns what is known into what the supervisor is told, each once, in the order `Started | StartError`, `Exited`; a start and an end
that become known together are told in one, by `Exited`.

Rules
- The command ran if its exec was seen (connector, the shim's pipe) or bubblewrap reported the exit code of a command of its own. Else
  what bubblewrap or the shim has said is the `StartError`.
- The command's exec waits at its gate, which the supervisor opens. A shim that dies without a word has not run it: its sandbox is changed
  for another, once, by `move`, and nobody hears of it.
"""

from __future__ import annotations

import os
import time

from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.gate import Gate
from coworkd.launcher.handover import Handover
from coworkd.launcher.oom import Deaths, OomLevels
from coworkd.model.launch import Adopted, Exited, Spawn, Spawned, Started, StartError
from coworkd.sandbox.failure import explain_shim, parse_failure, parse_shim

QUIET_S = 0.01
_NEVER_OF_A_SHIM = ("not_found", "not_executable", "bad_cwd", "too_big")


class Process:
    """A spawned command. Owns its descriptors until `close`."""

    __slots__ = (
        "_made_at",
        "_may_wait",
        "_moved",
        "_ooms",
        "abandoned",
        "argv",
        "bwrap",
        "exec_fd",
        "exited",
        "fds",
        "gate",
        "handover",
        "name",
        "note",
        "quiet_until",
        "request",
        "session",
        "setup_error",
        "shim_said",
        "spawned",
        "start_error",
        "started",
    )

    def __init__(
        self,
        request: Spawn,
        bwrap: Bwrap,
        *,
        fds: dict[str, int],
        gate: Gate,
        exec_fd: int | None = None,
        handover: Handover | None = None,
        ooms: OomLevels | None = None,
    ) -> None:
        """`exec_fd` and `handover` are there where a shim is to execute the command."""
        self.request: Spawn | None = request
        """Until it is known whether it runs."""
        self.name = request.process
        self.session = request.session
        self.argv = request.argv
        self.note = request.note
        self.quiet_until = time.monotonic() + QUIET_S if request.one_shot and bwrap.shimmed else 0.0
        """Until then its `Started` waits for its end, so that it is told in one go. Where the exec itself is seen it begins with that."""
        self.bwrap = bwrap
        self.fds = fds
        self.gate = gate
        self.exec_fd = exec_fd
        self.handover = handover
        self.abandoned = False
        self.setup_error: tuple[str, int | None, str] | None = None
        self.shim_said = b""
        self.started: Started | None = None
        self.start_error: StartError | None = None
        self.exited: Exited | None = None
        self._ooms = ooms or OomLevels(None)
        self._made_at = time.monotonic()
        self._moved = False
        self._may_wait = request.one_shot
        """Whether it may be told that it runs together with its end."""
        self.spawned = Spawned(
            id=request.id, process=request.process, monitor_pid=bwrap.monitor_pid, fds=(*fds, "gate"), at=time.time()
        )

    @property
    def living(self) -> bool:
        """Whether it has neither exited nor failed to start."""
        return self.exited is None and self.start_error is None

    @property
    def gated(self) -> bool:
        """Whether its gate was not opened yet."""
        return self.gate.read >= 0 and self.living and not self.gate.opened

    @property
    def can_move(self) -> bool:
        """Whether its command is nowhere yet, if its sandbox has died, so that another can be had."""
        return self.handover is not None and not self.bwrap.killed and not self.shim_said and not self._moved

    # -- facts --------------------------------------------------------------------------------------------------

    def learn_error(self, text: str) -> None:
        """Its child has failed before it became bubblewrap: `stage errno reason`."""
        stage, _, said = text.partition(" ")
        number, _, reason = said.partition(" ")
        code = int(number) if number.isdecimal() else 0
        words = f"the sandbox's {stage} step failed: {reason or os.strerror(code)}"
        if stage == "not_executable":
            words = f"{os.fsdecode(self.argv[0])}: cannot be executed: {os.strerror(code)}"
        self.setup_error = (stage if stage == "not_executable" else "sandbox_setup", code or None, words)

    def learn_shim(self) -> None:
        """The shim's pipe has ended: a time and nothing more is a good exec, `stage errno` why there is none."""
        if not self.shim_said:
            return
        self._drop_handover()
        at, failure = parse_shim(self.shim_said)
        if failure:
            self.setup_error = explain_shim(failure, self.argv[0], b"" if self.request is None else self.request.cwd)
        elif at is not None:
            self.bwrap.learn_exec(max(at, self.spawned.at))

    # -- outcome ------------------------------------------------------------------------------------------------

    def notices(self) -> list[Started | StartError | Exited]:
        """What has become true since the last call."""
        told: list[Started | StartError | Exited] = []
        bwrap = self.bwrap
        if self._may_wait and not self.quiet_until and bwrap.executed:
            self.quiet_until = time.monotonic() + QUIET_S
        quiet = not bwrap.gone and time.monotonic() < self.quiet_until
        if self.started is None and not quiet and bwrap.executed and bwrap.init_pid and bwrap.payload_pid:
            self.started = Started(
                process=self.name,
                init_pid=bwrap.init_pid,
                payload_pid=bwrap.payload_pid,
                at=bwrap.executed_at,
                monitor_pid=bwrap.monitor_pid,
            )
            told.append(self.started)
        if bwrap.gone and self.living and not self.can_move:
            end = self._conclude(told_now=self.started if told else None)
            told = [end] if isinstance(end, Exited) else [*told, end]
            self._drop_handover()
        if told:
            self.request = None
            self.gate.close()
        return told

    def _conclude(self, *, told_now: Started | None) -> StartError | Exited:
        bwrap = self.bwrap
        bwrap.status.drain()
        if not self._ran() and (self.setup_error is not None or not bwrap.cut_short):
            stage, number, message = self._explain()
            self.start_error = StartError(process=self.name, stage=stage, errno=number, message=message)
            return self.start_error
        deaths = Deaths() if bwrap.cgroup_path is None else self._ooms.judge(bwrap.cgroup_path, self._made_at)
        code, number, inferred = bwrap.end_of_payload()
        self.exited = Exited(
            process=self.name,
            code=code,
            signal=number,
            inferred=inferred,
            killed=bwrap.killed,
            oom_kills=deaths.oom_kills,
            oom=deaths.oom,
            pids_refused=deaths.pids_refused,
            rusage=bwrap.rusage,
            at=time.time(),
            started=told_now,
        )
        return self.exited

    def _ran(self) -> bool:
        if self.setup_error is not None:
            return False
        return self.bwrap.executed or (not self.bwrap.shimmed and self.bwrap.status.exit_code is not None)

    def _explain(self) -> tuple[str, int | None, str]:
        if self.setup_error is not None:
            return self.setup_error
        diagnostics = self.bwrap.read_diagnostics(self.fds.get("stderr_spool"))
        if not self.bwrap.shimmed:
            return parse_failure(diagnostics, self.argv[0])
        stage, number, message = parse_failure(diagnostics, b"the sandbox's shim")
        return "sandbox_setup" if stage in _NEVER_OF_A_SHIM else stage, number, message

    # -- verbs --------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Where a shim waits for the command: give it that, as far as the gate. Raises `OSError`."""
        if self.handover is not None:
            if self.bwrap.link is None:
                raise BrokenPipeError(32, "the sandbox has gone")
            self.handover.send(self.bwrap.link)

    def move(self, bwrap: Bwrap) -> None:
        """It gets another sandbox, before the same gate, of which the supervisor hears by `Started`: that waits for nothing. Where
        bubblewrap executes it, that one has all it needs.
        """
        self.bwrap = bwrap
        self._moved = True
        self.quiet_until, self._may_wait = 0.0, False
        if not bwrap.shimmed:
            self._drop_handover()

    def give_up(self, stage: str, number: int | None, message: str) -> None:
        """No other sandbox could be had."""
        self.setup_error = (stage, number, message)
        self._drop_handover()

    def _drop_handover(self) -> None:
        if self.handover is not None:
            self.handover.close()
            self.handover = None

    def abandon(self) -> None:
        """End a sandbox that may not become its command."""
        self.abandoned = True
        self.bwrap.kill()

    def adopted(self, request_id: int) -> Adopted:
        """Everything a new supervisor needs."""
        spawned = Spawned(
            id=request_id,
            process=self.name,
            monitor_pid=self.bwrap.monitor_pid,
            fds=tuple(self.fds),
            at=self.spawned.at,
        )
        return Adopted(
            id=request_id,
            process=self.name,
            session=self.session,
            argv=self.argv,
            spawned=spawned,
            let_in=not self.gated,
            started=self.started,
            start_error=self.start_error,
            exited=self.exited,
            note=self.note,
        )

    def release(self, name: str) -> None:
        """Let go of the descriptor `name`, if it is kept."""
        fd = self.fds.pop(name, None)
        if fd is None:
            return
        if self.bwrap.diagnostics_fd == fd:
            self.bwrap.diagnostics_fd = -1
        os.close(fd)

    def close(self) -> None:
        """Let go of every descriptor; for a process that has ended."""
        self.bwrap.close()
        for fd in (*self.fds.values(), self.exec_fd):
            if fd is not None:
                os.close(fd)
        self.fds = {}
        self.exec_fd = None
        self.gate.close()
        self._drop_handover()
