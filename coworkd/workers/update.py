"""The update worker: root with every right, for one errand at a time of coworkd's (`model.update`). It decides nothing about slots.

It reads what a host has put on a disk: a file system of any content, mounted read-only in a mount namespace of its own, so that
nobody else ever sees it and nothing stays of it, however the worker ends. Of its content nothing is used, and nothing but the signature is
even parsed, before the manifest's signature is good. It parses and hashes here so that coworkd, which stays, need not.
"""

from __future__ import annotations

import os
import socket
import time

import msgspec
from msgspec import structs

from coworkd.model import update
from coworkd.release import store
from coworkd.release.manifest import Here, check_fits
from coworkd.release.minisign import parse_public_keys
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.store import Offer
from coworkd.system.slot_files import HeldFiles
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers import update_disk

_decoder: msgspec.msgpack.Decoder[update.Request] = msgspec.msgpack.Decoder(update.Request)


def serve(connection: socket.socket) -> None:
    """Answer until the end of file."""
    link = WorkerSocket(connection, _decoder)
    while (received := link.receive()) is not None:
        request, fds = received
        for fd in fds:
            os.close(fd)
        link.send(answer(request))


def answer(request: update.Request) -> update.Answer:
    """What came of it; an error of the system is `UpdateFailed` with its words."""
    try:
        if isinstance(request, update.LookAtDisk):
            return look_at_disk(request)
        return verify_slot(request)
    except OSError as error:
        return update.UpdateFailed(id=request.id, errno=error.errno, message=error.strerror or str(error))


def look_at_disk(request: update.LookAtDisk) -> update.DiskOffer:
    """What the disk offers, brought into a slot where that is asked for. Raises `OSError`."""
    found = update_disk.find(request.label, os.fsdecode(request.device))
    if found is None:
        return update.DiskOffer(id=request.id, found=False)
    made = update.DiskOffer(id=request.id, found=True, device=os.fsencode(found.path))
    place = os.fsdecode(request.mount_point)
    lines = [f"mounted smol-bin device {found.path} at {place}", f"checking for updates from {place}"]
    try:
        with update_disk.mounted(found, request.mount_point), HeldFiles(place) as files:
            made = _take(request, files, made)
    except ReleaseRefused as refused:
        # It was not even mounted.
        return structs.replace(made, why=refused.why, reason=refused.message)
    return structs.replace(made, lines=(*lines, f"unmounted {update.DISK_LABEL}"))


def _take(request: update.LookAtDisk, files: HeldFiles, made: update.DiskOffer) -> update.DiskOffer:
    try:
        offer = store.read_offer(files, "", parse_public_keys(request.trust.keys))
        manifest = offer.manifest
        made = structs.replace(made, version=manifest.version)
        check_fits(manifest, here_of(request.trust))
        made = structs.replace(made, offered=_offered(offer))
        if request.slot is not None:
            if offer.sha256 != request.sha256:
                raise ReleaseRefused("tampered", "the disk has changed since it was looked at")
            with HeldFiles(os.fsdecode(request.slots)) as slots:
                store.copy(files, slots, offer, request.slot)
            made = structs.replace(made, staged=True)
    except ReleaseRefused as refused:
        return structs.replace(made, offered=None, why=refused.why, reason=refused.message)
    return made


def verify_slot(request: update.VerifySlot) -> update.SlotVerified:
    """Raises `OSError` where there are no slots at all."""
    began = time.monotonic()
    made = update.SlotVerified(id=request.id)
    try:
        with HeldFiles(os.fsdecode(request.slots)) as files:
            keys = parse_public_keys(request.trust.keys)
            offer = store.verify(files, request.slot, keys, here_of(request.trust))
        if offer.sha256 != request.sha256:
            raise ReleaseRefused("tampered", f"slot {request.slot} holds another release than was put there")
        if (offer.manifest.version, offer.manifest.contents) != (request.version, request.contents):
            raise ReleaseRefused("tampered", f"slot {request.slot} is not what the state of the slots says of it")
    except ReleaseRefused as refused:
        made = structs.replace(made, why=refused.why, reason=refused.message)
    return structs.replace(made, took_s=time.monotonic() - began)


def here_of(trust: update.Trust) -> Here:
    return Here(
        architecture=trust.architecture, python=trust.python, image_version=trust.image_version, words=trust.words
    )


def _offered(offer: Offer) -> update.Offered:
    manifest = offer.manifest
    return update.Offered(version=manifest.version, sha256=offer.sha256, contents=manifest.contents, key=offer.key)
