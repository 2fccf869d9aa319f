from __future__ import annotations

import subprocess
import sys

from coworkd.egressd.inspect import Inspecting
from coworkd.egressd.inspect_ca import InspectionCa
from coworkd.egressd.inspect_pump import InspectedPump
from coworkd.egressd.pump import Inspector, Pump
from coworkd.model.egress import Inspection
from tests.unit.certificates import make_authority


def nothing(method: str, path: str, status: int, reason: str) -> None:
    raise AssertionError("nothing was asked")


def test_the_authority_is_made_once_and_when_it_is_asked_for() -> None:
    made: list[InspectionCa] = []

    def make_ca() -> InspectionCa:
        made.append(InspectionCa())
        return made[-1]

    inspector: Inspector = Inspecting(make_ca)
    assert made == []
    assert inspector.ca_pem() == made[0].pem
    inspector.inspect("a.example", 443, Inspection(domains=("a.example",)), nothing)
    assert len(made) == 1


def test_each_connection_has_a_pump_that_speaks_first_to_the_server() -> None:
    pump: Pump = Inspecting().inspect("a.example", 443, Inspection(), nothing)
    assert isinstance(pump, InspectedPump)
    hello = pump.start()
    assert hello.client == b""
    assert hello.upstream[:1] == b"\x16"
    assert b"a.example" in hello.upstream


def test_a_name_that_tls_cannot_ask_for_is_no_fault_of_ours() -> None:
    pump = Inspecting().inspect(f"{'a' * 64}.example", 443, Inspection(), nothing)
    assert pump.start() == (b"", b"")
    assert not pump.ended


def trusted(ca: InspectionCa) -> list[str]:
    """The common names beside the system's."""
    ours = ca.client_context().get_ca_certs()
    system = InspectionCa().client_context().get_ca_certs()
    return [str(one["subject"]) for one in ours if one not in system]


def test_what_a_host_installed_is_trusted_of_servers() -> None:
    ca = InspectionCa()
    inspecting = Inspecting(lambda: ca)
    inspecting.trust(make_authority().pem)
    assert trusted(ca) == []  # nothing is loaded before inspection is used
    inspecting.ca_pem()
    assert "Acme Root" in trusted(ca)[0]
    inspecting.trust(make_authority("Other Root").pem)
    assert ["Other Root" in name for name in trusted(ca)] == [True]
    inspecting.trust("")
    assert trusted(ca) == []


def test_it_costs_nothing_until_it_is_used() -> None:
    script = (
        "import sys; import coworkd.egressd.inspect; "
        "print([name for name in ('ssl', 'h11', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
