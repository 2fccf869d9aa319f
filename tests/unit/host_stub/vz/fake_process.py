"""`python -m host_stub.vz` with the fake Mac inside: what the back end starts in tests. `PLAN_JSON --control FD`."""

from __future__ import annotations

import socket
import sys

import msgspec

from host_stub.vz import process
from tests.unit.host_stub.vz.fake_vz import FakeMac, Plan

if __name__ == "__main__":
    mac = FakeMac(msgspec.json.decode(sys.argv[1], type=Plan))
    process.ORPHAN_S = mac.plan.orphan_s
    sys.exit(process.serve(mac.framework, socket.socket(fileno=int(sys.argv[3]))))
