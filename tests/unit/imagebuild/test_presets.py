from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagebuild.presets import resolve_presets
from imagebuild.trouble import Trouble


def fake_python(checkout: Path, script: str) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(python, 0o755)


def test_the_checkout_s_coworkctl_is_asked(tmp_path: Path) -> None:
    fake_python(tmp_path, 'for last; do :; done; echo "$*" >"$last"')
    assert resolve_presets(tmp_path).startswith(b"-m coworkd.cli.control egress presets --write ")


def test_without_a_venv_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"\./setup"):
        resolve_presets(tmp_path)


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    fake_python(tmp_path, "echo no pip here >&2; exit 1")
    with pytest.raises(Trouble, match="no pip here"):
        resolve_presets(tmp_path)
