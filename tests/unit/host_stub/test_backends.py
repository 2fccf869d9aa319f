"""Which back end a bundle runs on."""

from __future__ import annotations

from typing import Any

import pytest

from host_stub import backends
from host_stub.backends import choose_backend
from host_stub.bundle_settings import Settings
from host_stub.words import Trouble


def settings(**fields: Any) -> Settings:
    return Settings(architecture="x86_64", **fields)


@pytest.mark.parametrize(
    ("fields", "platform", "binding", "name"),
    [
        ({}, "linux", False, "qemu"),
        ({}, "linux", True, "qemu"),
        ({}, "darwin", False, "qemu"),
        ({}, "darwin", True, "vz"),
        ({"accelerator": "hvf"}, "darwin", True, "qemu"),
        ({"backend": "qemu"}, "darwin", True, "qemu"),
        ({"backend": "vz"}, "darwin", True, "vz"),
    ],
)
def test_what_fits_the_host_is_taken(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], platform: str, binding: bool, name: str
) -> None:
    monkeypatch.setattr(backends, "has_virtualization", lambda: binding)
    assert choose_backend(settings(**fields), platform=platform).name == name


@pytest.mark.parametrize(("platform", "said"), [("linux", "no macOS"), ("darwin", "not installed")])
def test_what_cannot_be_here_is_refused(monkeypatch: pytest.MonkeyPatch, platform: str, said: str) -> None:
    monkeypatch.setattr(backends, "has_virtualization", lambda: False)
    with pytest.raises(Trouble, match=said) as caught:
        choose_backend(settings(backend="vz"), platform=platform)
    assert caught.value.code == "no_hypervisor"
