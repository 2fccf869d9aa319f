"""`cowork-vm`: arguments in, exit status out. The commands are in the modules beside this one.

Exit status: 0 done · 1 it did not work: one sentence and a remedy on standard error · 2 the command line is wrong · 3 `status` of a machine
that does not run · 130 interrupted. `exec`, `shell`, `ctl` and `tool` give coworkctl's status, and 125 where there is no machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from host_stub.words import Trouble

TROUBLE_STATUS = 1
USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
NO_EXTRA = "cowork-vm: the libraries of the command line are not installed (install them: pip install 'coworkd[host]')"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    try:
        import click

        from host_stub.cli.commands import cowork_vm
    except ImportError as error:
        print(f"{NO_EXTRA}: {error}", file=sys.stderr)
        return USAGE_STATUS
    from host_stub.cli.telling import say_trouble

    try:
        status = cowork_vm.main(args=None if argv is None else list(argv), prog_name="cowork-vm", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE_STATUS
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED_STATUS
    except Trouble as trouble:
        say_trouble(trouble)
        return TROUBLE_STATUS
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
