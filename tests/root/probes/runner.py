"""Runs probes inside a sandbox: what to run comes as JSON on stdin, one JSON line for each goes to stdout, then `done`.

Every probe has a child of its own, so one that kills or changes itself takes nothing along.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from functools import partial
from typing import Any

from tests.root.probes.kernel import PROGRAMS, Given, in_child, syscall

MODULES = ("identity", "views", "neighbours", "network", "folders", "limits")
DESCRIPTOR_CALLS = ("open", "openat", "creat", "socket")


def descriptor(name: str, given: Given, target: str) -> int:
    """Open what "@name" stands for; KeyError for a name that means nothing."""
    openers = {
        "@null": lambda: os.open("/dev/null", os.O_RDWR),
        "@pty": lambda: os.openpty()[1],
        "@home": lambda: os.open(given["home"], os.O_RDONLY | os.O_DIRECTORY),
        "@userns": lambda: os.open("/proc/self/ns/user", os.O_RDONLY),
        "@self": lambda: os.pidfd_open(os.getpid()),
        "@file": lambda: os.open(given["home"] + "/a-file", os.O_RDWR | os.O_CREAT, 0o644),
        "@neighbour": lambda: int(given["bob_uid"]),
        "@target": lambda: os.open(target, os.O_RDWR),
    }
    return openers[name]()


def run_syscall(entry: dict[str, Any], given: Given) -> str:
    """One entry of syscalls.toml."""
    target = f"{given['shared']}/{entry['id']}"
    if entry.get("prepare"):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT, 0o755))
    arguments: list[int | bytes | list[int]] = []
    for argument in entry["arguments"]:
        if isinstance(argument, str) and argument.startswith("@"):
            arguments.append(descriptor(argument, given, target))
        elif isinstance(argument, str):
            for variable, value in (("$HOME", given["home"]), ("$SHARED", given["shared"]), ("$TARGET", target)):
                argument = argument.replace(variable, value)
            arguments.append(argument.encode())
        else:
            arguments.append(argument)
    result = syscall(entry["number"] | entry.get("number_or", 0), *arguments)
    return "ok:fd" if entry["call"] in DESCRIPTOR_CALLS else f"ok:{result}"


def main() -> None:
    asked = json.load(sys.stdin)
    given: Given = asked["given"]
    for module in MODULES:
        importlib.import_module(f"tests.root.probes.{module}")
    for entry in asked["syscalls"]:
        tell(entry["id"], in_child(partial(run_syscall, entry, given)))
    for name in asked["programs"]:
        tell(name, in_child(partial(PROGRAMS[name], given)))
    print(json.dumps({"done": len(asked["syscalls"]) + len(asked["programs"])}), flush=True)


def tell(name: str, outcome: str) -> None:
    print(json.dumps({"id": name, "outcome": outcome}), flush=True)


if __name__ == "__main__":
    main()
