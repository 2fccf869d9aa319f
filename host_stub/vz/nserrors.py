"""An NSError as a `Trouble`: what Apple said, and what a person can do about it.

Only VZ's own domain is told apart, by its codes, and the one sentence that everybody meets once: that the interpreter lacks the
entitlement, which comes as an invalid configuration. The rest keeps Apple's words with a general remedy.
"""

from __future__ import annotations

from typing import Any

from host_stub.vz.entitlement import ENTITLEMENT, missing_entitlement
from host_stub.vz.framework import Framework
from host_stub.words import Trouble

_GENERAL = "look at the serial log and at Console.app for com.apple.Virtualization; `cowork-vm doctor` checks what can be checked"


def describe(error: Any) -> str:
    """Apple's sentence, with the reason where it gives another."""
    said = str(error.localizedDescription() or "")
    reason = str(error.localizedFailureReason() or "")
    text = said if not reason or reason in said else f"{said} {reason}"
    return f"{text.strip()} ({error.domain()} {error.code()})"


def trouble_from(framework: Framework, error: Any, doing: str) -> Trouble:
    """`doing` begins the sentence: "the machine cannot be started". `error` may be None: then Apple gave no reason."""
    if error is None:
        return Trouble("vz_failed", f"{doing}: Virtualization.framework gave no reason", remedy=_GENERAL)
    text = describe(error)
    if ENTITLEMENT in text:
        return missing_entitlement(text)
    code, remedy = "vz_failed", _GENERAL
    if str(error.domain()) == str(framework.vz.VZErrorDomain):
        code, remedy = _known(framework).get(int(error.code()), (code, remedy))
    return Trouble(code, f"{doing}: {text}", remedy=remedy)


def _known(framework: Framework) -> dict[int, tuple[str, str]]:
    vz = framework.vz
    return {
        vz.VZErrorInvalidVirtualMachineConfiguration: (
            "invalid_configuration",
            "change what it names: `cowork-vm create` writes the settings of a bundle",
        ),
        vz.VZErrorInvalidDiskImage: ("bad_disk_image", "verify the bundle; disks must be raw images"),
        vz.VZErrorVirtualMachineLimitExceeded: ("too_many_machines", "end another virtual machine first"),
        vz.VZErrorOutOfDiskSpace: ("no_space", "make room on the disk"),
        vz.VZErrorNotSupported: ("no_hypervisor", "use the back end qemu"),
        vz.VZErrorInternal: (
            "vz_internal",
            "start it again; where it stays, free memory, and see that the disks are used by nobody else",
        ),
    }
