"""The health port of a real coworkd, the counts in two forms, and a bundle of it with secrets planted."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, session_of, wait_until
from tests.unit.wire.exposition import Metric, parse_exposition

pytestmark = pytest.mark.root

SECRETS = ("sk-planted-argv", "sk-planted-env", "sk-planted-path", "sk-planted-config", "swordfish-9", "bob:hunter2")


@pytest.fixture(scope="module")
def own_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Whose idle time nobody else's test ends."""
    with running_daemon(tmp_path_factory.mktemp("health")) as running:
        yield running


def health_socket(daemon: Daemon) -> Path:
    return daemon.state / ".coworkd/run/health.sock"


def get(daemon: Daemon, path: str, *, timeout_s: float = 20) -> tuple[int, bytes]:
    """Status and body of one answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(health_socket(daemon)))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        found = b""
        while data := client.recv(65536):
            found += data
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def live(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(daemon, "/live")[1])
    return found


def metrics(daemon: Daemon) -> dict[str, Metric]:
    return parse_exposition(get(daemon, "/metrics")[1].decode())


def test_a_coworkd_that_is_well_says_so(own_daemon: Daemon) -> None:
    assert stat.S_IMODE(os.stat(health_socket(own_daemon)).st_mode) == 0o600
    status, body = get(own_daemon, "/live")
    assert (status, json.loads(body)["live"], json.loads(body)["pid"]) == (200, True, own_daemon.child.pid)
    status, body = get(own_daemon, "/ready")
    assert (status, json.loads(body)["ready"], json.loads(body)["doing"]) == (200, True, None)
    assert get(own_daemon, "/nothing")[0] == 404


def threads_of(pid: int) -> set[str]:
    """The states its threads are in (proc(5))."""
    told = (Path(f"/proc/{pid}/task/{task}/stat").read_text() for task in os.listdir(f"/proc/{pid}/task"))
    return {line.rpartition(")")[2].split()[0] for line in told}


def test_a_process_that_stands_still_answers_nothing_and_goes_on_where_it_stood(own_daemon: Daemon) -> None:
    """What a guest looks like that stands still as a whole; a loop that hangs alone is tried in the unit tests."""
    own_daemon.child.send_signal(signal.SIGSTOP)
    wait_until(lambda: threads_of(own_daemon.child.pid) == {"T"}, "all its threads stand still")
    try:
        with pytest.raises(TimeoutError):
            get(own_daemon, "/live", timeout_s=0.2)
    finally:
        own_daemon.child.send_signal(signal.SIGCONT)
    assert live(own_daemon)["live"] is True


def test_who_only_looks_does_not_keep_a_guest_awake(own_daemon: Daemon) -> None:
    with client_of(own_daemon) as client:
        before_s = live(own_daemon)["idle_for_s"]
        client.call("ping")
        client.stats()
        wait_until(lambda: live(own_daemon)["idle_for_s"] > before_s + 1.2, "idle, although looked at")
        with session_of(client, "awake") as session:
            wait_until(lambda: live(own_daemon)["idle_for_s"] < 2.0, "somebody wanted something")
            command = ["sh", "-c", "while :; do echo x; sleep 0.2; done"]
            started = client.call("process.start", {"session": session, "argv": command, "attach": False})
            wait_until(lambda: live(own_daemon)["running"] == 1, "a command runs")
            wait_until(lambda: live(own_daemon)["idle_for_s"] < 1.2, "a command that talks is work")
            client.call("process.kill", {"process": started["process"]})


def test_the_counts_are_the_same_in_every_form(own_daemon: Daemon) -> None:
    with client_of(own_daemon) as client, session_of(client, "counted") as session:
        client.call("process.run", {"session": session, "argv": ["/bin/true"]})
        wait_until(lambda: "egress" in client.stats().fds, "coworkd-egress has come up")
        stats = client.stats()
    assert stats.started_total >= 1
    assert stats.audit_syncs_total >= 1
    assert stats.audit_sync_s_total > 0
    assert set(stats.fds) == {"coworkd", "launcher", "egress"}
    assert stats.pss_bytes["coworkd"] <= stats.rss_bytes["coworkd"] + (1 << 20)
    assert {"waiting", "taken", "cold_instead"} <= set(stats.warm)
    told = parse_exposition(own_daemon.ctl("stats", "--prometheus").stdout.decode())
    assert told["coworkd_processes_started_total"].value >= stats.started_total
    wait_until(
        lambda: metrics(own_daemon)["coworkd_processes_started_total"].value >= stats.started_total,
        "the health port has the new counts",
    )
    assert set(metrics(own_daemon)) >= set(told) - {"coworkd_degraded"}


CONFIG = """
state_dir = "{state}/.coworkd"
sessions_dir = "{state}"
token_file = "/etc/sk-planted-config"
[network]
probe = "bob.example:443"
[health]
endpoints = ["unix://{state}/.coworkd/run/health.sock"]
"""


def bundle(daemon: Daemon, directory: Path, name: str) -> dict[str, str]:
    (directory / "c.toml").write_text(CONFIG.format(state=daemon.state))
    path = directory / name
    done = daemon.ctl("doctor", "--bundle", str(path), "--config", str(directory / "c.toml"))
    assert done.returncode == 0, done.stderr.decode()
    with tarfile.open(path) as archive:
        return {
            member.name.rpartition("/")[2]: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }


def test_a_bundle_has_no_secret_whether_coworkd_is_there_or_not(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "coworkd") as daemon:
        with client_of(daemon) as client:
            client.session_ensure(name="swordfish-9", env={"API_KEY": "sk-planted-env"})
            command = {
                "session": "swordfish-9",
                "argv": ["sh", "-c", "mkdir -p sk-planted-path; exit 3", "sk-planted-argv"],
                "env": {"HTTPS_PROXY": "http://bob:hunter2@proxy.example:3128", "MORE": "sk-planted-env"},
            }
            assert client.call("process.run", command)["exit"]["code"] == 3
        up = bundle(daemon, tmp_path, "up.tar.gz")
    down = bundle(daemon, tmp_path, "down.tar.gz")
    for found in (up, down):
        assert [(secret, name) for secret in SECRETS for name, text in found.items() if secret in text] == []
    assert {"info.json", "stats.json", "doctor.json", "audit.json", "health.json", "process-coworkd.json"} <= set(up)
    assert {"versions.json", "config.json", "audit.json", "policies.json"} <= set(down)
    assert json.loads(up["health.json"])["/live"]["live"] is True
    kinds = json.loads(down["audit.json"])["kinds_of_the_last"]
    assert {"process.start", "process.exit", "daemon.stop"} <= set(kinds)
    assert json.loads(down["audit.json"])["verified"]["ok"] is True
    missing = {part["file"] for part in json.loads(down["manifest.json"])["parts"] if "missing" in part}
    assert {"hello.json", "health.json"} <= missing
    (home,) = json.loads(up["homes.json"])
    assert json.loads(up["sessions.json"])[0]["name"] == home
