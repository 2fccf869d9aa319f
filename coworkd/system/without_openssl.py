"""To import this is to load trio and hashlib without OpenSSL, which costs a process 5 MiB and its start 20 ms.

trio has streams with TLS and imports `ssl` for them; hashlib takes OpenSSL's hashes where it has them. coworkd has no such stream (TLS is
coworkd-egress's), and what it hashes are records of a few hundred bytes: CPython's own hashes do. Its SHA-256 takes six times as long as
OpenSSL's, 3 ms a MiB: for what may be large, as the parameters of a call, there is BLAKE2.

Rules
- Imported before trio. Where trio or `ssl` is loaded already, as in a test, nothing is done.
- trio alone has a stand-in for `ssl`, with nothing in it: its streams with TLS fail, they never go on without. Whoever imports `ssl` or
  `_hashlib` afterwards has the real one.
- A trio that looks into `ssl` while it is loaded ends the start with an AttributeError: the unit test meets it before a release does.
"""

from __future__ import annotations

import sys
from types import ModuleType


def _load() -> None:
    if "trio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = ModuleType("ssl")
    sys.modules["_hashlib"] = None  # type: ignore[assignment] # what importlib takes for "there is none"
    try:
        import hashlib  # noqa: F401
        import hmac  # noqa: F401

        import trio  # noqa: F401
    finally:
        del sys.modules["ssl"], sys.modules["_hashlib"]


_load()
