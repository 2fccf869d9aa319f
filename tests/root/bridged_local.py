"""`coworkd local` with bridges, which only a configuration file can have: `python -m tests.root.bridged_local BRIDGES COMMAND…`.

BRIDGES is JSON, a list of `{name, listen, connect}`; of COMMAND, a call of `coworkd local`, only `--state` and `--socket` are taken.
"""

from __future__ import annotations

import json
import sys

from msgspec import structs

from coworkd.cli.daemon import compose_local_config, run_local
from coworkd.model.bridge import parse_bridge


def main() -> int:
    bridges, command = sys.argv[1], sys.argv[2:]
    state, socket = (command[command.index(option) + 1] for option in ("--state", "--socket"))
    config = structs.replace(
        compose_local_config(state=state, socket=socket), bridges=tuple(map(parse_bridge, json.loads(bridges)))
    )
    return run_local(config, linger_s=5, ready=lambda: print(f"ready {config.endpoints[0]}", flush=True))


if __name__ == "__main__":
    sys.exit(main())
