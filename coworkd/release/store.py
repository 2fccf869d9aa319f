"""The slots on the session disk: what lies where, in which order it is written, and how it is read back.

    /sessions/.coworkd/slots/           root, 0700
        state.json                      `slots.SlotState`; replaced by one rename, never written in place
        state.json.new                  a replacement that was not finished, of no meaning
        new/                            a release that is being copied, of no meaning
        a/, b/                          each: manifest.json, manifest.json.minisig, code/…, policies/…

Rules
- Content is durable before it is named: it is synced, then `new` is renamed, then the slots' directory is synced, and
  only then `state.json` says that the slot holds something. Before a slot is emptied `state.json` says that it holds nothing. So whenever
  the power goes, `state.json` is the old or the new one, and what it names is whole.
- What is read back is not believed: signature and every hash are looked at each time (`verify`), by the keys of the image. A file too
  many, a link, another size: all of it is refused.
- The files are handed in (`SlotFiles`), so that a test can cut the power at every step.

A state file that cannot be read is told and taken as empty: the image's own version then runs.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from coworkd.model.errors import UNDECODABLE
from coworkd.release import minisign
from coworkd.release.manifest import (
    MANIFEST,
    MANIFEST_LIMIT_BYTES,
    SIGNATURE,
    Here,
    Manifest,
    ReleaseFile,
    check_fits,
    directories,
    parse_manifest,
)
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.slots import SlotName, SlotState, check_state

STATE, STATE_NEW, NEW = "state.json", "state.json.new", "new"
STATE_LIMIT_BYTES = 256 * 1024
_LEFT_ALONE = ("lost+found",)
"""What mkfs puts on a disk by itself."""


class Entry(Protocol):
    """What a directory says of one name; `size` of a file."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Literal["file", "directory", "other"]: ...

    @property
    def size(self) -> int: ...


class ReadFiles(Protocol):
    """Files below one directory, by relative path; no link is followed. All raise `OSError`."""

    def entries(self, path: str) -> Sequence[Entry]:
        """By name."""

    def read(self, path: str, limit_bytes: int) -> bytes:
        """A plain file from its start, at most one byte more than `limit_bytes`."""

    def chunks(self, path: str) -> Iterator[bytes]: ...


class SlotFiles(ReadFiles, Protocol):
    """The same, to be written. Nothing is durable that was not synced."""

    def make_directory(self, path: str) -> None: ...

    def write(self, path: str, chunks: Iterable[bytes], mode: int, *, sync: bool) -> None:
        """A new file; with `sync` its data is durable, its name is not yet."""

    def sync_directory(self, path: str) -> None:
        """The names in it are durable."""

    def sync_all(self) -> None:
        """All names and data so far are durable."""

    def rename(self, old: str, new: str) -> None:
        """Over a file that is there; `new` may be no directory that is."""

    def remove(self, path: str) -> None:
        """A file, or a directory with all below it; nothing, where it is not there."""


class Offer(Struct, frozen=True, kw_only=True):
    """A manifest whose signature is good; `sha256` of its bytes, `key` the name of who signed."""

    manifest: Manifest
    sha256: str
    key: str


def read_state(files: ReadFiles) -> tuple[SlotState, str]:
    """The state, and what is wrong with it: empty where nothing is. Raises `OSError` but for a file that is not there."""
    try:
        data = files.read(STATE, STATE_LIMIT_BYTES)
    except FileNotFoundError:
        return SlotState(), ""
    if len(data) > STATE_LIMIT_BYTES:
        return SlotState(), f"{STATE} has more than {STATE_LIMIT_BYTES} bytes"
    try:
        state = msgspec.json.decode(data, type=SlotState)
        check_state(state)
    except (*UNDECODABLE, ReleaseRefused) as error:
        return SlotState(), f"{STATE} cannot be read: {str(error)[:200]}"
    return state, ""


def write_state(files: SlotFiles, state: SlotState) -> None:
    """The one switch there is. Raises `OSError`, and then the old state holds."""
    data = msgspec.json.format(msgspec.json.encode(state)) + b"\n"
    if len(data) > STATE_LIMIT_BYTES:
        raise OSError(errno.EFBIG, f"it would have more than the {STATE_LIMIT_BYTES} bytes that are read back", STATE)
    files.remove(STATE_NEW)
    files.write(STATE_NEW, (data,), 0o600, sync=True)
    files.rename(STATE_NEW, STATE)
    files.sync_directory("")


def read_offer(files: ReadFiles, root: str, keys: tuple[minisign.PublicKey, ...]) -> Offer:
    """The signed manifest in `root`: the signature first. Raises `ReleaseRefused`."""
    try:
        signed = files.read(_join(root, SIGNATURE), minisign.SIGNATURE_LIMIT_BYTES)
        data = files.read(_join(root, MANIFEST), MANIFEST_LIMIT_BYTES)
    except FileNotFoundError as error:
        raise ReleaseRefused("unsigned", f"there is no {MANIFEST} with its signature {SIGNATURE}") from error
    except OSError as error:
        raise ReleaseRefused("unreadable", f"its manifest cannot be read: {error.strerror}") from error
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise ReleaseRefused("too_big", f"the manifest has more than {MANIFEST_LIMIT_BYTES} bytes")
    key = minisign.verify(data, minisign.parse_signature(signed), keys)
    return Offer(manifest=parse_manifest(data), sha256=hashlib.sha256(data).hexdigest(), key=key.name)


def verify(files: ReadFiles, root: str, keys: tuple[minisign.PublicKey, ...], here: Here) -> Offer:
    """The release in `root`, whole and for this guest. Raises `ReleaseRefused`."""
    offer = read_offer(files, root, keys)
    check_fits(offer.manifest, here)
    _check_names(files, root, offer.manifest)
    for file in offer.manifest.files:
        for _ in _checked(files, _join(root, file.path), file):
            pass
    return offer


def copy(source: ReadFiles, files: SlotFiles, offer: Offer, slot: SlotName) -> None:
    """Bring what `offer` names, and nothing else, from `source` into `slot`, durable. Raises `ReleaseRefused`, `OSError`.

    `state.json` must say already that the slot holds nothing, and is to say what it holds afterwards.
    """
    _check_names(source, "", offer.manifest)
    files.remove(slot)
    files.remove(NEW)
    try:
        _copy_new(source, files, offer)
    except (ReleaseRefused, OSError):
        files.remove(NEW)
        raise
    files.rename(NEW, slot)
    files.sync_directory("")


def _copy_new(source: ReadFiles, files: SlotFiles, offer: Offer) -> None:
    manifest = offer.manifest
    files.make_directory(NEW)
    for directory in directories(manifest):
        files.make_directory(f"{NEW}/{directory}")
    for name, limit in ((MANIFEST, MANIFEST_LIMIT_BYTES), (SIGNATURE, minisign.SIGNATURE_LIMIT_BYTES)):
        data = source.read(name, limit)
        # What is not what was verified is found out at the next `verify`; this one tells it at once.
        if name == MANIFEST and hashlib.sha256(data).hexdigest() != offer.sha256:
            raise ReleaseRefused("tampered", f"{MANIFEST} has changed while it was being copied")
        files.write(f"{NEW}/{name}", (data,), 0o600, sync=False)
    for file in manifest.files:
        files.write(f"{NEW}/{file.path}", _checked(source, file.path, file), file.mode, sync=False)
    files.sync_all()


def _checked(files: ReadFiles, path: str, file: ReleaseFile) -> Iterator[bytes]:
    """The file's chunks, handed on as they come; the last one only when all of it is as the manifest says."""
    digest, length, held = hashlib.sha256(), 0, b""
    try:
        for chunk in files.chunks(path):
            length += len(chunk)
            if length > file.size:
                raise ReleaseRefused("wrong_size", f"{file.path} has more than the {file.size} bytes it should have")
            digest.update(chunk)
            yield held
            held = chunk
    except FileNotFoundError as error:
        raise ReleaseRefused("missing_file", f"{file.path} is missing") from error
    except OSError as error:
        raise ReleaseRefused("unreadable", f"{file.path} cannot be read: {error.strerror}") from error
    if length < file.size:
        raise ReleaseRefused("wrong_size", f"{file.path} has {length} bytes instead of {file.size}: it was cut short")
    if digest.hexdigest() != file.sha256:
        raise ReleaseRefused("tampered", f"{file.path} is not what was signed: its SHA-256 differs")
    yield held


def _check_names(files: ReadFiles, root: str, manifest: Manifest) -> None:
    """That there are no other names than the manifest's, and of the right kind and size."""
    wanted = {file.path: file.size for file in manifest.files}
    below = set(directories(manifest))
    todo = [""]
    while todo:
        directory = todo.pop()
        for entry in _entries(files, root, directory):
            path = _join(directory, entry.name)
            if not directory and entry.name in (MANIFEST, SIGNATURE, *_LEFT_ALONE):
                continue
            if entry.kind == "directory" and path in below:
                todo.append(path)
                continue
            known = path in wanted or path in below
            if entry.kind == "other" or (known and (entry.kind == "directory" or path in below)):
                said = f"{path[:120]!r} is no plain file or directory as the manifest has it"
                raise ReleaseRefused("not_a_file", said)
            if not known:
                raise ReleaseRefused("extra_file", f"{path[:120]!r} is there, and nobody has signed for it")
            if entry.size != wanted[path]:
                raise ReleaseRefused("wrong_size", f"{path} has {entry.size} bytes instead of {wanted[path]}")


def _entries(files: ReadFiles, root: str, directory: str) -> Sequence[Entry]:
    try:
        return files.entries(_join(root, directory))
    except OSError as error:
        raise ReleaseRefused(
            "unreadable", f"{directory or 'its directory'} cannot be read: {error.strerror}"
        ) from error


def _join(root: str, path: str) -> str:
    return f"{root}/{path}" if root and path else root or path
