from __future__ import annotations

from typing import Any

import pytest

from coworkd.system import power


def test_the_kernel_is_told_to_turn_off_and_its_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def refuse(command: Any) -> int:
        told.append(command.value & 0xFFFFFFFF)
        return -1

    monkeypatch.setattr(power, "_reboot", refuse)
    with pytest.raises(OSError):
        power.turn_off()
    assert told == [0x4321FEDC]
