from __future__ import annotations

import plistlib
from pathlib import Path

import pytest

from host_stub.vz.entitlement import (
    ENTITLEMENT,
    compose_commands,
    compose_entitlements,
    find_interpreter,
    is_entitled,
    missing_entitlement,
    parse_entitlements,
    write_entitlements,
)


def test_interpreter_of_a_framework_build_is_the_one_inside(tmp_path: Path) -> None:
    inside = tmp_path / "Resources/Python.app/Contents/MacOS/Python"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"")
    assert find_interpreter("/venv/bin/python", str(tmp_path)) == inside


def test_interpreter_of_a_venv_is_what_its_link_leads_to(tmp_path: Path) -> None:
    real, link = tmp_path / "python3.12", tmp_path / "python"
    real.write_bytes(b"")
    link.symlink_to(real)
    assert find_interpreter(str(link), str(tmp_path)) == real


def test_entitlements_are_read_back_as_composed(tmp_path: Path) -> None:
    assert parse_entitlements(write_entitlements(tmp_path).read_bytes()) == {ENTITLEMENT}
    assert parse_entitlements(b"Executable=/x\n" + compose_entitlements() + b"\0") == {ENTITLEMENT}


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        b"Executable=/x\n",
        b"<?xml",
        b"<?xml version='1.0'?><plist><array/></plist>",
        plistlib.dumps({ENTITLEMENT: False}),
    ],
)
def test_no_entitlement_where_none_is_shown(shown: bytes) -> None:
    assert parse_entitlements(shown) == frozenset()


def test_commands_ask_root_where_the_binary_is_roots(tmp_path: Path) -> None:
    missing = tmp_path / "python"
    sign, show = compose_commands(missing, Path("x.entitlements"))
    assert sign == ["sudo", "codesign", "--force", "--sign", "-", "--entitlements", "x.entitlements", str(missing)]
    missing.write_bytes(b"")
    assert compose_commands(missing, Path("x.entitlements"))[0][0] == "codesign"
    assert show[:2] == ["codesign", "--display"]


def test_trouble_names_the_binary_and_the_commands(tmp_path: Path) -> None:
    trouble = missing_entitlement("said", tmp_path)
    assert trouble.code == "no_entitlement"
    assert str(tmp_path) in trouble.message
    assert trouble.details["said"] == "said"


def test_is_entitled_reads_what_codesign_shows(tmp_path: Path) -> None:
    codesign = tmp_path / "codesign"
    (tmp_path / "shown").write_bytes(compose_entitlements())
    codesign.write_text(f'#!/bin/sh\n[ "$5" = /entitled ] && cat {tmp_path / "shown"}\n')
    codesign.chmod(0o755)
    assert is_entitled(Path("/entitled"), codesign=str(codesign)) is True
    assert is_entitled(Path("/other"), codesign=str(codesign)) is False
    assert is_entitled(Path("/entitled"), codesign=str(tmp_path / "none")) is None
