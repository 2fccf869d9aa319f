from __future__ import annotations

from pathlib import Path

from imagebuild.trim import drop_set_id, trim
from tests.unit.imagebuild.tree_lab import make_tree


def test_what_no_guest_needs_goes_and_the_rest_stays(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        {
            "usr/lib/udev/rules.d/60-drm.rules": "12345",
            "usr/lib/udev/rules.d/60-persistent-storage.rules": "",
            "usr/lib/systemd/systemd-logind": "123",
            "usr/lib/systemd/systemd-udevd": "",
            "usr/lib/systemd/system-generators/systemd-getty-generator": "",
            "usr/lib/x86_64-linux-gnu/gconv/BIG5.so": "",
            "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so": "",
            "usr/include/stdio.h": "",
            "etc/apt/sources.list": "",
        },
    )
    assert trim(tree) == 8
    left = {name for name in tree.names() if (tmp_path / name).is_file()}
    assert left == {
        "usr/lib/udev/rules.d/60-persistent-storage.rules",
        "usr/lib/systemd/systemd-udevd",
        "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
    }


def test_headers_stay_where_a_compiler_is(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/include/stdio.h": "", "usr/bin/gcc": ""})
    trim(tree)
    assert tree.exists("usr/include/stdio.h")


def test_no_file_keeps_a_set_id_bit(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/bin/su": "", "usr/bin/chage": "", "usr/bin/cat": "", "var/mail/x": ""})
    for name, mode in {"usr/bin/su": 0o4755, "usr/bin/chage": 0o2755, "usr/bin/cat": 0o755, "var/mail": 0o2775}.items():
        (tmp_path / name).chmod(mode)
    tree.link("usr/bin/also", "su")
    assert drop_set_id(tree) == ["usr/bin/chage", "usr/bin/su"]
    modes = {name: (tmp_path / name).stat().st_mode & 0o7777 for name in ("usr/bin/su", "usr/bin/chage", "usr/bin/cat")}
    assert set(modes.values()) == {0o755}
    assert (tmp_path / "var/mail").stat().st_mode & 0o7777 == 0o2775
