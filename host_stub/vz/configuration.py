"""A `MachineSpec` as a VZVirtualMachineConfiguration, one small function for each part.

Rules
- Nothing is started or made here but what `kept` keeps; `validateWithError:` has the last word.
- What VZ will not do as asked is either refused with a `Trouble` or said in a note, never dropped: processors and memory brought within
  its bounds, disks whose serial number it cannot set (only virtio has one), a console that is always hvc0.
- Disks are cached and fully synchronised: with the automatic caching Linux guests on Apple silicon saw their file systems damaged, and a
  flush must reach the medium, or a power cut takes what coworkd called durable.

Sources: Apple's documentation of each class; UTM issue 4840, lima pull request 2026 (the caching mode).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from host_stub.vz.framework import Framework, since
from host_stub.vz.kept import keep_mac_address, keep_machine_identifier, keep_variable_store
from host_stub.vz.nserrors import trouble_from
from host_stub.words import Disk, MachineSpec, Share, Trouble

_MIB = 1 << 20


def compose_configuration(
    framework: Framework, spec: MachineSpec, *, kernel: Path | None, console: tuple[int, int]
) -> tuple[Any, list[str]]:
    """The validated configuration, and what a person should know. `console`: its input to read and its output to write, VZ's from here on.

    Raises Trouble, `OSError`.
    """
    notes: list[str] = []
    configuration = framework.vz.VZVirtualMachineConfiguration.alloc().init()
    configuration.setPlatform_(_platform(framework, spec))
    configuration.setBootLoader_(_boot_loader(framework, spec, kernel))
    configuration.setCPUCount_(_cpus(framework, spec, notes))
    configuration.setMemorySize_(_memory(framework, spec, notes))
    configuration.setStorageDevices_([_disk(framework, disk, notes) for disk in spec.disks])
    configuration.setDirectorySharingDevices_([_share(framework, share) for share in spec.shares])
    configuration.setSocketDevices_([framework.vz.VZVirtioSocketDeviceConfiguration.alloc().init()])
    configuration.setEntropyDevices_([framework.vz.VZVirtioEntropyDeviceConfiguration.alloc().init()])
    configuration.setMemoryBalloonDevices_(
        [framework.vz.VZVirtioTraditionalMemoryBalloonDeviceConfiguration.alloc().init()]
    )
    configuration.setSerialPorts_([_serial_port(framework, *console)])
    if spec.network == "nat":
        configuration.setNetworkDevices_([_nat(framework, spec)])
    valid, error = configuration.validateWithError_(None)
    if not valid:
        raise trouble_from(framework, error, "Virtualization.framework refuses this machine")
    return configuration, notes


def compose_command_line(asked: str) -> str:
    """The kernel's command line with the one console there is."""
    words = [word for word in asked.split() if not word.startswith("console=")]
    return " ".join(["console=hvc0", *words])


def _platform(framework: Framework, spec: MachineSpec) -> Any:
    platform = framework.vz.VZGenericPlatformConfiguration.alloc().init()
    platform.setMachineIdentifier_(keep_machine_identifier(framework, spec.state_dir))
    return platform


def _boot_loader(framework: Framework, spec: MachineSpec, kernel: Path | None) -> Any:
    if spec.boot == "efi":
        efi = framework.vz.VZEFIBootLoader.alloc().init()
        efi.setVariableStore_(keep_variable_store(framework, spec.state_dir))
        return efi
    if kernel is None:
        raise Trouble("no_kernel", "the machine has no kernel to boot", remedy="verify the bundle, or boot it by EFI")
    loader = framework.vz.VZLinuxBootLoader.alloc().initWithKernelURL_(framework.url(kernel))
    loader.setCommandLine_(compose_command_line(spec.command_line))
    if spec.initrd is not None:
        loader.setInitialRamdiskURL_(framework.url(spec.initrd))
    return loader


def _cpus(framework: Framework, spec: MachineSpec, notes: list[str]) -> int:
    kind = framework.vz.VZVirtualMachineConfiguration
    least, most = int(kind.minimumAllowedCPUCount()), int(kind.maximumAllowedCPUCount())
    count = min(max(spec.cpus, least), most)
    if count != spec.cpus:
        notes.append(f"it has {count} processors instead of {spec.cpus}: this Mac gives a machine {least} to {most}")
    return count


def _memory(framework: Framework, spec: MachineSpec, notes: list[str]) -> int:
    kind = framework.vz.VZVirtualMachineConfiguration
    least, most = int(kind.minimumAllowedMemorySize()), int(kind.maximumAllowedMemorySize())
    size = min(max(spec.memory_bytes, least), most) // _MIB * _MIB
    if size != spec.memory_bytes:
        notes.append(
            f"it has {size // _MIB} MiB of memory instead of {spec.memory_bytes / _MIB:.0f}: this Mac gives a machine "
            f"{least // _MIB} to {most // _MIB}, in whole MiB"
        )
    return size


def _disk(framework: Framework, disk: Disk, notes: list[str]) -> Any:
    attachment = _attachment(framework, disk)
    if disk.bus == "virtio":
        return _virtio_disk(framework, disk, attachment)
    notes.append(f"{disk.path.name} has no serial number: VZ gives one to virtio disks only; its label has to do")
    return _nvme_disk(framework, attachment) if disk.bus == "nvme" else _usb_disk(framework, attachment)


def _attachment(framework: Framework, disk: Disk) -> Any:
    vz = framework.vz
    attachment, error = (
        vz.VZDiskImageStorageDeviceAttachment.alloc().initWithURL_readOnly_cachingMode_synchronizationMode_error_(
            framework.url(disk.path),
            disk.read_only,
            vz.VZDiskImageCachingModeCached,
            vz.VZDiskImageSynchronizationModeFull,
            None,
        )
    )
    if attachment is None:
        raise trouble_from(framework, error, f"the disk {disk.path} cannot be attached")
    return attachment


def _virtio_disk(framework: Framework, disk: Disk, attachment: Any) -> Any:
    kind = framework.vz.VZVirtioBlockDeviceConfiguration
    valid, error = kind.validateBlockDeviceIdentifier_error_(disk.serial, None)
    if not valid:
        raise trouble_from(framework, error, f"{disk.serial!r} cannot be a disk's serial number")
    device = kind.alloc().initWithAttachment_(attachment)
    device.setBlockDeviceIdentifier_(disk.serial)
    return device


@since(14, 0, "NVMe disks")
def _nvme_disk(framework: Framework, attachment: Any) -> Any:
    return framework.vz.VZNVMExpressControllerDeviceConfiguration.alloc().initWithAttachment_(attachment)


def _usb_disk(framework: Framework, attachment: Any) -> Any:
    return framework.vz.VZUSBMassStorageDeviceConfiguration.alloc().initWithAttachment_(attachment)


def _share(framework: Framework, share: Share) -> Any:
    vz = framework.vz
    valid, error = vz.VZVirtioFileSystemDeviceConfiguration.validateTag_error_(share.tag, None)
    if not valid:
        raise trouble_from(framework, error, f"{share.tag!r} cannot be the tag of a share")
    directory = vz.VZSharedDirectory.alloc().initWithURL_readOnly_(framework.url(share.path), share.read_only)
    device = vz.VZVirtioFileSystemDeviceConfiguration.alloc().initWithTag_(share.tag)
    device.setShare_(vz.VZSingleDirectoryShare.alloc().initWithDirectory_(directory))
    return device


def _serial_port(framework: Framework, read_fd: int, write_fd: int) -> Any:
    kind = framework.foundation.NSFileHandle
    reading = kind.alloc().initWithFileDescriptor_closeOnDealloc_(read_fd, True)
    writing = kind.alloc().initWithFileDescriptor_closeOnDealloc_(write_fd, True)
    attachment = framework.vz.VZFileHandleSerialPortAttachment.alloc()
    port = framework.vz.VZVirtioConsoleDeviceSerialPortConfiguration.alloc().init()
    port.setAttachment_(attachment.initWithFileHandleForReading_fileHandleForWriting_(reading, writing))
    return port


def _nat(framework: Framework, spec: MachineSpec) -> Any:
    card = framework.vz.VZVirtioNetworkDeviceConfiguration.alloc().init()
    card.setMACAddress_(keep_mac_address(framework, spec.state_dir))
    card.setAttachment_(framework.vz.VZNATNetworkDeviceAttachment.alloc().init())
    return card
