"""What every test sees: the capabilities a machine must have, and where their lack is a failure.

`@pytest.mark.needs("overlay", …)` names entries of `capabilities.toml`; every test below `tests/root/` needs `root` and
carries the marker `root`. A lacking capability is a failed test where its tier is required (CI, or
COWORKD_REQUIRE_CAPABILITIES=1, or a comma-separated list of tiers in it), and a skip with its reason elsewhere. It
never passes in silence.

What a test that failed holds open (a client, a program, a file) goes as soon as it was reported, without the warnings that fail the
tests of whoever leaves something open: one failure is told once, and the next test begins on its own.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
# No example is too slow: on a machine that is busy any may be, and time is what each test bounds for itself.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

TIERS = ("root", "vm")
CI_TIERS = frozenset({"root"})
PROBE_TIMEOUT_S = 60


class Capability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of capabilities.toml."""

    tier: str
    what: str
    probe: tuple[str, ...]
    inside: bool = False
    """User Mode Linux has it: tests that need it are run there (tests/vm/test_inside.py)."""


@functools.lru_cache(maxsize=1)
def load_capabilities() -> dict[str, Capability]:
    """Read capabilities.toml; a wrong entry raises msgspec.ValidationError."""
    table = tomllib.loads((HERE / "capabilities.toml").read_text())
    return msgspec.convert(table, dict[str, Capability])


def required_tiers(environment: Mapping[str, str]) -> frozenset[str]:
    """The tiers whose lack of a capability fails here; raises ValueError for a tier that does not exist."""
    ci = CI_TIERS if environment.get("CI") == "true" else frozenset()
    told = environment.get("COWORKD_REQUIRE_CAPABILITIES", "")
    if told in ("", "1"):
        return ci | (CI_TIERS if told else frozenset())
    tiers = frozenset(told.split(","))
    if unknown := tiers - set(TIERS):
        raise ValueError(f"COWORKD_REQUIRE_CAPABILITIES names no tier: {sorted(unknown)}; there are {TIERS}")
    return ci | tiers


@functools.cache
def lack_of(name: str) -> str | None:
    """Why this machine lacks the capability, or None where it has it. Probed once a run."""
    capability = load_capabilities()[name]
    try:
        done = subprocess.run(
            capability.probe, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return f"{capability.what}: {error}"
    except subprocess.TimeoutExpired:
        return f"{capability.what}: no answer in {PROBE_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return f"{capability.what}: {said[-1] if said else f'the probe ended with {done.returncode}'}"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): needs these capabilities of the machine (capabilities.toml)")
    config.addinivalue_line("markers", "inside: is run in User Mode Linux too, which has what this machine may lack")
    required_tiers(os.environ)
    ignore_nothing()


def ignore_nothing() -> None:
    """What an ancestor ignores (nohup, a script's background job) the programs of tests would ignore with it."""
    for number, handler in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = load_capabilities()
    for item in items:
        if HERE / "root" in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.needs("root"))
        for name in needs_of(item):
            if name in known and known[name].inside:
                item.add_marker(pytest.mark.inside)
            if name not in known:
                raise pytest.UsageError(f"{item.nodeid} needs {name!r}, which tests/capabilities.toml does not have")


def needs_of(item: pytest.Item) -> list[str]:
    """The capabilities a test names, each once, in the order of their markers."""
    return list(dict.fromkeys(name for marker in item.iter_markers("needs") for name in marker.args))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in needs_of(item):
        why = lack_of(name)
        if why is None:
            continue
        tier = load_capabilities()[name].tier
        if tier in required_tiers(os.environ):
            pytest.fail(f"this machine must have {name!r} (tier {tier}) and lacks it: {why}", pytrace=False)
        pytest.skip(f"does not apply here, {name!r} is lacking: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    failed = item.session.testsfailed
    told = yield
    if item.session.testsfailed > failed:
        let_go_of_frames()
    return told


def let_go_of_frames() -> None:
    """The last exception's frames hold what the test that raised it had not closed yet."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        sys.__dict__.pop(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_report_header() -> list[str]:
    tiers = sorted(required_tiers(os.environ))
    return [
        f"capabilities: {', '.join(tiers) if tiers else 'no'} tier must have all; lacking elsewhere, a test is skipped"
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name every test that did not apply once more, by reason, so that a short run is not mistaken for a whole one."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests did not apply on this machine (reasons above)")
