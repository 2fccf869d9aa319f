"""One command: spec + session + policy → what the launcher is asked to do. Pure; refuses what cannot be meant.

Sizes: the kernel takes one argument of at most 131,071 bytes and a NUL (MAX_ARG_STRLEN) and, for arguments and environment with
their pointers, a quarter of the stack limit (execve(2)), bubblewrap 9,000 words with its own options; all are checked here, so that
`too_big` is told before anything starts.

Most commands of a session differ in their words alone, so `Composer` remembers what it composed for each session last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from coworkd.model.errors import InvalidParams, SandboxSetupFailed, StartFailed
from coworkd.model.launch import Spawn
from coworkd.model.layout import BwrapFeatures, GuestLayout
from coworkd.model.policy import EffectivePolicy
from coworkd.model.process import ProcessSpec, TtySize
from coworkd.model.session import SessionView
from coworkd.model.uids import MIN_UID
from coworkd.sandbox.bwrap_plan import plan_walls
from coworkd.sandbox.environment import compose_environment
from coworkd.sandbox.limits import process_limits, rlimits
from coworkd.sandbox.tree import HOSTNAME

MAX_ARGUMENT_BYTES = 131_071
MAX_ARGUMENTS_BYTES = 2 * 1024 * 1024 - 64 * 1024
"""A quarter of the usual 8 MiB stack, less room for the kernel's own data and bubblewrap's words."""
MAX_WORDS = 9000 - 64
"""bubblewrap's own bound on its options and the command's words together, less what the launcher adds."""
_POINTER_BYTES = 8
_E2BIG = 7
_WORDS_A_VARIABLE, _WORDS_OF_CWD = 3, 2

_KNOWN_SESSIONS = 64

_From = tuple[EffectivePolicy, SessionView, Mapping[str, str], "bytes | None", "TtySize | None", bool]
"""All that a `Spawn` is made from, but for the words of its command."""


class Composer:
    """`compose` for one guest."""

    def __init__(self, layout: GuestLayout, features: BwrapFeatures) -> None:
        self._layout = layout
        self._features = features
        self._known: dict[str, tuple[_From, Spawn]] = {}

    def __call__(self, spec: ProcessSpec, session: SessionView, policy: EffectivePolicy) -> Spawn:
        made_from = (policy, session, spec.env, spec.cwd, spec.tty, spec.stdin)
        known = self._known.get(session.name)
        if known is not None and known[0][0] is policy and known[0][1:] == made_from[1:]:
            _refuse_bad_words(spec)
            _refuse_too_big(spec.argv, known[1])
            return structs.replace(known[1], process=spec.process, argv=tuple(map(bytes, spec.argv)))
        made = compose(spec, session, policy, layout=self._layout, features=self._features)
        if len(self._known) >= _KNOWN_SESSIONS:
            self._known.clear()
        self._known[session.name] = made_from, made
        return made


def compose(
    spec: ProcessSpec,
    session: SessionView,
    policy: EffectivePolicy,
    *,
    layout: GuestLayout,
    features: BwrapFeatures,
) -> Spawn:
    """Raises `InvalidParams` for what cannot be meant, `StartFailed` with stage `too_big`, `SandboxSetupFailed`."""
    _refuse_bad_words(spec)
    if session.uid < MIN_UID or session.gid < MIN_UID:
        raise SandboxSetupFailed(f"session {session.name} has a uid below {MIN_UID}", stage="sandbox_setup")
    environment = compose_environment(session, spec.env, tty=spec.tty is not None)
    limits = policy.profile.limits
    made = Spawn(
        id=0,
        process=spec.process,
        session=session.name,
        uid=session.uid,
        gid=session.gid,
        argv=tuple(bytes(argument) for argument in spec.argv),
        bwrap_args=plan_walls(session.home, HOSTNAME, layout, features),
        filters=(policy.base_filter.sha256, policy.admin_filter.sha256),
        shim=_shim(spec, layout),
        cwd=bytes(spec.cwd or session.home),
        environment=tuple(f"{name}={value}".encode() for name, value in environment.items()),
        stdin=spec.stdin,
        tty=spec.tty,
        warm=policy.profile.sandbox.warm,
        rlimits=rlimits(limits),
        limits=process_limits(limits, session.own_limits),
    )
    _refuse_too_big(spec.argv, made)
    return made


def _refuse_bad_words(spec: ProcessSpec) -> None:
    if not spec.argv or not spec.argv[0]:
        raise InvalidParams("argv is empty: name a command", key="argv")
    for position, argument in enumerate(spec.argv):
        if b"\0" in argument:
            raise InvalidParams(f"argv[{position}] holds a NUL, which no argument can", key=f"argv[{position}]")
    if spec.cwd is not None and (not spec.cwd.startswith(b"/") or b"\0" in spec.cwd):
        raise InvalidParams("cwd is an absolute path inside the sandbox, such as /tmp", key="cwd")


def _refuse_too_big(argv: Sequence[bytes], spawn: Spawn) -> None:
    """`argv` in the sandbox of `spawn`."""
    words = (*argv, *spawn.environment)
    longest = max(map(len, words))
    if longest > MAX_ARGUMENT_BYTES:
        raise _too_big(f"one argument or variable has {longest} bytes; the kernel takes {MAX_ARGUMENT_BYTES}")
    total = sum(map(len, words)) + len(words) * (1 + _POINTER_BYTES)
    if total > MAX_ARGUMENTS_BYTES:
        raise _too_big(f"arguments and environment come to {total} bytes; the kernel takes {MAX_ARGUMENTS_BYTES}")
    count = len(spawn.bwrap_args) + len(argv) + _WORDS_A_VARIABLE * len(spawn.environment) + _WORDS_OF_CWD
    if count > MAX_WORDS:
        raise _too_big(f"arguments and sandbox options come to {count} words; bubblewrap takes {MAX_WORDS}")


def _too_big(message: str) -> StartFailed:
    return StartFailed(f"{message}. Pass it through a file or stdin", stage="too_big", errno=_E2BIG)


def _shim(spec: ProcessSpec, layout: GuestLayout) -> tuple[bytes, ...]:
    if layout.python is not None:
        return (layout.python, b"-I", b"-S")
    if spec.tty is not None:
        raise StartFailed("a terminal needs /usr/bin/python3 in the guest: install python3", stage="sandbox_setup")
    return ()
