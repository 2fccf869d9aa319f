from __future__ import annotations

import pytest

from imagebuild.recipe import ARCHITECTURES, SUITES, compose_packages
from tests.unit.imagebuild.tree_lab import recipe


@pytest.mark.parametrize(
    ("architecture", "suite", "full", "kernel"),
    [
        ("x86_64", "bookworm", False, "linux-image-cloud-amd64"),
        ("aarch64", "bookworm", False, "linux-image-cloud-arm64"),
        ("aarch64", "bookworm", True, "linux-image-arm64"),
        ("x86_64", "jammy", False, "linux-image-virtual-hwe-22.04"),
        ("aarch64", "jammy", True, "linux-image-generic-hwe-22.04"),
    ],
)
def test_each_suite_has_its_kernels(architecture: str, suite: str, full: bool, kernel: str) -> None:
    assert recipe(architecture, suite, full_kernel=full).kernel_package == kernel


def test_the_stub_is_a_package_only_where_it_is_one() -> None:
    assert "systemd-boot-efi" in compose_packages(recipe())
    assert compose_packages(recipe(suite="jammy")) == ("bash", "linux-image-virtual-hwe-22.04")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_serial_port_is_the_last_console(architecture: str) -> None:
    words = recipe(architecture).command_line.split()
    consoles = [word for word in words if word.startswith("console=")]
    assert consoles == ["console=hvc0", f"console={ARCHITECTURES[architecture].console}"]


def test_suites_are_known_by_their_own_names() -> None:
    assert all(name == suite.name for name, suite in SUITES.items())
    assert all(name == architecture.name for name, architecture in ARCHITECTURES.items())
