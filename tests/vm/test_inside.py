"""Tests of tests/root that need a kernel which this machine need not have, run by User Mode Linux on this machine's own files.

Those are all that need a capability with `inside = true` (capabilities.toml): quota, cgroup v2 with its controllers, every capability.
A skip counts as a failure there: it would mean that the kernel lacks what it is started for.
"""

from __future__ import annotations

import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.vm.user_mode import Ran, run_inside

FEWEST = 8
"""Tests that are run there at least: were none selected, none would fail."""

pytestmark = pytest.mark.needs("user-mode-linux")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inside") / "results"


@pytest.fixture(scope="module")
def ran(results: Path) -> Ran:
    command = ["env", "COWORKD_REQUIRE_CAPABILITIES=root,vm", sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-m", "inside", "--junit-xml", "/run/results/junit.xml", "tests/root"]
    return run_inside(command, results, memory_mib=1536, timeout_s=1500)


def test_what_needs_another_kernel_passes_inside(ran: Ran, results: Path) -> None:
    if ran.status != 0:
        pytest.fail(f"status {ran.status}\n{ran.output[-20000:]}\n-- console\n{ran.console[-4000:]}", pytrace=False)
    suite = next(ElementTree.parse(results / "junit.xml").iter("testsuite"))
    counted = {word: int(suite.attrib[word]) for word in ("tests", "failures", "errors", "skipped")}
    assert counted["tests"] >= FEWEST
    assert (counted["failures"], counted["errors"], counted["skipped"]) == (0, 0, 0), ran.output[-4000:]


def test_nothing_written_inside_stays(tmp_path: Path) -> None:
    left = Path("/var/tmp") / f"left-{tmp_path.parent.name}-{tmp_path.name}"
    ran = run_inside(["sh", "-c", f"echo x >{left} && cat {left}"], tmp_path / "results", timeout_s=300)
    assert (ran.status, ran.output) == (0, "x\n"), ran.console
    assert not left.exists()


def test_a_checkout_below_tmp_is_there(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as checkout:
        Path(checkout, "there").write_text("x\n")
        command = ["sh", "-c", "cat there && ! touch planted"]
        ran = run_inside(command, tmp_path / "results", timeout_s=300, checkout=Path(checkout))
        assert (ran.status, ran.output.splitlines()[0]) == (0, "x"), ran.console


def test_a_kernel_that_ends_before_its_command_is_told(tmp_path: Path) -> None:
    ran = run_inside(["sh", "-c", "echo c >/proc/sysrq-trigger"], tmp_path / "results", timeout_s=300)
    assert ran.status is None
    assert "panic" in ran.console
