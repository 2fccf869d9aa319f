"""Inspection behind the real walls of coworkd-egress: what it needs is imported, made and used there, and no sooner than it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coworkd.seccomp import compile_program, host_arch
from coworkd.seccomp.egress_filter import load_egress_filter
from tests.unit.certificates import make, make_authority

pytestmark = [pytest.mark.root, pytest.mark.needs("root")]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory: Path = tmp_path_factory.mktemp("certificates")
    root = make_authority()
    server = make("api.example", by=root, hosts=("api.example",))
    (directory / "root.pem").write_text(root.pem)
    (directory / "server.pem").write_text(server.pem + server.key_pem)
    bpf = compile_program(load_egress_filter(host_arch()), cache_dir=None).bpf
    done = subprocess.run(
        [sys.executable, "-m", "tests.root.probes.inspection_walls", bpf.hex(), str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_request_passes_and_is_told(answer: dict[str, Any]) -> None:
    assert answer["heard"] == [
        "GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ]
    assert answer["told"] == [["GET", "/a", 204, ""]]


def test_it_costs_nothing_before_and_a_bounded_amount_afterwards(answer: dict[str, Any]) -> None:
    assert answer["loaded_before"] == []
    assert answer["grown_bytes"] < 32 * 1024 * 1024
