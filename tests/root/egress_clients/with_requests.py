"""Fetch argv[1] by requests; POST it a body too. Prints what came."""

from __future__ import annotations

import sys

import requests

with requests.Session() as session:
    print(session.get(sys.argv[1], timeout=20).text, end="")
    echo = sys.argv[1].rpartition("/")[0] + "/echo"
    body = bytes(range(256)) * 1000
    assert session.post(echo, data=body, timeout=20).content == body
    assert session.post(echo, data=iter([b"in ", b"pieces"]), timeout=20).content == b"in pieces"
