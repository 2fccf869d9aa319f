"""The lab itself: what it joins, that nothing leads out of it, that nothing is left of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root.lab import Lab, open_lab
from tests.root.live import living
from tests.root.servers import dns

pytestmark = pytest.mark.needs("netns", "mountns")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab")) as opened:
        yield opened


def fetch(lab: Lab, url: str, *options: str) -> str:
    return lab.guest.run("/usr/bin/curl", "-sS", "--cacert", str(lab.certificates.authority), *options, url)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://index.example.test/hello", ("-4",)),
        ("http://six.example.test/hello", ()),
        ("https://index.example.test/hello", ()),
        ("https://198.51.100.3/hello", ()),
        ("ftp://index.example.test/hello.txt", ()),
    ],
)
def test_lab_serves(lab: Lab, url: str, options: tuple[str, ...]) -> None:
    assert fetch(lab, url, *options).startswith("hello from")


@pytest.mark.parametrize("name", ["metadata", "metadata-a", "metadata6", "link-local", "private", "shared", "loop"])
def test_lab_would_show_a_hole_in_a_guard(lab: Lab, name: str) -> None:
    before = len(lab.seen())
    fetch(lab, f"http://{name}.{dns.DOMAIN}/hello")
    assert len(lab.seen()) > before


def test_lab_names_turn(lab: Lab) -> None:
    first, second = (lab.guest.run("getent", "ahostsv4", f"rebind.{dns.DOMAIN}").split()[0] for _ in range(2))
    assert {first, second} == {dns.SERVER, "127.0.0.1"}


@pytest.mark.parametrize("side", ["guest", "outside"])
def test_lab_leads_nowhere(lab: Lab, side: str) -> None:
    entered = getattr(lab, side)
    for address in ("192.0.2.1", "203.0.113.1", "2606:4700::1"):
        done = subprocess.run([*entered.entering(), "ip", "route", "get", address], capture_output=True, text=True)
        assert "unreachable" in done.stderr, done


def test_lab_leaves_nothing(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with open_lab(tmp_path / "lab") as lab:
        held = {os.stat(path).st_ino for side in (lab.guest, lab.outside) for path in (side.net, side.mount)}
        assert living(str(lab.directory))
    assert living(str(tmp_path)) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert held.isdisjoint(namespaces_in_use())


def namespaces_in_use() -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            for kind in ("net", "mnt"):
                try:
                    found.add(os.stat(f"/proc/{entry}/ns/{kind}").st_ino)
                except OSError:
                    continue
    return found
