from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.model.errors import InvalidParams, LimitExceeded
from coworkd.services import trust_pem
from coworkd.services.trust_pem import (
    MAX_CERTIFICATES,
    MAX_PEM_BYTES,
    Certificate,
    parse_authorities,
    read_authorities,
)
from tests.unit.certificates import DAY, FAR, NOW, NOW_S, Made, make, make_authority

ROOT = make_authority()
OTHER = make_authority("Other Root")


def test_an_authority_is_told_with_its_fingerprint_and_end() -> None:
    [found] = parse_authorities(ROOT.pem, now=NOW_S)
    assert found.der == ROOT.der
    assert found.subject == "CN=Acme Root"
    assert found.not_after == FAR.timestamp()
    assert len(found.sha256) == 64


def test_the_subject_reads_from_the_name_outwards_on_one_line() -> None:
    made = make("Root\n\x1b[2J", organization="Acme", authority=True)
    [found] = parse_authorities(made.pem, now=NOW_S)
    assert found.subject == "CN=Root??[2J, O=Acme"


def test_what_stands_between_certificates_is_left_out_and_repeats_are_one() -> None:
    text = f"# Acme\r\nsubject=/CN=Acme\r\n{ROOT.pem}\r\nand once more\n{OTHER.pem}{ROOT.pem}".replace("\n", "\r\n")
    found = parse_authorities(text, now=NOW_S)
    assert [one.der for one in found] == [ROOT.der, OTHER.der]
    assert found[0].pem == ROOT.pem


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        ("", "no certificate in it"),
        ("0\x82\x01\ufffd", "inform der"),
        (ROOT.pem + ROOT.key_pem, "private key"),
        (ROOT.key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "private key"),
        (ROOT.pem.replace("CERTIFICATE", "CERTIFICATE REQUEST"), "no certificate; only"),
        (ROOT.pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "no certificate; only"),
        (ROOT.pem.removesuffix("-----END CERTIFICATE-----\n"), "is the file cut off"),
        (ROOT.pem.replace("-----BEGIN CERTIFICATE-----\n", ""), "did not begin"),
        (ROOT.pem[:90] + "\n" + OTHER.pem, "does not end"),
        (ROOT.pem.replace("MII", "M*I", 1), "not base64"),
        (ROOT.pem.replace("MII", "MIé", 1), "not base64"),
        (ssl.DER_cert_to_PEM_cert(ROOT.der[:-1]), "no X.509 certificate"),
        (ssl.DER_cert_to_PEM_cert(ROOT.der + b"\0"), "no X.509 certificate"),
        (ssl.DER_cert_to_PEM_cert(ROOT.der + OTHER.der), "no X.509 certificate"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "no X.509 certificate"),
        (make("server.example", by=ROOT, hosts=("server.example",)).pem, "not a CA's"),
        (make("no constraints", authority=None).pem, "not a CA's"),
        (make("old", authority=True, ends=NOW - DAY).pem, "expired on May 31"),
    ],
)
def test_what_cannot_vouch_is_refused_with_its_line(pem: str, says: str) -> None:
    with pytest.raises(InvalidParams, match=says) as caught:
        parse_authorities(pem, now=NOW_S)
    assert caught.value.details["key"] == "pem"


def test_one_bad_certificate_refuses_all_and_its_line_is_told() -> None:
    server = make("server.example", by=ROOT)
    with pytest.raises(InvalidParams) as caught:
        parse_authorities(f"\n{ROOT.pem}{server.pem}", now=NOW_S)
    assert caught.value.details["line"] == 2 + ROOT.pem.count("\n")


def test_a_refusal_holds_nothing_of_what_came() -> None:
    secret = ROOT.key_pem.splitlines()[1]
    for pem in (ROOT.key_pem, ROOT.pem[:200] + secret, f"-----BEGIN {secret}-----\n-----END {secret}-----\n"):
        with pytest.raises(InvalidParams) as caught:
            parse_authorities(pem, now=NOW_S)
        assert secret not in str(caught.value) + repr(caught.value.details)


def test_one_that_is_not_valid_yet_is_taken() -> None:
    made = make("new", authority=True, begins=NOW + DAY)
    assert len(parse_authorities(made.pem, now=NOW_S)) == 1


def test_the_bounds_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_pem, "_judge", lambda der, line, now: der)
    many = "".join(ssl.DER_cert_to_PEM_cert(b"%d" % number) for number in range(MAX_CERTIFICATES + 1))
    with pytest.raises(LimitExceeded, match="64 certificates"):
        parse_authorities(many, now=NOW_S)
    with pytest.raises(LimitExceeded, match="bytes"):
        parse_authorities("é" * (MAX_PEM_BYTES // 2 + 1), now=NOW_S)


def test_a_bundle_of_the_systems_is_read_whatever_stands_in_it() -> None:
    server: Made = make("server.example")
    text = f"-----END CERTIFICATE-----\n{ROOT.pem}{server.key_pem}-----BEGIN CERTIFICATE-----\n{server.pem}{ROOT.pem}"
    assert [one.der for one in read_authorities(text)] == [ROOT.der, server.der]


@given(st.text(alphabet=st.sampled_from("-BEGINDCRTFAMI \n\réx=")) | st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    read_authorities(text)
    with pytest.raises((InvalidParams, LimitExceeded)):
        parse_authorities(text, now=NOW_S)


@given(st.integers(0, len(ROOT.pem) - 1), st.characters(max_codepoint=0x7E))
def test_a_certificate_with_a_wrong_letter_is_taken_or_refused(at: int, letter: str) -> None:
    with contextlib.suppress(InvalidParams):
        assert len(parse_authorities(ROOT.pem[:at] + letter + ROOT.pem[at + 1 :], now=NOW_S)) == 1


@pytest.mark.parametrize("size", [1, 47, 48, 49, 1000])
def test_a_certificate_is_written_as_openssl_writes_it(size: int) -> None:
    certificate = Certificate(der=(bytes(range(256)) * 4)[:size], subject="", sha256="", not_after=0.0)
    assert certificate.pem == ssl.DER_cert_to_PEM_cert(certificate.der)
