"""What an image is made from: the frozen words of the builder.

A *recipe* is everything that decides the bytes of an image: the same recipe over the same archive gives the same SHA-256. What only
decides where things are kept (the cache, the output directory) is no part of it. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ArchitectureName = Literal["x86_64", "aarch64"]
SOURCE_DATE_EPOCH = 1_767_225_600
"""The time of every file: 2026-01-01. A constant, so that a commit which changes nothing in the image changes no byte of it."""
ROOT_LABEL = "cowork-root"
ROOT_UUID = "6d8f1c2e-3b1a-4f5e-9c47-c0c0a4d00001"
HASH_SEED = "6d8f1c2e-3b1a-4f5e-9c47-c0c0a4d00002"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What differs from one machine to the other. `console` is the first serial console under QEMU; VZ's is hvc0 on both."""

    name: ArchitectureName
    debian: str
    console: str
    efi_stub: str
    efi_boot_file: str
    root_partition_type: str
    """GPT type of a root file system of this architecture (the Discoverable Partitions Specification)."""
    elf_machine: int
    ld_cache_flags: int
    """What ld.so.cache says of a library of this architecture (glibc's elf/cache.h: FLAG_ELF_LIBC6 and the ABI)."""
    triplet: str
    loader: str


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "x86_64": Architecture(
            name="x86_64",
            debian="amd64",
            console="ttyS0",
            efi_stub="linuxx64.efi.stub",
            efi_boot_file="BOOTX64.EFI",
            root_partition_type="4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            elf_machine=62,
            ld_cache_flags=0x0303,
            triplet="x86_64-linux-gnu",
            loader="ld-linux-x86-64.so.2",
        ),
        "aarch64": Architecture(
            name="aarch64",
            debian="arm64",
            console="ttyAMA0",
            efi_stub="linuxaa64.efi.stub",
            efi_boot_file="BOOTAA64.EFI",
            root_partition_type="B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
            elf_machine=183,
            ld_cache_flags=0x0A03,
            triplet="aarch64-linux-gnu",
            loader="ld-linux-aarch64.so.1",
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A release of a distribution, and what differs in it. `family` names the package lists that are its own."""

    name: str
    family: Literal["debian", "ubuntu"]
    python: str
    cloud_kernel: str
    """The kernel's package; `{arch}` is the distribution's word for the architecture."""
    full_kernel: str
    components: tuple[str, ...]
    efi_stub_package: str
    """Empty where the stub comes with systemd itself."""


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "bookworm": Suite(
            name="bookworm",
            family="debian",
            python="3.11",
            cloud_kernel="linux-image-cloud-{arch}",
            full_kernel="linux-image-{arch}",
            components=("main",),
            efi_stub_package="systemd-boot-efi",
        ),
        "jammy": Suite(
            name="jammy",
            family="ubuntu",
            python="3.10",
            cloud_kernel="linux-image-virtual-hwe-22.04",
            full_kernel="linux-image-generic-hwe-22.04",
            components=("main", "universe"),
            efi_stub_package="",
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides an image."""

    architecture: Architecture
    suite: Suite
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    """APT sources, each a file's text in either of APT's two forms (sources.list(5))."""
    keyring: str = ""
    full_kernel: bool = False
    verity: bool = False
    update_key: str = ""
    """The public key line of minisign that updates must be signed with; empty for none."""
    console_login: bool = False
    source_date_epoch: int = SOURCE_DATE_EPOCH

    @property
    def kernel_package(self) -> str:
        """The package of the kernel this image boots."""
        pattern = self.suite.full_kernel if self.full_kernel else self.suite.cloud_kernel
        return pattern.format(arch=self.architecture.debian)

    @property
    def command_line(self) -> str:
        """The kernel's. The last console that is there is /dev/console: the serial port under QEMU, hvc0 under VZ."""
        return (
            f"console=hvc0 console={self.architecture.console} root=LABEL={ROOT_LABEL} ro "
            "loglevel=4 panic=-1 net.ifnames=0 audit=0 systemd.show_status=0 systemd.gpt_auto=0"
        )


def compose_packages(recipe: Recipe) -> tuple[str, ...]:
    """What is asked of the archive: the lists' packages, the kernel, what makes it boot by EFI; sorted, each once."""
    own = (recipe.kernel_package, recipe.suite.efi_stub_package)
    return tuple(sorted({name for name in (*recipe.packages, *own) if name}))
