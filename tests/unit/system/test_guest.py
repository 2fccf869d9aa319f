from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coworkd.system import guest

HELP = """\
usage: bwrap [OPTIONS...] [--] COMMAND [ARGS...]

    --help                       Print this help
    --unshare-user               Create new user namespace (see --unshare-all)
    --add-seccomp-fd FD          Load and use seccomp rules from FD (repeatable)
"""


def test_parse_help_takes_options_and_not_what_is_said_of_them() -> None:
    assert guest.parse_help(HELP) == {"--help", "--unshare-user", "--add-seccomp-fd"}
    assert guest.parse_help("") == frozenset()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return str(path)


def test_read_bwrap_features_asks_the_program(tmp_path: Path) -> None:
    said = "case $1 in --version) echo bubblewrap 9.9;; --help) echo '   --bind SRC' >&2;; esac\n"
    path = script(tmp_path / "bwrap", said)
    features = guest.read_bwrap_features(path)
    assert (features.path, features.version) == (path, "bubblewrap 9.9")
    assert features.has("--bind")
    assert not features.has("--size")


def test_read_bwrap_features_gives_the_program_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COWORKD_TEST_SECRET", "x")
    features = guest.read_bwrap_features(script(tmp_path / "bwrap", 'echo "${COWORKD_TEST_SECRET-none}"\n'))
    assert features.version == "none"


def test_read_bwrap_features_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(FileNotFoundError, match="install the package"):
        guest.read_bwrap_features()


def test_read_bwrap_features_tells_of_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(argv: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(argv, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(TimeoutError, match="does not answer"):
        guest.read_bwrap_features("/usr/bin/bwrap")


def test_read_layout_finds_this_root() -> None:
    layout = guest.read_layout()
    assert b"/usr" in layout.directories
    for path, target in layout.links:
        assert os.readlink(path).lstrip(b"/") == target
    bound = {path for path, _ in layout.links} | set(layout.directories)
    assert {path for path in (b"/bin", b"/lib", b"/sbin") if os.path.lexists(path)} <= bound


def test_read_layout_names_only_what_is_there() -> None:
    layout = guest.read_layout()
    assert all(os.path.isdir(path) for path in (*layout.etc_directories, *layout.proc_emptied))
    assert all(os.path.isfile(path) for path in (*layout.etc_files, *layout.proc_masked))
    assert not set(layout.proc_read_only) & {*layout.proc_masked, *layout.proc_emptied}


def test_read_layout_never_shows_secrets_of_etc() -> None:
    layout = guest.read_layout()
    shown = {os.path.basename(path) for path in (*layout.etc_directories, *layout.etc_files)}
    assert not shown & {b"shadow", b"gshadow", b"passwd", b"sudoers", b"ssh", b"coworkd", b"machine-id"}


def test_read_layout_finds_each_java_once_where_it_really_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "net.properties").write_bytes(b"a=1\n")
    for name in ("java-17", "java-1.17"):
        (tmp_path / "jvm" / name / "conf").mkdir(parents=True)
        (tmp_path / "jvm" / name / "conf" / "net.properties").symlink_to(tmp_path / "etc" / "net.properties")
    (tmp_path / "jvm" / "java-8" / "jre" / "lib").mkdir(parents=True)
    (tmp_path / "jvm" / "java-8" / "jre" / "lib" / "net.properties").write_bytes(b"b=2\n")
    (tmp_path / "jvm" / "odd" / "lib").mkdir(parents=True)
    (tmp_path / "jvm" / "odd" / "lib" / "net.properties").write_bytes(bytes(70_000))
    monkeypatch.setattr(guest, "_JAVA_HOMES", (f"{tmp_path}/jvm/*",))
    assert guest.read_layout().java_net_properties == (
        (bytes(tmp_path / "etc" / "net.properties"), b"a=1\n"),
        (bytes(tmp_path / "jvm" / "java-8" / "jre" / "lib" / "net.properties"), b"b=2\n"),
    )
