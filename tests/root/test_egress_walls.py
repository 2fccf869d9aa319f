"""The walls of coworkd-egress, for real: a child puts them up around itself and tries to get over them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from coworkd.seccomp import compile_program, host_arch
from coworkd.seccomp.egress_filter import load_egress_filter
from coworkd.system import landlock
from tests.root.probes import egress_walls

pytestmark = [pytest.mark.root, pytest.mark.needs("root")]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    secret = tmp_path_factory.mktemp("mine") / "secret"
    secret.write_text("x")
    for directory in (secret.parent, secret.parent.parent, secret.parent.parent.parent):
        directory.chmod(directory.stat().st_mode | 0o055)
    secret.chmod(0o644)
    bpf = compile_program(load_egress_filter(host_arch()), cache_dir=None).bpf
    done = subprocess.run(
        [sys.executable, "-m", "tests.root.probes.egress_walls", str(secret), bpf.hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_is_its_own_user_and_nothing_more(answers: dict[str, Any]) -> None:
    uid = egress_walls.UID
    assert answers["ids"] == [[uid] * 3, [uid] * 3, []]
    assert answers["caps"] == ["0" * 16] * 5
    assert (answers["no_new_privs"], answers["seccomp"]) == ("1", "2")
    assert answers["become_root"] == "PermissionError 1"


@pytest.mark.needs("landlock")
def test_files_are_closed_to_it(answers: dict[str, Any]) -> None:
    assert answers["degraded"] == []
    assert answers["read_mine"] == "PermissionError 13"
    assert answers["list_root"] == "PermissionError 13"
    assert answers["list_home"] == "PermissionError 13"
    assert answers["read_library"] == "done"


@pytest.mark.parametrize(
    "probe", ["exec", "fork", "listen", "write_tmp", "signal", "writable_code", "raw", "thread_and_names"]
)
def test_refused(answers: dict[str, Any], probe: str) -> None:
    assert answers[probe] in ("PermissionError 1", "PermissionError 13"), answers[probe]


@pytest.mark.parametrize("probe", ["packet", "netlink"])
def test_families_refused(answers: dict[str, Any], probe: str) -> None:
    assert answers[probe] == "OSError 97"


def test_what_its_work_takes_goes_on(answers: dict[str, Any]) -> None:
    assert [answers[probe] for probe in ("memory_file", "pipe", "tls")] == ["done"] * 3


@pytest.mark.needs("landlock")
def test_abstract_sockets_of_others_are_out_of_reach_where_the_kernel_knows_scopes(answers: dict[str, Any]) -> None:
    """Scopes came with ABI 6."""
    assert answers["abstract"] == ("PermissionError 1" if landlock.abi_version() >= 6 else "done")
