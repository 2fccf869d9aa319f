"""What doctor says of memory and pressure."""

from __future__ import annotations

import pytest

from coworkd.services.doctor_limits import check_oom_scores, check_pressure


class Machine:
    def __init__(self, own: int = 0, launcher: int | None = 0, *, has_psi: bool = True) -> None:
        self._files = {"/proc/self/oom_score_adj": f"{own}\n"}
        self._launcher = "pid 7 answers" if launcher is not None else "nobody"
        if launcher is not None:
            self._files["/proc/7/oom_score_adj"] = f"{launcher}\n"
        if has_psi:
            self._files["/proc/pressure/memory"] = "some avg10=0.00\n"

    def read(self, path: str) -> str:
        try:
            return self._files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    def launcher(self) -> str:
        return self._launcher


@pytest.mark.parametrize(
    ("own", "launcher", "state", "said"),
    [
        (-1000, -1000, "ok", "never taken"),
        (0, 0, "ok", "after every command"),
        (-1000, None, "ok", "coworkd -1000"),
        (100, -1000, "degraded", "before a command"),
        (-1000, 500, "degraded", "its launcher 500"),
    ],
)
def test_commands_are_taken_first(own: int, launcher: int | None, state: str, said: str) -> None:
    finding = check_oom_scores(Machine(own, launcher))
    assert finding.state == state
    assert said in finding.detail
    assert bool(finding.remedy) == (state != "ok")


@pytest.mark.parametrize(("has_psi", "state"), [(True, "ok"), (False, "degraded")])
def test_pressure_is_told_or_not(has_psi: bool, state: str) -> None:
    assert check_pressure(Machine(has_psi=has_psi)).state == state
