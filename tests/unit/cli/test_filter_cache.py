"""Filters made ahead are those that coworkd asks its cache for."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.cli import filter_cache
from coworkd.config import find_vendor_policies
from coworkd.seccomp import Arch, compile_ruleset
from coworkd.seccomp import compile as compile_module
from coworkd.services import policies

LIBRARY = ("/usr/lib/elsewhere/libseccomp.so.2.5.4", 133_200, 1_767_225_600)


def make(output: Path, arch: str = "x86_64") -> int:
    path, size, mtime = LIBRARY
    return filter_cache.main(
        [
            *("--arch", arch, "--kernel", "6.1", "--libseccomp", path, "--size", str(size), "--mtime", str(mtime)),
            *("--policies", find_vendor_policies(), "--output", str(output)),
        ]
    )


def test_a_machine_with_these_policies_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(tmp_path / "cache") == 0
    path, size, mtime = LIBRARY
    identity = f"{path} {size} {mtime}000000000"
    monkeypatch.setattr(compile_module, "library_identity", lambda: identity)
    monkeypatch.setattr(policies, "host_kernel", lambda: (6, 1))
    monkeypatch.setattr(policies, "host_arch", lambda: Arch.X86_64)

    def refuse(ruleset: object) -> tuple[bytes, str, str]:
        raise AssertionError("this is not in the cache")

    monkeypatch.setattr(compile_module, "_compile", refuse)
    state = policies._read_and_compile([find_vendor_policies()], None, tmp_path / "cache")
    assert set(state.base) == {"dev", "strict"}


def test_the_other_architecture_is_made_here_too(tmp_path: Path) -> None:
    assert make(tmp_path / "cache", "aarch64") == 0
    rules = filter_cache.rulesets(find_vendor_policies(), Arch.AARCH64, (6, 1))
    path, size, mtime = LIBRARY
    made = [
        compile_ruleset(ruleset, cache_dir=tmp_path / "cache", library=f"{path} {size} {mtime}000000000")
        for ruleset in rules
    ]
    assert all(one.cached for one in made)


@pytest.mark.parametrize("words", [[], ["--arch", "vax"], ["--nonesuch", "x"]])
def test_unusable_words_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert filter_cache.main(words) == 2
    assert "filter_cache:" in capsys.readouterr().err
