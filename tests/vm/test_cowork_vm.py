"""`cowork-vm` from the command line against a guest that really boots: one cold boot for its whole story, one that is never waited for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zstandard

from tests.vm.image_lab import Image

REPO = Path(__file__).resolve().parents[2]
BOOT_S = 600
SOON_S = 120


class Command:
    """`cowork-vm` with one bundle."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle

    def __call__(self, *words: str, timeout_s: float = BOOT_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "host_stub.cli.main", *words],
            cwd=REPO,
            env={**os.environ, "COWORK_BUNDLE": str(self.bundle)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def good(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self("status", "--json").stdout)
        return answer


def with_original(image: Image, place: Path) -> Path:
    """The image with a compressed original of its root, which the cache of images does not keep."""
    place.mkdir()
    manifest = json.loads((image.directory / "manifest.json").read_bytes())
    for path in (image.kernel, image.initrd, image.rootfs):
        shutil.copy(path, place)
    packed = place / "rootfs.img.zst"
    with image.rootfs.open("rb") as source, packed.open("wb") as target:
        zstandard.ZstdCompressor(level=1).copy_stream(source, target)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    original = {"file": packed.name, "size": packed.stat().st_size, "sha256": digest}
    manifest["artifacts"]["rootfs"]["compressed"] = original
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


@pytest.fixture
def cowork_vm(image: Image) -> Iterator[Command]:
    """A new machine; whatever runs is ended. Its path is short, for its sockets."""
    with tempfile.TemporaryDirectory(prefix="vm-") as place:
        command = Command(Path(place, "m"))
        whole = with_original(image, Path(place, "image"))
        command.good("create", "--image", str(whole), "--memory", "768M", "--disk", "256M")
        shutil.rmtree(whole)
        try:
            yield command
        finally:
            command("down", "--kill")


def family(pid: int) -> list[psutil.Process]:
    keeper = psutil.Process(pid)
    return [*keeper.children(recursive=True), keeper]


def test_the_whole_story_of_a_machine(cowork_vm: Command) -> None:
    up = cowork_vm("up", "--wait", str(BOOT_S))
    assert up.returncode == 0, up.stderr
    assert cowork_vm.status()["state"] in ("ready", "degraded")
    assert cowork_vm.good("exec", "--", "uname", "-n") == "claude\n"
    assert cowork_vm("exec", "--", "sh", "-c", "exit 7").returncode == 7
    cowork_vm.good("exec", "--session", "work", "--", "sh", "-c", "echo kept > file")
    assert "hypervisor" in cowork_vm("doctor").stdout
    cowork_vm.good("grow", "512M")
    usage = json.loads(cowork_vm.good("ctl", "--json", "storage", "usage"))
    assert usage["size_bytes"] > 400 << 20
    began = family(cowork_vm.status()["keeper_pid"])
    cowork_vm.good("down")
    psutil.wait_procs(began, timeout=SOON_S)
    assert not [process for process in began if process.is_running()]
    record = json.loads((cowork_vm.bundle / "state/last.json").read_text())
    assert (record["state"], record["details"]["how"]) == ("stopped", "powered_off"), record
    log = (cowork_vm.bundle / "logs/coworkd.log").read_text()
    assert "[rpc] listening on vsock://:5005" in log


def test_a_killed_keeper_leaves_nothing_running_and_is_told(cowork_vm: Command) -> None:
    cowork_vm.good("up", "--no-wait")
    keeper_pid = cowork_vm.status()["keeper_pid"]
    began = family(keeper_pid)
    assert len(began) >= 3  # the keeper, QEMU, the vsock device
    os.kill(keeper_pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(began, timeout=SOON_S)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert cowork_vm.status()["state"] == "crashed"
    with contextlib.ExitStack() as stack:
        second = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "host_stub.cli.main", "up", "--no-wait"],
                    cwd=REPO,
                    env={**os.environ, "COWORK_BUNDLE": str(cowork_vm.bundle)},
                    stderr=subprocess.PIPE,
                    stdin=subprocess.DEVNULL,
                )
            )
            for _ in range(2)
        ]
        said = [process.communicate(timeout=BOOT_S)[1].decode() for process in second]
    assert [process.returncode for process in second] == [0, 0], said
    assert sum("runs already" in each or "joined" in each for each in said) == 1
    assert "was killed while the machine was starting" in cowork_vm.good("logs", "keeper")
