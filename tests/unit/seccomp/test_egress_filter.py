"""The filter of coworkd-egress, call by call, as someone would try it who has taken it over."""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOSYS, EPERM

import pytest

from coworkd.seccomp import check_program
from coworkd.seccomp.egress_filter import load_egress_filter
from coworkd.seccomp.generate import generate_program
from coworkd.seccomp.interpreter import encode_program
from coworkd.seccomp.numbers import Arch, numbers
from coworkd.seccomp.rules import Kind
from coworkd.seccomp.verdict import Oracle

HIGH = 1 << 32
BOTH = pytest.mark.parametrize("arch", list(Arch))


def errno_of(arch: Arch, call: str, *arguments: int) -> int:
    """The errno the filter gives, 0 for ALLOW."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    action = Oracle(load_egress_filter(arch)).judge(arch.audit, numbers(arch)[call], padded).action
    assert action.kind in (Kind.ALLOW, Kind.ERRNO)
    return action.errno


@BOTH
def test_a_program_can_be_made_and_says_the_same(arch: Arch) -> None:
    ruleset = load_egress_filter(arch)
    check_program(ruleset, encode_program(generate_program(ruleset)))


@BOTH
@pytest.mark.parametrize(
    "calls",
    [
        "execve execveat bind listen ptrace process_vm_readv process_vm_writev pidfd_getfd pidfd_open",
        "kill tgkill tkill setuid setresuid setgid setgroups capset unshare setns mount chroot",
        "unlinkat mkdirat renameat2 linkat symlinkat mknodat fchmodat fchownat truncate utimensat",
        "io_uring_setup bpf perf_event_open userfaultfd keyctl init_module kexec_load reboot personality",
        "openat2 open_by_handle_at name_to_handle_at memfd_secret process_madvise setrlimit",
    ],
)
def test_refused_whatever_the_arguments(arch: Arch, calls: str) -> None:
    for call in calls.split():
        assert errno_of(arch, call) == EPERM, call
        assert errno_of(arch, call, *[0xFFFF_FFFF_FFFF_FFFF] * 6) == EPERM, call


@BOTH
@pytest.mark.parametrize(
    ("call", "arguments", "errno"),
    [
        ("socket", (2, 1 | 0o2000000, 6), 0),
        ("socket", (10, 2, 17), 0),
        ("socket", (1, 1, 0), 0),
        ("socket", (40, 1, 0), 0),
        ("socket", (2, 3, 1), EPERM),
        ("socket", (2 | HIGH, 3, 1), EPERM),
        ("socket", (16, 3, 0), EAFNOSUPPORT),
        ("socket", (17, 3, 0), EAFNOSUPPORT),
        ("socket", (16 | HIGH, 2, 0), EAFNOSUPPORT),
        ("openat", (0, 0, 0o2000000, 0), 0),
        ("openat", (0, 0, 1, 0), EPERM),
        ("openat", (0, 0, 2, 0), EPERM),
        ("openat", (0, 0, 0o100, 0o600), EPERM),
        ("openat", (0, 0, 0o20000000, 0o600), EPERM),
        ("openat", (0, 0, 0o1000, 0), EPERM),
        ("clone", (0x3D0F00, 0, 0, 0, 0), 0),
        ("clone", (17, 0, 0, 0, 0), EPERM),
        ("clone", (0x1000_0000 | 0x10000, 0, 0, 0, 0), EPERM),
        ("clone3", (0, 0), ENOSYS),
        ("mmap", (0, 4096, 5, 2, 3, 0), 0),
        ("mmap", (0, 4096, 7, 0x22, 0, 0), EPERM),
        ("mprotect", (0, 4096, 1), 0),
        ("mprotect", (0, 4096, 4), EPERM),
        ("prlimit64", (0, 7, 0, 1), 0),
        ("prlimit64", (0, 7, 1, 0), EPERM),
        ("ioctl", (0, 0x541B, 0), 0),
        ("ioctl", (0, 0x5412, 0), EPERM),
        ("prctl", (15, 0), 0),
        ("prctl", (4, 1), EPERM),
    ],
)
def test_judged_by_arguments(arch: Arch, call: str, arguments: tuple[int, ...], errno: int) -> None:
    assert errno_of(arch, call, *arguments) == errno
