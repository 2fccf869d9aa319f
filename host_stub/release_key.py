"""Keys for signing releases, in the format of minisign, and signatures by them: what `coworkd.release.minisign` verifies.

A secret key is base64 of `Ed` ‖ kdf (two zeros: no password) ‖ `B2` ‖ salt (32) ‖ limits (16) ‖ key id (8) ‖ seed (32) ‖ public key (32)
‖ BLAKE2b-256 of `Ed` ‖ key id ‖ seed ‖ public key (32).

A secret key with a password is not opened here: sign with minisign itself, whose signature is as good. Sources: minisign's page on its
formats.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from msgspec import Struct

from coworkd.release.minisign import TRUSTED, UNTRUSTED, PublicKey
from host_stub.words import Trouble

_SECRET_BYTES = 2 + 2 + 2 + 32 + 16 + 8 + 64 + 32
_COMMENT_LIMIT = 1024


class SecretKey(Struct, frozen=True, kw_only=True):
    """Never shown: neither by `repr` nor in an error."""

    key_id: bytes
    seed: bytes

    def __repr__(self) -> str:
        return f"SecretKey({self.public.name})"

    @property
    def public(self) -> PublicKey:
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PublicKey(key_id=self.key_id, key=raw)


def make_key() -> SecretKey:
    """A new one, of the system's randomness."""
    seed = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return SecretKey(key_id=secrets.token_bytes(8), seed=seed)


def compose_secret_key(key: SecretKey) -> bytes:
    """The file of a secret key without a password."""
    pair = key.seed + key.public.key
    check = hashlib.blake2b(b"Ed" + key.key_id + pair, digest_size=32).digest()
    data = b"Ed\0\0B2" + bytes(48) + key.key_id + pair + check
    return f"{UNTRUSTED}minisign encrypted secret key\n{base64.b64encode(data).decode()}\n".encode()


def compose_public_key(key: PublicKey) -> bytes:
    """The file that goes into the image."""
    line = base64.b64encode(b"Ed" + key.key_id + key.key).decode()
    return f"{UNTRUSTED}minisign public key {key.name}\n{line}\n".encode()


def parse_secret_key(data: bytes, *, file: str) -> SecretKey:
    """Raises `Trouble`: `locked_key`, `bad_key`."""
    lines = data.decode("utf-8", "replace").splitlines()
    raw = b""
    if len(lines) == 2:
        with contextlib.suppress(binascii.Error, ValueError):
            raw = base64.b64decode(lines[1], validate=True)
    if len(raw) != _SECRET_BYTES or raw[:2] != b"Ed" or raw[4:6] != b"B2":
        raise Trouble(
            "bad_key", f"{file} is no secret key of minisign's", remedy="make one with `cowork-vm release keygen`"
        )
    if raw[2:4] != b"\0\0":
        said = f"the secret key {file} has a password"
        raise Trouble(
            "locked_key", said, remedy="sign manifest.json with minisign itself: `minisign -S -s KEY -m manifest.json`"
        )
    key = SecretKey(key_id=raw[54:62], seed=raw[62:94])
    if compose_secret_key(key).splitlines()[1] != lines[1].encode():
        raise Trouble("bad_key", f"the secret key {file} is damaged", remedy="take its copy")
    return key


def sign(data: bytes, key: SecretKey, *, comment: str) -> bytes:
    """The signature file of `data`; `comment` becomes the trusted comment. Raises `ValueError` for one of more than one line."""
    if "\n" in comment or "\r" in comment or len(comment) > _COMMENT_LIMIT:
        raise ValueError("a trusted comment is one line")
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    signature = private.sign(hashlib.blake2b(data).digest())
    lines = (
        f"{UNTRUSTED}signature from minisign secret key {key.public.name}",
        base64.b64encode(b"ED" + key.key_id + signature).decode(),
        f"{TRUSTED}{comment}",
        base64.b64encode(private.sign(signature + comment.encode())).decode(),
    )
    return "".join(f"{line}\n" for line in lines).encode()


def write_keys(directory: Path, name: str) -> tuple[Path, Path]:
    """Make `NAME.key` (0600) and `NAME.pub`; neither may be there. Raises `Trouble`."""
    key = make_key()
    made = []
    for path, data, mode in (
        (directory / f"{name}.key", compose_secret_key(key), 0o600),
        (directory / f"{name}.pub", compose_public_key(key.public), 0o644),
    ):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError as error:
            remedy = "choose another name: what it has signed would be trusted no more"
            raise Trouble("key_exists", f"{path} is there already", remedy=remedy) from error
        except OSError as error:
            raise Trouble(
                "not_written", f"{path} cannot be made: {error.strerror}", remedy="choose another directory"
            ) from error
        with open(fd, "wb") as file:
            file.write(data)
        made.append(path)
    return made[0], made[1]
