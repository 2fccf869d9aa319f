"""docker's and podman's own default profiles load unchanged, compile for both architectures, and pass the check.

They come out of Debian packages, fetched by apt into the ignored `build/`; they are never kept in the repository. That they
cannot be had is a failure, not a skip.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from coworkd.seccomp import Arch, check_program, compile_ruleset, explain, load_base, load_oci
from coworkd.seccomp.generate import generate_program
from coworkd.seccomp.interpreter import encode_program
from coworkd.seccomp.numbers import numbers
from coworkd.seccomp.rules import Kind
from coworkd.seccomp.verdict import Oracle

pytestmark = pytest.mark.root

CACHE = Path(__file__).resolve().parents[2] / "build" / "seccomp-profiles"
PROFILES = {
    "moby": ("golang-github-docker-docker-dev", "**/profiles/seccomp/default.json"),
    "podman": ("golang-github-containers-common", "usr/share/containers/seccomp.json"),
}
CLONE_NEWUSER, CLONE_VM, AF_ALG = 0x1000_0000, 0x100, 38


def fetch(package: str, pattern: str) -> bytes:
    """The one file of the package that matches, from the cache if it was fetched before."""
    unpacked = CACHE / package
    if not list(unpacked.glob(pattern)):
        assert shutil.which("apt-get") is not None, "the profiles come out of Debian packages: this needs apt-get"
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-o", "APT::Sandbox::User=root", "download", package],
            cwd=CACHE, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        (deb,) = CACHE.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(deb), str(unpacked)], check=True, capture_output=True, timeout=300)
        deb.unlink()
    (found,) = unpacked.glob(pattern)
    return found.read_bytes()


@pytest.fixture(scope="session", params=sorted(PROFILES))
def profile(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    name: str = request.param
    return name, fetch(*PROFILES[name])


@pytest.mark.parametrize("arch", list(Arch))
@pytest.mark.parametrize("kernel", [(4, 4), (6, 1), (6, 18)])
def test_profile_loads_unchanged(profile: tuple[str, bytes], arch: Arch, kernel: tuple[int, int]) -> None:
    name, data = profile
    ruleset = load_oci(data, name=f"{name}.json", arch=arch, kernel=kernel)
    assert ruleset.default.kind is Kind.ERRNO
    assert len({rule.syscall for rule in ruleset.rules}) > 200
    assert ruleset.warnings == ()


@pytest.mark.parametrize("arch", list(Arch))
def test_profile_compiles_by_libseccomp_and_by_our_own(profile: tuple[str, bytes], arch: Arch) -> None:
    name, data = profile
    ruleset = load_oci(data, name=f"{name}.json", arch=arch, kernel=(6, 8))
    made = compile_ruleset(ruleset, cache_dir=None)
    assert (made.compiler, made.remark) == ("libseccomp", "")
    check_program(ruleset, encode_program(generate_program(ruleset)))


@pytest.mark.parametrize("arch", list(Arch))
def test_profile_means_what_it_means_without_capabilities(profile: tuple[str, bytes], arch: Arch) -> None:
    name, data = profile
    oracle = Oracle(load_oci(data, name=f"{name}.json", arch=arch, kernel=(6, 8)))

    def allowed(syscall: str, *arguments: int) -> bool:
        padded = (*arguments, *(0,) * (6 - len(arguments)))
        return oracle.judge(arch.audit, numbers(arch)[syscall], padded).action.kind is Kind.ALLOW

    assert all(allowed(call) for call in ("read", "openat", "execve", "futex", "mmap", "exit_group"))
    assert allowed("clone", CLONE_VM)
    assert allowed("personality", 0)
    assert allowed("personality", 0x1_0000_0000)
    assert not allowed("personality", 0x0040_0000)
    assert not any(allowed(call) for call in ("bpf", "kexec_load", "init_module", "swapon"))


@pytest.mark.parametrize("arch", list(Arch))
def test_profile_beneath_the_base_filter_leaves_no_vsock(profile: tuple[str, bytes], arch: Arch) -> None:
    name, data = profile
    admin = load_oci(data, name=f"{name}.json", arch=arch, kernel=(6, 8))
    for family in (40, 40 | 1 << 32, AF_ALG):
        assert not explain(load_base("dev", arch), admin, "socket", {0: family}).allowed
    assert not explain(load_base("dev", arch), admin, "clone", {0: CLONE_NEWUSER}).allowed
