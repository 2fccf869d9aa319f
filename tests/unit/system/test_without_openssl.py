from __future__ import annotations

import hashlib
import subprocess
import sys

OPENSSL = {"ssl", "_ssl", "_hashlib"}
COWORKD = """
import sys
import coworkd.cli.daemon, coworkd.lifetime
coworkd.lifetime._load_rest()
print(*sys.modules)
"""
AFTERWARDS = """
import coworkd.cli.daemon, hashlib, hmac, ssl, trio
assert hmac.compare_digest("a", "a") and ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
try:
    trio.SSLStream(None, ssl.create_default_context())
except AttributeError:
    print(hashlib.sha256(b"abc").hexdigest(), hashlib.sha1(b"abc", usedforsecurity=False).hexdigest())
"""
ALREADY = "import ssl, trio, coworkd.cli.daemon; assert trio._ssl._stdlib_ssl is ssl"


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_all_of_coworkd_is_loaded_without_openssl() -> None:
    loaded = set(run(COWORKD).split())
    assert {"trio", "coworkd.app", "coworkd.slot_start"} <= loaded
    assert not loaded & OPENSSL


def test_what_comes_afterwards_has_it_and_trio_no_tls() -> None:
    assert run(AFTERWARDS).split() == [
        hashlib.sha256(b"abc").hexdigest(),
        hashlib.sha1(b"abc", usedforsecurity=False).hexdigest(),
    ]


def test_who_has_loaded_it_keeps_it() -> None:
    run(ALREADY)
