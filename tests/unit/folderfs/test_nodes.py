import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.folderfs.nodes import Node, Nodes


@pytest.fixture
def nodes(source: Path) -> Iterator[Nodes]:
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    table = Nodes(fd, descriptors=4)
    yield table
    table.shrink()
    os.close(fd)


def enter(nodes: Nodes, parent: Node, name: bytes) -> Node:
    return nodes.enter(parent, name, os.stat(name, dir_fd=nodes.directory(parent), follow_symlinks=False))


def expect(number: int, call: object, *arguments: object) -> None:
    with pytest.raises(OSError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.errno == number


def test_a_name_looked_up_twice_is_one_node_and_forgotten_twice(nodes: Nodes) -> None:
    node = enter(nodes, nodes.root, b"letter")
    assert enter(nodes, nodes.root, b"letter") is node
    nodes.forget(node.number, 1)
    assert nodes.get(node.number) is node
    nodes.forget(node.number, 1)
    expect(errno.ESTALE, nodes.get, node.number)
    nodes.forget(node.number, 1)
    assert len(nodes) == 1


def test_the_root_is_never_forgotten(nodes: Nodes) -> None:
    nodes.forget(1, 1000)
    assert nodes.get(1) is nodes.root


def test_hard_links_are_one_node(nodes: Nodes, source: Path) -> None:
    os.link(source / "letter", source / "second")
    node = enter(nodes, nodes.root, b"letter")
    assert enter(nodes, nodes.root, b"second") is node
    found = os.stat(source / "second")
    os.unlink(source / "second")
    nodes.unlinked(node, nodes.root, b"second", found)
    assert nodes.place(node)[1] == b"letter"


def test_a_file_the_host_renamed_is_another_node(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"letter")
    os.rename(source / "letter", source / "moved")
    assert enter(nodes, nodes.root, b"moved") is not node
    expect(errno.ESTALE, nodes.place, node)


def test_another_kind_by_the_same_name_is_another_node(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"letter")
    os.unlink(source / "letter")
    os.mkdir(source / "letter")
    assert enter(nodes, nodes.root, b"letter") is not node
    expect(errno.ESTALE, nodes.stat, node)


def test_the_host_replaced_it(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"letter")
    (source / "new").write_text("")
    os.rename(source / "new", source / "letter")
    expect(errno.ESTALE, nodes.stat, node)


def test_a_gone_file_is_what_is_open(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"letter")
    fd = os.open(source / "letter", os.O_RDONLY)
    node.handles.append(fd)
    os.unlink(source / "letter")
    nodes.unlinked(node, nodes.root, b"letter", os.stat(fd))
    assert nodes.stat(node).st_nlink == 0
    node.handles.remove(fd)
    os.close(fd)
    expect(errno.ESTALE, nodes.stat, node)


def test_a_gone_fifo_is_what_it_was(nodes: Nodes, source: Path) -> None:
    os.mkfifo(source / "fifo")
    node = enter(nodes, nodes.root, b"fifo")
    found = os.stat(source / "fifo")
    os.unlink(source / "fifo")
    nodes.unlinked(node, nodes.root, b"fifo", found)
    last = nodes.stat(node)
    assert (last.st_nlink, last.st_ino, last.st_mode) == (0, found.st_ino, found.st_mode)
    assert (last.st_mtime_ns, last.st_blksize) == (found.st_mtime_ns, found.st_blksize)


def test_another_name_stands_in_where_a_directory_is_closed(
    nodes: Nodes, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(source / "letter", source / "kept" / "second")
    kept = enter(nodes, nodes.root, b"kept")
    node = enter(nodes, kept, b"second")
    found, look = os.stat(source / "letter"), os.stat
    assert nodes.enter(nodes.root, b"letter", found) is node

    def refuse_below_kept(path: object, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if path == b"second":
            raise PermissionError(errno.EACCES, "closed")
        return look(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse_below_kept)
    assert nodes.place(node)[1] == b"letter"
    os.unlink(source / "letter")
    expect(errno.EACCES, nodes.place, node)
    monkeypatch.undo()
    assert nodes.place(node)[1] == b"second"


def test_an_inode_used_again_is_another_node(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"letter")
    nodes.unlinked(node, nodes.root, b"letter", os.stat(source / "letter"))
    assert enter(nodes, nodes.root, b"letter") is not node


def test_few_descriptors_serve_a_deep_tree(nodes: Nodes, source: Path) -> None:
    node, place = nodes.root, source
    for _ in range(60):
        place /= "d"
        place.mkdir()
        node = enter(nodes, node, b"d")
        nodes.directory(node)
        nodes.trim()
    nodes.shrink()
    before = len(os.listdir("/proc/self/fd"))
    assert os.path.samestat(os.stat(nodes.directory(node)), place.stat())
    nodes.trim()
    assert len(os.listdir("/proc/self/fd")) == before + 4
    assert node.path() == (b"d",) * 60


def test_a_directory_that_another_took_the_place_of_is_stale(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"kept")
    os.rename(source / "kept", source / "away")
    expect(errno.ESTALE, nodes.directory, node)
    os.symlink("away", source / "kept")
    expect(errno.ESTALE, nodes.directory, node)
    os.unlink(source / "kept")
    os.mkdir(source / "kept")
    expect(errno.ESTALE, nodes.directory, node)


def test_a_file_is_no_directory(nodes: Nodes) -> None:
    expect(errno.ENOTDIR, nodes.directory, enter(nodes, nodes.root, b"letter"))


def test_no_more_nodes_than_the_limit(source: Path) -> None:
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    nodes = Nodes(fd, descriptors=4, limit=2)
    enter(nodes, nodes.root, b"letter")
    expect(errno.ENOMEM, enter, nodes, nodes.root, b"kept")
    os.close(fd)


def test_renaming_and_linking_move_its_names(nodes: Nodes, source: Path) -> None:
    node = enter(nodes, nodes.root, b"letter")
    os.link(source / "letter", source / "second")
    nodes.linked(node, nodes.root, b"second")
    os.rename(source / "letter", source / "third")
    nodes.renamed(node, (nodes.root, b"letter"), (nodes.root, b"third"))
    os.rename(source / "second", source / "fourth")
    nodes.renamed(node, (nodes.root, b"second"), (nodes.root, b"fourth"))
    found = os.stat(source / "third")
    os.unlink(source / "third")
    nodes.unlinked(node, nodes.root, b"third", found)
    assert nodes.place(node)[1] == b"fourth"
    assert not node.gone


def test_a_file_without_a_name_gets_one(nodes: Nodes, source: Path) -> None:
    fd = os.open(source, os.O_TMPFILE | os.O_RDWR, 0o600)
    node = nodes.enter_nameless(nodes.root, os.stat(fd))
    expect(errno.ESTALE, nodes.stat, node)
    os.link(f"/proc/self/fd/{fd}", "named", dst_dir_fd=nodes.root.fd, follow_symlinks=True)
    nodes.linked(node, nodes.root, b"named")
    assert stat.S_ISREG(nodes.stat(node).st_mode)
    assert nodes.find(nodes.root, b"named", os.stat(source / "named")) is node
    os.close(fd)
