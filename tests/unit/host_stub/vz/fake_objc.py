"""PyObjC, as strict as Apple's own list: what facts.json does not have does not exist here.

Raises `BadCall` for: an unknown class, selector or constant; what PyObjC blocks; a wrong number or class of arguments; a selector or class
that came with a later macOS than this world's; a call on another thread than the main one; an object that was not initialised, or
twice; a delegate whose methods are not its protocol's; an attribute set on an object of Apple's. What a selector does, `behaviours`
say; setters and getters go together by themselves.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("facts.json").read_text())
CLASSES: dict[str, Any] = FACTS["classes"]
ENUMS: dict[str, Any] = FACTS["enums"]
_WHOLE = {
    "NSUInteger": (0, 2**64 - 1),
    "uint64_t": (0, 2**64 - 1),
    "uint32_t": (0, 2**32 - 1),
    "int": (-(2**31), 2**31 - 1),
}
_WHOLE |= {"NSInteger": (-(2**63), 2**63 - 1), "VZEFIVariableStoreInitializationOptions": (0, 1)}
_TEXT = {"NSString", "NSErrorDomain", "NSNotificationName", "NSRunLoopMode"}

Behaviour = Callable[..., Any]


class BadCall(AssertionError):
    """What a Mac would crash or complain about."""


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def class_since(name: str) -> tuple[int, ...]:
    """The macOS that brought the class, which is that of its oldest selector."""
    methods = CLASSES.get(name, {"methods": {}})["methods"]
    return min((version(since) for since, _, _ in methods.values()), default=(10, 0))


def lineage(name: str) -> Iterator[str]:
    while name in CLASSES:
        yield name
        name = CLASSES[name].get("super", "")


def find_method(name: str, sign: str, selector: str) -> tuple[str, list[Any]]:
    """The class that declares it, and its facts."""
    for owner in lineage(name):
        if selector in CLASSES[owner].get("unavailable", ()):
            raise BadCall(f"{owner} {selector} is not available")
        if sign + selector in CLASSES[owner]["methods"]:
            return owner, CLASSES[owner]["methods"][sign + selector]
    if selector in ("init", "alloc"):
        return "NSObject", ["10.0", [], "instancetype"]
    raise BadCall(f"{name} has no {sign}{selector}")


class Meta(type):
    world: World
    facts_name: str

    def __new__(
        mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], protocols: list[str] | None = None
    ) -> Meta:
        made = super().__new__(mcs, name, bases, body)
        if "facts_name" not in body:  # a class of ours
            check_delegate(name, body, protocols or [])
        return made

    def __getattr__(cls, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Bound(cls.world, cls, cls.facts_name, "+", attribute)


class FakeObject(metaclass=Meta):
    facts_name = "NSObject"

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return Bound(type(self).world, self, type(self).facts_name, "-", attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        if not attribute.startswith("_") and "facts_name" in vars(type(self)):
            raise BadCall(f"{type(self).__name__} objects take no attribute {attribute}; it has a setter")
        object.__setattr__(self, attribute, value)

    def __bytes__(self) -> bytes:
        return bytes(self._values["bytes"])


def check_delegate(name: str, body: Mapping[str, Any], protocols: list[str]) -> None:
    known = {key[1:]: about for protocol in protocols for key, about in CLASSES[protocol]["methods"].items()}
    for method, function in body.items():
        if method.startswith("_") or not inspect.isfunction(function):
            continue
        selector = method.replace("_", ":")
        if len(inspect.signature(function).parameters) - 1 != selector.count(":"):
            raise BadCall(f"{name}.{method} has not the arguments that its name says")
        if protocols and selector not in known:
            raise BadCall(f"{selector} is in none of {protocols}")


class Bound:
    """A selector of one object or class, about to be called."""

    def __init__(self, world: World, target: Any, name: str, sign: str, attribute: str) -> None:
        self._world, self._target, self._name, self._sign = world, target, name, sign
        self._selector = attribute.replace("_", ":")
        self._owner, (since, self._types, _) = find_method(name, sign, self._selector)
        for what, needed in ((name, class_since(name)), (f"{name} {self._selector}", version(since))):
            if needed > world.macos:
                raise BadCall(f"{what} came with macOS {needed}, and this is {world.macos}")

    def __call__(self, *arguments: Any) -> Any:
        called = f"{self._sign}[{self._name} {self._selector}]"
        self._world.called.add(self._selector)
        if CLASSES.get(self._name, {}).get("module") is None and threading.get_ident() != self._world.main_thread:
            raise BadCall(f"{called} on another thread than the main one")
        if len(arguments) != len(self._types):
            raise BadCall(f"{called} takes {len(self._types)} arguments, got {len(arguments)}")
        for index, (argument, kind) in enumerate(zip(arguments, self._types, strict=True)):
            self._world.check_argument(f"{called} argument {index}", argument, kind)
        if self._selector == "alloc":
            return self._alloc()
        initialising = self._selector.startswith("init")
        if self._sign == "-" and initialising == self._target._ready:
            raise BadCall(f"{called}: {'it is initialised' if initialising else 'it was never initialised'}")
        given = [argument for argument, kind in zip(arguments, self._types, strict=True) if kind != "out"]
        if initialising:
            self._target._ready = True
        result = self._act(called, given)
        if "out" in self._types and not (isinstance(result, tuple) and len(result) == 2):
            raise BadCall(f"{called}: the fake must give a pair")
        return result

    def _alloc(self) -> Any:
        made = self._target.__new__(self._target)
        made._ready = False
        made._values = {}
        return made

    def _act(self, called: str, given: list[Any]) -> Any:
        for owner in lineage(self._name):
            behaviour = self._world.behaviours.get(f"{self._sign}{owner} {self._selector}")
            if behaviour is not None:
                return behaviour(self._world, self._target, *given)
        if self._selector.startswith("init"):
            self._target._values[self._selector] = given
            return (self._target, None) if "out" in self._types else self._target
        if self._selector.startswith("set") and len(given) == 1:
            self._target._values[self._selector[3:-1].lower()] = given[0]
            return None
        if not given and self._sign == "-":
            return self._target._values.get(self._selector.lower())
        raise BadCall(f"{called}: the fake does not know what it does")


class World:
    """One process's view of Apple's frameworks."""

    def __init__(self, *, macos: tuple[int, int] = (14, 5), behaviours: Mapping[str, Behaviour] | None = None) -> None:
        self.macos = macos
        self.behaviours = dict(behaviours or {})
        self.main_thread = threading.get_ident()
        self.called: set[str] = set()
        self.classes: dict[str, Any] = {}
        root = self._make("NSObject", FakeObject)
        for name, about in CLASSES.items():
            if "super" in about:
                self._class(name, root)
        self.foundation = Module(self, "Foundation", {"NSDefaultRunLoopMode": "kCFRunLoopDefaultMode"})
        self.appkit = Module(self, "AppKit", {"NSWorkspaceDidWakeNotification": "NSWorkspaceDidWakeNotification"})
        self.vz = Module(self, None, {"VZErrorDomain": "VZErrorDomain"})
        self.objc = FakeObjc()

    def _class(self, name: str, root: Any) -> Any:
        if name not in self.classes:
            above = CLASSES[name]["super"]
            self.classes[name] = self._make(name, root if above == "NSObject" else self._class(above, root))
        return self.classes[name]

    def _make(self, name: str, above: Any) -> Any:
        made = Meta(name, (above,), {"facts_name": name})
        made.world = self
        self.classes[name] = made
        return made

    def make(self, name: str, **values: Any) -> Any:
        """An object that came from Apple's side, not from `alloc`."""
        made = self.classes[name].__new__(self.classes[name])
        made._ready, made._values = True, values
        return made

    def check_argument(self, where: str, argument: Any, kind: str) -> None:
        if not self._fits(argument, kind):
            raise BadCall(f"{where} is to be {kind}, got {argument!r}")

    def _fits(self, argument: Any, kind: str) -> bool:
        if kind == "out":
            return argument is None
        if kind == "BOOL":
            return isinstance(argument, bool)
        if kind in _TEXT:
            return isinstance(argument, str)
        if kind == "SEL" or kind == "const void":
            return isinstance(argument, bytes)
        if kind == "NSTimeInterval":
            return isinstance(argument, float)
        if kind == "id":
            return argument is None or isinstance(argument, FakeObject)
        if kind.startswith("block/"):
            return callable(argument) and accepts(argument, int(kind[6:]))
        if kind in _WHOLE:
            return type(argument) is int and _WHOLE[kind][0] <= argument <= _WHOLE[kind][1]
        if kind.startswith("NSArray<"):
            return isinstance(argument, list) and all(self._fits(one, kind[8:-1]) for one in argument)
        if kind.startswith("id<"):
            return isinstance(argument, FakeObject) and "facts_name" not in vars(type(argument))
        values = {one["value"] for one in ENUMS.values() if one["enum"] == kind}
        if values:
            return type(argument) is int and argument in values
        return kind in self.classes and isinstance(argument, self.classes[kind])


def accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


class Module:
    """A framework's names, and no others."""

    def __init__(self, world: World, name: str | None, constants: Mapping[str, Any]) -> None:
        self._world, self._name, self._constants = world, name, constants

    def __getattr__(self, attribute: str) -> Any:
        if attribute in self._constants:
            return self._constants[attribute]
        if self._name is None and attribute in ENUMS:
            return ENUMS[attribute]["value"]
        if attribute == "NSObject" or CLASSES.get(attribute, {}).get("module", None) == self._name:
            found = self._world.classes.get(attribute)
            if found is not None and (attribute == "NSObject") <= (self._name == "Foundation"):
                return found
        raise BadCall(f"{self._name or 'Virtualization'} has no {attribute}, as far as facts.json goes")


class FakeObjc:
    def protocolNamed(self, name: str) -> str:
        if "super" in CLASSES.get(name, {"super": ""}):
            raise BadCall(f"there is no protocol {name}")
        return name

    @contextlib.contextmanager
    def autorelease_pool(self) -> Iterator[None]:
        yield
