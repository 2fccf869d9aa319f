from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Callable

import pytest
from cryptography import x509

from coworkd.egressd import inspect_ca
from coworkd.egressd.inspect_ca import InspectionCa
from coworkd.services.trust_pem import parse_authorities
from tests.unit.certificates import DAY, NOW, NOW_S, make, make_authority


class Clock:
    def __init__(self) -> None:
        self.now = NOW_S

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ca(clock: Clock) -> InspectionCa:
    return InspectionCa(clock)


def leaf(ca: InspectionCa, host: str) -> x509.Certificate:
    return ca._make_leaf(host)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """The client's end, once both are done."""
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(one, other, server_hostname=host),
        server.wrap_bio(other, one, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0]


def trusting(pem: bytes | str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem if isinstance(pem, str) else pem.decode())
    return context


def test_the_authority_is_one_that_sandboxes_can_be_given(ca: InspectionCa) -> None:
    [found] = parse_authorities(ca.pem.decode(), now=NOW_S)
    assert found.subject == "CN=coworkd inspection, until restart"


def test_the_authority_signs_servers_and_no_other_authority(ca: InspectionCa) -> None:
    made = x509.load_pem_x509_certificate(ca.pem)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not leaf(ca, "a.example").extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("now", [0.0, NOW_S, NOW_S + 20 * 365 * 86400])
def test_the_authority_outlives_every_step_of_the_clock(now: float) -> None:
    made = x509.load_pem_x509_certificate(InspectionCa(lambda: now).pem)
    assert made.not_valid_before_utc < NOW
    assert made.not_valid_after_utc > NOW + 20 * 365 * DAY


def test_every_authority_has_keys_of_its_own(ca: InspectionCa) -> None:
    assert InspectionCa().pem != ca.pem


@pytest.mark.parametrize("host", ["a.example", "192.0.2.1", "2001:db8::1", f"{'a' * 60}.{'b' * 60}.example"])
def test_a_client_that_trusts_the_authority_verifies_any_host(host: str) -> None:
    ca = InspectionCa()
    assert shake_hands(ca.server_context(host), trusting(ca.pem), host).version() == "TLSv1.3"


def test_a_leaf_is_valid_since_an_hour_ago_for_a_week(ca: InspectionCa) -> None:
    made = leaf(ca, "a.example")
    assert made.not_valid_before_utc == NOW - DAY / 24
    assert made.not_valid_after_utc == NOW + 7 * DAY


def test_old_tls_is_not_spoken(ca: InspectionCa) -> None:
    assert ca.server_context("a.example").minimum_version == ssl.TLSVersion.TLSv1_2
    assert ca.client_context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert ca.client_context().options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        (lambda clock, ca: None, True),
        (lambda clock, ca: setattr(clock, "now", NOW_S + 5.9 * 86400), True),
        (lambda clock, ca: setattr(clock, "now", NOW_S + 6 * 86400), False),
        (lambda clock, ca: setattr(clock, "now", NOW_S - 1), False),
        (lambda clock, ca: [ca.server_context("a.example") for _ in range(inspect_ca.MAX_USES)], False),
    ],
)
def test_a_context_is_kept_while_it_is_good(
    ca: InspectionCa, clock: Clock, changes: Callable[[Clock, InspectionCa], None], same: bool
) -> None:
    first = ca.server_context("a.example")
    changes(clock, ca)
    assert (ca.server_context("a.example") is first) is same


def test_the_least_lately_used_goes(ca: InspectionCa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_ca, "MAX_LEAVES", 2)
    first, second = ca.server_context("a.example"), ca.server_context("b.example")
    assert ca.server_context("a.example") is first
    ca.server_context("c.example")
    assert len(ca._servers) == 2
    assert ca.server_context("a.example") is first
    assert ca.server_context("b.example") is not second


def test_servers_are_verified_by_name_and_by_what_is_trusted(ca: InspectionCa) -> None:
    root = make_authority()
    good = make("server.example", by=root, hosts=("server.example",)).server_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(good, ca.client_context(), "server.example")
    ca.trust(root.pem)
    assert shake_hands(good, ca.client_context(), "server.example").version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(good, ca.client_context(), "other.example")
    by_common_name = make("server.example", by=root).server_context()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(by_common_name, ca.client_context(), "server.example")
    ca.trust("")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(good, ca.client_context(), "server.example")


def test_its_own_certificates_are_not_trusted_of_servers(ca: InspectionCa) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ca.server_context("a.example"), ca.client_context(), "a.example")


def test_bad_trust_is_refused_and_the_old_one_stays(ca: InspectionCa) -> None:
    before = ca.client_context()
    with pytest.raises(ssl.SSLError):
        ca.trust("nonsense")
    assert ca.client_context() is before


KEEPS_SECRETS = """
import os, sys
opened = []
def hook(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(path, str) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(path)
    elif event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
        opened.append(event)
from coworkd.egressd.inspect_ca import InspectionCa
sys.addaudithook(hook)
ca = InspectionCa()
for number in range(3):
    ca.server_context(f"{number}.example")
print(opened)
print([name for name in map(os.readlink, (f"/proc/self/fd/{fd}" for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")))])
"""


def test_no_key_is_ever_in_a_file_that_has_a_name() -> None:
    """Files opened for writing, and descriptors left open, while certificates are made: none."""
    done = subprocess.run([sys.executable, "-c", KEEPS_SECRETS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_memory_stays_bounded() -> None:
    """Clients that come again and again leave nothing behind, whatever sessions OpenSSL would keep for them."""
    ca = InspectionCa()
    client = trusting(ca.pem)
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    def come(times: int) -> int:
        for _ in range(times):
            shake_hands(ca.server_context("a.example"), client, "a.example")
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    settled = come(1200)
    assert come(1200) - settled < 4 * 1024 * 1024
