from __future__ import annotations

from pathlib import Path

import pytest

from host_stub.qemu.accelerator import Evidence, choose_accelerator, look_for_evidence, parse_cpuinfo, probe_kvm
from host_stub.words import Accelerator, Trouble

HERE = Evidence(system="Linux", architecture="x86_64", virtualizes=True, kvm=None)
MAC = Evidence(system="Darwin", architecture="aarch64", hvf=True)


def test_kvm_is_taken_where_the_processor_says_that_it_virtualizes() -> None:
    assert choose_accelerator("x86_64", HERE).accelerator == "kvm"


def test_a_kvm_that_opens_proves_nothing() -> None:
    odd = Evidence(system="Linux", architecture="x86_64", virtualizes=False, kvm=None)
    choice = choose_accelerator("x86_64", odd)
    assert choice.accelerator == "tcg"
    assert "stock kernel" in choice.why


def test_a_kvm_that_does_not_open_is_told_with_its_reason() -> None:
    shut = Evidence(system="Linux", architecture="x86_64", virtualizes=True, kvm="permission denied")
    choice = choose_accelerator("x86_64", shut)
    assert (choice.accelerator, choice.why) == ("tcg", "/dev/kvm: permission denied")


def test_a_foreign_guest_is_emulated() -> None:
    assert choose_accelerator("aarch64", HERE).accelerator == "tcg"
    assert choose_accelerator("x86_64", MAC).accelerator == "tcg"


def test_hvf_is_taken_where_macos_says_so() -> None:
    assert choose_accelerator("aarch64", MAC).accelerator == "hvf"
    bare = Evidence(system="Darwin", architecture="aarch64", hvf=False)
    assert choose_accelerator("aarch64", bare).accelerator == "tcg"


def test_a_person_may_know_better() -> None:
    odd = Evidence(system="Linux", architecture="x86_64", virtualizes=False, kvm=None)
    assert choose_accelerator("x86_64", odd, "kvm").accelerator == "kvm"
    assert choose_accelerator("x86_64", HERE, "tcg").accelerator == "tcg"


@pytest.mark.parametrize(
    ("evidence", "wanted", "said"),
    [
        (HERE, "hvf", "no hvf on Linux"),
        (MAC, "hvf", "own architecture"),
        (Evidence(system="Linux", architecture="x86_64", kvm="no such file or directory"), "kvm", "no such file"),
    ],
)
def test_what_cannot_be_is_refused(evidence: Evidence, wanted: Accelerator, said: str) -> None:
    with pytest.raises(Trouble, match=said) as caught:
        choose_accelerator("x86_64", evidence, wanted)
    assert caught.value.code == "no_accelerator"


@pytest.mark.parametrize(
    ("flags", "virtualizes"),
    [("fpu vmx sse", True), ("fpu svm", True), ("fpu sse", False), ("fpu novmx svmlock", False)],
)
def test_cpuinfo_tells_by_its_flags(flags: str, virtualizes: bool) -> None:
    assert parse_cpuinfo(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n") is virtualizes


def test_cpuinfo_without_flags_says_nothing() -> None:
    assert parse_cpuinfo("Features\t: fp asimd vmx\n") is False


def test_what_is_no_kvm_is_told(tmp_path: Path) -> None:
    plain = tmp_path / "kvm"
    plain.touch()
    why, ready = probe_kvm(plain)
    assert why is not None
    assert "does not answer as KVM does" in why
    assert not ready
    assert probe_kvm(tmp_path / "none") == ("no such file or directory", False)


def test_this_host_can_be_asked() -> None:
    evidence = look_for_evidence()
    assert choose_accelerator("x86_64", evidence).accelerator in ("kvm", "hvf", "tcg")
