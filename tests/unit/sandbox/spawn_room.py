"""What the tests of the sandbox room share: three bubblewraps, two guests, one session; and the writer of `golden/`.

`python -m tests.unit.sandbox.spawn_room` writes the golden lists anew; the difference is then for a person to judge.
"""

from __future__ import annotations

from pathlib import Path

from coworkd.model.launch import Spawn
from coworkd.model.layout import BwrapFeatures, GuestLayout
from coworkd.model.policy import (
    EffectivePolicy,
    EgressPolicy,
    FoldersPolicy,
    LimitsPolicy,
    LimitsRequest,
    Profile,
    SandboxPolicy,
    SeccompProgram,
)
from coworkd.model.process import ProcessSpec, TtySize
from coworkd.model.session import FolderGrant, SessionView
from coworkd.sandbox.bwrap_plan import plan_command
from coworkd.sandbox.compose import compose

GOLDEN = Path(__file__).parent / "golden"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What `bwrap --help` names, release by release (FACTS: 0.6.1 is Ubuntu 22.04's, 0.8.0 Debian 12's).
OPTIONS_0_6_1 = words(
    """
    --help --version --args --unshare-all --share-net --unshare-user --unshare-user-try --unshare-ipc --unshare-pid
    --unshare-net --unshare-uts --unshare-cgroup --unshare-cgroup-try --userns --userns2 --pidns --uid --gid --hostname
    --chdir --clearenv --setenv --unsetenv --lock-file --sync-fd --bind --bind-try --dev-bind --dev-bind-try --ro-bind
    --ro-bind-try --remount-ro --exec-label --file-label --proc --dev --tmpfs --mqueue --dir --file --bind-data
    --ro-bind-data --symlink --seccomp --add-seccomp-fd --block-fd --userns-block-fd --info-fd --json-status-fd
    --new-session --die-with-parent --as-pid-1 --cap-add --cap-drop --perms --chmod
    """
)
OPTIONS_0_8_0 = OPTIONS_0_6_1 | {"--size", "--disable-userns", "--assert-userns-disabled"}
OPTIONS_0_12_0 = OPTIONS_0_8_0 | {
    "--argv0",
    "--bind-fd",
    "--ro-bind-fd",
    "--level-prefix",
    "--overlay-src",
    "--overlay",
    "--tmp-overlay",
    "--ro-overlay",
}
BWRAPS = {
    version: BwrapFeatures(path="/usr/bin/bwrap", version=f"bubblewrap {version}", options=options)
    for version, options in (("0.6.1", OPTIONS_0_6_1), ("0.8.0", OPTIONS_0_8_0), ("0.12.0", OPTIONS_0_12_0))
}

MERGED = GuestLayout(
    links=((b"/bin", b"usr/bin"), (b"/lib", b"usr/lib")),
    directories=(b"/usr", b"/opt"),
    etc_directories=(b"/etc/ssl", b"/etc/alternatives", b"/etc/java-17"),
    etc_files=(b"/etc/ld.so.cache", b"/etc/localtime"),
    cpu_files=((b"/sys/devices/system/cpu/online", b"0-3\n"),),
    proc_masked=(b"/proc/kcore", b"/proc/keys"),
    proc_emptied=(b"/proc/acpi",),
    proc_read_only=(b"/proc/sys", b"/proc/bus"),
    python=b"/usr/bin/python3",
    java_net_properties=((b"/etc/java-17/net.properties", b"java.net.useSystemProxies=false\n"),),
)
UNMERGED = GuestLayout(
    links=(),
    directories=(b"/usr", b"/bin", b"/lib"),
    etc_directories=(),
    etc_files=(),
    cpu_files=(),
    proc_masked=(),
    proc_emptied=(),
    proc_read_only=(),
    python=None,
)

SESSION = SessionView(
    name="bob",
    uid=1001,
    gid=1001,
    home=b"/sessions/bob",
    profile="default",
    limits=LimitsRequest(),
    env={"EDITOR": "vi"},
    folders=(FolderGrant(name="src", source="/srv/src", mode="rwd"),),
)
POLICY = EffectivePolicy(
    profile=Profile(
        name="default",
        sandbox=SandboxPolicy(base="dev", seccomp="default", warm=0, ask_delete=False),
        limits=LimitsPolicy(
            memory_max_bytes=2800 << 20,
            memory_high_bytes=2800 << 20,
            swap_max_bytes=0,
            pids_max=1024,
            cpu_max=4.0,
            cpu_weight=100,
            io_weight=100,
            tmp_max_bytes=1 << 30,
            disk_max_bytes=5 << 30,
            nofile=4096,
            fsize_max_bytes=0,
            cpu_time_s=0,
            core_max_bytes=0,
            timeout_s=0.0,
        ),
        folders=FoldersPolicy(modes=("ro", "rwd"), allow_sockets=False),
        egress=EgressPolicy(settings="default", upstream="direct", allow_max_s=3600.0),
    ),
    base_filter=SeccompProgram(sha256="b" * 64, bpf=bytes(8), source="base:dev"),
    admin_filter=SeccompProgram(sha256="a" * 64, bpf=bytes(8), source="default.json"),
)


def spec(
    *argv: bytes,
    env: dict[str, str] | None = None,
    cwd: bytes | None = None,
    stdin: bool = False,
    tty: TtySize | None = None,
) -> ProcessSpec:
    return ProcessSpec(process="p1", session="bob", argv=argv or (b"id",), env=env or {}, cwd=cwd, stdin=stdin, tty=tty)


CASES: dict[str, tuple[ProcessSpec, GuestLayout]] = {
    "plain": (spec(b"id", b"-u"), MERGED),
    "env-and-cwd": (spec(b"make", env={"CC": "clang", "EDITOR": "ed", "ODD": "--bind"}, cwd=b"/tmp"), MERGED),
    "tty": (spec(b"bash", stdin=True, tty=TtySize(rows=24, cols=80)), MERGED),
    "unmerged": (spec(b"true"), UNMERGED),
}


def render(spawn: Spawn) -> str:
    """A spawn as lines: one option with its values a line, then what stands behind `--`."""
    lines: list[list[str]] = []
    for word in (*spawn.bwrap_args, *plan_command(spawn.cwd, spawn.environment)):
        text = word.decode()
        is_value = bool(lines) and lines[-1][0] == "--setenv" and len(lines[-1]) < 3
        if text.startswith("--") and not is_value:
            lines.append([text])
        else:
            lines[-1].append(text)
    command = [word.decode() for word in spawn.argv]
    return "\n".join(" ".join(line) for line in [*lines, ["--", *command]]) + "\n"


def golden_path(version: str, case: str) -> Path:
    return GOLDEN / f"{version}-{case}.txt"


def compose_case(version: str, case: str) -> Spawn:
    wanted, layout = CASES[case]
    return compose(wanted, SESSION, POLICY, layout=layout, features=BWRAPS[version])


if __name__ == "__main__":
    for known in BWRAPS:
        for name in CASES:
            golden_path(known, name).write_text(render(compose_case(known, name)))
