"""What a machine keeps from one start to the next, below its state directory: who it is, and its EFI variables.

    machine-identifier   VZGenericMachineIdentifier, as VZ wrote it; a guest knows its machine by it
    efi-variables        the EFI variable store, written by VZ while the machine runs
    mac-address          of its network card, so that NAT gives it the same address again

Each is made once, under another name first, and never half: what is there is taken as it is, and what is damaged is told and not replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from host_stub.vz.framework import Framework
from host_stub.vz.nserrors import trouble_from
from host_stub.words import Trouble

_SMALL_BYTES = 64 << 10


def keep_machine_identifier(framework: Framework, state_dir: Path) -> Any:
    """A VZGenericMachineIdentifier. Raises Trouble `bad_identifier`, `OSError`."""
    path = state_dir / "machine-identifier"
    kind = framework.vz.VZGenericMachineIdentifier
    try:
        content = _read_small(path)
    except FileNotFoundError:
        identifier = kind.alloc().init()
        _write_once(path, bytes(identifier.dataRepresentation()))
        return identifier
    identifier = kind.alloc().initWithDataRepresentation_(framework.data(content))
    if identifier is None:
        raise _damaged("bad_identifier", path, "the guest will think it is another machine")
    return identifier


def keep_variable_store(framework: Framework, state_dir: Path) -> Any:
    """A VZEFIVariableStore. Raises Trouble, `OSError`."""
    path = state_dir / "efi-variables"
    kind = framework.vz.VZEFIVariableStore
    if not path.exists():
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        store, error = kind.alloc().initCreatingVariableStoreAtURL_options_error_(framework.url(part), 0, None)
        if store is None:
            raise trouble_from(framework, error, f"the EFI variable store {path} cannot be made")
        del store  # it is opened again under its own name
        part.replace(path)
    return kind.alloc().initWithURL_(framework.url(path))


def keep_mac_address(framework: Framework, state_dir: Path) -> Any:
    """A VZMACAddress. Raises Trouble `bad_mac_address`, `OSError`."""
    path = state_dir / "mac-address"
    kind = framework.vz.VZMACAddress
    try:
        text = _read_small(path).decode("ascii", "replace").strip()
    except FileNotFoundError:
        address = kind.randomLocallyAdministeredAddress()
        _write_once(path, f"{address.string()}\n".encode("ascii"))
        return address
    address = kind.alloc().initWithString_(text)
    if address is None:
        raise _damaged("bad_mac_address", path, "the guest gets another address")
    return address


def _read_small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SMALL_BYTES)


def _write_once(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _damaged(code: str, path: Path, then: str) -> Trouble:
    return Trouble(code, f"{path} is damaged", remedy=f"give it back from a copy, or remove it: {then}")
