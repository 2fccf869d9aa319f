"""SHA-256 without OpenSSL: hashlib maps libcrypto, 3.4 MiB of resident memory that the launcher needs for nothing else.

CPython's own implementation is a private module, named `_sha256` up to 3.11 and `_sha2` from 3.12 on; hashlib where neither is there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def _find() -> Callable[[bytes], Any]:
    for name in ("_sha256", "_sha2", "hashlib"):
        try:
            found: Callable[[bytes], Any] = importlib.import_module(name).sha256
        except (ImportError, AttributeError):
            continue
        return found
    raise ImportError("this Python has no SHA-256")


_sha256 = _find()


def hex_digest(data: bytes) -> str:
    """The digest in lower-case hex."""
    return str(_sha256(data).hexdigest())
