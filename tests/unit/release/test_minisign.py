from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coworkd.release.minisign import KEY_LIMIT, PublicKey, parse_public_keys, parse_signature, verify
from coworkd.release.refusal import ReleaseRefused
from host_stub.release_key import compose_public_key, sign
from tests.unit.release.release_house import KEY, KEYS, OTHER_KEY

DATA = b"what is signed"
SIGNED = sign(DATA, KEY, comment="a comment")


def why(signature: bytes, data: bytes = DATA, keys: bytes = compose_public_key(KEY.public)) -> str:
    with pytest.raises(ReleaseRefused) as refused:
        verify(data, parse_signature(signature), parse_public_keys(keys))
    return refused.value.why


def test_a_good_signature_names_its_key() -> None:
    signature = parse_signature(SIGNED)
    assert signature.trusted_comment == "a comment"
    assert verify(DATA, signature, KEYS).name == KEY.public.name


def test_a_legacy_signature_is_over_the_data_itself() -> None:
    lines = SIGNED.decode().split("\n")
    private = Ed25519PrivateKey.from_private_bytes(KEY.seed)
    signature = private.sign(DATA)
    lines[1] = base64.b64encode(b"Ed" + KEY.key_id + signature).decode()
    lines[3] = base64.b64encode(private.sign(signature + b"a comment")).decode()
    assert verify(DATA, parse_signature("\n".join(lines).encode()), KEYS).key_id == KEY.key_id
    assert hashlib.blake2b(DATA).digest() != DATA


def test_other_data_is_refused() -> None:
    assert why(SIGNED, DATA + b".") == "bad_signature"


def test_another_trusted_comment_is_refused() -> None:
    assert why(SIGNED.replace(b"a comment", b"a Comment")) == "bad_signature"


def test_an_unknown_key_is_refused() -> None:
    assert why(SIGNED, keys=compose_public_key(OTHER_KEY.public)) == "wrong_key"


def test_a_key_of_the_same_id_does_not_do() -> None:
    forged = OTHER_KEY.public.__class__(key_id=KEY.key_id, key=OTHER_KEY.public.key)
    assert why(SIGNED, keys=compose_public_key(forged)) == "bad_signature"


def test_one_of_several_keys_is_enough() -> None:
    keys = compose_public_key(OTHER_KEY.public) + b"# the old one\n" + compose_public_key(KEY.public)
    assert verify(DATA, parse_signature(SIGNED), parse_public_keys(keys)) == KEY.public


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        SIGNED[:-20],
        SIGNED + b"more\n",
        SIGNED.replace(b"untrusted", b"Untrusted"),
        SIGNED.replace(b"\ntrusted comment: ", b"\n"),
        SIGNED.replace(b"=", b""),
        b"\xff" + SIGNED,
        SIGNED.replace(b"\n", b"\n\n", 1),
    ],
)
def test_what_is_not_written_as_minisign_does_is_refused(broken: bytes) -> None:
    assert why(broken) == "malformed"


def test_a_signature_of_another_algorithm_is_refused() -> None:
    lines = SIGNED.decode().split("\n")
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(b"XX" + raw[2:]).decode()
    assert why("\n".join(lines).encode()) == "malformed"


def test_a_huge_signature_is_not_read() -> None:
    assert why(SIGNED + b"x" * 5000) == "too_big"


@pytest.mark.parametrize(
    "keys", [b"", b"untrusted comment: x\n", b"????\n", compose_public_key(KEY.public) * (KEY_LIMIT + 1)]
)
def test_a_key_file_without_keys_or_with_too_many_is_refused(keys: bytes) -> None:
    with pytest.raises(ReleaseRefused):
        parse_public_keys(keys)


def test_a_name_has_all_its_digits() -> None:
    assert PublicKey(key_id=bytes([0xC4, 0x23, 0xAA, 0x31, 0x3C, 0x81, 0x77, 0x00]), key=b"").name == "0077813C31AA23C4"


@pytest.mark.needs("minisign")
def test_what_minisign_itself_signs_is_verified(tmp_path: Path) -> None:
    minisign = shutil.which("minisign")
    assert minisign is not None
    (tmp_path / "data").write_bytes(DATA)
    quiet = {"cwd": tmp_path, "check": True, "capture_output": True}
    subprocess.run([minisign, "-G", "-W", "-p", "k.pub", "-s", "k.key"], **quiet)  # type: ignore[call-overload]
    subprocess.run([minisign, "-S", "-s", "k.key", "-m", "data", "-t", "hello there"], **quiet)  # type: ignore[call-overload]
    keys = parse_public_keys((tmp_path / "k.pub").read_bytes())
    signature = parse_signature((tmp_path / "data.minisig").read_bytes())
    # As numbers: older releases leave leading zeros out, and one key of sixteen has some.
    written = (tmp_path / "k.pub").read_text().splitlines()[0].split()[-1]
    assert int(verify(DATA, signature, keys).name, 16) == int(written, 16)
    assert signature.trusted_comment == "hello there"
    subprocess.run([minisign, "-S", "-l", "-s", "k.key", "-m", "data"], **quiet)  # type: ignore[call-overload]
    assert not parse_signature((tmp_path / "data.minisig").read_bytes()).prehashed
    verify(DATA, parse_signature((tmp_path / "data.minisig").read_bytes()), keys)
