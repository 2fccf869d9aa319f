"""The units of `systemd/`: what they must say, and what the launcher's must never."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[1] / "systemd"
PROGRAMS = ("coworkd", "coworkd-launcher", "coworkd-egress")

REACHES_A_PAYLOAD = (
    # seccomp-based, or implying NoNewPrivileges (systemd.exec(5))
    "NoNewPrivileges", "SystemCall", "Restrict", "LockPersonality", "MemoryDenyWriteExecute", "ProtectClock", "ProtectHostname",
    "PrivateDevices", "ProtectKernel", "DynamicUser",
    # mount namespace
    "Protect", "Private", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "Bind", "Temporary",
    "Root", "Mount", "Extension", "ProcSubset", "StateDirectory", "CacheDirectory", "LogsDirectory", "ConfigurationDirectory",
    # what a command would inherit
    "CapabilityBoundingSet", "AmbientCapabilities", "SecureBits", "IPAddress", "Environment", "User", "Group", "Supplementary",
    "NetworkNamespacePath", "IPCNamespacePath", "SELinux", "AppArmor", "Smack", "Personality", "KeyringMode",
)  # fmt: skip


def read(name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / f"{name}.service")
    return dict(parser["Service"])


def test_nothing_of_the_launchers_unit_reaches_a_payload() -> None:
    said = [key for key in read("coworkd-launcher") if key.startswith(REACHES_A_PAYLOAD)]
    assert said == []


def test_the_launcher_gets_its_own_cgroup_and_takes_it_along() -> None:
    service = read("coworkd-launcher")
    assert (service["Delegate"], service["KillMode"], service["Restart"]) == ("yes", "control-group", "always")
    assert "--delegated" in service["ExecStart"].split()


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_restarts_for_ever_and_is_the_last_to_be_killed_for_memory(name: str) -> None:
    service = read(name)
    assert service["Restart"] == "always"
    assert int(service["OOMScoreAdjust"]) <= -900
    assert service["MemoryMin"].endswith("M")
    assert "StartLimitIntervalSec=0" in (UNITS / f"{name}.service").read_text()


def test_what_the_units_are_promised_their_slice_is_promised_too() -> None:
    """memory.min of a cgroup counts only as far as those above it have it (cgroup-v2.rst)."""
    promised = sum(int(read(name)["MemoryMin"].removesuffix("M")) for name in PROGRAMS)
    assert f"MemoryMin={promised}M" in (UNITS / "coworkd.slice").read_text()
    assert {read(name)["Slice"] for name in PROGRAMS} == {"coworkd.slice"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_that_is_started_is_there(name: str) -> None:
    program = Path(read(name)["ExecStart"].split()[0])
    ours = UNITS / "bin" / program.name
    assert program.parent == Path("/opt/coworkd/bin")
    assert ours.stat().st_mode & 0o111
    compile(ours.read_text(), str(ours), "exec")
