from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from coworkd.services.trust_java import compose_truststore
from tests.unit.certificates import make_authority


def test_the_file_is_a_java_keystore_of_certificates() -> None:
    made = compose_truststore({"Acme": b"DER", "other": b"D"}, made_at=1.5)
    body = (
        bytes.fromhex("feedfeed 00000002 00000002")
        + b"\0\0\0\2\0\4acme"
        + (1500).to_bytes(8, "big")
        + b"\0\5X.509\0\0\0\3DER"
        + b"\0\0\0\2\0\5other"
        + (1500).to_bytes(8, "big")
        + b"\0\5X.509\0\0\0\1D"
    )
    assert made[:-20] == body
    assert made[-20:] == hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


@pytest.mark.needs("java")
def test_java_reads_it(tmp_path: Path) -> None:
    keytool = shutil.which("keytool")
    assert keytool is not None
    root = make_authority()
    (tmp_path / "cacerts").write_bytes(compose_truststore({"acme": root.der}, made_at=1.0))
    shown = subprocess.run(
        [keytool, "-exportcert", "-rfc", "-alias", "acme", "-keystore", tmp_path / "cacerts", "-storepass", "changeit"],
        capture_output=True,
        check=True,
    )
    assert shown.stdout.decode().replace("\r\n", "\n") == root.pem
