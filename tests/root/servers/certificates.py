"""A certificate authority for the lab and one certificate for its servers, by openssl(1). Valid for two days."""

from __future__ import annotations

import subprocess
from pathlib import Path

from msgspec import Struct

DAYS = "2"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates(Struct, frozen=True, kw_only=True):
    """Files in PEM."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, *, names: tuple[str, ...], addresses: tuple[str, ...]) -> Certificates:
    """Write `ca.pem`, `server.pem` and `server.key` into `directory`; the authority's key is removed again."""
    made = Certificates(
        authority=directory / "ca.pem", certificate=directory / "server.pem", key=directory / "server.key"
    )
    authority_key, request = directory / "ca.key", directory / "server.csr"
    extensions = directory / "server.ext"
    alternatives = [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)]
    extensions.write_text(f"subjectAltName={','.join(alternatives)}\nextendedKeyUsage=serverAuth\n")
    usage = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(
        "req",
        "-x509",
        *_KEY,
        "-days",
        DAYS,
        "-subj",
        "/CN=lab CA",
        *usage,
        "-keyout",
        authority_key,
        "-out",
        made.authority,
    )
    _openssl("req", "-new", *_KEY, "-subj", f"/CN={names[0]}", "-keyout", made.key, "-out", request)
    signing = ("-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial", "-days", DAYS, "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *signing, "-out", made.certificate)
    for leftover in (authority_key, request, extensions, directory / "ca.srl"):
        leftover.unlink(missing_ok=True)
    return made


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
