"""Doctor: each check from made-up facts, good and bad."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from coworkd.model.calls import EgressPresets, Finding, PresetShown
from coworkd.sandbox.bwrap_plan import REQUIRED_OPTIONS
from coworkd.services import doctor
from coworkd.services.doctor import AuditFacts, DirectoryFacts, SocketFacts, examine
from coworkd.services.doctor_network import CAPABILITY_SETS

HELP = " ".join([*REQUIRED_OPTIONS, "--disable-userns"])
MOUNTINFO = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
FILES = {
    "/proc/self/mountinfo": MOUNTINFO,
    "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "/proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno user_notif trace log allow\n",
    "/proc/sys/user/max_user_namespaces": "15000\n",
    "/proc/self/oom_score_adj": "-1000\n",
    "/proc/7/oom_score_adj": "-1000\n",
    "/proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "/etc/subuid": "ubuntu:100000:65536\n",
    "/etc/resolv.conf": "# made\nsearch example\nnameserver 198.51.100.53\n",
    "/proc/7/status": "Name:\tpython3\nUid:\t61184\t61184\t61184\t61184\nGid:\t61184\t61184\t61184\t61184\n"
    + "".join(f"{name}:\t0000000000000000\n" for name in CAPABILITY_SETS)
    + "NoNewPrivs:\t1\nSeccomp:\t2\n",
}
PRESETS = EgressPresets(
    presets={"python": PresetShown(hosts=("index.example",), made_from=("/etc/pip.conf",))}, file="/p.json", made_at=1.0
)
SOCKET = SocketFacts(mode=0o600, uid=0, parent_mode=0o40755, parent_uid=0)


class Machine:
    """A machine where all is well, but for what a test changes: a value, or an `OSError` to raise."""

    def __init__(self, files: dict[str, str] | None = None, **facts: Any) -> None:
        self._files = {**FILES, **(files or {})}
        self._facts = {
            "python_version": (3, 11, 2),
            "uid": 0,
            "kernel_release": "6.8.0-45-generic",
            "bwrap_help": ("0.8.0", HELP),
            "try_bwrap": "",
            "seccomp_binding": "seccomp",
            "launcher": "pid 7",
            "state_directory": DirectoryFacts(mode=0o40700, uid=0, free_bytes=1 << 40),
            "audit_end": AuditFacts(seq=7, head="a" * 64, torn_bytes=0, broken=None),
            "try_proc_connector": None,
            "try_mount_api": None,
            "open_fuse": None,
            "now": doctor.RELEASED_AT + 1,
            "sockets": {"/run/coworkd/coworkd.sock": SOCKET},
            "egress_pid": 7,
            "egress_degraded": (),
            "presets": PRESETS,
            "upstream": "direct",
            "default_routes": ("eth0 via 198.51.100.1",),
            "try_upstream": None,
            "reachability": None,
            "resolve": None,
            "storage": None,
            "missing_tools": (),
            **facts,
        }

    def read(self, path: str) -> str:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._files[path]

    def __getattr__(self, name: str) -> Any:
        def probe(*_: Any) -> Any:
            found = self._facts[name]
            if isinstance(found, OSError):
                raise found
            return found

        return probe


def find(check: str, machine: Machine) -> Finding:
    (found,) = [finding for finding in examine(machine) if finding.check == check]
    return found


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_all_is_well_on_a_good_machine() -> None:
    findings = examine(Machine())
    assert [finding for finding in findings if finding.state != "ok"] == []
    assert [finding.check for finding in findings] == list(doctor.CHECKS)


BAD = [
    ("python", "failed", Machine(python_version=(3, 9, 18)), "3.10"),
    ("root", "failed", Machine(uid=1000), "sudo"),
    ("kernel", "failed", Machine(kernel_release="5.10.0-28-amd64"), "5.12"),
    ("bubblewrap", "failed", Machine(bwrap_help=error(errno.ENOENT)), "apt install bubblewrap"),
    ("bubblewrap", "failed", Machine(bwrap_help=("0.4.0", "--unshare-user")), "0.6.1"),
    ("user-namespaces", "failed", Machine(files={"/proc/sys/user/max_user_namespaces": "0"}), "sysctl"),
    ("user-namespaces", "failed", Machine(files={"/proc/sys/kernel/unprivileged_userns_clone": "0"}), "sysctl"),
    ("user-namespaces", "degraded", Machine(try_bwrap=error(errno.ENOENT)), "apt install"),
    ("user-namespaces", "failed", Machine(try_bwrap="No permissions to create new namespace"), "LSM"),
    (
        "user-namespaces",
        "failed",
        Machine(
            files={"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            try_bwrap="setting up uid map: Permission denied",
        ),
        "/etc/apparmor.d/coworkd-bwrap",
    ),
    ("cgroup", "degraded", Machine(files={"/proc/self/mountinfo": ""}), "unified_cgroup_hierarchy"),
    ("cgroup", "degraded", Machine(files={"/sys/fs/cgroup/cgroup.controllers": "cpu"}), "unified_cgroup_hierarchy"),
    ("seccomp", "failed", Machine(files={"/proc/sys/kernel/seccomp/actions_avail": ""}), "CONFIG_SECCOMP_FILTER"),
    ("seccomp", "failed", Machine(seccomp_binding=""), "python3-seccomp"),
    ("launcher", "failed", Machine(launcher=error(errno.ECONNREFUSED)), "systemctl restart"),
    ("state-directory", "failed", Machine(state_directory=error(errno.EROFS)), "state_dir"),
    (
        "state-directory",
        "failed",
        Machine(state_directory=DirectoryFacts(mode=0o40777, uid=0, free_bytes=1 << 40)),
        "chmod",
    ),
    (
        "state-directory",
        "failed",
        Machine(state_directory=DirectoryFacts(mode=0o40700, uid=1001, free_bytes=1 << 40)),
        "chown",
    ),
    (
        "state-directory",
        "degraded",
        Machine(state_directory=DirectoryFacts(mode=0o40700, uid=0, free_bytes=100 << 20)),
        "grow",
    ),
    (
        "state-directory",
        "failed",
        Machine(state_directory=DirectoryFacts(mode=0o40700, uid=0, free_bytes=1 << 20)),
        "grow",
    ),
    ("audit", "failed", Machine(audit_end=AuditFacts(seq=7, head="a", torn_bytes=0, broken="changed")), "verify"),
    ("audit", "degraded", Machine(audit_end=AuditFacts(seq=7, head="a", torn_bytes=9, broken=None)), "start coworkd"),
    ("proc-connector", "degraded", Machine(try_proc_connector=error(errno.EPERM)), "CAP_NET_ADMIN"),
    ("mount-api", "failed", Machine(try_mount_api=error(errno.ENOSYS)), "5.12"),
    ("mount-api", "failed", Machine(try_mount_api=error(errno.EPERM)), "CAP_SYS_ADMIN"),
    ("fuse", "degraded", Machine(open_fuse=error(errno.ENOENT)), "modprobe fuse"),
    ("subordinate-ids", "degraded", Machine(files={"/etc/subuid": "bob:50000:65536\n"}), "100000"),
    ("subordinate-ids", "degraded", Machine(files={"/etc/subgid": "bob:1:2000\n"}), "100000"),
    ("clock", "degraded", Machine(now=12.0), "sync_clock"),
    ("clock", "degraded", Machine(now=doctor.IMPLAUSIBLE_AT), "sync_clock"),
    ("sockets", "degraded", Machine(sockets={"/s": None}), "systemctl start coworkd"),
    (
        "sockets",
        "failed",
        Machine(sockets={"/s": SocketFacts(mode=0o666, uid=0, parent_mode=0o755, parent_uid=0)}),
        "0600",
    ),
    (
        "sockets",
        "failed",
        Machine(sockets={"/s": SocketFacts(mode=0o600, uid=9, parent_mode=0o755, parent_uid=0)}),
        "chown",
    ),
    (
        "sockets",
        "failed",
        Machine(sockets={"/s": SocketFacts(mode=0o600, uid=0, parent_mode=0o777, parent_uid=0)}),
        "go-w",
    ),
    ("kernel", "degraded", Machine(kernel_release=error(errno.EACCES)), "as root"),
]


@pytest.mark.parametrize(("check", "state", "machine", "remedy"), BAD)
def test_check_tells_state_and_remedy(check: str, state: str, machine: Machine, remedy: str) -> None:
    found = find(check, machine)
    assert found.state == state
    assert remedy in found.remedy


@pytest.mark.parametrize(("check", "state", "machine", "remedy"), BAD)
def test_one_fault_spoils_no_other_check(check: str, state: str, machine: Machine, remedy: str) -> None:
    spoilt = {finding.check for finding in examine(machine) if finding.state != "ok"}
    related = {"bubblewrap": {"user-namespaces"}}
    assert check in spoilt
    assert spoilt <= {check} | related.get(check, set())


GOOD = [
    ("bubblewrap", Machine(bwrap_help=("0.6.1", " ".join(REQUIRED_OPTIONS)))),
    ("kernel", Machine(kernel_release="5.15.0-91-generic")),
    ("audit", Machine(audit_end=error(errno.ENOENT))),
    ("subordinate-ids", Machine(files={"/etc/subuid": "bob:1:1000\nnonsense\nbob:60000:5000\n"})),
    ("sockets", Machine(sockets={"/s": SocketFacts(mode=0o600, uid=0, parent_mode=0o41777, parent_uid=0)})),
    ("user-namespaces", Machine(files={"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"})),
]


@pytest.mark.parametrize(("check", "machine"), GOOD)
def test_check_is_content_with_what_works(check: str, machine: Machine) -> None:
    assert find(check, machine).state == "ok"
