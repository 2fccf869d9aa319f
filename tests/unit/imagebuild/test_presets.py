from __future__ import annotations

import json
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


def test_the_checkout_s_coworkctl_is_asked_and_the_time_is_not_kept(tmp_path: Path) -> None:
    fake_python(tmp_path, 'for last; do :; done; echo "{\\"asked\\": \\"$3 $4 $5\\", \\"made_at\\": $$}" >"$last"')
    assert json.loads(resolve_presets(tmp_path, epoch=7)) == {"asked": "egress presets --write", "made_at": 7}


def test_without_a_venv_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"\./setup"):
        resolve_presets(tmp_path, epoch=7)


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    fake_python(tmp_path, "echo no pip here >&2; exit 1")
    with pytest.raises(Trouble, match="no pip here"):
        resolve_presets(tmp_path, epoch=7)


def test_what_is_no_file_of_presets_is_refused(tmp_path: Path) -> None:
    fake_python(tmp_path, 'for last; do :; done; echo "[]" >"$last"')
    with pytest.raises(Trouble, match="no presets"):
        resolve_presets(tmp_path, epoch=7)
