from __future__ import annotations

from pathlib import Path

from imagebuild import units
from tests.unit.imagebuild.tree_lab import make_tree

SERVICE = "[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=coworkd.target other.target\nRequiredBy=x.service\nAlias=y.service\n"


def make_units(directory: Path, **more: str) -> Path:
    directory.mkdir()
    for name, text in {"coworkd.service": SERVICE, "coworkd.target": "[Unit]\n", "README.md": "", **more}.items():
        (directory / name).write_text(text)
    return directory


def test_enabling_is_links() -> None:
    target = "/usr/lib/systemd/system/a.service"
    assert units.compose_links("a.service", SERVICE) == [
        ("coworkd.target.wants/a.service", target),
        ("other.target.wants/a.service", target),
        ("x.service.requires/a.service", target),
        ("y.service", target),
    ]


def test_ours_are_started_and_the_distribution_s_are_not(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {})
    tree.link("etc/systemd/system/timers.target.wants/apt-daily.timer", "/lib/systemd/system/apt-daily.timer")
    directory = make_units(tmp_path / "units", **{"firewall.nft": "table", "x.tmpfiles.conf": "d /x"})
    units.install_units(tree, directory, console_login=False)
    there = "etc/systemd/system"
    assert tree.path(f"{there}/default.target").readlink() == Path("/usr/lib/systemd/system/coworkd.target")
    assert tree.path(f"{there}/coworkd.target.wants/coworkd.service").is_symlink()
    assert not tree.exists(f"{there}/timers.target.wants/apt-daily.timer")
    assert tree.read("etc/coworkd/firewall.nft") == "table"
    assert tree.read("usr/lib/tmpfiles.d/x.conf") == "d /x"
    assert not tree.exists("etc/coworkd/README.md")


def test_nobody_can_log_in_unless_it_was_asked_for(tmp_path: Path) -> None:
    directory = make_units(tmp_path / "units")
    for name, wanted in (("one", False), ("two", True)):
        tree = make_tree(tmp_path / name, {})
        units.install_units(tree, directory, console_login=wanted)
        for getty in ("getty@.service", "serial-getty@.service"):
            assert tree.path(f"etc/systemd/system/{getty}").readlink() == Path("/dev/null")
        assert tree.exists("usr/lib/systemd/system/coworkd-console.service") is wanted
