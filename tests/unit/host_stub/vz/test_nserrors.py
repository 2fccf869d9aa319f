from __future__ import annotations

import pytest

from host_stub.vz.nserrors import describe, trouble_from
from tests.unit.host_stub.vz.fake_vz import FakeMac


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (1, "vz_internal"),
        (2, "invalid_configuration"),
        (5, "bad_disk_image"),
        (6, "too_many_machines"),
        (8, "no_space"),
        (10, "no_hypervisor"),
        (4, "vz_failed"),
    ],
)
def test_codes_of_vz_are_told_apart(code: int, word: str) -> None:
    mac = FakeMac()
    trouble = trouble_from(mac.framework, mac.error(code, "It failed."), "the machine cannot be started")
    assert trouble.code == word
    assert trouble.message.startswith("the machine cannot be started: It failed.")
    assert trouble.remedy


def test_codes_of_other_domains_are_not_taken_for_vz() -> None:
    mac = FakeMac()
    assert trouble_from(mac.framework, mac.error(5, "I/O", domain="NSPOSIXErrorDomain"), "it").code == "vz_failed"


def test_the_missing_entitlement_is_told_with_its_commands() -> None:
    mac = FakeMac()
    error = mac.error(
        2, "Invalid.", reason="The process doesn’t have the “com.apple.security.virtualization” entitlement."
    )
    trouble = trouble_from(mac.framework, error, "it")
    assert trouble.code == "no_entitlement"
    assert "codesign --force --sign -" in trouble.remedy


def test_no_error_is_told_too() -> None:
    assert "no reason" in trouble_from(FakeMac().framework, None, "it failed").message


def test_describe_says_the_reason_once() -> None:
    mac = FakeMac()
    assert describe(mac.error(2, "Invalid. It is bad.", reason="It is bad.")) == "Invalid. It is bad. (VZErrorDomain 2)"
    assert describe(mac.error(2, "Invalid.", reason="It is bad.")) == "Invalid. It is bad. (VZErrorDomain 2)"
