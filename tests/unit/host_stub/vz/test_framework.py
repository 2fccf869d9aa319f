"""The names that host_stub/vz uses against Apple's list, and the fake's strictness, on which the other tests lean."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from host_stub.vz.framework import FLOOR, load_framework, require, since
from host_stub.words import Trouble
from tests.unit.host_stub.vz.fake_objc import CLASSES, ENUMS, FACTS, BadCall, class_since, version
from tests.unit.host_stub.vz.fake_vz import FakeMac, Plan
from tests.unit.host_stub.vz.used_names import Use, uses

SELECTORS: dict[str, list[tuple[int, ...]]] = {}
for about in CLASSES.values():
    for selector, (first, _, _) in about["methods"].items():
        SELECTORS.setdefault(selector[1:], []).append(version(first))


def came_with(name: str) -> tuple[int, ...] | None:
    """The macOS that brought it, None for what no list has."""
    if name in ENUMS or name in FACTS["constants"] or name == "NSObject":
        return (0, 0)
    if name.startswith(("VZ", "NS")):
        return class_since(name) if name in CLASSES else None
    return min(SELECTORS.get(name.replace("_", ":"), []), default=None)


def test_uses_are_found() -> None:
    names = {use.name for use in uses()}
    assert {"VZVirtualMachine", "startWithCompletionHandler_", "minimumAllowedCPUCount"} <= names
    assert Use("configuration.py", "initWithAttachment_", (14, 0))[1:] in {use[1:] for use in uses()}


@pytest.mark.parametrize("use", sorted({(use.name, use.where.partition(":")[0], use.macos) for use in uses()}))
def test_name_is_apples_and_old_enough_where_it_is_used(use: tuple[str, str, tuple[int, int]]) -> None:
    name, where, macos = use
    needed = came_with(name)
    assert needed is not None, f"{where} uses {name}, which facts.json does not have"
    assert needed <= macos, f"{where} uses {name} of macOS {needed} where {macos} may be: mark the function `since`"


@pytest.mark.parametrize("machine", ["arm64", "x86_64"])
def test_classes_are_there_on_both_machines(machine: str) -> None:
    missing = [name for name, one in CLASSES.items() if machine not in one.get("only", [machine])]
    assert missing == []


def test_since_refuses_an_older_macos() -> None:
    @since(14, 0, "things")
    def use(_framework: Any) -> str:
        return "used"

    assert use(FakeMac(Plan(macos=(14, 0))).framework) == "used"
    with pytest.raises(Trouble, match=r"things need macOS 14\.0, and this is 13\.6") as caught:
        use(FakeMac(Plan(macos=(13, 6))).framework)
    assert caught.value.code == "macos_too_old"


def test_require_takes_the_floor_itself() -> None:
    require(FLOOR, FLOOR, "it")


def test_load_framework_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Foundation", None)
    with pytest.raises(Trouble) as caught:
        load_framework()
    assert caught.value.code == "no_pyobjc"


def test_load_framework_does_without_appkit(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = FakeMac(Plan(macos=(13, 2)))
    for name, module in (
        ("Foundation", mac.foundation),
        ("objc", mac.objc),
        ("Virtualization", mac.vz),
        ("AppKit", None),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    framework = load_framework()
    assert framework.macos == (13, 2)
    assert framework.appkit is None


WRONG: dict[str, Callable[[Any], Any]] = {
    "an unknown class": lambda vz: vz.VZNoSuchThing,
    "a class of another framework": lambda vz: vz.NSURL,
    "an unknown selector": lambda vz: vz.VZVirtualMachineConfiguration.alloc().init().setSpeed_(3),
    "a selector of a subclass": lambda vz: vz.VZVirtualMachine.alloc().setCommandLine_("x"),
    "too many arguments": lambda vz: vz.VZVirtualMachineConfiguration.alloc().init().validateWithError_(None, None),
    "a number for a text": lambda vz: vz.VZVirtioFileSystemDeviceConfiguration.alloc().initWithTag_(7),
    "a float for a number": lambda vz: vz.VZVirtualMachineConfiguration.alloc().init().setCPUCount_(2.0),
    "a negative number": lambda vz: vz.VZVirtualMachineConfiguration.alloc().init().setCPUCount_(-1),
    "a number for a bool": lambda vz: vz.VZSharedDirectory.alloc().initWithURL_readOnly_(None, 1),
    "None for an object": lambda vz: vz.VZSharedDirectory.alloc().initWithURL_readOnly_(None, True),
    "an array of others": lambda vz: (
        vz.VZVirtualMachineConfiguration.alloc()
        .init()
        .setSocketDevices_([vz.VZVirtioEntropyDeviceConfiguration.alloc().init()])
    ),
    "what PyObjC blocks": lambda vz: vz.VZEFIVariableStore.alloc().init(),
    "an initialiser that is the superclass's and blocked": lambda vz: vz.VZLinuxBootLoader.alloc().init(),
    "what was not initialised": lambda vz: vz.VZVirtualMachineConfiguration.alloc().setCPUCount_(1),
    "initialised twice": lambda vz: vz.VZVirtualMachineConfiguration.alloc().init().init(),
    "an attribute": lambda vz: setattr(vz.VZVirtualMachineConfiguration.alloc().init(), "memorySize", 1),
    "a handler with other arguments": lambda vz: vz.VZVirtualMachine.alloc().startWithCompletionHandler_(lambda: None),
}


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_fake_refuses(wrong: str) -> None:
    with pytest.raises(BadCall):
        WRONG[wrong](FakeMac().vz)


def test_fake_refuses_what_a_later_macos_brought() -> None:
    for macos, name in (((13, 0), "VZNVMExpressControllerDeviceConfiguration"), ((12, 0), "VZEFIBootLoader")):
        with pytest.raises(BadCall, match="came with macOS"):
            getattr(FakeMac(Plan(macos=macos)).vz, name).alloc()


def test_fake_refuses_another_thread() -> None:
    mac = FakeMac()
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            mac.vz.VZVirtualMachineConfiguration.alloc()
        except BadCall as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "another thread" in str(caught[0])


def test_fake_refuses_a_delegate_that_its_protocol_does_not_know() -> None:
    mac = FakeMac()
    root: Any = mac.foundation.NSObject
    protocol = mac.objc.protocolNamed("VZVirtualMachineDelegate")

    def misspelt(_self: Any, _machine: Any) -> None: ...

    with pytest.raises(BadCall, match="is in none of"):
        type(root)("Misspelt", (root,), {"guestDidStop_": misspelt}, protocols=[protocol])
    with pytest.raises(BadCall, match="has not the arguments"):
        type(root)("Short", (root,), {"virtualMachine_didStopWithError_": misspelt}, protocols=[protocol])
