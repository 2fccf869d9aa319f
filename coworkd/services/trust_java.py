"""Java's own truststore: a JKS file of certificates, as `$JAVA_HOME/lib/security/cacerts` is.

Java looks at neither the environment's variables nor PEM. Its file is a list of big-endian records behind a magic number, and a SHA-1 that
anyone can compute; the format is the JDK's `sun.security.provider.JavaKeyStore`, which every version reads, whatever its
`keystore.type` (`keystore.type.compat`). Only certificates are written; the public password is what everybody uses.

Pure.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

_MAGIC, _VERSION = 0xFEEDFEED, 2
_TRUSTED = 2
_TYPE = b"X.509"
_PASSWORD = "changeit".encode("utf-16-be")
"""It protects nothing: certificates are public."""
_SALT = b"Mighty Aphrodite"


def compose_truststore(certificates: Mapping[str, bytes], *, made_at: float) -> bytes:
    """The file: alias → DER, in order. Aliases are ASCII."""
    parts = [struct.pack(">III", _MAGIC, _VERSION, len(certificates))]
    for alias, der in certificates.items():
        name = alias.lower().encode("ascii")
        head = struct.pack(
            f">IH{len(name)}sqH{len(_TYPE)}sI",
            _TRUSTED,
            len(name),
            name,
            int(made_at * 1000),
            len(_TYPE),
            _TYPE,
            len(der),
        )
        parts += [head, der]
    body = b"".join(parts)
    return body + hashlib.sha1(_PASSWORD + _SALT + body, usedforsecurity=False).digest()
