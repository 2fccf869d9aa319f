"""Fetch argv[1] by urllib. Prints what came."""

from __future__ import annotations

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=20) as answer:
    print(answer.read().decode(), end="")
