"""`coworkd local` whose host upstream is a unix socket, which only a configuration file can say: `python hosted_local.py URI COMMAND…`.

Of COMMAND, a call of `coworkd local`, `--state`, `--socket` and `--policies` are taken.
"""

from __future__ import annotations

import os
import sys

from msgspec import structs

from coworkd.cli.daemon import compose_local_config, run_local


def main() -> int:
    uri, command = sys.argv[1], sys.argv[2:]
    state, socket, policies = (command[command.index(name) + 1] for name in ("--state", "--socket", "--policies"))
    config = compose_local_config(state=state, socket=socket, policies=policies)
    config = structs.replace(config, egress=structs.replace(config.egress, host=uri))
    return run_local(config, linger_s=5, ready=lambda: print(f"ready {config.endpoints[0]}", flush=True))


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main())
