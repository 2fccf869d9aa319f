"""Distil facts.json: what PyObjC's own metadata says of the classes that host_stub/vz uses. Run by hand when a class is added.

    python tests/unit/host_stub/vz/distil.py VIRTUALIZATION_SDIST COCOA_SDIST > tests/unit/host_stub/vz/facts.json

The arguments are the unpacked source distributions of pyobjc-framework-Virtualization and pyobjc-framework-Cocoa. Of each class below
and what it inherits from are taken: selectors, types of their arguments, the macOS that brought them, and on which machines they are;
of PyObjC's own tables: which arguments it hands back (`out`) and which blocks it can call (`block/COUNT`). Names and types only.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

VIRTUALIZATION = [
    "VZVirtualMachine",
    "VZVirtualMachineConfiguration",
    "VZLinuxBootLoader",
    "VZEFIBootLoader",
    "VZEFIVariableStore",
    "VZGenericPlatformConfiguration",
    "VZGenericMachineIdentifier",
    "VZDiskImageStorageDeviceAttachment",
    "VZVirtioBlockDeviceConfiguration",
    "VZUSBMassStorageDeviceConfiguration",
    "VZNVMExpressControllerDeviceConfiguration",
    "VZVirtioFileSystemDeviceConfiguration",
    "VZSharedDirectory",
    "VZSingleDirectoryShare",
    "VZVirtioSocketDeviceConfiguration",
    "VZVirtioSocketDevice",
    "VZVirtioSocketListener",
    "VZVirtioSocketConnection",
    "VZVirtioEntropyDeviceConfiguration",
    "VZVirtioTraditionalMemoryBalloonDeviceConfiguration",
    "VZVirtioTraditionalMemoryBalloonDevice",
    "VZVirtioConsoleDeviceSerialPortConfiguration",
    "VZFileHandleSerialPortAttachment",
    "VZVirtioNetworkDeviceConfiguration",
    "VZNATNetworkDeviceAttachment",
    "VZMACAddress",
    "VZVirtualMachineDelegate",
    "VZVirtioSocketListenerDelegate",
]
FOUNDATION = {
    "NSURL": {"fileURLWithPath:"},
    "NSData": {"dataWithBytes:length:"},
    "NSError": {
        "errorWithDomain:code:userInfo:",
        "domain",
        "code",
        "userInfo",
        "localizedDescription",
        "localizedFailureReason",
    },
    "NSFileHandle": {"initWithFileDescriptor:closeOnDealloc:"},
    "NSRunLoop": {"currentRunLoop", "runMode:beforeDate:"},
    "NSDate": {"dateWithTimeIntervalSinceNow:"},
    "NSOperationQueue": {"mainQueue", "addOperationWithBlock:"},
    "NSProcessInfo": {"processInfo", "operatingSystemVersion"},
    "NSNotificationCenter": {"addObserver:selector:name:object:", "removeObserver:"},
}
APPKIT = {"NSWorkspace": {"sharedWorkspace", "notificationCenter"}}
ENUMS = {"VZDiskImageCachingMode", "VZDiskImageSynchronizationMode", "VZErrorCode", "VZVirtualMachineState"}
CONSTANTS = {"VZErrorDomain", "NSDefaultRunLoopMode", "NSWorkspaceDidWakeNotification"}
MACHINES = ("arm64", "x86_64")


def definitions(folder: Path) -> dict[str, dict[str, Any]]:
    """Per machine, what the metadata of one framework holds."""
    found = {}
    for machine in MACHINES:
        (path,) = folder.glob(f"{machine}-*.fwinfo")
        lines = [line for line in path.read_text().splitlines() if not line.startswith("//")]
        found[machine] = json.loads("\n".join(lines))["definitions"]
    return found


def registered(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What PyObjC is told about selectors: the calls `r(b"Class", b"selector:", {…})` of its _metadata.py."""
    table = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "r"
            and len(node.args) == 3
        ):
            owner, selector, about = (ast.literal_eval(argument) for argument in node.args)
            table[owner.decode(), selector.decode()] = about
    return table


def unavailable(path: Path) -> set[tuple[str, str]]:
    """The selectors that PyObjC blocks, of its __init__.py."""
    return {(name, selector) for name, selector in re.findall(r'\("(\w+)", b"(init|new)"\)', path.read_text())}


def type_word(argument: dict[str, Any], told: dict[str, Any]) -> str:
    if told.get("type_modifier") == b"o":
        return "out"
    if "callable" in told:
        return f"block/{len(told['callable']['arguments']) - 1}"
    name = re.sub(r"\b_(Nullable|Nonnull)\b", "", argument["type_name"]).strip()
    if argument["typestr"] == "@?":
        return "block without a signature"
    return re.sub(r"\s*\*$", "", name).replace(" *>", ">").strip()


def method_facts(owner: str, method: dict[str, Any], told: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    about = told.get((owner, method["selector"]), {}).get("arguments", {})
    arguments = [type_word(argument, about.get(index + 2, {})) for index, argument in enumerate(method["args"])]
    returned = method.get("retval", {}).get("type_name", "void")
    answer = re.sub(r"\s*\*$", "", re.sub(r"\b_(Nullable|Nonnull)\b", "", returned).strip()).replace(" *>", ">")
    return [method.get("introduced") or "10.0", arguments, answer]


def class_facts(
    name: str,
    machines: dict[str, dict[str, Any]],
    told: dict[tuple[str, str], dict[str, Any]],
    wanted: set[str] | None = None,
) -> dict[str, Any]:
    kind = "classes" if any(name in machines[machine]["classes"] for machine in MACHINES) else "formal_protocols"
    there = [machine for machine in MACHINES if name in machines[machine][kind]]
    record = machines[there[0]][kind][name]
    methods = {
        ("+" if method.get("class_method") else "-") + method["selector"]: method_facts(name, method, told)
        for method in record["methods"]
        if wanted is None or method["selector"] in wanted
    }
    facts: dict[str, Any] = {"methods": dict(sorted(methods.items()))}
    if kind == "classes":
        facts["super"] = record.get("super", "NSObject")
    if there != list(MACHINES):
        facts["only"] = there
    return facts


def enum_facts(machines: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = machines["arm64"]["enum"]
    return {name: {"enum": one["enum"], "value": one["value"]} for name, one in values.items() if one["enum"] in ENUMS}


def distil(virtualization: Path, cocoa: Path) -> dict[str, Any]:
    vz = definitions(virtualization / "metadata/raw")
    told = registered(virtualization / "Lib/Virtualization/_metadata.py")
    blocked = unavailable(virtualization / "Lib/Virtualization/__init__.py")
    classes: dict[str, Any] = {}
    wanted = list(VIRTUALIZATION)
    while wanted:
        name = wanted.pop()
        classes[name] = class_facts(name, vz, told)
        above = classes[name].get("super", "NSObject")
        if above not in ("NSObject", *classes):
            wanted.append(above)
    for folder, selectors in (("Foundation", FOUNDATION), ("AppKit", APPKIT)):
        machines = definitions(cocoa / f"metadata/raw.{folder}")
        of_it = registered(cocoa / f"Lib/{folder}/_metadata.py")
        for name, only in selectors.items():
            classes[name] = {**class_facts(name, machines, of_it, only), "module": folder}
    for name, one in classes.items():
        one["unavailable"] = sorted(selector for owner, selector in blocked if owner == name)
    sources = [re.search(r"^Version: (.*)$", (one / "PKG-INFO").read_text(), re.M) for one in (virtualization, cocoa)]
    return {
        "of": {"Virtualization": sources[0] and sources[0][1], "Cocoa": sources[1] and sources[1][1]},
        "classes": dict(sorted(classes.items())),
        "enums": dict(sorted(enum_facts(vz).items())),
        "constants": sorted(CONSTANTS),
    }


def compose_text(facts: dict[str, Any]) -> str:
    """JSON with one line for each selector, so that a difference can be read."""
    lines = []
    for name, one in facts["classes"].items():
        methods = [f"  {json.dumps(selector)}: {json.dumps(about)}" for selector, about in one["methods"].items()]
        rest = {key: value for key, value in one.items() if key != "methods" and value}
        lines.append(
            f' {json.dumps(name)}: {json.dumps(rest)[:-1]}{", " if rest else ""}"methods": {{\n'
            + ",\n".join(methods)
            + "}}"
        )
    head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items() if key != "classes"]
    return "{" + ",\n".join(head) + ',\n"classes": {\n' + ",\n".join(lines) + "}}\n"


if __name__ == "__main__":
    sys.stdout.write(compose_text(distil(Path(sys.argv[1]), Path(sys.argv[2]))))
