"""What is handed over an exec, and who is held to what. The exec itself is tried in tests/root/test_updates.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from coworkd import __version__, slot_start
from coworkd.bring_up import Ground
from coworkd.config import Config, StorageConfig, UpdateConfig
from coworkd.model import update
from coworkd.services.updates import SlotRun, Updates
from coworkd.slot_start import (
    LISTENERS,
    SLOT,
    Handover,
    SlotStart,
    compose_facts,
    exec_image,
    exec_slot,
    read_handover,
    take_listeners,
    with_policies,
)

RUN = SlotRun(slot="a", version="9.1", contents=("code",), directory="/slots/a")


class Execed(BaseException):
    def __init__(self, argv: tuple[str, ...], environment: dict[str, str]) -> None:
        super().__init__(argv)
        self.argv, self.environment = argv, environment


@pytest.fixture(autouse=True)
def no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(path: str, argv: tuple[str, ...], environment: dict[str, str]) -> None:
        assert path == argv[0]
        raise Execed(argv, environment)

    monkeypatch.setattr(os, "execve", execve)
    for name in (SLOT, LISTENERS):
        monkeypatch.delenv(name, raising=False)


def handed(environment: dict[str, str]) -> Handover:
    return msgspec.json.decode(environment[SLOT], type=Handover)


def test_a_release_is_told_what_the_image_is() -> None:
    with pytest.raises(Execed) as execed:
        exec_slot(RUN, {}, vendor_policies="/opt/policies")
    handover = handed(execed.value.environment)
    assert (handover.slot, handover.version, handover.image_version) == ("a", "9.1", __version__)
    assert (handover.words, handover.vendor_policies) == (update.WORDS, "/opt/policies")
    assert execed.value.argv[:4] == (sys.executable, "-I", "-B", "-c")
    assert handover.command[0] == sys.executable


def test_its_sockets_go_with_it_and_with_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(Execed) as execed:
            exec_slot(RUN, {"unix:///x": read}, vendor_policies="")
        assert os.get_inheritable(read)
        assert not os.get_inheritable(write)
        monkeypatch.setenv(LISTENERS, execed.value.environment[LISTENERS])
        assert take_listeners() == {"unix:///x": read}
        assert not os.get_inheritable(read)
        assert take_listeners() == {}
    finally:
        os.close(read)
        os.close(write)


def test_the_way_back_is_the_images_own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Execed) as execed:
        exec_slot(RUN, {}, vendor_policies="")
    monkeypatch.setenv(SLOT, execed.value.environment[SLOT])
    handover = read_handover()
    assert handover is not None
    with pytest.raises(Execed) as back:
        exec_image(handover, {})
    assert back.value.argv == handover.command
    assert SLOT not in back.value.environment


def test_without_a_handover_it_is_the_images() -> None:
    assert read_handover() is None


def test_a_release_is_held_to_the_image_and_not_to_itself(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k")
    config = Config(update=UpdateConfig(key=str(key)))
    handover = Handover(
        slot="a",
        version="9.1",
        contents=("code",),
        directory="/slots/a",
        image_version="0.5",
        words=77,
        vendor_policies="",
        path=(),
        command=(),
    )
    facts = compose_facts(config, boot_id="b", handover=handover, enabled=True)
    assert facts.trust is not None
    assert (facts.trust.image_version, facts.trust.words, facts.image_version) == ("0.5", 77, "0.5")


def test_without_a_key_there_is_no_trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slot_start, "find_update_key", lambda: None)
    assert compose_facts(Config(), boot_id="b", handover=None, enabled=True).trust is None
    key = tmp_path / "key"
    key.write_bytes(b"k")
    config = Config(update=UpdateConfig(key=str(key)))
    assert compose_facts(config, boot_id="b", handover=None, enabled=False).trust is None


def test_a_key_that_is_named_and_not_there_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        compose_facts(Config(update=UpdateConfig(key=str(tmp_path / "none"))), boot_id="b", handover=None, enabled=True)


def test_only_what_was_signed_for_policies_changes_the_vendors() -> None:
    config = Config(vendor_policies="/opt/policies", admin_policies="/etc/policies")
    assert with_policies(config, RUN) == config
    both = SlotRun(slot="a", version="9.1", contents=("code", "policies"), directory="/slots/a")
    assert with_policies(config, both).policy_dirs == ("/slots/a/policies", "/etc/policies")


def test_an_end_that_comes_last_is_not_lost_in_the_exec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The release would know nothing of it: a machine that is to be turned off would stay on."""
    config = Config(
        state_dir=str(tmp_path), sessions_dir=str(tmp_path), storage=StorageConfig(kind="directory"), endpoints=()
    )

    async def connect() -> trio.socket.SocketType:
        raise AssertionError

    async def choose(self: Updates) -> SlotRun:
        return RUN

    async def carry(self: Updates, records: object) -> None:
        ground.ending.end("asked for over a link")

    monkeypatch.setattr(Updates, "choose", choose)
    monkeypatch.setattr(Updates, "carry", carry)

    async def main() -> None:
        await ground.storage.bring_up()
        with ground.ending.coming_up() as scope:
            await SlotStart(config, ground=ground, mode="serve").enter(dict, list)
        assert scope.cancelled_caught

    ground = Ground(config, connect=connect)
    trio.run(main)
    ground.close()
