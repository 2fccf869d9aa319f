"""The words between coworkd and the worker that looks at the update disk and the slots (`workers.update`): one SOCK_SEQPACKET message each.

Rules
- Every request carries `id`, and is answered by exactly one answer of the same id. One request at a time.
- A release that is not taken is an answer like any other; `UpdateFailed` is only what the system refused.
- The worker writes content. `state.json` is coworkd's alone, and says before that the slot holds nothing.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

WORDS = 1
"""The version of what coworkd says to the programs that stay the image's: the launcher, its workers and coworkd-egress.

Whoever changes those words counts it up; a test holds it to them. A release of other words than the image's is refused."""
DISK_LABEL = "smol-bin"
LINE_LIMIT = 32

SlotName = Literal["a", "b"]
Content = Literal["code", "policies"]
Why = Literal[
    "unsigned",
    "wrong_key",
    "bad_signature",
    "malformed",
    "unsafe_path",
    "too_big",
    "wrong_architecture",
    "wrong_python",
    "image_too_old",
    "not_newer",
    "wrong_words",
    "failed_before",
    "missing_file",
    "extra_file",
    "not_a_file",
    "wrong_size",
    "tampered",
    "unreadable",
]
"""Why a release is not taken, for programs."""


class Trust(Struct, frozen=True, kw_only=True):
    """What a release is held against: the keys of the image, as their file has them, and the image itself."""

    keys: bytes
    architecture: str
    python: str
    image_version: str
    words: int = WORDS


class LookAtDisk(Struct, frozen=True, kw_only=True, tag="look_at_disk"):
    """Find the update disk, mount it, read what it offers, unmount it. Answered by `DiskOffer`.

    With `slot` what is offered is brought there, whole and durable, if its manifest is still `sha256`.
    """

    id: int
    trust: Trust
    slots: bytes
    mount_point: bytes
    label: str = DISK_LABEL
    device: bytes = b""
    """Only this one; empty: the one with the serial number or the label."""
    slot: SlotName | None = None
    sha256: str = ""


class VerifySlot(Struct, frozen=True, kw_only=True, tag="verify_slot"):
    """Look at all of a slot: signature, names, hashes, whether it is for this guest. Answered by `SlotVerified`."""

    id: int
    trust: Trust
    slots: bytes
    slot: SlotName
    version: str
    contents: tuple[Content, ...]
    sha256: str
    """Of the manifest that was put there, as the two above are its."""


Request = LookAtDisk | VerifySlot


class Offered(Struct, frozen=True, kw_only=True):
    version: str
    sha256: str
    contents: tuple[Content, ...]
    key: str


class DiskOffer(Struct, frozen=True, kw_only=True, tag="disk_offer"):
    """`found` false: there is no update disk. `offered` None: what it holds is not taken, `why` and `reason` say why not."""

    id: int
    found: bool
    device: bytes = b""
    offered: Offered | None = None
    staged: bool = False
    version: str = ""
    """What a release that is not taken says of itself, where its signature is good."""
    why: Why | None = None
    reason: str = ""
    lines: tuple[str, ...] = ()
    """For the log."""


class SlotVerified(Struct, frozen=True, kw_only=True, tag="slot_verified"):
    """`why` None: it may run."""

    id: int
    why: Why | None = None
    reason: str = ""
    took_s: float = 0.0


class UpdateFailed(Struct, frozen=True, kw_only=True, tag="update_failed"):
    id: int
    errno: int | None
    message: str


Answer = DiskOffer | SlotVerified | UpdateFailed
