from __future__ import annotations

from host_stub.vz.wake import observe_wake
from tests.unit.host_stub.vz.fake_vz import FakeMac, Plan


def test_wake_is_told_while_the_observer_is_kept() -> None:
    mac = FakeMac()
    told: list[str] = []
    observer = observe_wake(mac.framework, lambda: told.append("woke"))
    mac.wake()
    assert told == ["woke"]
    del observer
    mac.wake()
    assert told == ["woke"]


def test_without_appkit_nothing_is_observed() -> None:
    assert observe_wake(FakeMac(Plan(appkit=False)).framework, lambda: None) is None
