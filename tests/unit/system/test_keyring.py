from __future__ import annotations

import pytest

from coworkd.system.keyring import join_new_session_keyring
from tests.unit.system.syscalls import ENOSYS, EPERM, fake_syscalls


def test_join_asks_for_an_anonymous_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch, 12345)
    join_new_session_keyring()
    assert kernel.call[1] == (1, 0, 0, 0, 0)


def test_join_passes_over_a_kernel_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_syscalls(monkeypatch, ENOSYS)
    join_new_session_keyring()


def test_join_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_syscalls(monkeypatch, EPERM)
    with pytest.raises(PermissionError):
        join_new_session_keyring()
