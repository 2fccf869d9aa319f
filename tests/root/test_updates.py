"""Updates for real: a disk on a loop device, a worker that mounts it, an exec into the slot, crashes, and the way back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import coworkd
from coworkd.client import connect
from coworkd.model.errors import InvalidState
from host_stub.release_key import make_key
from host_stub.update_disk import write_update_disk
from tests.root.disk_lab import loop_device
from tests.root.update_lab import UpdateLab, make_release, update_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[UpdateLab]:
    with update_lab(tmp_path / "lab") as made:
        yield made


def crash(package: Path) -> None:
    """A release that ends as soon as it runs."""
    (package / "app.py").write_text("raise SystemExit('this release crashes at once')\n")


def crash_late(package: Path) -> None:
    """One that comes up, and is gone before it was healthy for long."""
    unit = package / "unit.py"
    text = unit.read_text()
    head = "    async def serve(self, health: HealthState) -> None:\n"
    assert head in text
    end = "        import os\n\n        await trio.sleep(1.5)\n        os._exit(9)\n"
    unit.write_text(text.replace(head, f"{head}{end}"))


def mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def test_a_release_is_taken_run_committed_and_rolled_back(lab: UpdateLab, tmp_path: Path) -> None:
    before = mounts()
    release = make_release(tmp_path / "9.1", "9.1", lab.key)
    with lab.disk(release) as device:
        lab.configure(device)
        lab.start()
        status = lab.ready(lambda status: status.floor == "9.1")
        assert (status.running, status.version, status.image_version) == ("a", "9.1", coworkd.__version__)
        assert lab.child is not None
        assert lab.child.poll() is None, "the exec has changed the pid"
        assert lab.kinds("update.commit") == ["update.apply", "update.commit"]
        for line in ("mounted smol-bin device", "checking for updates from", "unmounted smol-bin"):
            assert line in lab.log
        with connect(f"unix://{lab.socket}") as client:
            assert client.hello.version == "9.1"
            client.session_ensure(name="lives-on")
            process = client.start("lives-on", ["sleep", "60"])
            answer = client.update_rollback(reason="a test")
        assert (answer.slot, answer.version) == ("0", coworkd.__version__)
        status = lab.ready(lambda status: status.running == "0")
        with connect(f"unix://{lab.socket}") as client:
            assert [found.state for found in client.process_list().processes] == ["running"]
            client.session_delete(session="lives-on", force=True)
        assert process is not None
        kinds = ["update.apply", "update.commit", "update.rollback", "update.refused"]
        assert lab.kinds("update.refused") == kinds
        lab.stop()
    assert mounts() == before
    assert os.stat(lab.slots).st_mode & 0o777 == 0o700


def test_sessions_and_commands_live_through_an_update_that_is_asked_for(lab: UpdateLab, tmp_path: Path) -> None:
    lab.configure(str(tmp_path / "none"))
    lab.start()
    lab.ready()
    release = make_release(tmp_path / "9.1", "9.1", lab.key)
    with lab.disk(release) as device:
        lab.stop()
        lab.configure(str(tmp_path / "disk"))
        lab.start()
        lab.ready()
        with connect(f"unix://{lab.socket}") as client:
            client.session_ensure(name="lives-on")
            client.start("lives-on", ["sleep", "60"])
            (tmp_path / "disk").symlink_to(device)
            assert client.update_apply().restarting
        status = lab.ready(lambda status: status.running == "a")
        assert status.version == "9.1"
        with connect(f"unix://{lab.socket}") as client:
            assert [found.state for found in client.process_list().processes] == ["running"]
            client.session_delete(session="lives-on", force=True)
        lab.stop()


@pytest.mark.parametrize("how", [crash, crash_late], ids=["at once", "after it came up"])
def test_a_release_that_crashes_is_left_for_the_one_before(lab: UpdateLab, tmp_path: Path, how: object) -> None:
    good = make_release(tmp_path / "9.1", "9.1", lab.key)
    with lab.disk(good) as device:
        lab.configure(device)
        lab.start()
        lab.ready(lambda status: status.floor == "9.1")
        lab.stop()
    bad = make_release(tmp_path / "9.2", "9.2", lab.key, change=how)  # type: ignore[arg-type]
    with lab.disk(bad) as device:
        lab.configure(device, commit_s=2)
        lab.start()
        status = lab.ready(lambda status: status.running == "a")
        assert (status.version, status.chosen) == ("9.1", "a")
        (slot,) = (slot for slot in status.slots if slot.version == "9.2")
        assert (slot.status, slot.failures) == ("bad", 2)
        assert "update.rollback" in lab.kinds("update.refused")
        lab.stop()
        lab.start()
        assert lab.ready().version == "9.1"
        lab.stop()


def test_a_slot_that_was_changed_on_the_disk_is_not_run(lab: UpdateLab, tmp_path: Path) -> None:
    release = make_release(tmp_path / "9.1", "9.1", lab.key)
    with lab.disk(release) as device:
        lab.configure(device)
        lab.start()
        lab.ready(lambda status: status.floor == "9.1")
        lab.stop()
        lab.configure(str(tmp_path / "none"))
        changed = lab.slots / "a" / "code" / "coworkd" / "wire" / "limits.py"
        changed.write_text(changed.read_text() + "\n")
        lab.start()
        status = lab.ready()
        assert (status.running, status.chosen) == ("0", "0")
        assert "limits.py" in (status.reason or "")
        lab.stop()


def test_a_disk_by_another_key_and_a_changed_one_are_refused_with_the_reason(lab: UpdateLab, tmp_path: Path) -> None:
    release = make_release(tmp_path / "9.1", "9.1", make_key())
    with lab.disk(release) as device:
        lab.configure(device)
        lab.start()
        status = lab.ready()
        assert status.disk is not None
        assert (status.running, status.disk.why) == ("0", "wrong_key")
        with connect(f"unix://{lab.socket}") as client, pytest.raises(InvalidState) as refused:
            client.update_apply()
        assert refused.value.details["why"] == "wrong_key"
        assert lab.kinds("update.refused", "update.refused") == ["update.refused"] * 2
        lab.stop()


def test_policies_that_are_signed_for_are_the_vendors(lab: UpdateLab, tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    subprocess.run(("cp", "-r", str(Path(coworkd.__file__).parents[1] / "policies"), str(policies)), check=True)
    (policies / "profiles" / "from-the-release.toml").write_text('inherits = "default"\n')
    release = make_release(tmp_path / "9.1", "9.1", lab.key, policies=policies)
    with lab.disk(release) as device:
        lab.configure(device)
        lab.start()
        lab.ready(lambda status: status.running == "a")
        with connect(f"unix://{lab.socket}") as client:
            assert "from-the-release" in client.info().profiles
        lab.stop()


def test_a_kill_at_any_moment_leaves_old_or_new(lab: UpdateLab, tmp_path: Path) -> None:
    """SIGKILL of everything, worker included, while it takes an update; then it comes up, with the one or the other, whole."""
    old = make_release(tmp_path / "9.1", "9.1", lab.key)
    new = make_release(tmp_path / "9.2", "9.2", lab.key)
    with lab.disk(old) as device:
        lab.configure(device)
        lab.start()
        lab.ready(lambda status: status.floor == "9.1")
        lab.stop()
    image = tmp_path / "new.img"
    write_update_disk(new, image, kind="ext4")
    seen = set()
    with loop_device(image) as device:
        lab.configure(device)
        for delay_s in (0.25, 0.35, 0.45, 0.55, 0.7):
            lab.start()
            assert lab.child is not None
            time.sleep(delay_s)
            kill_all(lab)
            seen.add(kept_version(lab))
    assert seen <= {"9.1", "9.2"}
    with loop_device(image) as device:
        lab.configure(device)
        lab.start()
        status = lab.ready(lambda status: status.floor == "9.2" or status.running == "a")
        assert status.version in ("9.1", "9.2")
        lab.stop()


def kill_all(lab: UpdateLab) -> None:
    """coworkd and whatever works for the launcher of this lab: a machine whose power goes takes all at once."""
    assert lab.child is not None
    lab.child.send_signal(signal.SIGKILL)
    marks = (str(lab.run).encode(), b"coworkd-update")
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                said = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marks[0] in said:
                with contextlib.suppress(ProcessLookupError):  # it has gone with one that was killed before
                    os.kill(int(entry.name), signal.SIGKILL)
    lab.child.wait()
    lab.child = None


def kept_version(lab: UpdateLab) -> str:
    """What state.json names, which must be there and whole."""
    import json

    state = json.loads((lab.slots / "state.json").read_bytes())
    chosen = state[state["chosen"]]
    start = (lab.slots / state["chosen"] / "code" / "coworkd" / "__init__.py").read_text()
    assert chosen["version"] in start
    return str(chosen["version"])
