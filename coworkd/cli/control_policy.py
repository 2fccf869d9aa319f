"""`coworkctl policy show` with a link: what holds there, instead of what lies in files here.

The commands themselves are in `policy_files`; where a coworkd is named or runs here, `show` asks it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from coworkd.cli.control_link import named_uri, open_client

Handler = Callable[[argparse.Namespace], int]


def with_link(handler: Handler) -> Handler:
    """`handler`, given `args.call` where it is `show`, no files were named, and there is a coworkd to ask."""

    def run(args: argparse.Namespace) -> int:
        wants_link = args.policy_command == "show" and not args.layers and named_uri(args) is not None
        if not wants_link:
            return handler(args)
        with open_client(args) as client:
            args.call = client.call
            return handler(args)

    return run
