from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coworkd.release.minisign import parse_public_keys, parse_signature, verify
from host_stub.release_key import compose_secret_key, make_key, parse_secret_key, sign, write_keys
from host_stub.words import Trouble


def test_keys_come_back_from_their_files(tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path, "release")
    key = parse_secret_key(secret.read_bytes(), file=str(secret))
    assert parse_public_keys(public.read_bytes()) == (key.public,)
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    secret, _ = write_keys(tmp_path, "release")
    before = secret.read_bytes()
    with pytest.raises(Trouble) as trouble:
        write_keys(tmp_path, "release")
    assert trouble.value.code == "key_exists"
    assert secret.read_bytes() == before


def test_a_secret_is_not_shown() -> None:
    key = make_key()
    assert key.seed.hex() not in repr(key)
    assert repr(key) == f"SecretKey({key.public.name})"


@pytest.mark.parametrize(
    "damage", [b"", b"x\ny\n", compose_secret_key(make_key())[:-8] + b"AAAAAA=\n", b"\xff\n\xff\n"]
)
def test_a_damaged_secret_key_is_told(damage: bytes) -> None:
    with pytest.raises(Trouble) as trouble:
        parse_secret_key(damage, file="k")
    assert trouble.value.code == "bad_key"


def test_a_trusted_comment_is_one_line() -> None:
    with pytest.raises(ValueError, match="one line"):
        sign(b"x", make_key(), comment="a\nb")


@pytest.mark.needs("minisign")
def test_minisign_takes_our_signatures_and_our_keys(tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path, "release")
    key = parse_secret_key(secret.read_bytes(), file="k")
    data = tmp_path / "data"
    data.write_bytes(b"hello")
    (tmp_path / "data.minisig").write_bytes(sign(b"hello", key, comment="said by us"))
    done = subprocess.run(
        ["minisign", "-V", "-p", public, "-m", data], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "said by us" in done.stdout
    (tmp_path / "data.minisig").unlink()
    subprocess.run(["minisign", "-S", "-s", secret, "-m", data], check=True, capture_output=True, cwd=tmp_path)
    verify(b"hello", parse_signature((tmp_path / "data.minisig").read_bytes()), (key.public,))


@pytest.mark.needs("minisign")
def test_a_secret_key_with_a_password_is_told(tmp_path: Path) -> None:
    subprocess.run(
        ["minisign", "-G", "-p", "k.pub", "-s", "k.key"], input=b"x\nx\n", check=True, capture_output=True, cwd=tmp_path
    )
    with pytest.raises(Trouble) as trouble:
        parse_secret_key((tmp_path / "k.key").read_bytes(), file="k.key")
    assert trouble.value.code == "locked_key"
