"""bundle.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from host_stub.bundle_settings import Settings, compose_settings, parse_settings
from host_stub.words import Trouble


def test_what_is_written_is_read_again() -> None:
    settings = Settings(architecture="aarch64", cpus=4, share="/home/me", session_bus="nvme", cid=77)
    assert parse_settings(compose_settings(settings), source="bundle.json") == settings


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cpu": 2}, "did you mean 'cpus'"),
        ({"cpus": 0}, "cpus"),
        ({"cpus": 1.5}, "cpus"),
        ({"memory_bytes": 1 << 20}, "memory_bytes"),
        ({"format": 2}, "format"),
        ({"boot": "pxe"}, "boot"),
        ({"share": "relative"}, "no absolute path"),
        ({"update_disk": "/a\0b"}, "no absolute path"),
        ({"command_line": "a\nb"}, "command_line"),
        ({"cid": 2}, "cid"),
        ({"architecture": "mips"}, "architecture"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Trouble, match=said) as caught:
        parse_settings(json.dumps({"architecture": "x86_64", **fields}).encode(), source="bundle.json")
    assert caught.value.code == "bad_settings"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"architecture": "\x80"}'])
def test_what_are_no_settings_is_refused(data: bytes) -> None:
    with pytest.raises(Trouble, match=r"bundle\.json"):
        parse_settings(data, source="bundle.json")
