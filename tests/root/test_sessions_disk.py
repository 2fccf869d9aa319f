"""Sessions on the disk for real: what they take, what is pruned, whose they are after a move, and kill -9 at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, InvalidState
from coworkd.services.session_home import Homes
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, exited, session_of, wait_until

pytestmark = pytest.mark.needs("bubblewrap")
ROUNDS = 20


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


def home_of(daemon: Daemon, name: str) -> Path:
    return daemon.state / name


def records_of(daemon: Daemon) -> Path:
    return daemon.state / ".coworkd" / "sessions"


def everything_below(place: Path) -> dict[str, tuple[int, int, int, float]]:
    found = {}
    for path in [place, *sorted(place.rglob("*"))]:
        told = path.lstat()
        found[str(path)] = (told.st_uid, told.st_mode, told.st_size, told.st_mtime)
    return found


def test_usage_tells_what_a_command_wrote(daemon: Daemon, client: Client) -> None:
    with session_of(client, "usage") as name:
        script = "head -c 3000000 /dev/urandom > data; mkdir -p a/b; ln data a/again; ln -s /etc a/b/link"
        assert client.run(name, ["sh", "-c", script]).exit == exited(0)
        (told,) = client.session_usage(session=name).sessions
        said = subprocess.run(["du", "-s", "-B1", home_of(daemon, name)], capture_output=True, check=True).stdout
        assert (told.home_bytes, told.files, told.complete) == (int(said.split()[0]), 5, True)
        assert told.limit_bytes > 0
        assert told.measured_at >= told.idle_since > 0


def test_prune_goes_on_beside_a_command_that_fills_its_cache(client: Client) -> None:
    with session_of(client, "prune") as name:
        script = "mkdir -p .cache work; echo x > work/file; i=0; while :; do i=$((i+1)); mkdir -p .cache/d$i/e; echo > .cache/d$i/e/f; done"
        process = client.start(name, ["sh", "-c", script])
        for _ in range(20):
            client.session_prune(session=name, what=("caches",))
        process.kill(grace_s=0)
        process.wait(60)
        told = client.session_prune(session=name, dry_run=True)
        gone = client.session_prune(session=name)
        assert gone == told
        listed = client.run(name, ["sh", "-c", "cat work/file; ls -A .cache"]).stdout
        assert listed == b"x\n"


PLANT = """
ln -s {outside} x; ln -s {outside} .cache; ln -s {outside} .npm; ln -s {outside} .config
mkdir -p tmp; ln -s {outside} tmp/x; ln -s / tmp/root; ln -s ../../../../../../.. tmp/up
mkdir -p go/pkg/mod/cache/a; ln -s {outside} go/pkg/mod/cache/a/out; ln -s /oldroot{outside} oldroot
"""


def test_hostile_links_in_a_home_make_and_delete_nothing_outside(
    daemon: Daemon, client: Client, tmp_path: Path
) -> None:
    """The plant of CVE-2026-87766, and then everything that ever touches a home."""
    outside = tmp_path / "outside"
    (outside / "_cacache/deep").mkdir(parents=True)
    (outside / "kept").write_text("of somebody else\n")
    before = everything_below(outside)
    client.session_ensure(name="plant")
    script = PLANT.format(outside=outside)
    assert client.run("plant", ["sh", "-c", script]).exit == exited(0)
    assert client.run("plant", ["true"]).exit == exited(0)
    client.session_usage(session="plant")
    told = client.session_prune(session="plant", dry_run=True)
    assert client.session_prune(session="plant") == told
    assert {bytes(entry.path) for entry in told.entries} == {b"tmp/x", b"tmp/root", b"tmp/up", b"go/pkg/mod/cache/a"}
    client.session_ensure(name="plant")
    assert client.run("plant", ["true"]).exit == exited(0)
    assert everything_below(outside) == before
    client.session_delete(session="plant")
    assert everything_below(outside) == before
    assert not os.path.lexists(home_of(daemon, "plant"))


def test_a_home_that_was_replaced_by_a_link_leads_nowhere(fresh_daemon: Daemon, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / ".cache/a").mkdir(parents=True)
    (outside / "mnt").mkdir()
    before = everything_below(outside)
    with client_of(fresh_daemon) as client:
        client.session_ensure(name="gone")
        home = home_of(fresh_daemon, "gone")
        shutil.rmtree(home)
        home.symlink_to(outside)
        assert client.session_prune(session="gone").files == 0
        assert client.session_usage(session="gone").sessions[0].home_bytes == 0
        with pytest.raises(CoworkError):
            client.session_ensure(name="gone")
        client.session_delete(session="gone")
    assert everything_below(outside) == before
    assert not os.path.lexists(home)


def test_a_home_of_another_number_goes_over_to_its_session(tmp_path: Path) -> None:
    """A disk that comes to another root file system: a record broken, a home of somebody's, a later coworkd's session."""
    place = tmp_path / "c"
    with running_daemon(place) as daemon, client_of(daemon) as client:
        uids = {name: client.session_ensure(name=name).session.uid for name in ("moved", "broken", "later", "plain")}
        for name in uids:
            assert client.run(name, ["sh", "-c", "mkdir -p a; echo mine > a/work; ln -s /etc link"]).exit == exited(0)
    for path in [home_of(daemon, "moved"), *home_of(daemon, "moved").rglob("*")]:
        os.lchown(path, 58_001, 58_001)
    (records_of(daemon) / "broken.json").write_bytes(b"\0\0\0")
    later = records_of(daemon) / "later.json"
    later.write_text(json.dumps({**json.loads(later.read_text()), "format": 2}))
    kept = later.read_bytes()
    with running_daemon(place) as daemon, client_of(daemon) as client:
        wait_until(lambda: client.session_get(session="moved").session.state == "ready", "the home goes over")
        for name in ("moved", "broken", "plain"):
            session = client.session_ensure(name=name).session
            assert session.uid == uids[name]
            assert client.run(name, ["cat", "a/work"]).stdout == b"mine\n"
        assert {path.lstat().st_uid for path in home_of(daemon, "moved").rglob("*")} == {uids["moved"]}
        with pytest.raises(InvalidState, match="later coworkd"):
            client.session_ensure(name="later")
        assert client.session_ensure(name="fresh").session.uid not in uids.values()
        recovered = [record for record in client.audit_tail(limit=1000).records if record["kind"] == "session.recover"]
        assert {record["session"] for record in recovered} == {"moved", "broken"}
        assert client.audit_verify().ok
    assert later.read_bytes() == kept
    assert (records_of(daemon) / "broken.json.broken").read_bytes() == b"\0\0\0"


def churn(uri_of: Daemon, stop: threading.Event, seed: int) -> None:
    """Make, use and delete sessions until told to stop, or nobody answers any more."""
    choice = random.Random(seed)
    with contextlib.suppress(CoworkError, OSError), client_of(uri_of) as client:
        while not stop.is_set():
            name = f"s{choice.randrange(6)}"
            with contextlib.suppress(CoworkError):
                if choice.random() < 0.6:
                    client.session_ensure(name=name)
                    client.run(name, ["sh", "-c", "echo x > work"], timeout_s=5)
                else:
                    client.session_delete(session=name, force=True)


def test_whatever_is_killed_whenever_the_same_calls_converge(tmp_path: Path) -> None:
    place = tmp_path / "c"
    choice = random.Random(7)
    for number in range(ROUNDS):
        victims = ("coworkd", "launcher", "both")[number % 3]
        with running_daemon(place) as daemon:
            with client_of(daemon) as client:
                launcher = client.info().launcher_pid
            stop = threading.Event()
            threads = [threading.Thread(target=churn, args=(daemon, stop, number * 10 + seed)) for seed in range(2)]
            for thread in threads:
                thread.start()
            stop.wait(choice.uniform(0.02, 0.4))
            if victims != "launcher":
                daemon.child.kill()
            if victims != "coworkd":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(launcher, signal.SIGKILL)
            stop.set()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        if victims == "coworkd":
            with running_daemon(place):  # takes the launcher over, and ends it with itself
                pass
    with running_daemon(place) as daemon, client_of(daemon) as client:
        uids = set()
        for number in range(6):
            name = f"s{number}"
            session = client.session_ensure(name=name).session
            uids.add(session.uid)
            assert home_of(daemon, name).stat().st_uid == session.uid
            assert client.run(name, ["sh", "-c", "echo y > work; cat work"]).stdout == b"y\n"
        assert len(uids) == 6
        assert client.audit_verify().ok
        listed = {info.name for info in client.session_list().sessions}
        assert listed == {f"s{number}" for number in range(6)}
        for name in listed:
            client.session_delete(session=name, force=True)
    assert not [path for path in daemon.state.iterdir() if path.name != ".coworkd"]
    assert {path.name for path in records_of(daemon).iterdir()} == {".spare"}


def test_a_skeleton_belongs_to_the_session(tmp_path: Path) -> None:
    skeleton = tmp_path / "skel"
    (skeleton / "a").mkdir(parents=True)
    (skeleton / "a/tool").write_text("x")
    (skeleton / "a/tool").chmod(0o4755)
    (skeleton / "link").symlink_to("/etc/shadow")
    homes = Homes(str(tmp_path / "homes"), with_accounts=False, skeleton=str(skeleton))
    homes.prepare()
    shadow = os.stat("/etc/shadow")
    homes.make("bob", 58_010)
    home = tmp_path / "homes/bob"
    made = [home / name for name in ("", "a", "a/tool", "link")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(58_010, 58_010)}
    assert stat.S_IMODE((home / "a/tool").stat().st_mode) == 0o755
    assert (os.stat("/etc/shadow").st_uid, os.stat("/etc/shadow").st_mode) == (shadow.st_uid, shadow.st_mode)
