from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from coworkd.system import sd_notify


@pytest.mark.parametrize("abstract", [True, False])
def test_a_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"coworkd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(60)
        assert sd_notify.notify("READY=1", {"NOTIFY_SOCKET": f"@{name}" if abstract else name})
        assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:9"}])
def test_nobody_is_told_where_nobody_asked(environ: dict[str, str]) -> None:
    assert not sd_notify.notify("READY=1", environ)


def test_a_manager_that_has_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sd_notify.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "7"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_a_watchdog_is_ours_only_if_it_names_us(environ: dict[str, str], wanted: float | None) -> None:
    assert sd_notify.watchdog_s(environ, pid=7) == wanted


def test_a_status_is_one_line_and_short() -> None:
    assert sd_notify.status("a\nREADY=1\n" + "x" * 1000) == "STATUS=a READY=1 " + "x" * 246
