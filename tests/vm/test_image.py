"""What a built image holds, read without booting or mounting it; and what its initrd does where there is no root to boot."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from host_stub.manifest import parse_manifest
from tests.vm.image_lab import Image

UNITS = (
    "coworkd.target",
    "coworkd.service",
    "coworkd-launcher.service",
    "coworkd-egress.service",
    "coworkd-firewall.service",
)


def debugfs(image: Image, command: str) -> str:
    done = subprocess.run(["debugfs", "-R", command, str(image.rootfs)], capture_output=True, text=True, check=True)
    assert "File not found" not in done.stderr, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(params=["image", "arm_image"])
def built(request: pytest.FixtureRequest) -> Image:
    made: Image = request.getfixturevalue(request.param)
    return made


def test_it_is_what_its_manifest_says(built: Image) -> None:
    manifest = parse_manifest((built.directory / "manifest.json").read_bytes(), source="manifest.json")
    for artifact in {**manifest.needed("kernel"), **manifest.needed("efi")}.values():
        content = (built.directory / artifact.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact.size, artifact.sha256), artifact.file
    assert {"bubblewrap", "systemd", "python3-seccomp", "nftables"} <= {package.name for package in manifest.packages}


def test_the_file_system_is_whole(built: Image) -> None:
    done = subprocess.run(["e2fsck", "-fn", str(built.rootfs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nobody_has_a_password_and_the_egress_user_is_nobody_else(built: Image) -> None:
    shadow = debugfs(built, "cat /etc/shadow").splitlines()
    assert {line.split(":")[1] for line in shadow} == {"!*"}
    passwd = {line.split(":")[0]: line.split(":") for line in debugfs(built, "cat /etc/passwd").splitlines()}
    uid = passwd["coworkd-egress"][2]
    assert [line[2] for line in passwd.values()].count(uid) == 1
    assert passwd["coworkd-egress"][6] == "/usr/sbin/nologin"
    assert "Mode:  0640" in debugfs(built, "stat /etc/shadow")


def test_no_program_is_somebody_else_than_who_runs_it(built: Image) -> None:
    for name in ("su", "passwd", "mount", "chage"):
        assert "Mode:  0755" in debugfs(built, f"stat /usr/bin/{name}"), name


def test_our_programs_are_started_and_no_login_is(built: Image) -> None:
    assert 'Fast link dest: "/usr/lib/systemd/system/coworkd.target"' in debugfs(
        built, "stat /etc/systemd/system/default.target"
    )
    there = debugfs(built, "ls -p /usr/lib/systemd/system")
    assert [unit for unit in UNITS if f"/{unit}/" not in there] == []
    for getty in ("getty@.service", "serial-getty@.service"):
        assert 'Fast link dest: "/dev/null"' in debugfs(built, f"stat /etc/systemd/system/{getty}")


def test_code_is_compiled_unchecked_and_policies_are_there(built: Image) -> None:
    names = debugfs(built, "ls -p /opt/coworkd/lib/coworkd/__pycache__")
    compiled = re.findall(r"/(app\.cpython-3\d+\.pyc)/", names)
    assert len(compiled) == 1
    raw = subprocess.run(
        ["debugfs", "-R", f"cat /opt/coworkd/lib/coworkd/__pycache__/{compiled[0]}", str(built.rootfs)],
        capture_output=True,
        check=True,
    ).stdout
    assert int.from_bytes(raw[4:8], "little") == 1
    assert "/default.toml/" in debugfs(built, "ls -p /opt/coworkd/share/coworkd/policies/profiles")
    assert set(json.loads(debugfs(built, "cat /opt/coworkd/share/coworkd/presets.json"))["presets"]) >= {"python"}


def test_it_is_of_no_machine_and_of_no_moment(built: Image) -> None:
    assert debugfs(built, "cat /etc/hostname") == "claude\n"
    assert debugfs(built, "cat /etc/machine-id") == ""
    stat = debugfs(built, "stat /opt/coworkd/lib/coworkd/app.py")
    times = set(re.findall(r"^ ?[cam]time: (0x[0-9a-f]+:[0-9a-f]+)", stat, re.MULTILINE))
    assert len(times) == 1


def test_a_guest_without_a_root_says_why_and_switches_itself_off(image: Image, tmp_path: Path) -> None:
    log = tmp_path / "serial"
    machine = [
        "qemu-system-x86_64",
        "-M",
        "q35",
        "-accel",
        "tcg",
        "-m",
        "512",
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
    ]
    boot = [
        "-kernel",
        str(image.kernel),
        "-initrd",
        str(image.initrd),
        "-append",
        f"{image.command_line} cowork.root_wait=1",
    ]
    done = subprocess.run(
        [*machine, "-serial", f"file:{log}", *boot], capture_output=True, text=True, timeout=300, check=False
    )
    said = log.read_text(errors="replace")
    assert done.returncode == 0, done.stderr
    assert "cowork-initrd: no disk with the root (LABEL=cowork-root) came within 1 s" in said
    assert "Kernel panic" not in said
