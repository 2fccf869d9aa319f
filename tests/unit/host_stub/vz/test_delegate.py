from __future__ import annotations

from typing import Any

from host_stub.vz.delegate import delegates
from tests.unit.host_stub.vz.fake_vz import FakeMac


def test_delegates_are_made_once_for_a_framework() -> None:
    framework = FakeMac().framework
    assert delegates(framework) is delegates(framework)


def test_machine_delegate_tells_both_ends() -> None:
    told: list[Any] = []
    delegate = delegates(FakeMac().framework).machine.alloc().init()
    delegate.on_stopped = told.append
    delegate.guestDidStopVirtualMachine_(None)
    delegate.virtualMachine_didStopWithError_(None, "why")
    assert told == [None, "why"]


def test_listener_delegate_gives_the_answer_back() -> None:
    delegate = delegates(FakeMac().framework).listener.alloc().init()
    delegate.on_connection = lambda connection: connection == "wanted"
    assert delegate.listener_shouldAcceptNewConnection_fromSocketDevice_(None, "wanted", None) is True
    assert delegate.listener_shouldAcceptNewConnection_fromSocketDevice_(None, "other", None) is False
