"""What a host may add to the trust of the sandboxes: PEM text → certificates of authorities, or a sentence why not.

Rules
- Certificates and nothing else: a private key, a request, a list of revocations in the text refuses the whole of it.
- Each is an authority's (basicConstraints, and a key usage that allows signing where there is one), and not expired. One that is
  not valid yet is taken: the guest's clock may be behind.
- What is kept is made anew from the certificates' bytes, so no other text of the host's reaches a file.
- No message holds a word of what came: it may be a secret.

Pure. OpenSSL parses (`ssl`, loaded with the first one that is judged: 5 MiB); `cryptography` would cost this process 13 MiB.

Sources: RFC 7468, RFC 5280 section 4.2.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from coworkd.model.errors import InvalidParams, LimitExceeded
from coworkd.services.trust_der import BrokenDer, is_authority

MAX_PEM_BYTES = 1024 * 1024
MAX_CERTIFICATES = 64
_SUBJECT_LIMIT = 256
_LINE = 64
"""Letters in a line of PEM."""
_MARK = re.compile(r"-----(BEGIN|END) ([^\r\n]*?)-----[ \t\r]*$", re.MULTILINE)
_LABELS = ("CERTIFICATE", "X509 CERTIFICATE")
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}


class Certificate(Struct, frozen=True, kw_only=True):
    """One authority's certificate."""

    der: bytes
    subject: str
    sha256: str
    """Of the DER, lower-case hex: what browsers and `openssl x509 -fingerprint -sha256` show."""
    not_after: float

    @property
    def pem(self) -> str:
        text = base64.b64encode(self.der).decode()
        lines = "".join(f"{text[at : at + _LINE]}\n" for at in range(0, len(text), _LINE))
        return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"


def parse_authorities(pem: str, *, now: float) -> tuple[Certificate, ...]:
    """The certificates in `pem`, in order, each once. Raises `InvalidParams`, `LimitExceeded`; the sentence names the line."""
    if len(pem.encode("utf-8", "surrogatepass")) > MAX_PEM_BYTES:
        raise LimitExceeded(
            f"that is more than {MAX_PEM_BYTES} bytes; a few certificates take a few KiB each", key="pem"
        )
    found: dict[bytes, Certificate] = {}
    for line, der in _blocks(pem):
        if der not in found:
            if len(found) == MAX_CERTIFICATES:
                raise LimitExceeded(f"more than {MAX_CERTIFICATES} certificates under one name; split them", key="pem")
            found[der] = _judge(der, line, now)
    if not found:
        raise InvalidParams(
            "there is no certificate in it: PEM is text with a line -----BEGIN CERTIFICATE----- (from DER: openssl x509"
            " -inform der)",
            key="pem",
        )
    return tuple(found.values())


def read_authorities(pem: str) -> tuple[Certificate, ...]:
    """Every certificate of a bundle we did not make (the system's), its subject and dates unread; other blocks are passed over."""
    found = {}
    for _, label, body in _marked(pem, strict=False):
        if label in _LABELS:
            der = _decode(body)
            if der is not None:
                found[der] = Certificate(der=der, subject="", sha256=hashlib.sha256(der).hexdigest(), not_after=0.0)
    return tuple(found.values())


def _blocks(pem: str) -> Iterator[tuple[int, bytes]]:
    """Line and bytes of each certificate. Raises `InvalidParams` for whatever else stands there."""
    for line, label, body in _marked(pem, strict=True):
        if "PRIVATE KEY" in label:
            raise InvalidParams(
                f"line {line}: a private key; send certificates alone. Nothing of it was kept, but it has travelled: replace it",
                key="pem",
                line=line,
            )
        if label not in _LABELS:
            raise InvalidParams(
                f"line {line}: that block is no certificate; only certificates can be installed", key="pem", line=line
            )
        der = _decode(body)
        if der is None:
            raise InvalidParams(
                f"line {line}: this certificate is not base64; is the file damaged?", key="pem", line=line
            )
        yield line, der


def _marked(pem: str, *, strict: bool) -> Iterator[tuple[int, str, str]]:
    """Line, label and text of each block. An end without its beginning is `InvalidParams` where it is `strict`, else passed over."""
    begun: re.Match[str] | None = None
    line = begun_line = 1
    counted = 0
    for mark in _MARK.finditer(pem):
        line, counted = line + pem.count("\n", counted, mark.start()), mark.start()
        opens = mark[1] == "BEGIN"
        if strict and (opens is (begun is not None) or (begun is not None and begun[2] != mark[2])):
            raise InvalidParams(
                f"line {line}: a block begins and does not end, or ends and did not begin", key="pem", line=line
            )
        if opens:
            begun, begun_line = mark, line
        elif begun is not None:
            yield begun_line, begun[2], pem[begun.end() : mark.start()]
            begun = None
    if strict and begun is not None:
        raise InvalidParams(
            f"line {begun_line}: a block begins and does not end; is the file cut off?", key="pem", line=begun_line
        )


def _decode(body: str) -> bytes | None:
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None


def _judge(der: bytes, line: int, now: float) -> Certificate:
    """The certificate, or `InvalidParams`."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=der)
        shown: Sequence[Mapping[str, Any]] = context.get_ca_certs()  # those that OpenSSL takes for an authority's
        trusted = is_authority(der) and len(shown) == 1
        not_after = float(ssl.cert_time_to_seconds(shown[0]["notAfter"])) if trusted else 0.0
    except (ssl.SSLError, BrokenDer, ValueError) as error:  # ValueError: no text to decode, no date
        raise InvalidParams(
            f"line {line}: that is no X.509 certificate; is the file damaged?", key="pem", line=line
        ) from error
    if not trusted:
        raise InvalidParams(
            f"line {line}: this certificate is not a CA's (basicConstraints, keyUsage): it can vouch for nobody. Install the one"
            " that signed it",
            key="pem",
            line=line,
        )
    if not_after <= now:
        raise InvalidParams(f"line {line}: this certificate expired on {shown[0]['notAfter']}", key="pem", line=line)
    return Certificate(
        der=der, subject=_subject(shown[0]["subject"]), sha256=hashlib.sha256(der).hexdigest(), not_after=not_after
    )


def _subject(names: Any) -> str:
    """`CN=…, O=…`, as one printable line."""
    words = [f"{_SHORT.get(key, key)}={value}" for part in names for key, value in part]
    line = ", ".join(reversed(words))
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:_SUBJECT_LIMIT]
