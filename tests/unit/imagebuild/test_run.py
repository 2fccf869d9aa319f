from __future__ import annotations

import pytest

from imagebuild.run import require, run
from imagebuild.trouble import Trouble


def test_what_was_written_is_returned() -> None:
    assert run(["sh", "-c", 'cat; echo "$X$LC_ALL"'], env={"X": "y"}, stdin="in ") == "in yC.UTF-8\n"


def test_a_failure_tells_the_command_and_what_was_said() -> None:
    with pytest.raises(Trouble, match=r"status 3: sh -c 'echo why >&2; exit 3'\nwhy"):
        run(["sh", "-c", "echo why >&2; exit 3"])


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("imagebuild.run._SBIN", "/nonexistent")
    with pytest.raises(Trouble, match="install the package e2fsprogs"):
        require("mke2fs")
