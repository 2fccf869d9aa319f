"""What `doctor` finds on this host."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NamedTuple

import pytest

from host_stub import checkup
from host_stub.bundle import Bundle
from host_stub.bundle_files import no_progress
from host_stub.checkup import Finding, check_host
from host_stub.keeper_lock import hold_lock, write_record
from host_stub.keeper_words import Record
from host_stub.qemu.accelerator import Choice
from host_stub.words import MachineSpec, MachineState, Share, Trouble


class Choosing:
    """A back end that is well, on the accelerator it is told."""

    name = "qemu"

    def __init__(self, accelerator: str = "kvm", trouble: Trouble | None = None, way: str = "virtiofs") -> None:
        self._accelerator = accelerator
        self._trouble = trouble
        self._way = way

    def share_way(self, _share: Share) -> str:
        return self._way

    def check(self, _spec: MachineSpec) -> None:
        if self._trouble is not None:
            raise self._trouble

    def choose(self, _architecture: str) -> Choice:
        return Choice(accelerator=self._accelerator, why="it is there")  # type: ignore[arg-type]


class Usage(NamedTuple):
    free: int


@pytest.fixture(autouse=True)
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "choose_backend", lambda _: Choosing())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40))


def found(bundle: Bundle) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_host(bundle, no_progress)}


def test_all_is_well(bundle: Bundle) -> None:
    findings = found(bundle)
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings["hypervisor"].detail == "qemu with kvm: it is there"
    assert findings["session disk"].detail == "64 MiB, of which 0 KiB take room here"
    assert findings["keeper"].detail == "the machine does not run"


def test_emulation_is_slow_and_said_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "choose_backend", lambda _: Choosing("tcg"))
    assert found(bundle)["hypervisor"].state == "degraded"


def test_a_share_that_the_guest_may_not_be_able_to_mount_is_told(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "choose_backend", lambda _: Choosing(way="9p"))
    share = found(bundle)["share"]
    assert (share.state, "9p" in share.detail, "--full-kernel" in str(share.remedy)) == ("degraded", True, True)


def test_a_missing_hypervisor_has_its_remedy(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = Trouble("no_qemu", "QEMU is not installed", remedy="install it")
    monkeypatch.setattr(checkup, "choose_backend", lambda _: Choosing(trouble=trouble))
    finding = found(bundle)["hypervisor"]
    assert (finding.state, finding.detail, finding.remedy) == ("failed", "QEMU is not installed", "install it")


def spoil_root(bundle: Bundle) -> None:
    (bundle.path / "rootfs.img").unlink()


def spoil_kernel(bundle: Bundle) -> None:
    (bundle.path / "vmlinuz").unlink()


def spoil_disk(bundle: Bundle) -> None:
    bundle.session_disk.unlink()


def spoil_share(bundle: Bundle) -> None:
    (bundle.share / "shared").rmdir()


def crash(bundle: Bundle) -> None:
    write_record(bundle, Record(state=MachineState.CRASHED, message="panic", at=1.0, keeper_pid=1))


@pytest.mark.parametrize(
    ("spoil", "check", "state", "said"),
    [
        (spoil_root, "image", "degraded", "made again at the next start"),
        (spoil_kernel, "image", "failed", "renew"),
        (spoil_disk, "session disk", "failed", "--new-session-disk"),
        (spoil_share, "share", "failed", "mkdir"),
        (crash, "keeper", "degraded", "start it again"),
    ],
)
def test_what_is_wrong_is_found_and_nothing_is_mended(
    bundle: Bundle, spoil: Callable[[Bundle], None], check: str, state: str, said: str
) -> None:
    spoil(bundle)
    for _ in range(2):
        finding = found(bundle)[check]
        assert finding.state == state
        assert said in (finding.remedy or "")


@pytest.mark.parametrize(("free", "state"), [(1 << 20, "failed"), (2 << 30, "ok"), ((1 << 30) + 1, "ok")])
def test_room_is_looked_at(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free))
    assert found(bundle)["room"].state == state


def test_a_disk_that_may_not_fit_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 << 30))
    with bundle.session_disk.open("r+b") as file:
        file.truncate(10 << 30)
    assert found(bundle)["room"].state == "degraded"


def test_who_holds_the_bundle_and_does_not_answer_is_told(bundle: Bundle) -> None:
    with hold_lock(bundle):
        finding = found(bundle)["keeper"]
    assert (finding.state, "run/lock" in (finding.remedy or "")) == ("failed", True)
