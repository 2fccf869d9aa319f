"""What conftest.py does for every test: a missing capability is a failure in its tier in CI and a skip elsewhere, and a test that
fails takes no other with it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests import conftest


def item_that_needs(*names: str) -> pytest.Item:
    """An item as far as `needs` looks at one; a stand-in, because a real one would be collected and run."""
    marker = pytest.mark.needs(*names).mark
    return cast(pytest.Item, SimpleNamespace(iter_markers=lambda name: [marker] if name == "needs" else []))


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has nothing, outside CI."""
    monkeypatch.setattr(conftest, "lack_of", lambda name: f"no {name} here")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("COWORKD_REQUIRE_CAPABILITIES", raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", sorted(conftest.load_capabilities()))
def test_capability_is_usable(name: str) -> None:
    capability = conftest.load_capabilities()[name]
    assert capability.tier in conftest.TIERS
    assert capability.what
    assert capability.probe


def test_lacking_capability_is_skipped_with_its_reason(lacking: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception, match="no overlay here"):
        conftest.pytest_runtest_setup(item_that_needs("overlay"))


def test_lacking_capability_fails_in_its_tier_in_ci(lacking: pytest.MonkeyPatch) -> None:
    lacking.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no overlay here"):
        conftest.pytest_runtest_setup(item_that_needs("overlay"))


def test_lacking_capability_of_another_tier_is_skipped_in_ci(lacking: pytest.MonkeyPatch) -> None:
    lacking.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception, match="no vsock here"):
        conftest.pytest_runtest_setup(item_that_needs("vsock"))


def test_capability_that_is_there_lets_the_test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "lack_of", lambda name: None)
    conftest.pytest_runtest_setup(item_that_needs("overlay", "netns"))


@pytest.mark.parametrize(
    ("environment", "tiers"),
    [
        ({}, set()),
        ({"CI": "true"}, {"root"}),
        ({"COWORKD_REQUIRE_CAPABILITIES": "1"}, {"root"}),
        ({"COWORKD_REQUIRE_CAPABILITIES": "root,vm"}, {"root", "vm"}),
        ({"CI": "true", "COWORKD_REQUIRE_CAPABILITIES": "vm"}, {"root", "vm"}),
    ],
)
def test_required_tiers_are_told_by_the_environment(environment: dict[str, str], tiers: set[str]) -> None:
    assert conftest.required_tiers(environment) == tiers


def test_required_tiers_refuse_a_tier_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="rooot"):
        conftest.required_tiers({"COWORKD_REQUIRE_CAPABILITIES": "rooot"})


LEAVING = """
import socket

class Link:
    def __init__(self):
        self.me, self.socket = self, socket.socket()

def test_that_fails_with_a_link_open():
    link = Link()
    assert link is None

def test_that_has_nothing_to_do_with_it():
    import gc
    gc.collect()
"""


def test_what_a_failed_test_left_open_fails_no_other(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(LEAVING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, str(tmp_path / "test_two.py")], capture_output=True, text=True, cwd=conftest.HERE.parent, check=False
    )
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-1], done.stdout + done.stderr
