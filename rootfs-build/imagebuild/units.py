"""Which units the guest starts: ours from systemd/, of the distribution's only what a guest of ours needs.

Nothing is asked of systemctl: what `enable` does is a link for each `WantedBy=`, `RequiredBy=` and `Alias=` of an [Install] section
(systemd.unit(5)), and what `mask` does is a link to /dev/null.
"""

from __future__ import annotations

from pathlib import Path

from imagebuild.tree import Tree

_UNITS = "usr/lib/systemd/system"
_KINDS = (".service", ".socket", ".target", ".timer", ".mount", ".path", ".slice")
_CONFIGURATION = {
    ".tmpfiles.conf": "usr/lib/tmpfiles.d",
    ".sysctl.conf": "usr/lib/sysctl.d",
    ".sysusers.conf": "usr/lib/sysusers.d",
    ".modules-load.conf": "usr/lib/modules-load.d",
    ".journald.conf": "usr/lib/systemd/journald.conf.d",
    ".system.conf": "usr/lib/systemd/system.conf.d",
    ".rules": "usr/lib/udev/rules.d",
    ".nft": "etc/coworkd",
    ".toml": "etc/coworkd",
}
"""Where a file of systemd/ goes that is no unit: `NAME.KIND.conf` to the directory of its kind, as NAME.conf."""
MASKED = (
    "apt-daily-upgrade.service",
    "apt-daily-upgrade.timer",
    "apt-daily.service",
    "apt-daily.timer",
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "integritysetup.target",
    "ldconfig.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "serial-getty@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-hibernate-resume@.service",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-network-generator.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-resolved.service",
    "systemd-rfkill.socket",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
    "user@.service",
    "veritysetup.target",
)
"""What would only cost time, want a network, or write to a root that is not kept."""
_CONSOLE_LOGIN = """[Unit]
Description=A root shell on the console, for debugging: anybody at the console is root
After=coworkd.target

[Service]
ExecStart=-/bin/bash --login
StandardInput=tty-force
StandardOutput=inherit
StandardError=inherit
TTYPath=/dev/console
Restart=always
RestartSec=1
Environment=HOME=/root TERM=vt100
WorkingDirectory=/root
"""


def install_units(tree: Tree, directory: Path, *, console_login: bool) -> None:
    """Put systemd/ in place, enable what is in it, mask what is not wanted, choose the target to boot."""
    ours = [path for path in sorted(directory.iterdir()) if path.is_file()]
    for path in ours:
        if path.suffix in _KINDS:
            tree.copy(f"{_UNITS}/{path.name}", path)
        else:
            _install_configuration(tree, path)
    for name in sorted(tree.names("etc/systemd/system")) if tree.exists("etc/systemd/system") else ():
        if tree.path(name).is_symlink():
            tree.remove(name)
    for name in MASKED:
        tree.link(f"etc/systemd/system/{name}", "/dev/null")
    for path in ours:
        if path.suffix in _KINDS:
            for link, target in compose_links(path.name, path.read_text()):
                tree.link(f"etc/systemd/system/{link}", target)
    target = "coworkd.target" if tree.exists(f"{_UNITS}/coworkd.target") else "multi-user.target"
    tree.link("etc/systemd/system/default.target", f"/{_UNITS}/{target}")
    if console_login:
        tree.write(f"{_UNITS}/coworkd-console.service", _CONSOLE_LOGIN)
        tree.link(f"etc/systemd/system/{target}.wants/coworkd-console.service", f"/{_UNITS}/coworkd-console.service")


def compose_links(name: str, text: str) -> list[tuple[str, str]]:
    """What enabling the unit `name` means: links below /etc/systemd/system and where they lead."""
    target = f"/{_UNITS}/{name}"
    section, links = "", []
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            section = line
        key, equals, value = line.partition("=")
        if section != "[Install]" or not equals:
            continue
        for word in value.split():
            if key.strip() == "WantedBy":
                links.append((f"{word}.wants/{name}", target))
            elif key.strip() == "RequiredBy":
                links.append((f"{word}.requires/{name}", target))
            elif key.strip() == "Alias":
                links.append((word, target))
    return links


def _install_configuration(tree: Tree, path: Path) -> None:
    for ending, directory in _CONFIGURATION.items():
        if path.name.endswith(ending):
            kind = ending.removesuffix(".conf")
            name = path.name.removesuffix(ending) + (".conf" if ending.endswith(".conf") else kind)
            tree.copy(f"{directory}/{name}", path)
            return
