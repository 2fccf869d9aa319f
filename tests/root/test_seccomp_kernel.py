"""The real programs in the real kernel: what it answers is what our interpreter said it would.

Each probe runs in a short child that gives up root, sets no_new_privs, installs both filters, and makes sure from /proc that they
are installed before it makes a call. No probe connects anywhere or could start a process if a filter failed.
"""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from coworkd.model.policy import SeccompBase
from coworkd.seccomp import Arch, compile_program, host_arch, host_kernel, load_base, load_oci
from coworkd.seccomp.generate import generate_program
from coworkd.seccomp.interpreter import decode_program, encode_program, run_program, seccomp_data
from coworkd.seccomp.numbers import X32_BIT, numbers

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
UID = 47_112

CHILD = r"""
import ctypes, json, os, sys
libc = ctypes.CDLL("libc.so.6", use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
paths, work = json.loads(sys.argv[1]), json.loads(sys.argv[2])
programs = [open(path, "rb").read() for path in paths]
os.setgroups([]); os.setresgid(%(uid)d, %(uid)d, %(uid)d); os.setresuid(%(uid)d, %(uid)d, %(uid)d)
os.chdir("/")
if libc.prctl(38, 1, 0, 0, 0): raise OSError(ctypes.get_errno(), "no_new_privs")
status = lambda: open("/proc/self/status").read()
before = int(status().split("Seccomp_filters:")[1].split()[0])
for code in programs:
    if libc.prctl(22, 2, ctypes.byref(Program(len(code) // 8, code)), 0, 0): raise OSError(ctypes.get_errno(), "seccomp")
assert int(status().split("Seccomp_filters:")[1].split()[0]) == before + len(programs)
if "exec" in work:
    os.execvp(work["exec"][0], work["exec"])
if "machine_code" in work:
    import mmap
    page = mmap.mmap(-1, 4096, prot=7); page.write(bytes.fromhex(work["machine_code"]))
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
answers = []
libc.syscall.restype = ctypes.c_long
for number, arguments in work.get("probes", []):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(argument) for argument in arguments))
    answers.append(ctypes.get_errno() if result == -1 else 0)
    if result >= 0 and work.get("close"): os.close(result)
print(json.dumps(answers))
""" % {"uid": UID}  # noqa: UP031

HIGH = 1 << 32
CLONE_NEWNS_AND_FS = 0x20200  # the kernel refuses the pair with EINVAL, so it starts nothing if a filter should fail
REFUSED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("socket", (40, 1, 0)),
    ("socket", (40 | HIGH, 1, 0)),
    ("socket", (40 | 0xFFFF_FFFF << 32, 1 | 0o2000000, 0)),
    ("socket", (38, 5, 0)),
    ("socket", (17, 3, 0)),
    ("socket", (16, 3, 9)),
    ("socket", (16, 3, 9 | HIGH)),
    ("socket", (2, 1, 262)),
    ("socket", (10, 1 | 0o4000, 262 | HIGH)),
    ("socket", (2, 2, 136)),
    ("socket", (2, 5, 0)),
    ("socket", (2, 10, 0x300)),
    ("socketpair", (40, 1, 0, 0)),
    ("ioctl", (0xFFFF_FFFF, 0x5412, 0)),
    ("ioctl", (0xFFFF_FFFF, 0x5412 | HIGH, 0)),
    ("ioctl", (0xFFFF_FFFF, 0x541C, 0)),
    ("ioctl", (0xFFFF_FFFF, 0x5423 | 7 << 40, 0)),
    ("clone", (CLONE_NEWNS_AND_FS, 0, 0, 0, 0)),
    ("clone", (CLONE_NEWNS_AND_FS | HIGH, 0, 0, 0, 0)),
    ("clone3", (0, 0)),
    ("unshare", (0,)),
    ("setns", (0xFFFF_FFFF, 0)),
    ("keyctl", (99, 0, 0, 0, 0)),
    ("add_key", (0, 0, 0, 0, 0)),
    ("bpf", (0xFFFF, 0, 0)),
    ("perf_event_open", (0, 0, 0, 0, 0)),
    ("userfaultfd", (0xFFFF_FFFF,)),
    ("io_uring_setup", (0, 0)),
    ("io_uring_enter", (0xFFFF_FFFF, 0, 0, 0, 0, 0)),
    ("io_uring_register", (0xFFFF_FFFF, 0, 0, 0)),
    ("pidfd_getfd", (0xFFFF_FFFF, 0, 0)),
    ("process_madvise", (0xFFFF_FFFF, 0, 0, 0, 0)),
    ("kcmp", (1, 1, 99, 0, 0)),
    ("open_by_handle_at", (0xFFFF_FFFF, 0, 0)),
    ("fanotify_init", (0xFFFF_FFFF, 0)),
    ("open_tree", (0xFFFF_FFFF, 0, 0xFFFF_FFFF)),
    ("open_tree_attr", (0xFFFF_FFFF, 0, 0xFFFF_FFFF, 0, 0)),
    ("fsopen", (0, 0xFFFF_FFFF)),
    ("mount_setattr", (0xFFFF_FFFF, 0, 0, 0, 0)),
    ("memfd_secret", (0xFFFF_FFFF,)),
    ("vmsplice", (0xFFFF_FFFF, 0, 0, 0)),
    ("mbind", (0, 0, 99, 0, 0, 0)),
    ("personality", (0x0040_0000,)),
    ("personality", (0x0040_0000 | HIGH,)),
    ("adjtimex", (0,)),
)
ALLOWED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("getpid", ()),
    ("socket", (1, 1, 0)),
    ("socket", (1 | HIGH, 1 | 0o2000000, 0)),
    ("socket", (2, 1 | 0o2000000 | 0o4000, 6)),
    ("socket", (10, 2, 17)),
    ("socket", (16, 3 | 0o2000000, 0)),
    ("ioctl", (0xFFFF_FFFF, 0x5401, 0)),
    ("personality", (0xFFFF_FFFF,)),
    ("membarrier", (0, 0, 0)),
    ("mseal", (1, 0, 0)),
    ("ptrace", (0xFFFF, 0, 0, 0)),
)


def run_child(programs: Sequence[bytes], work: dict[str, object], where: Path) -> subprocess.CompletedProcess[str]:
    """Run the child; the programs are read before root is given up."""
    paths = []
    for place, bpf in enumerate(programs):
        path = where / f"{place}.bpf"
        path.write_bytes(bpf)
        paths.append(str(path))
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHILD, json.dumps(paths), json.dumps(work)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
    )


def answers(programs: Sequence[bytes], probes: Sequence[tuple[int, tuple[int, ...]]], where: Path) -> list[int]:
    done = run_child(programs, {"probes": probes}, where)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def predicted(programs: Sequence[bytes], number: int, arguments: tuple[int, ...]) -> int:
    """The return value the kernel must act upon: the strictest, and between equally strict ones the last installed."""
    data = seccomp_data(host_arch().audit, number, (*arguments, *(0,) * (6 - len(arguments))))
    values = [run_program(decode_program(bpf), data) for bpf in reversed(programs)]
    # SECCOMP_RET_ACTION_FULL as a signed number orders the actions, KILL_PROCESS lowest.
    return min(values, key=lambda value: (value & 0xFFFF_0000) ^ 0x8000_0000)


def stack(profile: SeccompBase, maker: str) -> list[bytes]:
    """Base and admin filter, made by libseccomp (or whatever the compiler falls back to) or by our own generator."""
    data = (ROOT / "policies/seccomp/default.json").read_bytes()
    rulesets = (
        load_base(profile, host_arch()),
        load_oci(data, name="default.json", arch=host_arch(), kernel=host_kernel()),
    )
    if maker == "generate":
        return [encode_program(generate_program(ruleset)) for ruleset in rulesets]
    return [compile_program(ruleset, cache_dir=None).bpf for ruleset in rulesets]


def resolve(probes: Sequence[tuple[str, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    known = numbers(host_arch())
    return [(known[name], arguments) for name, arguments in probes if name in known]


@pytest.mark.parametrize("profile", ["dev", "strict"])
@pytest.mark.parametrize("maker", ["compile", "generate"])
def test_kernel_refuses_as_the_interpreter_predicts(profile: SeccompBase, maker: str, tmp_path: Path) -> None:
    programs = stack(profile, maker)
    probes = resolve(REFUSED)
    if host_arch() is Arch.X86_64:
        probes += [(39 | X32_BIT, ()), (41 | X32_BIT, (40, 1, 0)), (X32_BIT + 520, (0, 0, 0))]
    wanted = [predicted(programs, number, arguments) for number, arguments in probes]
    assert all(value >> 16 == 5 for value in wanted), "every probe must be one a filter refuses with an errno"
    got = answers(programs, probes, tmp_path)
    differing = [
        (probe, answer) for probe, answer, value in zip(probes, got, wanted, strict=True) if answer != value & 0xFFFF
    ]
    assert differing == []


def test_refusal_of_vsock_is_address_family(tmp_path: Path) -> None:
    probes = resolve([("socket", (40, 1, 0)), ("socket", (40 | HIGH, 1, 0)), ("socketpair", (40, 1, 0, 0))])
    assert answers(stack("dev", "compile"), probes, tmp_path) == [errno.EAFNOSUPPORT] * 3


def test_allowed_calls_answer_as_without_filters(tmp_path: Path) -> None:
    programs = stack("dev", "compile")
    probes = resolve(ALLOWED)
    assert [predicted(programs, number, arguments) for number, arguments in probes] == [0x7FFF_0000] * len(probes)
    assert answers(programs, probes, tmp_path) == answers([], probes, tmp_path)


def test_strict_refuses_ptrace_and_dev_does_not(tmp_path: Path) -> None:
    probes = resolve([("ptrace", (0xFFFF, 0, 0, 0)), ("process_vm_readv", (0, 0, 0, 0, 0, 99))])
    assert answers(stack("strict", "compile"), probes, tmp_path) == [errno.EPERM, errno.EPERM]
    assert answers(stack("dev", "compile"), probes, tmp_path) == [errno.ESRCH, errno.EINVAL]


@pytest.mark.skipif(host_arch() is not Arch.X86_64, reason="int 0x80 is an x86 instruction")
def test_foreign_architecture_is_killed(tmp_path: Path) -> None:
    getpid_by_int80 = "b814000000cd80c3"
    done = run_child(stack("dev", "compile"), {"machine_code": getpid_by_int80}, tmp_path)
    assert done.returncode == -signal.SIGSYS
    assert run_child([], {"machine_code": getpid_by_int80}, tmp_path).returncode == 0


def _commands() -> list[list[str]]:
    wanted = [
        [sys.executable, "-c", "import subprocess, threading; subprocess.run(['true'], check=True);"
         "t = threading.Thread(target=print); t.start(); t.join()"],
        ["node", "-e", "require('child_process').execSync('true'); require('fs').readdirSync('/')"],
        ["npm", "--version"],
        ["git", "--version"],
        ["java", "-version"],
        ["cmake", "--version"],
        ["go", "version"],
        ["mvn", "--version"],
        ["gcc", "-x", "c", "-o", "/dev/null", "/dev/null", "-c"],
        ["getent", "hosts", "localhost"],
        ["ip", "address"],
    ]  # fmt: skip
    return [command for command in wanted if shutil.which(command[0])]


@pytest.mark.parametrize("profile", ["dev", "strict"])
@pytest.mark.parametrize("command", _commands(), ids=lambda command: Path(command[0]).name)
def test_programs_work_under_both_filters(command: list[str], profile: SeccompBase, tmp_path: Path) -> None:
    done = run_child(stack(profile, "generate"), {"exec": command}, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb on this machine")
def test_gdb_works_under_dev(tmp_path: Path) -> None:
    command = ["gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "run", "/bin/true"]
    done = run_child(stack("dev", "generate"), {"exec": command}, tmp_path)
    assert "exited normally" in done.stdout, done.stdout + done.stderr
