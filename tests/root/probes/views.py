"""What a command sees: /proc, /sys, /dev, /etc and the rest of the tree, the guest's own files, its init."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import partial

from tests.root.probes.kernel import Given, attempt, probe, read_text, write_text

DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr"}
"""`core` is a link that bubblewrap makes to /proc/kcore, which is masked."""
HOST_ONLY = (
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/machine-id", "/etc/fstab", "/root", "/home", "/run",
    "/run/coworkd", "/run/systemd", "/boot", "/mnt", "/media", "/srv", "/var/log", "/var/lib", "/var/run", "/var/spool", "/var/cache",
    "/oldroot", "/newroot", "/.oldroot", "/lost+found", "/smol",
)  # fmt: skip
MADE_ANEW = {"/etc/ssh": {"ssh_config"}, "/etc/coworkd": {"connect.py", "java", "trust"}}
"""Directories of the guest's names that hold what coworkd makes for a session, and nothing else."""
NO_DEVICES = (
    "mem", "kmem", "port", "kmsg", "console", "tty0", "tty1", "ttyS0", "vsock", "vhost-vsock", "kvm", "fuse", "net/tun", "loop-control",
    "loop0", "vda", "sda", "dm-0", "mapper/control", "mqueue", "snapshot", "uinput", "hvc0", "virtio-ports", "vport0p1", "userfaultfd",
)  # fmt: skip


def _seen(paths: Iterator[str]) -> str:
    return " ".join(path for path in paths if os.path.lexists(path)) or "none"


@probe("view.host-paths")
def host_paths(_given: Given) -> str:
    strange = [
        os.path.join(directory, name)
        for directory, made in MADE_ANEW.items()
        for name in {*os.listdir(directory)} - made
    ]
    return _seen(iter((*HOST_ONLY, *strange)))


@probe("view.state-directory")
def state_directory(given: Given) -> str:
    """The state directory, its sockets, records, homes and audit log; also by way of the init's root and of `..`."""
    ways = ("", "/proc/1/root", "/proc/self/root", "/proc/1/cwd/../..", "/proc/self/cwd/../../../..", "/tmp/../..")
    return _seen(way + path for way in ways for path in given["host_paths"])


@probe("view.root-entries")
def root_entries(_given: Given) -> str:
    allowed = {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "opt",
        "proc",
        "sbin",
        "sessions",
        "sys",
        "tmp",
        "usr",
        "var",
    }
    return " ".join(sorted(set(os.listdir("/")) - allowed)) or "none"


@probe("view.sessions")
def sessions(given: Given) -> str:
    return (
        "own only"
        if os.listdir("/sessions") == [os.path.basename(given["home"])]
        else " ".join(os.listdir("/sessions"))
    )


@probe("view.passwd")
def passwd(given: Given) -> str:
    lines = read_text("/etc/passwd").splitlines() + read_text("/etc/group").splitlines()
    name = os.path.basename(given["home"])
    return (
        "own only"
        if len(lines) == 2 and all(line.startswith(f"{name}:x:{given['uid']}:") for line in lines)
        else "more"
    )


@probe("view.resolv-conf")
def resolv_conf(_given: Given) -> str:
    return "no nameserver" if "nameserver" not in read_text("/etc/resolv.conf") else "nameserver"


@probe("view.hostname")
def hostname(_given: Given) -> str:
    return os.uname().nodename


@probe("view.sys")
def sys_tree(_given: Given) -> str:
    """Below /sys there is the list of processors and nothing else."""
    found = [os.path.join(place, name) for place, _, names in os.walk("/sys") for name in names]
    return " ".join(path for path in found if not path.startswith("/sys/devices/system/cpu/")) or "cpu only"


@probe("view.mounts")
def mounts(given: Given) -> str:
    """No line of mountinfo names another session, or coworkd's directory but for this session's home and the trust of all."""
    known = (given["home"], "/etc/coworkd/trust", "/etc/ssl/certs")
    odd = []
    for line in read_text("/proc/self/mountinfo").splitlines():
        root, place = line.split()[3:5]
        if given["bob"]["name"] in line or (given["state"] in root and place not in known):
            odd.append(root)
    return " ".join(odd) or "none"


@probe("view.nosuid")
def nosuid(_given: Given) -> str:
    lines = read_text("/proc/self/mountinfo").splitlines()
    return " ".join(line.split()[4] for line in lines if "nosuid" not in line.split()[5]) or "everywhere"


@probe("view.read-only-roots")
def read_only_roots(_given: Given) -> str:
    places = ("/", "/usr", "/usr/bin", "/etc", "/etc/ssl", "/var", "/dev", "/sys", "/sessions", "/proc/sys", "/opt")
    made = [partial(os.mkdir, f"{place}/made-by-a-probe") for place in places if os.path.isdir(place)]
    found = {attempt(action) for action in made}
    return " ".join(sorted(found - {"EROFS", "EACCES", "ENOENT"})) or "refused"


@probe("view.mnt")
def mnt(given: Given) -> str:
    return attempt(lambda: os.mkdir(given["home"] + "/mnt/made-by-a-probe"))


# -- devices ------------------------------------------------------------------------------------------------------


@probe("device.names")
def device_names(_given: Given) -> str:
    return " ".join(sorted(set(os.listdir("/dev")) - DEVICES - {"core"})) or "listed only"


@probe("device.absent")
def device_absent(_given: Given) -> str:
    return _seen(f"/dev/{name}" for name in NO_DEVICES)


@probe("device.no-disk-node-anywhere")
def device_nodes(_given: Given) -> str:
    """Whatever the tree holds below /dev: memory and terminal devices, never a disk, never a vsock."""
    odd = []
    for place, _, names in os.walk("/dev"):
        for name in names:
            status = os.lstat(os.path.join(place, name))
            major_minor = (os.major(status.st_rdev), os.minor(status.st_rdev))
            allowed = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
            if stat.S_ISBLK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and major_minor not in allowed):
                odd.append(name)
    return " ".join(odd) or "none"


@probe("device.tty")
def device_tty(_given: Given) -> str:
    return attempt(lambda: os.open("/dev/tty", os.O_RDWR))


@probe("device.ptmx-is-own")
def ptmx_is_own(_given: Given) -> str:
    """The first terminal of its own devpts is number 0, and there was none before."""
    before = [name for name in os.listdir("/dev/pts") if name != "ptmx"]
    _, slave = os.openpty()
    return f"{len(before)} before, {os.ttyname(slave)}"


@probe("device.in-folder")
def device_in_folder(given: Given) -> str:
    """The host put a character device into the shared folder."""
    return attempt(lambda: os.open(given["planted_device"], os.O_RDWR))


@probe("device.dev-writable")
def dev_writable(_given: Given) -> str:
    return attempt(lambda: os.symlink("/tmp/x", "/dev/log"))


# -- /proc --------------------------------------------------------------------------------------------------------


@probe("proc.init-environment")
def init_environment(_given: Given) -> str:
    return read_text("/proc/1/environ") or "empty"


@probe("proc.init-cmdline")
def init_cmdline(_given: Given) -> str:
    """Neither a layout nor what it was asked to execute: that differs between a sandbox that waited and one that did not."""
    return " ".join(attempt(partial(read_text, path)) for path in ("/proc/1/cmdline", "/proc/1/task/1/cmdline"))


@probe("proc.init-root")
def init_root(_given: Given) -> str:
    same = os.path.samestat(os.stat("/proc/1/root/"), os.stat("/"))
    return "own root" if same and os.listdir("/proc/1/root/") == os.listdir("/") else "another"


@probe("proc.init-cwd")
def init_cwd(given: Given) -> str:
    return (
        "inside"
        if os.readlink("/proc/1/cwd").startswith(("/sessions/", "/"))
        and os.path.samestat(os.stat("/proc/1/cwd/"), os.stat(os.readlink("/proc/1/cwd")))
        else "outside"
    )


@probe("proc.init-descriptors")
def init_descriptors(_given: Given) -> str:
    """Its streams and an eventfd: nothing that leads out."""
    odd = []
    for name in os.listdir("/proc/1/fd"):
        target = os.readlink(f"/proc/1/fd/{name}")
        if int(name) > 2 and target != "anon_inode:[eventfd]":
            odd.append(target)
    return " ".join(odd) or "streams only"


@probe("proc.processes")
def processes(_given: Given) -> str:
    """Only this sandbox's: an init, a shell or none, the runner, this child."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    return "few" if len(pids) <= 4 and max(map(int, pids)) < 2000 else f"{len(pids)}"


@probe("proc.writable")
def writable(_given: Given) -> str:
    """Outside the directories of processes, no file of /proc opens for writing (a masked one is /dev/null on a nodev mount)."""
    found = []
    for place, directories, names in os.walk("/proc"):
        if place == "/proc":
            directories[:] = [
                name for name in directories if not name.isdigit() and name not in ("self", "thread-self")
            ]
        for name in names:
            path = os.path.join(place, name)
            if os.path.islink(path) or not os.access(path, os.W_OK):
                continue
            if attempt(partial(os.open, path, os.O_WRONLY | os.O_NONBLOCK)) == "ok":
                found.append(path)
    return " ".join(found) or "none"


@probe("proc.core-pattern")
def core_pattern(_given: Given) -> str:
    return write_text("/proc/sys/kernel/core_pattern", "|/tmp/x")


@probe("proc.modprobe")
def modprobe(_given: Given) -> str:
    return write_text("/proc/sys/kernel/modprobe", "/tmp/x")


@probe("proc.drop-caches")
def drop_caches(_given: Given) -> str:
    return write_text("/proc/sys/vm/drop_caches", "1")


@probe("proc.hostname")
def proc_hostname(_given: Given) -> str:
    return write_text("/proc/sys/kernel/hostname", "x")


@probe("proc.userns-limit")
def userns_limit(_given: Given) -> str:
    return write_text("/proc/sys/user/max_user_namespaces", "1000")


@probe("proc.ip-forward")
def ip_forward(_given: Given) -> str:
    return write_text("/proc/sys/net/ipv4/ip_forward", "1")


@probe("proc.sysrq")
def sysrq(_given: Given) -> str:
    return write_text("/proc/sysrq-trigger", "h")


@probe("proc.binfmt")
def binfmt(_given: Given) -> str:
    return write_text("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/tmp/x:")


@probe("proc.kcore")
def kcore(_given: Given) -> str:
    return attempt(lambda: open("/proc/kcore", "rb").read(64))


@probe("proc.dev-core")
def dev_core(_given: Given) -> str:
    return attempt(lambda: open("/dev/core", "rb").read(64))


@probe("proc.keys")
def keys(_given: Given) -> str:
    return attempt(lambda: open("/proc/keys", "rb").read(64))


@probe("proc.key-users")
def key_users(_given: Given) -> str:
    return attempt(lambda: open("/proc/key-users", "rb").read(64))


@probe("proc.kmsg")
def kmsg(_given: Given) -> str:
    return attempt(lambda: os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK))


@probe("proc.kpageflags")
def kpageflags(_given: Given) -> str:
    return attempt(lambda: os.open("/proc/kpageflags", os.O_RDONLY))


@probe("proc.physical-addresses")
def pagemap(_given: Given) -> str:
    """Without CAP_SYS_ADMIN the kernel shows page frame numbers as zero."""
    marker = bytearray(4096)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(id(marker) // 4096 * 8)
        word = int.from_bytes(file.read(8), "little")
    return "zero" if word & ((1 << 55) - 1) == 0 else "shown"


@probe("proc.kernel-addresses")
def kallsyms(_given: Given) -> str:
    first = read_text("/proc/kallsyms", 4096).splitlines()[:20]
    return "zero" if all(re.match("0+ ", line) for line in first) else "shown"


@probe("proc.sched-debug")
def sched_debug(_given: Given) -> str:
    return _seen(iter(("/proc/sched_debug", "/proc/latency_stats")))


@probe("proc.unix-sockets")
def unix_sockets(_given: Given) -> str:
    return " ".join(line.split()[-1] for line in read_text("/proc/net/unix").splitlines()[1:]) or "none"


@probe("proc.cgroup")
def cgroup(_given: Given) -> str:
    """Every hierarchy ends in the namespace's own root: no name of a session, no `..`."""
    return " ".join(sorted({line.split(":", 2)[2] for line in read_text("/proc/self/cgroup").splitlines()}))


@probe("proc.cgroup-tree")
def cgroup_tree(_given: Given) -> str:
    return _seen(iter(("/sys/fs", "/sys/fs/cgroup", "/sys/kernel", "/sys/kernel/debug", "/sys/firmware", "/sys/bus")))
