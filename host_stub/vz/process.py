"""The process that owns VZ's objects: `python -m host_stub.vz --control FD`, a child of the back end.

    back end ══ control (words) ══ reader thread ─ main loop: VirtualMachine ─ VZ (its XPC service runs the guest)

Rules
- It lives as long as its machine, and no longer than its back end: at the end of file the machine is ended, and after `ORPHAN_S` the
  process ends whatever VZ says, which ends the guest with it.
- What it cannot say over the control socket it says on stderr, which the back end keeps.

Exit status: 0 the machine has ended, or the back end has gone; 64 wrong arguments; 65 the back end broke the words; 69 no framework;
70 a bug.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from host_stub.vz import words
from host_stub.vz.control import ControlSocket
from host_stub.vz.entitlement import compose_commands, find_interpreter, write_entitlements
from host_stub.vz.framework import Framework, load_framework
from host_stub.vz.main_loop import MainLoop
from host_stub.vz.virtual_machine import VirtualMachine
from host_stub.vz.wake import observe_wake
from host_stub.words import Trouble

ORPHAN_S = 5.0
EXIT_WORDS, EXIT_NO_FRAMEWORK = 65, 69


def main(argv: list[str] | None = None) -> None:
    """Never returns."""
    parser = argparse.ArgumentParser(prog="python -m host_stub.vz", description="the process that owns VZ's objects")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--control", type=int, metavar="FD", help="the socket to the back end")
    what.add_argument("--entitlements", action="store_true", help="write cowork-vm.entitlements here, say how to sign")
    options = parser.parse_args(argv)
    if options.entitlements:
        commands = compose_commands(find_interpreter(), write_entitlements(Path()))
        sys.stdout.write("".join(f"{' '.join(command)}\n" for command in commands))
        sys.exit(0)
    try:
        framework = load_framework()
    except Trouble as trouble:
        sys.stderr.write(f"{trouble}\n")
        sys.exit(EXIT_NO_FRAMEWORK)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's interrupt is for who started us
    sys.exit(serve(framework, socket.socket(fileno=options.control)))


def serve(framework: Framework, connection: socket.socket) -> int:
    """On the main thread, until the machine or the back end has ended; the exit status. Closes `connection`."""
    loop = MainLoop(framework)
    control = ControlSocket(connection, words.FromBackend)
    machine = VirtualMachine(framework, control.send, guard=loop.guard, on_end=lambda: loop.end(0))
    observer = observe_wake(framework, loop.guard(lambda: control.send(words.Woke())))
    reader = threading.Thread(target=_read, args=(control, loop, machine), name="control", daemon=True)
    reader.start()
    status = loop.run()
    control.close()
    del observer
    return EXIT_WORDS if control.broken and status == 0 else status


def _read(control: ControlSocket, loop: MainLoop, machine: VirtualMachine) -> None:
    try:
        while (received := control.receive()) is not None:
            message, fds = received
            loop.call(lambda message=message, fds=fds: machine.handle(message, fds))  # type: ignore[misc]
    except words.BrokenWords as error:
        sys.stderr.write(f"the back end broke the words: {error}\n")
        control.broken = True
    loop.call(machine.orphaned)
    if not loop.ended.wait(ORPHAN_S):
        os._exit(EXIT_WORDS if control.broken else 0)  # VZ does not answer; the guest ends with this process
