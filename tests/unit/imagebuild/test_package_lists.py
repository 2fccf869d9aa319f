from __future__ import annotations

from pathlib import Path

import pytest

from imagebuild.package_lists import parse_package_list, read_package_lists
from imagebuild.trouble import Trouble

PACKAGES = Path(__file__).resolve().parents[3] / "rootfs-build" / "packages"


def test_comments_and_families_are_understood() -> None:
    text = "# all\nbash # the shell\n\ndebian: mawk\nubuntu:gawk\n"
    assert parse_package_list(text, family="debian", file="x") == ("bash", "mawk")
    assert parse_package_list(text, family="ubuntu", file="x") == ("bash", "gawk")


@pytest.mark.parametrize(
    "line", ["--install", "bash=5", "a b", "?essential", "Bash", "$(reboot)", "bash,less", "x/y", "fedora:bash"]
)
def test_what_is_no_name_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(Trouble, match=r"list\.txt:2: "):
        parse_package_list(f"bash\n{line}\n", family="debian", file="list.txt")


def test_a_package_of_two_lists_is_asked_for_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"bash\n{name}x\n")
    assert read_package_lists([tmp_path / "a", tmp_path / "b"], family="debian") == ("bash", "ax", "bx")


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="gone cannot be read"):
        read_package_lists([tmp_path / "gone"], family="debian")


@pytest.mark.parametrize("family", ["debian", "ubuntu"])
def test_our_own_lists_are_good(family: str) -> None:
    for path in sorted(PACKAGES.glob("*.txt")):
        names = read_package_lists([path], family=family)
        assert len(names) == len(set(names)) > 5
