from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.cli import embedded
from coworkd.cli.embedded import STATE_VARIABLE, open_embedded
from coworkd.model.errors import Unavailable

PROGRAM = """\
import os, signal, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open(os.path.join(words['--state'], 'pid'), 'w').write(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('ready unix://' + words['--socket'], flush=True)
signal.pause()
"""

StandIn = Callable[[str], None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Have a program run in coworkd's place: an interpreter that drops `-m coworkd local` and runs it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(STATE_VARIABLE, raising=False)

    def use(program: str) -> None:
        script = tmp_path / "program.py"
        script.write_text(program)
        wrapper = tmp_path / "python"
        wrapper.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} -I -S {script} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(wrapper))

    return use


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("coworkd-"))


def test_an_embedded_coworkd_lives_as_long_as_its_block(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in(PROGRAM)
    with open_embedded() as uri:
        assert uri.startswith("unix:///")
        assert uri.endswith("coworkd.sock")
        (state,) = [path.parent for path in tmp_path.glob("coworkd-*/pid")]
        pid = (state / "pid").read_text()
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")
    assert left(tmp_path) == []


def test_a_state_that_is_named_is_kept(tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(PROGRAM)
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "mine"))
    with open_embedded():
        pass
    assert (tmp_path / "mine" / "pid").exists()
    assert left(tmp_path) == []


def test_a_coworkd_that_does_not_come_up_is_told_and_leaves_nothing(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in("raise SystemExit(1)")
    with pytest.raises(Unavailable, match="could not be started"), open_embedded():
        pytest.fail("there is nothing to talk to")
    assert left(tmp_path) == []


def test_a_coworkd_that_does_not_end_is_ended(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(PROGRAM.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"))
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT_S", 0.2)
    with open_embedded():
        (pid,) = [path.read_text() for path in tmp_path.glob("coworkd-*/pid")]
    assert not os.path.exists(f"/proc/{pid}")


def test_an_error_inside_ends_it_too(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in(PROGRAM)
    with pytest.raises(KeyError), open_embedded():
        raise KeyError("mine")
    assert left(tmp_path) == []
