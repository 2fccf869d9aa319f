from __future__ import annotations

import hashlib
import sys

import pytest

from coworkd.system import sha256


@pytest.mark.parametrize("data", [b"", b"abc", bytes(4096)])
def test_hex_digest_is_sha_256(data: bytes) -> None:
    assert sha256.hex_digest(data) == hashlib.sha256(data).hexdigest()


def test_hashlib_stands_in_where_the_private_modules_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_sha256", "_sha2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert sha256._find()(b"abc").hexdigest() == hashlib.sha256(b"abc").hexdigest()
