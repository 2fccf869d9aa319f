"""Which coworkd goes on: the image's own, or the release in a slot, into which the image's execs, with its listening sockets kept.

    slot 0 ── door open ── session disk ── `enter`: choose ──exec──▶ slot a ── door: the same sockets ── `enter`: resume ── …
       ▲                                        └ nothing to run: goes on as it is                                   │
       └──────────────────────────────exec, where `restart` was asked for───────────────────────────────────────────┘

Rules
- What the image's coworkd knows of itself (version, words, paths, command line) is handed over in the environment, which only it and
  systemd can set: the release is held to the image, never to itself.
- A host's connections end with the exec, its attempts to connect do not: the listening sockets stay, with who waits in them.
- Nothing is written beside the code of a slot (`-B`): a file nobody has signed for would keep it from running again.
- `local` has no slots.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import msgspec
import trio
from msgspec import Struct, structs

from coworkd import __version__
from coworkd.bring_up import Ground, Mode
from coworkd.config import Config, find_update_key
from coworkd.model import update
from coworkd.model.ports import AuditPort
from coworkd.release.slots import SlotName
from coworkd.services.updates import SlotRun, UpdateFacts, Updates
from coworkd.services.updates_worker import UpdateWorker
from coworkd.system.sd_notify import notify
from coworkd.workers.update_disk import may_be_there

SLOT, LISTENERS = "COWORKD_SLOT", "COWORKD_LISTENERS"
KEY_LIMIT_BYTES = 4096
_START = (
    "import json, os, sys; handed = json.loads(os.environ['COWORKD_SLOT']); "
    "sys.path[:0] = [handed['directory'] + '/code', *handed['path']]; sys.argv[0] = 'coworkd'; "
    "from coworkd.cli.daemon import main; sys.exit(main())"
)


Kept = tuple[str, Mapping[str, Any]]
"""An audit record, by its kind and fields."""


class Handover(Struct, frozen=True, kw_only=True):
    """What slot `0` tells the release it execs into. `path` and `command` are the image's own `sys.path` and command line."""

    slot: SlotName
    version: str
    contents: tuple[str, ...]
    directory: str
    image_version: str
    words: int
    vendor_policies: str
    path: tuple[str, ...]
    command: tuple[str, ...]


class SlotStart:
    """Made when the ground is; `enter` once it is up."""

    def __init__(self, config: Config, *, ground: Ground, mode: Mode) -> None:
        self._config = config
        self._ground = ground
        self._handover = read_handover()
        self._enabled = mode == "serve"
        self._fresh = SLOT in os.environ and not _was_entered()
        facts = compose_facts(config, boot_id=ground.boot_id, handover=self._handover, enabled=self._enabled)
        self.updates = Updates(
            facts,
            worker=UpdateWorker(ground.launcher.folders),
            events=ground.events,
            on_state=lambda reason: ground.health.degrade("update", reason),
            may_be_there=partial(_may_be_there, config),
        )

    async def enter(self, listeners: Callable[[], dict[str, int]], unrecorded: Callable[[], list[Kept]]) -> Config:
        """Go on in the slot that is chosen, which does not return, or here, with the configuration that holds from now on.

        `listeners` gives the descriptors that are listened on, by endpoint, `unrecorded` what waits for an audit log.
        """
        if not self._enabled:
            return self._config
        if self._handover is not None:
            if not self._fresh:  # come up anew: it is for the image to choose again
                exec_image(self._handover, listeners())
            _remember_entered()
            run = run_of(self._handover)
            await self.updates.resume(run)
            config = structs.replace(self._config, vendor_policies=self._handover.vendor_policies)
            return with_policies(config, run)
        with self._ground.health.stage("update"):
            chosen = None if self._ground.storage.state != "ok" else await self.updates.choose()
        if chosen is None:
            return self._config
        if "code" in chosen.contents:
            await self.updates.carry(unrecorded())
            await trio.lowlevel.checkpoint()  # an end that came meanwhile would be forgotten with this program
            exec_slot(chosen, listeners(), vendor_policies=self._config.policy_dirs[0])
        return with_policies(self._config, chosen)

    def watched_by(self, audit: AuditPort, *, egress_pid: Callable[[], int | None]) -> None:
        """From now on there is a log, and a way to end for another release."""
        ending = self._ground.ending
        self.updates.attach(
            audit,
            healthy=partial(self._healthy, egress_pid),
            restart=lambda reason: ending.end(reason, restart=True),
        )

    async def leave(self) -> None:
        """The end is wanted, however far the start has come: it is no failure of a release."""
        await self.updates.leave(begun=self._handover is not None)

    def _healthy(self, egress_pid: Callable[[], int | None]) -> str | None:
        """What a release is to blame for; None for nothing. That a machine lacks something, `degraded` tells as well, and is no blame."""
        if self._ground.launcher.pid is None:
            return "the launcher is away"
        if egress_pid() is None:
            return "coworkd-egress is away"
        return self._ground.health.degraded.get("audit")


def compose_facts(config: Config, *, boot_id: str, handover: Handover | None, enabled: bool) -> UpdateFacts:
    """What updates are held to. Raises `OSError` for a key file that is named and cannot be read."""
    image_version = __version__ if handover is None else handover.image_version
    return UpdateFacts(
        slots_dir=os.path.join(config.state_dir, "slots"),
        boot_id=boot_id,
        image_version=image_version,
        version=__version__,
        trust=_read_trust(config, handover, image_version) if enabled else None,
        label=config.update.label,
        device=config.update.device,
        mount_point=config.update.mount_point,
        commit_s=config.update.commit_s,
    )


def _read_trust(config: Config, handover: Handover | None, image_version: str) -> update.Trust | None:
    path = config.update.key or find_update_key()
    if path is None:
        return None
    with open(path, "rb") as file:
        keys = file.read(KEY_LIMIT_BYTES + 1)
    return update.Trust(
        keys=keys,
        architecture=os.uname().machine,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        image_version=image_version,
        words=update.WORDS if handover is None else handover.words,
    )


def read_handover() -> Handover | None:
    """What slot `0` has told this process; None: it is slot `0`."""
    text = os.environ.get(SLOT)
    return None if text is None else msgspec.json.decode(text, type=Handover)


def take_listeners() -> dict[str, int]:
    """The descriptors this process was handed, by endpoint, the caller's from now on; once."""
    text = os.environ.pop(LISTENERS, "")
    handed = msgspec.json.decode(text, type=dict[str, int]) if text else {}
    for fd in handed.values():
        os.set_inheritable(fd, False)
    return handed


def run_of(handover: Handover) -> SlotRun:
    return SlotRun(
        slot=handover.slot, version=handover.version, contents=handover.contents, directory=handover.directory
    )


def with_policies(config: Config, run: SlotRun) -> Config:
    """The vendor's layer of policies is the release's, where it was signed for one. The admin's stays above it."""
    if "policies" not in run.contents:
        return config
    return structs.replace(config, vendor_policies=os.path.join(run.directory, "policies"))


def exec_slot(run: SlotRun, listeners: dict[str, int], *, vendor_policies: str) -> NoReturn:
    """Become the coworkd in the slot. Raises `OSError`, and then nothing has happened."""
    handover = Handover(
        slot=run.slot,
        version=run.version,
        contents=run.contents,
        directory=run.directory,
        image_version=__version__,
        words=update.WORDS,
        vendor_policies=vendor_policies,
        path=tuple(path for path in sys.path if path),
        command=(sys.executable, *sys.orig_argv[1:]),
    )
    argv = (sys.executable, "-I", "-B", "-c", _START, *sys.argv[1:])
    _exec(argv, {**os.environ, SLOT: msgspec.json.encode(handover).decode()}, listeners)


def exec_image(handover: Handover, listeners: dict[str, int]) -> NoReturn:
    """Become slot `0` again, as it was started."""
    environment = {name: value for name, value in os.environ.items() if name not in (SLOT, _ENTERED)}
    _exec(handover.command, environment, listeners)


_ENTERED = "COWORKD_SLOT_ENTERED"


def _was_entered() -> bool:
    return _ENTERED in os.environ


def _remember_entered() -> None:
    os.environ[_ENTERED] = "1"


def _exec(argv: tuple[str, ...], environment: dict[str, str], listeners: dict[str, int]) -> NoReturn:
    for fd in listeners.values():
        os.set_inheritable(fd, True)
    with contextlib.suppress(OSError):
        notify("WATCHDOG=1")  # the next sign of life is the other's, which has to load first
    os.execve(argv[0], argv, {**environment, LISTENERS: msgspec.json.encode(listeners).decode()})


def _may_be_there(config: Config) -> bool:
    if config.update.device:
        return os.path.exists(config.update.device)
    try:
        return may_be_there()
    except OSError:
        return True
