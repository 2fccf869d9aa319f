"""`coworkd local` with a share root, which only a configuration file can name: `python -m tests.root.shared_local ROOT COMMAND…`.

Of COMMAND, a call of `coworkd local`, only `--state` and `--socket` are taken.
"""

from __future__ import annotations

import sys

from msgspec import structs

from coworkd.cli.daemon import compose_local_config, run_local


def main() -> int:
    root, command = sys.argv[1], sys.argv[2:]
    state, socket = (command[command.index(option) + 1] for option in ("--state", "--socket"))
    config = structs.replace(compose_local_config(state=state, socket=socket), share_root=root)
    return run_local(config, linger_s=5, ready=lambda: print(f"ready {config.endpoints[0]}", flush=True))


if __name__ == "__main__":
    sys.exit(main())
