"""Starting a keeper; what it says while it starts is tried in test_keeper."""

from __future__ import annotations

import sys

import pytest

from host_stub import keeper_start
from host_stub.bundle import Bundle
from host_stub.bundle_files import no_progress
from host_stub.keeper_start import keeper_command, start_keeper
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
