from __future__ import annotations

from pathlib import Path

import pytest

from imagebuild import effects
from imagebuild.recipe import ARCHITECTURES
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_elf, make_tree

MASTERS = {
    "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n",
    "usr/share/base-passwd/group.master": "root:*:0:\nshadow:*:42:\n",
    "usr/lib/sysusers.d/x.conf": "u someone - -\n",
}


def test_the_egress_user_is_there_and_nobody_can_log_in(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, dict(MASTERS))
    accounts = effects.make_accounts(tree)
    uid, gid, _, _, shell = accounts.users[effects.EGRESS_USER]
    assert (uid, shell) == (gid, "/usr/sbin/nologin")
    assert f"{effects.EGRESS_USER}:!*:" in tree.read("etc/shadow")
    assert tree.owners["etc/shadow"] == (0, 42)
    assert tree.path("etc/shadow").stat().st_mode & 0o777 == 0o640


def test_numbers_are_the_same_in_every_build(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        tree = make_tree(tmp_path / name, dict(MASTERS))
        effects.make_accounts(tree)
        texts.append(tree.read("etc/passwd") + tree.read("etc/group"))
    assert texts[0] == texts[1]


def test_the_machine_has_its_name_and_no_identity(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})
    effects.make_names(tree)
    assert tree.read("etc/hostname") == "claude\n"
    assert tree.read("etc/machine-id") == ""
    assert "127.0.0.1\tlocalhost" in tree.read("etc/hosts")


def test_the_bundle_holds_every_certificate(tmp_path: Path) -> None:
    share = "usr/share/ca-certificates/some"
    tree = make_tree(tmp_path, {f"{share}/b.crt": "B", f"{share}/a.crt": "A\n"})
    effects.make_certificates(tree)
    assert tree.read("etc/ssl/certs/ca-certificates.crt") == "A\nB\n"
    assert tree.path("etc/ssl/certs/a.pem").readlink() == Path(f"/{share}/a.crt")


def test_a_bundle_of_nothing_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/share/ca-certificates/README": ""})
    with pytest.raises(Trouble, match="no certificate"):
        effects.make_certificates(tree)


def test_alternatives_lead_to_what_is_there(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/bin/mawk": "", "usr/bin/gcc": "", "usr/bin/cc": "its own"})
    effects.make_alternatives(tree)
    assert tree.path("usr/bin/awk").readlink() == Path("/etc/alternatives/awk")
    assert tree.path("etc/alternatives/awk").readlink() == Path("/usr/bin/mawk")
    assert tree.read("usr/bin/cc") == "its own"
    assert not tree.exists("usr/bin/vi")


def test_rows_of_alternatives_are_found_by_what_is_there(tmp_path: Path) -> None:
    gnu = "usr/lib/x86_64-linux-gnu"
    there = ("usr/lib/jvm/java-17-openjdk-amd64/bin/java", "usr/bin/convert-im6.q16", f"{gnu}/blas/libblas.so.3")
    tree = make_tree(tmp_path, dict.fromkeys(there, ""))
    effects.make_alternatives(tree)
    for link, target in zip(("usr/bin/java", "usr/bin/convert", f"{gnu}/libblas.so.3"), there, strict=True):
        name = link.rpartition("/")[2]
        assert tree.path(link).readlink() == Path(f"/etc/alternatives/{name}")
        assert tree.path(f"etc/alternatives/{name}").readlink() == Path(f"/{target}")


def test_what_must_be_mounted_at_is_there(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"var/run/x": ""})
    effects.make_directories(tree)
    for name in ("sessions", "workspace", "smol/bin", "mnt/.virtiofs-root", "opt/tools", "proc", "run"):
        assert tree.path(name).is_dir()
    assert tree.path("tmp").stat().st_mode & 0o7777 == 0o1777
    assert tree.path("var/run").readlink() == Path("../run")


def test_the_linker_s_cache_names_the_libraries(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/lib/x86_64-linux-gnu/libz.so.1": make_elf(soname="libz.so.1")})
    effects.make_library_cache(tree, ARCHITECTURES["x86_64"])
    assert b"/usr/lib/x86_64-linux-gnu/libz.so.1\0" in tree.path("etc/ld.so.cache").read_bytes()
