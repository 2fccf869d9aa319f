"""The base filter, call by call, as an attacker would spell it."""

from __future__ import annotations

import os
from errno import EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from pathlib import Path

import pytest

from coworkd.model.policy import SeccompBase
from coworkd.seccomp.base_filter import load_base
from coworkd.seccomp.numbers import Arch, numbers
from coworkd.seccomp.oci import load_oci
from coworkd.seccomp.rules import ALLOW, Action, Kind
from coworkd.seccomp.verdict import Oracle

HIGH = 1 << 32
ONES = 0xFFFF_FFFF << 32
ROOT = Path(__file__).resolve().parents[3]
BOTH = pytest.mark.parametrize("arch", list(Arch))


def errno_of(arch: Arch, call: str, *arguments: int, profile: SeccompBase = "dev") -> int:
    """The errno the base filter gives, 0 for ALLOW."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    action = Oracle(load_base(profile, arch)).judge(arch.audit, numbers(arch)[call], padded).action
    assert action.kind in (Kind.ALLOW, Kind.ERRNO)
    return action.errno


@BOTH
@pytest.mark.parametrize(
    ("calls", "errno"),
    [
        ("clone3 open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr", ENOSYS),
        ("vmsplice memfd_secret lookup_dcookie nfsservctl", ENOSYS),
        ("unshare setns mount umount2 pivot_root chroot keyctl add_key request_key bpf perf_event_open", EPERM),
        ("userfaultfd io_uring_setup io_uring_enter io_uring_register pidfd_getfd kcmp process_madvise", EPERM),
        ("init_module finit_module delete_module kexec_load kexec_file_load swapon swapoff reboot acct", EPERM),
        ("quotactl quotactl_fd syslog settimeofday clock_settime clock_adjtime sethostname setdomainname", EPERM),
        ("open_by_handle_at fanotify_init mbind set_mempolicy get_mempolicy migrate_pages move_pages", EPERM),
    ],
)
def test_base_refuses_whatever_the_arguments(arch: Arch, calls: str, errno: int) -> None:
    for call in calls.split():
        assert errno_of(arch, call) == errno, call
        assert errno_of(arch, call, *[0xFFFF_FFFF_FFFF_FFFF] * 6) == errno, call


@BOTH
@pytest.mark.parametrize("call", ["socket", "socketpair"])
@pytest.mark.parametrize(
    ("family", "kind", "protocol", "errno"),
    [
        (40, 1, 0, EAFNOSUPPORT),
        (40 | HIGH, 1, 0, EAFNOSUPPORT),
        (40 | ONES, 2, 0, EAFNOSUPPORT),
        (0, 1, 0, EAFNOSUPPORT),
        (17, 3, 0, EAFNOSUPPORT),
        (38, 5, 0, EAFNOSUPPORT),
        (45, 3, 0, EAFNOSUPPORT),
        (0xFFFF_FFFF, 1, 0, EAFNOSUPPORT),
        (16, 3, 9, EAFNOSUPPORT),
        (16 | HIGH, 3, 15 | HIGH, EAFNOSUPPORT),
        (2, 1, 262, EPROTONOSUPPORT),
        (2 | HIGH, 1 | HIGH, 262 | HIGH, EPROTONOSUPPORT),
        (10, 2 | 0o4000, 136, EPROTONOSUPPORT),
        (2, 1, 132, EPROTONOSUPPORT),
        (2, 3, 255, EPERM),
        (10, 3 | 0o2004000, 58, EPERM),
        (2, 3 | HIGH, 1, EPERM),
        (2, 10, 0x300, ESOCKTNOSUPPORT),
        (2, 5, 0, ESOCKTNOSUPPORT),
        (2, 6, 33, ESOCKTNOSUPPORT),
        (2, 0, 0, ESOCKTNOSUPPORT),
    ],
)
def test_base_refuses_sockets(arch: Arch, call: str, family: int, kind: int, protocol: int, errno: int) -> None:
    assert errno_of(arch, call, family, kind, protocol) == errno


@BOTH
@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [(1, 1, 0), (1, 5 | 0o2000000, 0), (2, 1 | 0o4000, 6), (2, 2, 17), (2, 2, 1), (10, 2, 58), (16, 3 | 0o2000000, 0),
     (2 | HIGH, 1 | HIGH, 6 | HIGH)],
)  # fmt: skip
def test_base_allows_usual_sockets(arch: Arch, family: int, kind: int, protocol: int) -> None:
    assert errno_of(arch, "socket", family, kind, protocol) == 0


@BOTH
@pytest.mark.parametrize(
    "flag", [0x20000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
)
def test_base_refuses_each_new_namespace_of_clone(arch: Arch, flag: int) -> None:
    for flags in (flag, flag | 17, flag | HIGH, flag | 0x3D0F00):
        assert errno_of(arch, "clone", flags) == EPERM


@BOTH
@pytest.mark.parametrize("flags", [17, 0x3D0F00, 0x1200011, 0x80, 0x4111 | HIGH])
def test_base_allows_threads_and_forks(arch: Arch, flags: int) -> None:
    assert errno_of(arch, "clone", flags) == 0


@BOTH
@pytest.mark.parametrize("command", [0x5412, 0x541C, 0x5423, 0x541D])
def test_base_refuses_terminal_ioctls_on_32_bits(arch: Arch, command: int) -> None:
    for spelling in (command, command | HIGH, command | ONES):
        assert errno_of(arch, "ioctl", 0, spelling) == EPERM
    assert errno_of(arch, "ioctl", 0, command + 1 + 0x100) == 0


@BOTH
@pytest.mark.parametrize("call", ["ptrace", "process_vm_readv", "process_vm_writev"])
def test_base_lets_debuggers_work_in_dev_alone(arch: Arch, call: str) -> None:
    assert errno_of(arch, call, profile="dev") == 0
    assert errno_of(arch, call, profile="strict") == EPERM


@BOTH
@pytest.mark.parametrize(
    ("persona", "dev", "strict"),
    [(0, 0, 0), (8, 0, 0), (0x20008, 0, 0), (0xFFFF_FFFF, 0, 0), (0xFFFF_FFFF | HIGH, 0, 0), (0x40000, 0, EPERM),
     (0x40_0000, EPERM, EPERM), (0x10_0000 | HIGH, EPERM, EPERM), (0x8000_0000, EPERM, EPERM),
     (0xFFFF_FFFE, EPERM, EPERM), (1, EPERM, EPERM)],
)  # fmt: skip
def test_base_limits_personality(arch: Arch, persona: int, dev: int, strict: int) -> None:
    assert errno_of(arch, "personality", persona, profile="dev") == dev
    assert errno_of(arch, "personality", persona, profile="strict") == strict


@BOTH
def test_base_never_kills_its_own_architecture(arch: Arch) -> None:
    for profile in ("dev", "strict"):
        kinds = {rule.action.kind for rule in load_base(profile, arch).rules}
        assert kinds == {Kind.ERRNO}


@BOTH
def test_base_allows_what_it_does_not_name(arch: Arch) -> None:
    assert load_base("strict", arch).default == ALLOW
    for call in ("read", "execve", "futex", "seccomp", "landlock_restrict_self", "pidfd_open", "prctl"):
        assert errno_of(arch, call, profile="strict") == 0


@BOTH
def test_default_admin_profile_changes_no_errno_of_the_base(arch: Arch) -> None:
    """Of two errnos the kernel returns the one of the filter installed last, the admin's."""
    admin = Oracle(
        load_oci((ROOT / "policies/seccomp/default.json").read_bytes(), name="default.json", arch=arch, kernel=(6, 8))
    )
    calls = [(rule.number, (0,) * 6, rule.action) for rule in load_base("strict", arch).rules if not rule.conditions]
    calls += [
        (numbers(arch)["socket"], (family, 1, 0, 0, 0, 0), Action(Kind.ERRNO, EAFNOSUPPORT)) for family in (0, 40)
    ]
    calls.append((numbers(arch)["clone"], (0x1000_0000, 0, 0, 0, 0, 0), Action(Kind.ERRNO, EPERM)))
    for number, arguments, action in calls:
        assert admin.judge(arch.audit, number, arguments).action in (ALLOW, action), number


@BOTH
@pytest.mark.parametrize(
    ("call", "position"),
    [("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("mknodat", 2), ("chmod", 1), ("creat", 1), ("mknod", 1)],
)
def test_base_refuses_set_id_bits_in_any_mode(arch: Arch, call: str, position: int) -> None:
    if call not in numbers(arch):
        assert (arch, call) in {(Arch.AARCH64, name) for name in ("chmod", "creat", "mknod")}
        return
    before = (0,) * position
    for mode in (0o4755, 0o2755, 0o6000, 0o104755, 0o4000 | HIGH, 0o2000 | ONES):
        assert errno_of(arch, call, *before, mode) == EPERM
    for mode in (0, 0o1777, 0o755, 0o100644, 0o4000 << 32):
        assert errno_of(arch, call, *before, mode) == 0


@BOTH
@pytest.mark.parametrize(("call", "before"), [("openat", (0, 0)), ("open", (0,))])
def test_base_refuses_set_id_bits_where_open_creates(arch: Arch, call: str, before: tuple[int, ...]) -> None:
    if call not in numbers(arch):
        assert (arch, call) == (Arch.AARCH64, "open")
        return
    for flags in (os.O_CREAT, os.O_CREAT | os.O_RDWR | HIGH, os.O_TMPFILE | os.O_WRONLY, 0o20000000, ONES | os.O_CREAT):
        for mode in (0o4755, 0o2755, 0o4000 | HIGH, 0o7777):
            assert errno_of(arch, call, *before, flags, mode) == EPERM
        assert errno_of(arch, call, *before, flags, 0o1777) == 0


@BOTH
def test_base_does_not_read_a_mode_that_open_ignores(arch: Arch) -> None:
    """syscall(SYS_openat, fd, path, O_RDONLY) leaves in the mode's register whatever was there."""
    assert errno_of(arch, "openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY, ONES | 0o6755) == 0


@BOTH
def test_base_refuses_openat2_so_that_callers_fall_back(arch: Arch) -> None:
    assert errno_of(arch, "openat2") == ENOSYS
    assert errno_of(arch, "openat2", profile="strict") == ENOSYS


@BOTH
def test_base_keeps_debuggers_off_the_init(arch: Arch) -> None:
    """It installs its filters after it has forked the command, so for a moment it has none."""
    for profile in ("dev", "strict"):
        for pid in (1, 1 | HIGH, 1 | ONES):
            assert errno_of(arch, "ptrace", 0x4206, pid, profile=profile) == EPERM
            assert errno_of(arch, "process_vm_readv", pid, profile=profile) == EPERM
            assert errno_of(arch, "process_vm_writev", pid, profile=profile) == EPERM
    assert errno_of(arch, "ptrace", 0x4206, 2) == errno_of(arch, "process_vm_readv", 11) == 0
    assert errno_of(arch, "ptrace", 0, 0) == 0
