"""What the machine tells without coworkd."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd import __version__
from coworkd.config import Config, HealthConfig
from coworkd.services import report_machine
from coworkd.services.audit import AuditLog
from coworkd.services.report_machine import find_pids, parts_of_machine
from coworkd.services.report_part import collect
from coworkd.services.report_redact import Redactor
from coworkd.services.report_words import Words

WORDS = Words.of_this_program()


def taken(config: Config, name: str, *, audit: bool = True, **more: Any) -> tuple[Any, str | None]:
    redactor = Redactor(WORDS, **more)
    (found,) = [collect(part, redactor) for part in parts_of_machine(config, audit=audit) if part.file == name]
    return found


def test_versions_of_what_an_error_may_lie_in() -> None:
    told, why = taken(Config(), "versions.json")
    assert why is None
    assert (told["kernel"], told["machine"], told["coworkd"]) == (os.uname().release, os.uname().machine, __version__)
    assert {"trio", "msgspec", "msgpack"} <= set(told["packages"])
    assert told["memory_kb"]["MemTotal"] > 1024


def test_settings_say_what_is_set_and_not_to_what() -> None:
    config = structs.replace(Config(), token_file="/home/alice/hunter2", share_root="/mnt/.virtiofs-root/shared")
    told, why = taken(config, "config.json")
    assert why is None
    assert (told["token_file"], told["state_dir"], told["finished"]["keep_count"]) == (
        "[removed]",
        "/sessions/.coworkd",
        1024,
    )
    assert "alice" not in str(told)
    assert "hunter2" not in str(told)


def test_what_is_no_file_among_the_policies_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "egress").mkdir()
    os.mkfifo(tmp_path / "egress/pipe.json")
    (tmp_path / "egress/gone.json").symlink_to("nowhere")
    (tmp_path / "egress/default.json").write_text("{}")
    config = structs.replace(Config(), admin_policies=str(tmp_path), vendor_policies="/nowhere")
    told, why = taken(config, "policies.json")
    assert (why, [policy["name"] for policy in told]) == (None, ["default"])


def test_policies_are_told_by_their_hashes(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "default.toml").write_text("x")
    (tmp_path / "profiles" / "hunter2.toml").write_text("password = 'hunter2'")
    config = structs.replace(Config(), admin_policies=str(tmp_path), vendor_policies="/nowhere")
    told, why = taken(config, "policies.json")
    assert why is None
    assert [(one["layer"], one["kind"], one["name"], one["bytes"]) for one in told] == [
        ("admin", "profiles", "default", 1),
        ("admin", "profiles", "[removed]", 20),
    ]
    assert told[0]["sha256"] == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_an_audit_log_is_read_where_nobody_tells_of_it(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "audit", boot_id="b", version="1.2")
    log.close()
    config = structs.replace(Config(), state_dir=str(tmp_path))
    told, why = taken(config, "audit.json")
    assert why is None
    assert (told["verified"]["ok"], told["kinds_of_the_last"]) == (True, {"audit.opened": 1})
    assert not [part for part in parts_of_machine(config, audit=False) if part.file == "audit.json"]
    assert taken(structs.replace(config, state_dir="/nowhere"), "audit.json") == (None, "No such file or directory")


def test_homes_have_pseudonyms(tmp_path: Path) -> None:
    for name in ("payroll", ".coworkd"):
        (tmp_path / name).mkdir()
    config = structs.replace(Config(), sessions_dir=str(tmp_path))
    (name,) = taken(config, "homes.json")[0]
    assert name.startswith("name-")
    assert taken(config, "homes.json", with_names=True)[0] == ["payroll"]


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_a_coworkd_that_hangs_still_tells_how_it_is(tmp_path: Path) -> None:
    path = tmp_path / "h"
    config = structs.replace(Config(), health=HealthConfig(endpoints=(f"unix://{path}",)))
    with answering(path, b'HTTP/1.1 503 x\r\n\r\n{"live": false, "turned_ago_s": 33.5, "doing": "hunter2"}\n'):
        told, why = taken(config, "health.json")
    said = {"live": False, "turned_ago_s": 33.5, "doing": "[removed]"}
    assert (told, why) == ({"/live": said, "/ready": said}, None)


def test_a_health_port_that_is_not_there_is_missing(tmp_path: Path) -> None:
    config = structs.replace(Config(), health=HealthConfig(endpoints=(f"unix://{tmp_path}/h",)))
    assert taken(config, "health.json") == (None, "No such file or directory")
    assert taken(structs.replace(config, health=HealthConfig(endpoints=())), "health.json")[0] is None


SHOWN = """Id=coworkd.service
ActiveState=activating
SubState=auto-restart
Result=watchdog
NRestarts=3
ExecMainStatus=9
MainPID=0
StatusText=coming up: storage of hunter2

Id=coworkd-launcher.service
ActiveState=active
MainPID=41
"""
JOURNAL = """{"__MONOTONIC_TIMESTAMP":"1500000","PRIORITY":"3","_SYSTEMD_UNIT":"coworkd.service","MESSAGE":"the token is hunter2"}
{"MESSAGE":[1,2,3],"_SYSTEMD_UNIT":"coworkd.service","_CMDLINE":"coworkd --token hunter2"}
{"MESSAGE":
"""


def test_units_tell_how_they_ended_and_the_journal_what_we_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str]) -> str:
        asked.append(argv)
        return SHOWN if argv[0] == "systemctl" else JOURNAL

    monkeypatch.setattr(report_machine, "_run", run)
    units, why = taken(Config(), "units.json")
    assert why is None
    assert units["coworkd.service"]["Result"] == "watchdog"
    assert units["coworkd.service"]["StatusText"] == "coming up: storage of [removed]"
    journal, why = taken(Config(), "journal.json")
    assert why is None
    assert journal[0] == {
        "unit": "coworkd.service",
        "at_s": 1.5,
        "message": "the token is [removed]",
        "priority": "3",
    }
    assert [line["message"] for line in journal[1:]] == ["[removed]", "unreadable"]
    assert find_pids() == {"launcher": 41}
    assert all(argv[0] in ("systemctl", "journalctl") for argv in asked)


def test_a_program_that_is_not_there_or_fails_leaves_its_part_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert taken(Config(), "units.json") == (None, "there is no systemctl here")
    assert find_pids() == {}
    monkeypatch.setattr("shutil.which", lambda name: "/bin/false")
    assert "has failed" in str(taken(Config(), "journal.json")[1])
