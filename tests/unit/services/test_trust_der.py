from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.services.trust_der import BrokenDer, is_authority, subject_hash
from tests.unit.certificates import make, make_authority


def test_an_authority_is_told_from_a_server() -> None:
    assert is_authority(make_authority().der)
    assert not is_authority(make("server.example", hosts=("server.example",)).der)


def test_a_certificate_without_basic_constraints_is_no_authoritys() -> None:
    assert not is_authority(make("old style", authority=None).der)


@pytest.mark.parametrize(
    ("name", "organization", "expected"),
    [
        ("Acme Root", None, "72e54648"),
        ("  ACME \t  root ", None, "72e54648"),
        ("Acme Root", "Müller & Söhne", "0bafd1fc"),
    ],
)
def test_the_hash_is_openssls(name: str, organization: str | None, expected: str) -> None:
    """What `openssl x509 -subject_hash` (3.0) printed for such a name."""
    assert subject_hash(make(name, organization=organization, authority=True).der) == expected


def test_the_hash_is_that_of_every_link_this_system_has() -> None:
    links = list(Path("/etc/ssl/certs").glob("[0-9a-f]*.[0-9]"))
    ours = {subject_hash(ssl.PEM_cert_to_DER_cert(link.read_text())) for link in links}
    assert ours == {link.stem for link in links}


@given(st.binary(max_size=64))
def test_any_bytes_are_judged_or_broken(data: bytes) -> None:
    for judge in (is_authority, subject_hash):
        try:
            judge(data)
        except BrokenDer:
            continue


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_certificate_with_a_wrong_byte_is_judged_or_broken(at: int, change: int) -> None:
    damaged = bytearray(CERTIFICATE)
    damaged[at % len(damaged)] ^= change
    for judge in (is_authority, subject_hash):
        try:
            judge(bytes(damaged))
        except BrokenDer:
            continue


@given(st.integers(0, 400))
def test_a_certificate_that_is_cut_off_is_broken(at: int) -> None:
    with pytest.raises(BrokenDer):
        is_authority(CERTIFICATE[: at % len(CERTIFICATE)])


CERTIFICATE = make_authority().der
