from __future__ import annotations

from collections.abc import Sequence

import pytest

from coworkd.model.launch import (
    TreeBind,
    TreeCopy,
    TreeDevice,
    TreeDir,
    TreeEntry,
    TreeFile,
    TreeLink,
    TreeProc,
    TreeTmpfs,
)
from coworkd.model.layout import GuestLayout
from coworkd.sandbox.tree import compose_tree, folder_path, sandbox_home
from tests.unit.sandbox.spawn_room import MERGED, UNMERGED


def tree(
    *,
    tmp_max_bytes: int = 1 << 30,
    layout: GuestLayout = MERGED,
    trust: bytes | None = None,
    tools: bytes | None = None,
) -> dict[bytes, TreeEntry]:
    entries = compose_tree(
        name="bob",
        uid=1001,
        home=b"/var/sessions/bob",
        tmp_max_bytes=tmp_max_bytes,
        layout=layout,
        trust=trust,
        tools=tools,
    )
    assert len({entry.path for entry in entries}) == len(entries) - 1  # the home: a directory, then the bind on it
    return {entry.path: entry for entry in entries}


def file(entries: dict[bytes, TreeEntry], path: bytes) -> bytes:
    entry = entries[path]
    assert isinstance(entry, TreeFile)
    return entry.data


def tmpfs(entries: dict[bytes, TreeEntry], path: bytes) -> TreeTmpfs:
    entry = entries[path]
    assert isinstance(entry, TreeTmpfs)
    return entry


def bind(entries: dict[bytes, TreeEntry], path: bytes) -> TreeBind:
    entry = entries[path]
    assert isinstance(entry, TreeBind)
    return entry


def test_tree_knows_this_user_and_nobody_else() -> None:
    entries = tree()
    assert file(entries, b"/etc/passwd") == b"bob:x:1001:1001::/sessions/bob:/bin/bash\n"
    assert file(entries, b"/etc/group") == b"bob:x:1001:\n"


def test_tree_binds_nothing_writable_but_the_home() -> None:
    writable = {entry.path for entry in tree().values() if isinstance(entry, TreeBind) and not entry.read_only}
    assert writable == {b"/sessions/bob"}


def test_tree_takes_from_the_guest_only_what_is_chosen() -> None:
    entries = tree()
    own = entries.pop(b"/etc/coworkd/connect.py")
    assert isinstance(own, TreeCopy)
    sources = {entry.source for entry in entries.values() if isinstance(entry, TreeBind | TreeCopy)}
    chosen = {*MERGED.directories, *MERGED.etc_directories, *MERGED.etc_files}
    assert sources == chosen | {b"/var/sessions/bob"}


def test_tree_bounds_every_tmpfs() -> None:
    bounded = [entry for entry in tree().values() if isinstance(entry, TreeTmpfs)]
    assert {entry.path for entry in bounded} == {b"/tmp", b"/dev/shm", b"/sessions/bob/mnt"}
    assert all(entry.size_bytes > 0 and entry.inodes > 0 for entry in bounded)


@pytest.mark.parametrize(("size", "inodes"), [(1, 16), (4096 * 100, 100), (1 << 50, 1_000_000)])
def test_tree_never_gives_tmp_unbounded_inodes(size: int, inodes: int) -> None:
    made = tmpfs(tree(tmp_max_bytes=size), b"/tmp")
    assert (made.size_bytes, made.inodes) == (size, inodes)


def test_tree_keeps_the_places_of_folders_out_of_the_sessions_hands() -> None:
    made = tmpfs(tree(), b"/sessions/bob/mnt")
    assert (made.uid, made.mode) == (0, 0o755)


def test_tree_makes_the_place_of_folders_after_the_home_and_nothing_in_it() -> None:
    paths = list(tree())
    assert paths.index(b"/sessions/bob") < paths.index(b"/sessions/bob/mnt")
    assert not [path for path in paths if path.startswith(b"/sessions/bob/mnt/")]


def test_tree_has_the_devices_a_program_needs_and_no_disk() -> None:
    devices = {entry.path: (entry.major, entry.minor) for entry in tree().values() if isinstance(entry, TreeDevice)}
    assert devices[b"/dev/null"] == (1, 3)
    assert {major for major, _ in devices.values()} == {1, 5}


def test_tree_makes_every_directory_of_the_cpu_list_once() -> None:
    entries = tree()
    assert b"/sys/devices/system/cpu" in entries
    assert file(entries, b"/sys/devices/system/cpu/online") == b"0-3\n"


def test_tree_follows_the_guest_on_merged_usr() -> None:
    assert isinstance(tree()[b"/bin"], TreeLink)
    assert bind(tree(layout=UNMERGED), b"/bin").read_only


def test_tree_has_a_proc_and_cannot_resolve_names() -> None:
    entries = tree()
    assert isinstance(entries[b"/proc"], TreeProc)
    assert not [line for line in file(entries, b"/etc/resolv.conf").splitlines() if not line.startswith(b"#")]


def test_tree_shows_the_trust_and_lays_it_over_the_guests() -> None:
    entries = tree(trust=b"/srv/trust/current")
    places = {b"/etc/coworkd/trust": b"/srv/trust/current", b"/etc/ssl/certs": b"/srv/trust/current/certs"}
    for place, source in places.items():
        made = bind(entries, place)
        assert (made.source, made.read_only, made.recursive) == (source, True, False)
    order = list(entries)
    assert order.index(b"/etc/ssl") < order.index(b"/etc/ssl/certs")
    assert isinstance(entries[b"/etc/ssl"], TreeBind)
    assert not [path for path in tree() if b"trust" in path or path == b"/etc/ssl/certs"]


def test_tree_makes_room_for_the_trust_of_a_guest_that_has_none() -> None:
    entries = tree(trust=b"/srv/trust/current", layout=UNMERGED)
    assert isinstance(entries[b"/etc/ssl"], TreeDir)
    assert parents_made(tuple(entries.values()))


def parents_made(entries: Sequence[TreeEntry]) -> bool:
    made = {b""}
    for entry in entries:
        if entry.path.rpartition(b"/")[0] not in made:
            return False
        made.add(entry.path)
    return True


def test_tree_makes_parents_before_children() -> None:
    assert parents_made(tuple(tree(trust=b"/srv/trust").values()))


def test_paths_of_home_and_folders() -> None:
    assert sandbox_home("bob") == b"/sessions/bob"
    assert folder_path("bob", "my src") == b"/sessions/bob/mnt/my src"


def test_tools_are_read_only_and_no_need_for_a_session() -> None:
    made = bind(tree(tools=b"/sessions/.coworkd/tools/tree"), b"/opt/tools")
    assert (made.source, made.read_only, made.optional) == (b"/sessions/.coworkd/tools/tree", True, True)
    assert b"/opt/tools" not in tree()
