"""What maintainer scripts would have done for the packages of our lists, since none is run.

Accounts, the bundle of certificates, the links of alternatives, the machine's names, the cache of the dynamic linker. Each is a function
of the tree alone: no program of the target is executed.
"""

from __future__ import annotations

from imagebuild.accounts import Accounts
from imagebuild.library_cache import compose_library_cache, find_libraries
from imagebuild.recipe import Architecture
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

HOSTNAME = "claude"
EGRESS_USER = "coworkd-egress"
_ALTERNATIVES = {
    "awk": ("usr/bin/awk", ("usr/bin/mawk",)),
    "which": ("usr/bin/which", ("usr/bin/which.debianutils",)),
    "cc": ("usr/bin/cc", ("usr/bin/gcc",)),
    "c++": ("usr/bin/c++", ("usr/bin/g++",)),
    "c89": ("usr/bin/c89", ("usr/bin/c89-gcc",)),
    "c99": ("usr/bin/c99", ("usr/bin/c99-gcc",)),
    "pager": ("usr/bin/pager", ("usr/bin/less", "usr/bin/more")),
    "editor": ("usr/bin/editor", ("usr/bin/vim.tiny", "usr/bin/nano")),
    "vi": ("usr/bin/vi", ("usr/bin/vim.tiny",)),
    "nodejs": ("usr/bin/js", ("usr/bin/node",)),
    "iptables": ("usr/sbin/iptables", ("usr/sbin/iptables-nft",)),
    "ip6tables": ("usr/sbin/ip6tables", ("usr/sbin/ip6tables-nft",)),
    "nawk": ("usr/bin/nawk", ("usr/bin/mawk",)),
}
"""update-alternatives(1): name, where its link is, and what it leads to, the best first."""

_IMAGEMAGICK = "-im6.q16"
_ALTERNATIVE_FAMILIES = (
    ("usr/lib/jvm/java-*/bin/*", "usr/bin/{name}"),
    (f"usr/bin/*{_IMAGEMAGICK}", "usr/bin/{name}"),
    ("usr/lib/*-linux-gnu/blas/libblas.so.3", "usr/lib/{directory}/{name}"),
    ("usr/lib/*-linux-gnu/lapack/liblapack.so.3", "usr/lib/{directory}/{name}"),
)
"""Where a package has a whole row of them: what is there, and the link to each."""


def make_accounts(tree: Tree) -> Accounts:
    """passwd(5) and its like, from base-passwd's masters and every sysusers.d file; the egress user is ours."""
    masters = "usr/share/base-passwd"
    accounts = Accounts.parse(tree.read(f"{masters}/passwd.master"), tree.read(f"{masters}/group.master"))
    conf = "usr/lib/sysusers.d"
    accounts.add_sysusers(tree.read(name) for name in tree.names(conf) if name.endswith(".conf"))
    # What Debian's scripts of udev and systemd add by themselves.
    for group in ("input", "sgx", "kvm", "render", "systemd-journal"):
        accounts.group(group)
    accounts.user(EGRESS_USER, gecos="coworkd's way out", home="/nonexistent")
    shadow = accounts.groups["shadow"][0]
    for name, text in accounts.compose().items():
        secret = name.endswith("shadow")
        tree.write(f"etc/{name}", text, mode=0o640 if secret else 0o644, owner=(0, shadow) if secret else (0, 0))
    return accounts


def make_names(tree: Tree) -> None:
    """Host name, hosts, and a machine id that each boot makes anew (machine-id(5), `uninitialized` would be a first boot each time)."""
    tree.write("etc/hostname", f"{HOSTNAME}\n")
    tree.write("etc/hosts", f"127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    tree.write(
        "etc/resolv.conf", "# The guest has no network of its own: what a session reaches, it reaches by its proxies.\n"
    )
    tree.write("etc/machine-id", "")
    tree.write("etc/fstab", "# The root is mounted by the initrd, everything else by units or by coworkd.\n")
    tree.write("etc/default/locale", "LANG=C.UTF-8\n")
    tree.write("etc/locale.conf", "LANG=C.UTF-8\n")
    tree.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    tree.link("etc/mtab", "../proc/self/mounts")
    if not tree.exists("etc/nsswitch.conf"):
        tree.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    for master in ("profile", "dot.profile", "dot.bashrc"):
        there = f"usr/share/base-files/{master}"
        if tree.exists(there):
            tree.write({"profile": "etc/profile"}.get(master, f"root/{master[3:]}"), tree.read(there))


def make_certificates(tree: Tree) -> None:
    """/etc/ssl/certs/ca-certificates.crt of every certificate that ca-certificates brings, and a link to each."""
    share = "usr/share/ca-certificates"
    if not tree.exists(share):
        return
    found = [name for name in tree.names(share) if name.endswith(".crt")]
    if not found:
        raise Trouble("the package ca-certificates has no certificate in it")
    tree.directory("etc/ssl/certs")
    bundle = []
    for name in found:
        text = tree.read(name)
        bundle.append(text if text.endswith("\n") else f"{text}\n")
        tree.link(f"etc/ssl/certs/{name.rpartition('/')[2].removesuffix('.crt')}.pem", f"/{name}")
    tree.write("etc/ssl/certs/ca-certificates.crt", "".join(bundle))
    tree.write("etc/ca-certificates.conf", "".join(f"{name.removeprefix(share + '/')}\n" for name in found))


def make_alternatives(tree: Tree) -> None:
    """The links of update-alternatives(1) for what is there."""
    for name, (link, targets) in _ALTERNATIVES.items():
        target = next((target for target in targets if tree.exists(target)), None)
        if target is not None:
            _choose(tree, name, link, target)
    for pattern, link_pattern in _ALTERNATIVE_FAMILIES:
        for path in sorted(tree.root.glob(pattern)):
            target = str(path.relative_to(tree.root))
            name = path.name.removesuffix(_IMAGEMAGICK)
            directory = target.split("/")[2]
            _choose(tree, name, link_pattern.format(name=name, directory=directory), target)


def _choose(tree: Tree, name: str, link: str, target: str) -> None:
    if not tree.exists(link):
        tree.link(f"etc/alternatives/{name}", f"/{target}")
        tree.link(link, f"/etc/alternatives/{name}")


def make_directories(tree: Tree) -> None:
    """Places to mount at: below a read-only root nobody makes them later."""
    for name in (
        "proc",
        "sys",
        "dev",
        "run",
        "boot",
        "mnt",
        "srv",
        "home",
        "opt",
        "media",
        "var/log",
        "var/cache",
        "var/lib",
    ):
        tree.directory(name)
    for name, mode in (
        ("sessions", 0o755),
        ("workspace", 0o755),
        ("smol", 0o755),
        ("smol/bin", 0o755),
        ("opt/tools", 0o755),
        ("mnt/.virtiofs-root", 0o700),
        ("etc/coworkd/policies", 0o755),
        ("var/cache/coworkd", 0o700),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
    ):
        tree.directory(name, mode=mode)
    for name, target in (("var/run", "../run"), ("var/lock", "../run/lock")):
        tree.remove(name)
        tree.link(name, target)


def make_library_cache(tree: Tree, architecture: Architecture) -> None:
    """/etc/ld.so.cache of all libraries that are there."""
    libraries = find_libraries(tree, architecture)
    tree.write("etc/ld.so.cache", compose_library_cache(libraries, flags=architecture.ld_cache_flags))
