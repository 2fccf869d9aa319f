from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from host_stub.qemu.command import (
    Memory,
    Parts,
    command_line_of,
    compose_command,
    compose_disk_hot_plug,
    compose_share_hot_plug,
    compose_vsock_hot_plug,
)
from host_stub.words import Architecture, Disk, MachineSpec, Share, Trouble

ROOT = Disk(path=Path("/b/rootfs.img"), serial="cowork-root", read_only=True)


def spec_of(architecture: Architecture = "x86_64", **fields: Any) -> MachineSpec:
    words: dict[str, Any] = {
        "architecture": architecture,
        "kernel": Path("/b/vmlinuz"),
        "initrd": Path("/b/initrd.img"),
        "command_line": "console=ttyS0",
        "disks": (ROOT,),
        "vsock": Path("/b/run/vsock.sock"),
        "serial_log": Path("/b/logs/serial.log"),
        "state_dir": Path("/b/state"),
    }
    return MachineSpec(**{**words, **fields})


def parts_of(**fields: Any) -> Parts:
    words: dict[str, Any] = {"program": Path("/usr/bin/qemu"), "accelerator": "tcg", "qmp_fd": 5}
    return Parts(**{**words, "vsock_socket": Path("/b/state/vsock.sock"), **fields})


def options(argv: list[str], name: str) -> list[str]:
    """The values of every option of that name."""
    return [argv[index + 1] for index, word in enumerate(argv) if word == name]


def test_a_command_is_the_same_each_time() -> None:
    assert compose_command(spec_of(), parts_of()) == compose_command(spec_of(), parts_of())


def test_nothing_is_there_by_default() -> None:
    argv = compose_command(spec_of(), parts_of())
    assert {"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-S"} <= set(argv)
    assert "-netdev" not in argv
    assert "-monitor" not in argv


def test_one_accelerator_is_named() -> None:
    assert options(compose_command(spec_of(), parts_of()), "-accel") == ["tcg,thread=multi"]
    assert options(compose_command(spec_of(), parts_of(accelerator="kvm")), "-accel") == ["kvm"]
    assert options(compose_command(spec_of(), parts_of(accelerator="kvm")), "-cpu") == ["host"]


def test_memory_is_shared_with_the_devices_beside_qemu() -> None:
    argv = compose_command(spec_of(memory_bytes=1 << 30), parts_of())
    assert f"memory-backend-memfd,id=memory,size={1 << 30},share=on" in options(argv, "-object")
    assert "memory-backend=memory" in options(argv, "-machine")[0]
    assert options(argv, "-m") == [f"size={1 << 20}k"]


def test_memory_may_lie_in_a_file_and_come_from_one() -> None:
    argv = compose_command(spec_of(), parts_of(memory=Memory(file=Path("/t/ram")), incoming="fd:9"))
    assert any(
        word.startswith("memory-backend-file") and "mem-path=/t/ram" in word for word in options(argv, "-object")
    )
    assert options(argv, "-incoming") == ["fd:9"]


def test_without_memfd_there_is_plain_memory() -> None:
    argv = compose_command(spec_of(), parts_of(memory=None, vsock_socket=None))
    assert "memory-backend" not in " ".join(argv)


def test_a_panic_ends_the_machine_unless_the_image_says_otherwise() -> None:
    assert options(compose_command(spec_of(), parts_of()), "-append") == ["console=ttyS0 panic=-1"]
    assert command_line_of("panic=5 quiet") == "panic=5 quiet"
    assert command_line_of("dont_panic=1") == "dont_panic=1 panic=-1"
    assert command_line_of("") == "panic=-1"


@pytest.mark.parametrize(("bus", "driver"), [("virtio", "virtio-blk-pci"), ("nvme", "nvme"), ("usb", "usb-storage")])
def test_a_disk_is_found_by_its_serial(bus: Any, driver: str) -> None:
    disk = Disk(path=Path("/b/a,b.img"), serial="cowork-sessions", bus=bus)
    argv = compose_command(spec_of(disks=(ROOT, disk)), parts_of())
    device = next(word for word in options(argv, "-device") if "serial=cowork-sessions" in word)
    assert device.startswith(driver)
    block = json.loads(options(argv, "-blockdev")[1])
    assert (block["file"]["filename"], block["read-only"], block["discard"]) == ("/b/a,b.img", False, "unmap")
    assert json.loads(options(argv, "-blockdev")[0])["read-only"] is True


def test_usb_disks_share_one_controller() -> None:
    disks = tuple(Disk(path=Path(f"/b/{n}"), serial=f"u{n}", bus="usb") for n in range(3))
    assert sum("qemu-xhci" in word for word in compose_command(spec_of(disks=disks), parts_of())) == 1


@pytest.mark.parametrize("serial", ["", "x" * 21, "a,b", "a b"])
def test_a_serial_that_would_be_cut_is_refused(serial: str) -> None:
    with pytest.raises(Trouble) as caught:
        compose_command(spec_of(disks=(Disk(path=Path("/d"), serial=serial),)), parts_of())
    assert caught.value.code == "bad_disk"


def test_a_share_goes_by_virtiofs_or_by_9p() -> None:
    shares = (Share(path=Path("/one")), Share(path=Path("/t,wo"), tag="two", read_only=True))
    argv = compose_command(spec_of(shares=shares), parts_of(share_sockets=(Path("/b/state/share0.sock"), None)))
    assert "vhost-user-fs-pci,chardev=share0,tag=claudeshared" in options(argv, "-device")
    assert "path=/t,,wo,security_model=mapped-xattr,multidevs=remap,readonly=on" in options(argv, "-fsdev")[0]
    assert "virtio-9p-pci,fsdev=share1,mount_tag=two" in options(argv, "-device")


def test_a_tag_that_the_guest_would_not_see_is_refused() -> None:
    with pytest.raises(Trouble) as caught:
        compose_command(spec_of(shares=(Share(path=Path("/x"), tag="x" * 32),)), parts_of(share_sockets=(None,)))
    assert caught.value.code == "bad_share"


def test_vsock_is_ours_or_the_kernels_or_none() -> None:
    assert "vhost-user-vsock-pci,chardev=vsock" in compose_command(spec_of(), parts_of())
    assert "vhost-vsock-pci,guest-cid=7" in compose_command(spec_of(cid=7), parts_of(vhost_vsock=True))
    assert "vsock-pci" not in " ".join(compose_command(spec_of(), parts_of(vsock_socket=None)))


def test_efi_boots_by_its_firmware_alone() -> None:
    firmware = {"firmware_code": Path("/f/code"), "firmware_variables": Path("/b/state/efi-variables.fd")}
    argv = compose_command(spec_of(boot="efi", kernel=None, initrd=None), parts_of(**firmware))
    assert "-kernel" not in argv
    assert "pflash0=firmware,pflash1=variables" in options(argv, "-machine")[0]
    assert [json.loads(word)["read-only"] for word in options(argv, "-blockdev")[:2]] == [True, False]
    with pytest.raises(ValueError, match="firmware"):
        compose_command(spec_of(boot="efi"), parts_of())


def test_kernel_boot_without_a_kernel_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="initrd"):
        compose_command(spec_of(initrd=None), parts_of())


def test_aarch64_is_virt() -> None:
    argv = compose_command(spec_of("aarch64"), parts_of())
    assert options(argv, "-machine")[0].startswith("virt,")
    assert options(argv, "-cpu") == ["max,pauth-impdef=on"]


def test_console_is_logged_with_and_without_a_socket() -> None:
    assert "null,id=console,logfile=/b/logs/serial.log,logappend=on" in compose_command(spec_of(), parts_of())
    argv = compose_command(spec_of(console=Path("/b/run/console.sock")), parts_of())
    assert any(word.startswith("socket,id=console,path=/b/run/console.sock,server=on,wait=off") for word in argv)


def test_network_is_there_only_when_asked_for() -> None:
    assert "virtio-net-pci,netdev=nat" in compose_command(spec_of(network="nat"), parts_of())


def test_spare_ports_are_there_for_what_comes_later() -> None:
    argv = compose_command(spec_of(), parts_of(spare_ports=2))
    assert [word.split(",")[1] for word in options(argv, "-device") if "root-port" in word] == [
        "id=spare0",
        "id=spare1",
    ]
    commands = compose_vsock_hot_plug("/s", "spare0")
    assert [name for name, _ in commands] == ["chardev-add", "device_add"]
    assert commands[1][1]["bus"] == "spare0"


def test_disks_and_shares_come_later_into_a_spare_port() -> None:
    disk = Disk(path=Path("/u.img"), serial="smol-bin", bus="nvme", read_only=True)
    (_, block), (_, device) = compose_disk_hot_plug(disk, "spare1")
    assert (block["node-name"], block["read-only"]) == (device["drive"], True)
    assert (device["driver"], device["bus"], device["serial"]) == ("nvme", "spare1", "smol-bin")
    (_, chardev), (_, share) = compose_share_hot_plug("claudeshared", "/s", "spare2")
    assert (chardev["id"], share["tag"], share["bus"]) == (share["chardev"], "claudeshared", "spare2")


def test_qemus_own_filter_is_asked_for() -> None:
    assert "spawn=deny" in options(compose_command(spec_of(), parts_of(sandbox=True)), "-sandbox")[0]
