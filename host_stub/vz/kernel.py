"""A kernel that VZ can boot: an uncompressed arm64 Image, or a bzImage.

VZLinuxBootLoader does not unpack: on arm64 it wants the Image itself, and a distribution may ship it as gzip or as an EFI program that
unpacks itself (zboot). What is packed with gzip is unpacked once, beside the machine's state, under the SHA-256 of what it came from; other
packings are told. On x86_64 a bzImage is right as it is.

    Image    offset 56: "ARM\\x64"                     bzImage  offset 514: "HdrS"
    zboot    offset 4: "zimg", 8: payload offset, 12: its size (little-endian), 24: the packing's name

Sources: Linux, Documentation/arch/arm64/booting.rst and arch/x86/boot.rst; drivers/firmware/efi/libstub/zboot-header.S.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Literal

from host_stub.words import Architecture, Trouble

Kind = Literal["image", "bzimage", "gzip", "zboot", "unknown"]
KERNEL_LIMIT_BYTES = 256 << 20
_BOOTABLE: dict[Architecture, tuple[Kind, ...]] = {"aarch64": ("image", "gzip", "zboot"), "x86_64": ("bzimage",)}
_HEAD_BYTES = 520
_PIECE_BYTES = 1 << 20


def kernel_kind(head: bytes) -> Kind:
    """What the first 520 bytes say."""
    if head[56:60] == b"ARM\x64":
        return "image"
    if head[4:8] == b"zimg":
        return "zboot"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    return "bzimage" if head[514:518] == b"HdrS" else "unknown"


def check_kernel(kernel: Path, architecture: Architecture) -> Kind:
    """What it is, if it can be booted as it is or unpacked. Raises Trouble `missing_file`, `bad_kernel`."""
    try:
        with kernel.open("rb") as file:
            kind = kernel_kind(file.read(_HEAD_BYTES))
    except OSError as error:
        raise Trouble(
            "missing_file", f"{kernel} cannot be read: {error.strerror}", remedy="verify the bundle"
        ) from error
    if kind not in _BOOTABLE[architecture]:
        raise _bad(kernel, f"it is no {architecture} kernel that Virtualization.framework boots")
    return kind


def prepare_kernel(kernel: Path, architecture: Architecture, state_dir: Path) -> Path:
    """`kernel` itself, or its unpacked copy. Raises Trouble `missing_file`, `bad_kernel`, `OSError`."""
    kind = check_kernel(kernel, architecture)
    if kind in ("image", "bzimage"):
        return kernel
    content = kernel.read_bytes()
    path = state_dir / f"kernel-{hashlib.sha256(content).hexdigest()[:32]}"
    if not _is_image(path):
        _write_whole(path, _unpack(kernel, content if kind == "gzip" else _zboot_payload(kernel, content)))
    return path


def _zboot_payload(kernel: Path, content: bytes) -> bytes:
    offset, size = struct.unpack_from("<II", content, 8)
    packing = content[24:56].partition(b"\0")[0]
    if packing != b"gzip":
        raise _bad(kernel, f"it is packed with {packing.decode('ascii', 'replace')!r}, and only gzip is unpacked here")
    if size == 0 or offset + size > len(content):
        raise _bad(kernel, "its header points outside of it")
    return content[offset : offset + size]


def _unpack(kernel: Path, packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        image = unpacker.decompress(packed, KERNEL_LIMIT_BYTES)
    except zlib.error as error:
        raise _bad(kernel, f"it cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise _bad(kernel, f"it is cut off, or unpacks to more than {KERNEL_LIMIT_BYTES >> 20} MiB")
    if kernel_kind(image[:_HEAD_BYTES]) != "image":
        raise _bad(kernel, "what it unpacks to is no arm64 Image")
    return image


def _is_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return kernel_kind(file.read(_HEAD_BYTES)) == "image"
    except FileNotFoundError:
        return False


def _write_whole(path: Path, content: bytes) -> None:
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


def _bad(kernel: Path, why: str) -> Trouble:
    return Trouble("bad_kernel", f"{kernel} cannot be booted: {why}", remedy="use another image, or boot it by EFI")
