"""What `cowork-vm doctor` looks at on this host: can the machine run here, is its bundle whole, and is its keeper well.

Each check gives one finding and never raises: `ok`, `degraded` (it works, with less) or `failed`, with a remedy. The image is hashed whole,
as before a boot, but nothing is mended. The guest's own doctor is asked by whoever calls this.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from host_stub import bundle_image, session_disk
from host_stub.backends import choose_backend
from host_stub.bundle import Bundle
from host_stub.bundle_files import Progress, shown_bytes
from host_stub.keeper_client import KeeperGone, open_keeper
from host_stub.keeper_lock import is_held, read_record
from host_stub.keeper_words import LIVING
from host_stub.words import MachineState, Share, Trouble

LOW_BYTES = 1 << 30


class Finding(Struct, frozen=True, kw_only=True):
    """One check, as coworkd's own doctor tells one."""

    check: str
    state: Literal["ok", "degraded", "failed"]
    detail: str
    remedy: str | None = None


def check_host(bundle: Bundle, progress: Progress) -> Iterator[Finding]:
    """Every finding about the bundle and this host, as each is made."""
    yield _checked("hypervisor", lambda: _hypervisor(bundle))
    yield _checked("image", lambda: _image(bundle, progress))
    yield _checked("session disk", lambda: _session_disk(bundle))
    yield _checked("room", lambda: _room(bundle))
    yield _checked("share", lambda: _share(bundle))
    yield _checked("keeper", lambda: _keeper(bundle))


def _checked(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Trouble as trouble:
        return Finding(check=check, state="failed", detail=trouble.message, remedy=trouble.remedy)


def _hypervisor(bundle: Bundle) -> Finding:
    backend = choose_backend(bundle.settings)
    backend.check(bundle.spec())
    detail: str = backend.name
    choose = getattr(backend, "choose", None)
    if choose is None:
        return Finding(check="hypervisor", state="ok", detail=detail)
    choice = choose(bundle.settings.architecture)
    detail = f"{detail} with {choice.accelerator}: {choice.why}"
    if choice.accelerator != "tcg":
        return Finding(check="hypervisor", state="ok", detail=detail)
    return Finding(
        check="hypervisor",
        state="degraded",
        detail=f"{detail}; every instruction is emulated, which is 10 to 20 times slower",
        remedy="use a host of the guest's architecture that runs virtual machines itself",
    )


def _image(bundle: Bundle, progress: Progress) -> Finding:
    artifacts = bundle.manifest.needed(bundle.settings.boot)
    flaws = bundle_image.find_flaws(bundle.path, artifacts, progress)
    name = f"{bundle.manifest.name} {bundle.manifest.version} ({bundle.manifest.architecture})"
    if not flaws:
        return Finding(check="image", state="ok", detail=f"{name}: every byte is as its manifest says")
    mendable = all(artifacts[part].compressed is not None for part in flaws)
    return Finding(
        check="image",
        state="degraded" if mendable else "failed",
        detail="; ".join(f"{artifacts[part].file} {flaw}" for part, flaw in flaws.items()),
        remedy="it is made again at the next start" if mendable else "cowork-vm renew --image DIR",
    )


def _session_disk(bundle: Bundle) -> Finding:
    disk = session_disk.look_at(bundle.session_disk)
    detail = f"{shown_bytes(disk.size_bytes)}, of which {shown_bytes(disk.used_bytes)} take room here"
    return Finding(check="session disk", state="ok", detail=detail)


def _room(bundle: Bundle) -> Finding:
    disk = session_disk.look_at(bundle.session_disk)
    free = shutil.disk_usage(bundle.path).free
    detail = f"{shown_bytes(free)} are free at {bundle.path}"
    if free < LOW_BYTES:
        return Finding(
            check="room",
            state="failed",
            detail=detail,
            remedy="make room: a guest whose disk cannot grow stands still until it can",
        )
    if free < disk.size_bytes - disk.used_bytes:
        promised = shown_bytes(disk.size_bytes - disk.used_bytes)
        return Finding(
            check="room",
            state="degraded",
            detail=f"{detail}, and the session disk may still take {promised}",
            remedy="make room before sessions fill it",
        )
    return Finding(check="room", state="ok", detail=detail)


def _share(bundle: Bundle) -> Finding:
    bundle.judge_share()
    shared = bundle.share / "shared"
    if not shared.is_dir():
        return Finding(
            check="share", state="failed", detail=f"{shared} is no directory", remedy=f"make it: mkdir -p {shared}"
        )
    with contextlib.suppress(Trouble):  # the hypervisor has a finding of its own
        way = getattr(choose_backend(bundle.settings), "share_way", None)
        if way is not None and way(Share(path=bundle.share)) == "9p":
            return Finding(
                check="share",
                state="degraded",
                detail=f"{shared} can be granted by 9p alone, which the image's kernel may not know: "
                "no virtiofsd is here that this user may run (QEMU 7's own wants root)",
                remedy="install virtiofsd from its own package; or build the image with --full-kernel",
            )
    return Finding(check="share", state="ok", detail=f"{shared} can be granted to sessions")


def _keeper(bundle: Bundle) -> Finding:
    with contextlib.suppress(KeeperGone), open_keeper(bundle) as keeper:
        if keeper is not None:
            status = keeper.status()
            well = status.state in (MachineState.READY, MachineState.STARTING, MachineState.CONNECTED)
            return Finding(
                check="keeper",
                state="ok" if well else "degraded",
                detail=f"process {status.keeper_pid}; the machine is {status.state.value}: {status.message}",
                remedy=None if well else "see cowork-vm logs, and logs serial",
            )
    if is_held(bundle):
        return Finding(
            check="keeper",
            state="failed",
            detail="a process holds the bundle and does not answer",
            remedy="see who it is: the number in run/lock",
        )
    record = read_record(bundle)
    if record is not None and record.state in LIVING | {MachineState.CRASHED}:
        how = "crashed" if record.state is MachineState.CRASHED else "was killed with its keeper"
        return Finding(
            check="keeper",
            state="degraded",
            detail=f"the machine does not run; the last one {how}: {record.message}",
            remedy="see cowork-vm logs keeper, and logs serial; start it again: cowork-vm up",
        )
    return Finding(check="keeper", state="ok", detail="the machine does not run")
