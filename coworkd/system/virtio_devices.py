"""Which virtio devices this machine has. Sources: sysfs, Virtual I/O Device (VIRTIO) 1.2, section 5."""

from __future__ import annotations

import contextlib
import os

NINEP, FILE_SYSTEM = 9, 26
"""Device types: 9P transport, file system (virtiofs)."""


def device_types(bus: str = "/sys/bus/virtio/devices") -> list[int]:
    """The type of each device; none on a machine without virtio."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(bus)):
            with contextlib.suppress(OSError, ValueError), open(f"{bus}/{name}/device") as file:
                found.append(int(file.read(), 16))
    return found
