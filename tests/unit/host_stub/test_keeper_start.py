"""Starting a keeper; what it says while it starts is tried in test_keeper."""

from __future__ import annotations

import sys

import pytest

from host_stub import keeper_start
from host_stub.bundle import Bundle
from host_stub.bundle_files import no_progress
from host_stub.keeper_start import ERRORS_LIMIT_BYTES, keeper_command, start_keeper
from host_stub.words import Trouble


def test_the_command_names_bundle_and_pipe(bundle: Bundle) -> None:
    assert keeper_command(bundle, 7)[1:] == ["-m", "host_stub.keeper", "--report-fd", "7", str(bundle.path)]
    assert "--report-fd" not in keeper_command(bundle, None)


@pytest.mark.parametrize(("program", "said"), [("", "it said nothing"), ("raise OSError('why')", "OSError: why")])
def test_a_keeper_that_dies_without_a_word_is_told_with_its_last_line(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr(keeper_start, "keeper_command", lambda *_: [sys.executable, "-c", program])
    with pytest.raises(Trouble, match=said) as caught:
        start_keeper(bundle, no_progress)
    assert (caught.value.code, "keeper.err" in caught.value.remedy) == ("keeper_died", True)


def test_what_another_keeper_said_stays_until_it_is_too_much(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = bundle.logs / "keeper.err"
    errors.write_text("of the one that runs\n")
    monkeypatch.setattr(keeper_start, "keeper_command", lambda *_: [sys.executable, "-c", ""])
    with pytest.raises(Trouble, match="it said nothing"):
        start_keeper(bundle, no_progress)
    assert errors.read_text() == "of the one that runs\n"
    errors.write_bytes(b"x" * (ERRORS_LIMIT_BYTES + 1))
    with pytest.raises(Trouble, match="it said nothing"):
        start_keeper(bundle, no_progress)
    assert errors.read_bytes() == b""
