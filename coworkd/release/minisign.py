"""Signatures in the format of minisign: parsed strictly, verified, or refused.

A public key is `Ed` ‖ key id (8 bytes) ‖ Ed25519 key (32), in base64. A signature file has four lines:

    untrusted comment: anything
    base64 of  ED ‖ key id ‖ signature (64)         over BLAKE2b-512 of the file; `Ed`: over the file itself (legacy)
    trusted comment: anything
    base64 of  signature (64)                       over the first signature ‖ the trusted comment

Rules
- Both signatures are verified, and the trusted comment is nothing before that.
- A key file holds one to `KEY_LIMIT` keys, so that a key can be changed: a release signed by any of them is taken.

`cryptography` comes with the first signature that is verified, which is a worker's: coworkd itself knows keys and never has its 10 MiB.
Does not sign, and knows no secret key. Sources: minisign's page on its formats, RFC 8032, RFC 7693.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from msgspec import Struct

from coworkd.release.refusal import ReleaseRefused

SIGNATURE_LIMIT_BYTES = 4096
KEY_FILE_LIMIT_BYTES = 4096
KEY_LIMIT = 8
UNTRUSTED, TRUSTED = "untrusted comment: ", "trusted comment: "
_KEY_BYTES, _SIGNATURE_BYTES = 2 + 8 + 32, 2 + 8 + 64


class PublicKey(Struct, frozen=True, kw_only=True):
    """`key_id` as it stands in the file, the lowest byte first."""

    key_id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """The key id in 16 hexadecimal digits, as minisign writes it; its older releases leave leading zeros out."""
        return self.key_id[::-1].hex().upper()


class Signature(Struct, frozen=True, kw_only=True):
    """Parsed, and not believed yet."""

    key_id: bytes
    prehashed: bool
    signature: bytes
    trusted_comment: str
    global_signature: bytes


def parse_public_keys(data: bytes) -> tuple[PublicKey, ...]:
    """The keys of a key file: a line of base64 each, comments between. Raises `ReleaseRefused`."""
    lines = _lines(data, KEY_FILE_LIMIT_BYTES, "key file")
    keys = tuple(_parse_key(line) for line in lines if line and not line.startswith((UNTRUSTED, "#")))
    if not 0 < len(keys) <= KEY_LIMIT:
        raise ReleaseRefused("malformed", f"a key file has 1 to {KEY_LIMIT} keys, this one {len(keys)}")
    return keys


def parse_signature(data: bytes) -> Signature:
    """Raises `ReleaseRefused`."""
    lines = _lines(data, SIGNATURE_LIMIT_BYTES, "signature")
    if len(lines) != 4 or not lines[0].startswith(UNTRUSTED) or not lines[2].startswith(TRUSTED):
        raise ReleaseRefused("malformed", "the signature is not the four lines that minisign writes")
    first = _decode(lines[1], _SIGNATURE_BYTES, "signature")
    if first[:2] not in (b"ED", b"Ed"):
        raise ReleaseRefused("malformed", f"the signature has the unknown algorithm {first[:2]!r}")
    return Signature(
        key_id=first[2:10],
        prehashed=first[:2] == b"ED",
        signature=first[10:],
        trusted_comment=lines[2][len(TRUSTED) :],
        global_signature=_decode(lines[3], 64, "signature of the trusted comment"),
    )


def verify(data: bytes, signature: Signature, keys: tuple[PublicKey, ...]) -> PublicKey:
    """The key of `keys` that has signed `data` and the trusted comment. Raises `ReleaseRefused`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    found = [key for key in keys if key.key_id == signature.key_id]
    if not found:
        wanted = ", ".join(key.name for key in keys)
        name = PublicKey(key_id=signature.key_id, key=b"").name
        raise ReleaseRefused("wrong_key", f"it is signed by key {name}, and this image trusts {wanted}")
    signed = hashlib.blake2b(data).digest() if signature.prehashed else data
    comment = signature.signature + signature.trusted_comment.encode()
    for key in found:
        try:
            public = Ed25519PublicKey.from_public_bytes(key.key)
            public.verify(signature.signature, signed)
            public.verify(signature.global_signature, comment)
        except (InvalidSignature, ValueError):
            continue
        return key
    raise ReleaseRefused("bad_signature", f"the signature by key {found[0].name} is not of this content")


def _parse_key(line: str) -> PublicKey:
    data = _decode(line, _KEY_BYTES, "key")
    if data[:2] != b"Ed":
        raise ReleaseRefused("malformed", f"the key has the unknown algorithm {data[:2]!r}")
    return PublicKey(key_id=data[2:10], key=data[10:])


def _lines(data: bytes, limit_bytes: int, what: str) -> list[str]:
    if len(data) > limit_bytes:
        raise ReleaseRefused("too_big", f"the {what} has more than {limit_bytes} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ReleaseRefused("malformed", f"the {what} is not UTF-8") from error
    # Not splitlines: it would part a trusted comment at signs that minisign leaves alone.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _decode(line: str, length: int, what: str) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReleaseRefused("malformed", f"the {what} is not base64") from error
    # What decodes to the same bytes may be written in several ways; only one is taken.
    if len(data) != length or base64.b64encode(data).decode() != line:
        raise ReleaseRefused(
            "malformed", f"the {what} has {len(data)} bytes, not {length}, or is not written as minisign does"
        )
    return data
