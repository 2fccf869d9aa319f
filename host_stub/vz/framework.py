"""What PyObjC gives, loaded on a Mac and nowhere else, and the macOS it runs on.

Rules
- `FLOOR` is the oldest macOS this back end runs on. What came later is used only in functions marked `since`, which refuse on an older
  one with a `Trouble`. tests/unit/host_stub/vz/test_facts.py holds each name used here against Apple's own list.
- Nothing at the top of a module of this room imports PyObjC: a `Framework` is handed down, and tests hand down a strict fake.

Source: PyObjC's documentation; the metadata it is made from, distilled in tests/unit/host_stub/vz/facts.json.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from host_stub.words import Trouble

Version = tuple[int, int]
FLOOR: Version = (13, 0)
"""EFI boot, USB disks and the machine identifier came with it; NVMe disks need `since(14, 0)`."""
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Framework:
    """The modules, under the names that PyObjC gives them. `appkit` may be None: it only tells of sleep."""

    def __init__(self, *, objc: Any, foundation: Any, vz: Any, appkit: Any | None) -> None:
        self.objc = objc
        self.foundation = foundation
        self.vz = vz
        self.appkit = appkit
        version = foundation.NSProcessInfo.processInfo().operatingSystemVersion()
        self.macos: Version = (int(version[0]), int(version[1]))

    def url(self, path: object) -> Any:
        return self.foundation.NSURL.fileURLWithPath_(str(path))

    def data(self, content: bytes) -> Any:
        return self.foundation.NSData.dataWithBytes_length_(content, len(content))


def load_framework() -> Framework:
    """Import it. Raises Trouble `no_pyobjc`."""
    try:
        import Foundation
        import objc
        import Virtualization
    except ImportError as error:
        raise no_pyobjc(str(error)) from error
    try:
        import AppKit
    except ImportError:
        AppKit = None
    return Framework(objc=objc, foundation=Foundation, vz=Virtualization, appkit=AppKit)


def no_pyobjc(why: str) -> Trouble:
    return Trouble(
        "no_pyobjc",
        f"Virtualization.framework cannot be reached from this Python: {why}",
        remedy="on a Mac, install coworkd with its extra `host`; elsewhere use the back end qemu",
    )


def since(
    major: int, minor: int, what: str
) -> Callable[
    [Callable[Concatenate[Framework, _Arguments], _Result]], Callable[Concatenate[Framework, _Arguments], _Result]
]:
    """Mark a function that needs a macOS above the floor; it raises Trouble `macos_too_old` on an older one."""

    def mark(
        function: Callable[Concatenate[Framework, _Arguments], _Result],
    ) -> Callable[Concatenate[Framework, _Arguments], _Result]:
        def guarded(framework: Framework, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            require(framework.macos, (major, minor), what)
            return function(framework, *args, **kwargs)

        return guarded

    return mark


def require(macos: Version, needed: Version, what: str) -> None:
    """Raises Trouble `macos_too_old`."""
    if macos < needed:
        raise Trouble(
            "macos_too_old",
            f"{what} need macOS {needed[0]}.{needed[1]}, and this is {macos[0]}.{macos[1]}",
            remedy="update macOS, or use the back end qemu",
        )
