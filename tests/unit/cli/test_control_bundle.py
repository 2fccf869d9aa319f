"""`coworkctl doctor --bundle`: secrets are planted wherever there is something to collect, and looked for in what comes out."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.cli import control_bundle
from coworkd.cli.bundle_file import DIRECTORY
from coworkd.cli.bundle_parts import ANSWER_S, HANGS_S
from coworkd.cli.control import main
from coworkd.client.sync import Client
from coworkd.model.errors import DeadlineExceeded, Unavailable
from coworkd.services import report_machine, report_proc
from tests.unit.cli.conftest import SESSION
from tests.unit.client.conftest import HELLO, FakeGuest, Fault

SECRETS = (
    *("hunter2", "s3cr3t-proxy-pass", "sk-ant-0123456789", "Zm9vYmFyc2VjcmV0", "MIIEvQIBADANBg", "swordfish-9"),
    *("payroll-2026", "alice", "10.20.30.40", "vault.corp.example"),
)
BOOT = "0b701fd3-69ac-43af-a4c8-37ff99d6ac48"
CONFIG = """
token_file = "/home/alice/hunter2.token"
state_dir = "/home/alice/state"
sessions_dir = "{homes}"
[network]
probe = "vault.corp.example:443"
[health]
endpoints = []
"""
LOGS = (
    "GET https://bob:s3cr3t-proxy-pass@vault.corp.example/x failed",
    "Authorization: Bearer sk-ant-0123456789",
    "Proxy-Authorization: Basic Zm9vYmFyc2VjcmV0",
    "-----BEGIN PRIVATE KEY----- MIIEvQIBADANBg",
    "session payroll-2026: /home/alice/x from 10.20.30.40 cannot be opened",
    "ready",
)


def answers(guest: FakeGuest) -> None:
    """A guest that would tell everything."""
    process = {
        "process": "p-1",
        "session": "payroll-2026",
        "argv": ["curl", "-H", "Authorization: sk-ant-0123456789"],
        "state": "running",
        "pid": 7,
        "started_at": 1.0,
        "streams": {"stdout": [0, 10]},
        "env": {"PASSWORD": "hunter2"},
    }
    record = {
        "seq": 1,
        "at": 2.0,
        "kind": "process.start",
        "session": "payroll-2026",
        "argv": ["login", "swordfish-9"],
        "env_names": ["hunter2"],
        "cwd": "/home/alice",
        "host": "vault.corp.example",
        "rule": "https://bob:s3cr3t-proxy-pass@vault.corp.example",
    }
    hello = {**HELLO, "boot_id": BOOT, "degraded": {"session payroll-2026": "10.20.30.40 is away", "hunter2": "x"}}
    guest.answers.update(
        {
            "hello": lambda _: hello,
            "info": lambda _: {"version": "1.0", "pid": 1, "state_dir": "/home/alice", "token": "hunter2"},
            "stats": lambda _: {"links": 2, "fds": {"coworkd": 3}, "swordfish-9": "hunter2"},
            "boot_time": lambda _: {"boot_id": BOOT, "steps": [], "ready_s": 1.5, "notes": ["alice was here"]},
            "session.list": lambda _: {"sessions": [{**SESSION, "name": "payroll-2026", "home": "/home/alice"}]},
            "process.list": lambda _: {"processes": [process]},
            "egress.status": lambda _: {"pid": 3, "upstream": "http://bob:s3cr3t-proxy-pass@vault.corp.example:3128"},
            "storage.usage": lambda _: {"kind": "disk", "state": "ok", "path": "/home/alice", "device": "/dev/hunter2"},
            "update.status": lambda _: {"enabled": False, "reason": "no key in /home/alice"},
            "logs": lambda _: {
                "lines": [
                    {"at": 1.0, "level": "info", "component": "app", "message": line, "fields": {"secret": "hunter2"}}
                    for line in LOGS
                ],
                "dropped": 0,
            },
            "audit.verify": lambda _: {"ok": True, "records": 1, "first": 1, "last": 1, "head": "00", "problem": None},
            "audit.tail": lambda _: {"records": [record], "truncated": False},
            "doctor": lambda _: {
                "findings": [{"check": "proxy", "state": "failed", "detail": LOGS[0], "remedy": "ask alice"}]
            },
        }
    )


@pytest.fixture
def told(guest: FakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGuest]:
    def connect(uri: str, *, token: str | None, client_name: str, timeout_s: float) -> Client:
        client = Client(guest.host)
        client.greet(client_name, token)
        return client

    answers(guest)
    monkeypatch.setattr(control_bundle, "connect", connect)
    monkeypatch.setattr(control_bundle, "find_pids", dict)
    (tmp_path / "boot_id").write_text(f"{BOOT}\n")
    monkeypatch.setattr(control_bundle, "_BOOT_ID", tmp_path / "boot_id")
    homes = tmp_path / "homes"
    (homes / "payroll-2026").mkdir(parents=True)
    (tmp_path / "c.toml").write_text(CONFIG.format(homes=homes))
    yield guest
    guest.answers["hello"] = lambda _: HELLO


def make(tmp_path: Path, *words: str) -> dict[str, Any]:
    path = tmp_path / "b.tar.gz"
    config = str(tmp_path / "c.toml")
    assert main(["--to", "unix:///fake", "doctor", "--bundle", str(path), "--config", config, *words]) == 0
    with tarfile.open(path) as archive:
        texts = {
            member.name.removeprefix(f"{DIRECTORY}/"): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }
    texts.pop("README")
    return {name: json.loads(text) for name, text in texts.items()}


def leaked(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (secret, file)
        for secret in SECRETS
        for file, value in found.items()
        if secret.lower() in json.dumps(value, ensure_ascii=False).lower()
    }


def test_no_secret_gets_out(told: FakeGuest, tmp_path: Path) -> None:
    found = make(tmp_path)
    assert leaked(found) == set()
    assert {"info.json", "logs.json", "audit.json", "doctor.json", "config.json", "homes.json"} <= set(found)


def test_what_helps_is_in_it(told: FakeGuest, tmp_path: Path) -> None:
    found = make(tmp_path)
    (session,) = found["sessions.json"]
    (home,) = found["homes.json"]
    assert session["name"] == home == found["processes.json"][0]["session"] == found["audit.json"]["last"][0]["session"]
    assert f"session {home}" in found["hello.json"]["degraded"]
    assert [line["message"] for line in found["logs.json"]["lines"]][-1] == "ready"
    assert found["logs.json"]["lines"][4]["message"].startswith(f"session {home}: [removed] from [removed] cannot be")
    assert found["stats.json"]["links"] == 2
    manifest = found["manifest.json"]
    parts = {part["file"]: part for part in manifest["parts"]}
    assert set(parts) >= set(found) - {"manifest.json"}
    assert all(part["left_out"] >= 0 or part["missing"] for part in parts.values() if "left_out" in part)
    assert parts["logs.json"]["left_out"] > 10


def test_names_and_commands_are_told_where_they_were_asked_for(told: FakeGuest, tmp_path: Path) -> None:
    found = make(tmp_path, "--with-names", "--with-commands")
    assert found["sessions.json"][0]["name"] == "payroll-2026"
    assert found["processes.json"][0]["argv"][0] == "curl"
    assert found["audit.json"]["last"][0]["argv"] == ["login", "swordfish-9"]
    assert "hunter2" not in json.dumps(found)  # what is in an environment, or in settings, has no switch


def test_a_call_that_fails_leaves_its_part_missing_and_no_other(told: FakeGuest, tmp_path: Path) -> None:
    def refuse(_: object) -> object:
        raise Fault("UNAVAILABLE", "coming up: storage at /home/alice")

    told.answers["stats"] = refuse
    found = make(tmp_path)
    (part,) = [part for part in found["manifest.json"]["parts"] if part["file"] == "stats.json"]
    assert part["missing"] == "UNAVAILABLE: coming up: storage at [removed]"
    assert "doctor.json" in found


def test_a_coworkd_that_hangs_is_not_waited_for_at_every_call(
    told: FakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []

    def call(client: Client, method: str, params: object = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        waited.append(timeout_s)
        raise DeadlineExceeded(f"{method} was not answered")

    monkeypatch.setattr(Client, "call", call)
    assert "hello.json" in make(tmp_path)  # which was said before it hung
    assert waited[0] == ANSWER_S
    assert set(waited[1:]) == {HANGS_S}


def test_without_coworkd_the_machine_is_looked_at(
    told: FakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(*_: object, **__: object) -> Client:
        raise Unavailable("nobody listens on /home/alice/s")

    monkeypatch.setattr(control_bundle, "connect", connect)
    found = make(tmp_path)
    assert leaked(found) == set()
    assert {"versions.json", "config.json", "homes.json", "policies.json", "mounts.json"} <= set(found)
    missing = {part["file"]: part["missing"] for part in found["manifest.json"]["parts"] if "missing" in part}
    assert missing["hello.json"] == ("coworkd does not answer, nor any call of it: nobody listens on [removed]")
    assert "audit.json" in missing  # it was looked for at /home/alice/state
    assert "missing" in capsys.readouterr().err


def test_a_guest_tells_of_its_machine_and_is_not_believed_in_names_of_files(
    told: FakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def report(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        parts = [
            {"file": "versions.json", "source": "this machine", "json": '{"kernel": "6.1"}', "left_out": 3},
            {"file": "units.json", "source": "systemctl show", "missing": "there is no systemctl here"},
            {"file": "../../etc/passwd", "source": "x", "json": "{}"},
            {"file": "/etc/shadow.json", "source": "x", "json": "{}"},
        ]
        return {"parts": parts}

    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(report_machine, "read", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(report_proc, "read", lambda path: pytest.fail(f"{path} was read"))
    told.answers["report"] = report
    found = make(tmp_path)
    assert found["versions.json"] == {"kernel": "6.1"}
    parts = {part["file"]: part for part in found["manifest.json"]["parts"]}
    assert parts["versions.json"]["left_out"] == 3
    assert parts["units.json"]["missing"] == "there is no systemctl here"
    assert not [name for name in parts if "/" in name]
    assert "payroll-2026" in asked[0]["names"]
    assert len(asked[0]["salt"]) == 16
    assert (asked[0]["with_names"], asked[0]["with_commands"]) == (False, False)


def test_a_machine_that_nobody_tells_of_is_missing_where_it_is_another(
    told: FakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(report_proc, "read", lambda path: pytest.fail(f"{path} was read"))
    found = make(tmp_path)  # this guest has no such call
    assert "info.json" in found
    assert "versions.json" not in found
    (part,) = [part for part in found["manifest.json"]["parts"] if part["source"] == "report"]
    assert part["missing"].startswith("coworkd does not tell of its machine")


def test_a_file_of_settings_that_is_wrong_is_told_and_the_defaults_hold(told: FakeGuest, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("hunter2 = 1\n")
    found = make(tmp_path)
    assert leaked(found) == set()
    (part, _) = [part for part in found["manifest.json"]["parts"] if part["file"] == "config.json"]
    assert part["missing"].startswith("it is not valid")


def test_a_file_that_is_there_is_not_replaced(
    told: FakeGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").write_text("precious")
    assert main(["--to", "unix:///fake", "doctor", "--bundle", str(tmp_path / "b")]) != 0
    assert "File exists" in capsys.readouterr().err
    assert (tmp_path / "b").read_text() == "precious"
