from __future__ import annotations

from pathlib import Path

from imagebuild.trim import trim
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
