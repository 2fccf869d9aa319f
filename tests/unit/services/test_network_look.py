from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coworkd.model.network import DefaultRoute, NetworkFacts
from coworkd.services import network_look
from coworkd.services.network_look import look, read_routes

ROUTE = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010200C0\t0003\t{}\t{}\t0\t0\n"
ROUTE6 = "0" * 32 + " 00 " + "0" * 32 + " 00 fd{} 00000400 {:08x} {:08x} 00000003 eth0\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "route", tmp_path / "ipv6_route"


def test_counters_change_nothing_and_routes_do(files: tuple[Path, Path]) -> None:
    ipv4, ipv6 = files
    seen = []
    for route, route6 in [
        (ROUTE.format(0, 0), ROUTE6.format("0" * 29 + "1", 1, 2)),
        (ROUTE.format(3, 9), ROUTE6.format("0" * 29 + "1", 7, 8)),
        (ROUTE.format(0, 0).replace("0102", "0202"), ROUTE6.format("0" * 29 + "1", 1, 2)),
        (ROUTE.format(0, 0), ROUTE6.format("0" * 29 + "2", 1, 2)),
    ]:
        ipv4.write_text(route)
        ipv6.write_text(route6)
        seen.append(read_routes(str(ipv4), str(ipv6)))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_a_family_that_is_not_there_has_no_routes(files: tuple[Path, Path]) -> None:
    assert read_routes(*map(str, files)) == ""


def helper(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(network_look, "HELPER", (sys.executable, "-I", "-c", code))


def test_the_helper_tells_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    helper(monkeypatch, """print('{"devices": [], "routes": [{"device": "eth0"}]}')""")
    assert look() == NetworkFacts(routes=(DefaultRoute(device="eth0"),))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('no netlink here')", "no netlink here"),
        ("raise SystemExit(3)", "status 3"),
        ("print('{')", "nothing usable"),
        ("print('{\"routes\": 3}')", "nothing usable"),
        ('import sys; sys.stdout.buffer.write(b\'{"routes": [{"device": "\\xff"}]}\')', "nothing usable"),
    ],
)
def test_a_helper_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, code: str, says: str) -> None:
    helper(monkeypatch, code)
    with pytest.raises(OSError, match=says):
        look()


def test_a_helper_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    helper(monkeypatch, "import signal; signal.pause()")
    monkeypatch.setattr(network_look, "LOOK_DEADLINE_S", 0.05)
    with pytest.raises(OSError, match="did not end"):
        look()


def test_the_real_helper_is_the_programs_own() -> None:
    assert isinstance(look(), NetworkFacts)
