"""From the first moment to the end: what is loaded when, and who may come in. What comes up and goes down is tried in test_app."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from coworkd.bring_up import Connects
from coworkd.config import Config, StorageConfig
from coworkd.lifetime import SLOT, read_token, serve
from coworkd.release.slots import Slot, SlotState, begin
from coworkd.release.store import read_state, write_state
from coworkd.services.logs import LogService
from coworkd.slot_start import Handover
from coworkd.system.slot_files import HeldFiles


def test_until_the_door_is_open_only_what_it_needs_is_loaded() -> None:
    """A slow machine answers seconds earlier for it."""
    program = (
        "import sys, coworkd.cli.daemon; late = ('coworkd.app', 'coworkd.composition', 'coworkd.seccomp', 'coworkd.netpolicy', "
        "'coworkd.sandbox', 'cryptography'); print(*[name for name in late if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_no_token_file_is_no_token() -> None:
    assert read_token("") is None


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert read_token(str(tmp_path / "token")) == "s3cret"


@pytest.mark.parametrize("text", ["", "\n", " \t\n"])
def test_an_empty_token_file_is_no_open_door(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(OSError, match="empty") as caught:
        read_token(str(tmp_path / "token"))
    assert caught.value.errno == errno.EINVAL


def test_a_token_file_that_is_missing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_token(str(tmp_path / "token"))


def test_an_end_that_is_wanted_while_a_release_comes_up_is_no_failure_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice would give up a good one: a guest that is turned off soon after it was turned on."""
    config = Config(
        endpoints=(f"unix://{tmp_path}/sock",),
        state_dir=str(tmp_path / "state"),
        sessions_dir=str(tmp_path / "sessions"),
        launcher_socket=str(tmp_path / "launcher"),
        storage=StorageConfig(kind="directory"),
    )
    slot_dir = tmp_path / "state" / "slots"
    begun = begin(SlotState(chosen="a", a=Slot(version="9.1", sha256="x", contents=("code",))), "a", boot_id="b")
    slot_dir.mkdir(parents=True)
    with HeldFiles(str(slot_dir)) as files:
        write_state(files, begun)
    handover = Handover(
        slot="a",
        version="9.1",
        contents=("code",),
        directory=str(slot_dir / "a"),
        image_version="1.0",
        words=1,
        vendor_policies="",
        path=(),
        command=(),
    )
    monkeypatch.setenv(SLOT, msgspec.json.encode(handover).decode())

    async def connect() -> trio.socket.SocketType:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()
        raise AssertionError

    async def main() -> None:
        with contextlib.closing(LogService(stream=None)) as logs, trio.fail_after(60):
            await serve(config, mode="serve", connects=Connects(connect, connect), logs=logs, ready=lambda: None)

    trio.run(main)
    with HeldFiles(str(slot_dir)) as files:
        state, _ = read_state(files)
    assert (state.attempt, state.a) == (None, begun.a)
