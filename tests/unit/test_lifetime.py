"""From the first moment to the end: what is loaded when, and who may come in. What comes up and goes down is tried in test_app."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from coworkd.lifetime import read_token


def test_until_the_door_is_open_only_what_it_needs_is_loaded() -> None:
    """A slow machine answers seconds earlier for it."""
    program = (
        "import sys, coworkd.cli.daemon; late = ('coworkd.app', 'coworkd.composition', 'coworkd.seccomp', 'coworkd.netpolicy', "
        "'coworkd.sandbox', 'cryptography'); print(*[name for name in late if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_no_token_file_is_no_token() -> None:
    assert read_token("") is None


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert read_token(str(tmp_path / "token")) == "s3cret"


@pytest.mark.parametrize("text", ["", "\n", " \t\n"])
def test_an_empty_token_file_is_no_open_door(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(OSError, match="empty") as caught:
        read_token(str(tmp_path / "token"))
    assert caught.value.errno == errno.EINVAL


def test_a_token_file_that_is_missing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_token(str(tmp_path / "token"))
