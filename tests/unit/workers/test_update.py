from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coworkd.model import update
from coworkd.release.manifest import MANIFEST
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.update import _decoder, answer, serve
from host_stub.release_key import compose_public_key
from tests.unit.release.release_house import CODE, HERE, KEY, OTHER_KEY, release, write_release

UPDATE = release({**CODE, "policies/egress/default.json": b"{}"}, version="1.2")
SHA256 = hashlib.sha256(UPDATE[MANIFEST]).hexdigest()


def trust(keys: bytes = compose_public_key(KEY.public)) -> update.Trust:
    return update.Trust(
        keys=keys,
        architecture=HERE.architecture,
        python=HERE.python,
        image_version=HERE.image_version,
        words=HERE.words,
    )


def ask(slots: Path, **fields: Any) -> update.VerifySlot:
    """To look at slot `a`, which is to hold `UPDATE`."""
    words: dict[str, Any] = {"trust": trust(), "version": "1.2", "contents": ("code", "policies"), "sha256": SHA256}
    return update.VerifySlot(id=3, slots=os.fsencode(slots), slot="a", **{**words, **fields})


def verified(slots: Path, **fields: Any) -> update.SlotVerified:
    made = answer(ask(slots, **fields))
    assert isinstance(made, update.SlotVerified)
    assert made.id == 3
    return made


def test_a_whole_slot_may_run(tmp_path: Path) -> None:
    write_release(tmp_path / "a", UPDATE)
    assert verified(tmp_path).why is None


def test_a_changed_slot_may_not(tmp_path: Path) -> None:
    write_release(tmp_path / "a", UPDATE)
    (tmp_path / "a" / "code" / "coworkd" / "app.py").write_bytes(b"y" * 3000)
    made = verified(tmp_path)
    assert (made.why, "app.py" in made.reason) == ("tampered", True)


def test_another_release_than_was_put_there_may_not(tmp_path: Path) -> None:
    write_release(tmp_path / "a", UPDATE)
    assert verified(tmp_path, sha256="0" * 64).why == "tampered"


@pytest.mark.parametrize(
    ("keys", "why"), [(compose_public_key(OTHER_KEY.public), "wrong_key"), (b"nonsense", "malformed")]
)
def test_a_slot_is_held_to_the_keys_of_today(tmp_path: Path, keys: bytes, why: str) -> None:
    write_release(tmp_path / "a", UPDATE)
    assert verified(tmp_path, trust=trust(keys)).why == why


@pytest.mark.parametrize("fields", [{"version": "1.3"}, {"contents": ("code",)}, {"contents": ("policies",)}])
def test_the_state_says_nothing_of_a_slot_that_was_not_signed(tmp_path: Path, fields: dict[str, Any]) -> None:
    write_release(tmp_path / "a", UPDATE)
    assert verified(tmp_path, **fields).why == "tampered"


def test_an_empty_slot_is_told(tmp_path: Path) -> None:
    assert verified(tmp_path).why == "unsigned"


def test_no_slots_at_all_are_an_error_of_the_system(tmp_path: Path) -> None:
    made = answer(ask(tmp_path / "none"))
    assert isinstance(made, update.UpdateFailed)
    assert made.errno == 2


def test_a_plain_file_is_no_update_disk(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"")
    asked = update.LookAtDisk(
        id=4, trust=trust(), slots=b"/", mount_point=os.fsencode(tmp_path), device=os.fsencode(tmp_path / "image")
    )
    made = answer(asked)
    assert isinstance(made, update.UpdateFailed)
    assert "no block device" in made.message


def test_a_device_that_is_not_there_is_no_disk(tmp_path: Path) -> None:
    asked = update.LookAtDisk(
        id=4, trust=trust(), slots=b"/", mount_point=b"/smol/bin", device=os.fsencode(tmp_path / "none")
    )
    assert answer(asked) == update.DiskOffer(id=4, found=False)


def test_it_serves_until_the_end_of_file(tmp_path: Path) -> None:
    write_release(tmp_path / "a", UPDATE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=serve, args=(theirs,))
    thread.start()
    with ours:
        WorkerSocket(ours, _decoder).send(ask(tmp_path))
        made = msgspec.msgpack.decode(ours.recv(65536), type=update.Answer)
    thread.join(60)
    theirs.close()
    assert not thread.is_alive()
    assert isinstance(made, update.SlotVerified)
    assert (made.id, made.why) == (3, None)
