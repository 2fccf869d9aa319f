"""`coworkctl`: arguments in, exit status out. The commands are in `control_*`, each imported when it is asked for.

Exit status: 0 done · 1 refused or failed, the reason on standard error · 2 the command line is wrong · 128+n ended by
signal n. `run`, `shell` and `attach` give the command's own status instead, and 125 to 127 as docker and env(1) do
(see `control_exit`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from coworkd.cli.control_args import parse
from coworkd.model.errors import CoworkError

INTERRUPTED_STATUS = 130
PIPE_STATUS = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, or raises SystemExit as argparse does for `--help` and wrong words."""
    _fill_standard_descriptors()
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(words)
    try:
        status = _handler(args)(args)
        sys.stdout.flush()
    except CoworkError as error:
        report(error, as_json=args.json)
        return int(args.failure_status)
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except BrokenPipeError:
        _drop_output()  # whoever read it is gone
        return PIPE_STATUS
    except OSError as error:
        _drop_output()
        with contextlib.suppress(OSError):  # it may be the same terminal that is gone
            print(f"coworkctl: it cannot go on: {error}", file=sys.stderr)
        return int(args.failure_status)
    return status


def _drop_output() -> None:
    """Nothing may be written at exit either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _fill_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed the link to coworkd would get the number, and a command's bytes with it.

    What is put there instead cannot be used either: it is open the other way round.
    """
    for fd, wrong_way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            # open(2) gives the lowest free number, which is this one: those below are open by now.
            os.open(os.devnull, wrong_way)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)  # what is printed fails, and is told
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # print(file=None) would go to standard output


def _handler(args: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """What runs the command: `module:function` of this package, or the function that `policy` brought itself."""
    if callable(args.handler):
        from coworkd.cli.control_policy import with_link

        return with_link(args.handler)
    module, _, function = args.handler.partition(":")
    handler: Callable[[argparse.Namespace], int] = getattr(import_module(f"coworkd.cli.{module}"), function)
    return handler


def report(error: CoworkError, *, as_json: bool) -> None:
    """Say on standard error what went wrong; a name of the guest's in it cannot drive the terminal."""
    if as_json:
        from coworkd.cli.control_json import dump
        from coworkd.wire.fault import compose_fault

        print(dump({"error": compose_fault(error)}), file=sys.stderr)
        return
    from coworkd.cli.control_tables import shown
    from coworkd.wire.fault import code_of

    stage = error.details.get("stage")
    label = f"{code_of(error).value}, {stage}" if stage else code_of(error).value
    message = "\n".join(map(shown, error.message.split("\n")))
    print(f"coworkctl: {message} [{shown(label)}]", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
