"""How fast files go into a session and out of it: `file.upload` and `file.download`, and `cat` through a command's pipes, by turns.

An upload ends with fsync(2), a `cat` does not.
`python -m tests.bench.files` prints the rows; it needs root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from coworkd.client.sync import Client
from coworkd.model.names import OsBytes
from tests.bench.figures import Ratio, paired_ratio
from tests.bench.guest import SESSION, open_guest, temporary_directory
from tests.bench.spawning import Pairs
from tests.bench.tables import ratio, table

MIB = 1024 * 1024
TREE_FILES = 10_000
_PIECE = os.urandom(MIB)


class FilesEffort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    bulk_bytes: int
    rounds: int


FULL_FILES = FilesEffort(bulk_bytes=256 * MIB, rounds=5)
QUICK_FILES = FilesEffort(bulk_bytes=64 * MIB, rounds=2)


class FilesFigures(Struct, frozen=True, kw_only=True):
    """Seconds, round by round: `cat` through pipes and ours; and of a tree of small files, ours alone."""

    effort: FilesEffort
    upload: Pairs
    download: Pairs
    tree_up_s: list[float]
    tree_down_s: list[float]


def measure_files(client: Client, effort: FilesEffort, progress: Callable[[str], None]) -> FilesFigures:
    """Of an open session `SESSION`, whose home ends up as it was."""
    up, down = Pairs(base_s=[], other_s=[]), Pairs(base_s=[], other_s=[])
    progress(f"files: {effort.rounds} × {effort.bulk_bytes // MIB} MiB each way, and by cat")
    for _ in range(effort.rounds):
        up.base_s.append(_timed(lambda: _cat_in(client, effort.bulk_bytes)))
        up.other_s.append(_timed(lambda: client.upload(SESSION, "bulk", _pieces(effort.bulk_bytes))))
        down.base_s.append(_timed(lambda: _cat_out(client, effort.bulk_bytes)))
        down.other_s.append(_timed(lambda: _download(client, "bulk", effort.bulk_bytes)))
    progress(f"files: {effort.rounds} × a tree of {TREE_FILES} files each way")
    archive = _make_archive(client)
    tree_up, tree_down = [], []
    for _ in range(effort.rounds):
        _remove(client, "tree")
        tree_up.append(_timed(lambda: client.upload(SESSION, "tree", archive, tar=True)))
        tree_down.append(_timed(lambda: _download(client, "tree", None, tar=True)))
    for name in ("tree", "bulk", "by-cat"):
        _remove(client, name)
    return FilesFigures(effort=effort, upload=up, download=down, tree_up_s=tree_up, tree_down_s=tree_down)


def ratios(figures: FilesFigures) -> tuple[Ratio, Ratio]:
    """Throughput up and down, ours × cat's in the same round."""
    return (
        paired_ratio(figures.upload.base_s, figures.upload.other_s),
        paired_ratio(figures.download.base_s, figures.download.other_s),
    )


def compose_files_section(figures: FilesFigures) -> str:
    """The rows, as Markdown."""
    up, down = ratios(figures)
    size = figures.effort.bulk_bytes
    rows = [
        ("into a session", _rate(size, figures.upload.base_s), _rate(size, figures.upload.other_s), ratio(up)),
        ("out of it", _rate(size, figures.download.base_s), _rate(size, figures.download.other_s), ratio(down)),
    ]
    tree = f"{TREE_FILES:,} files as an archive: {_median(figures.tree_up_s):.2f} s in, {_median(figures.tree_down_s):.2f} s out."
    return table(("", "cat through pipes", "file.*", "× cat"), rows) + "\n\n" + tree


def _cat_in(client: Client, size: int) -> None:
    with client.start(SESSION, ["sh", "-c", "cat >by-cat"], stdin=True) as process:
        for piece in _pieces(size):
            process.write_stdin(piece)
        process.close_stdin()
        process.wait()


def _cat_out(client: Client, size: int) -> None:
    with client.start(SESSION, ["cat", "bulk"]) as process:
        _check(sum(len(piece.data) for piece in process), size)


def _download(client: Client, path: str, size: int | None, *, tar: bool = False) -> None:
    with client.download(SESSION, path, tar=tar) as download:
        received = sum(map(len, download))
    _check(received, received if size is None else size)


def _make_archive(client: Client) -> bytes:
    script = f"mkdir -p tree; cd tree; for d in $(seq 100); do mkdir $d; done; seq {TREE_FILES} | "
    script += "while read n; do echo $n >$((n % 100 + 1))/f$n; done"
    client.run(SESSION, ["sh", "-ec", script])
    with client.download(SESSION, "tree", tar=True) as download:
        return b"".join(download)


def _remove(client: Client, path: str) -> None:
    client.file_remove(session=SESSION, path=OsBytes(path.encode()), recursive=True)


def _pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // MIB):
        yield _PIECE


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _check(received: int, wanted: int) -> None:
    if received != wanted:
        raise RuntimeError(f"{received} bytes came, not {wanted}")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _rate(size: int, seconds: list[float]) -> str:
    return f"{size / MIB / _median(seconds):.0f} MiB/s"


def main() -> None:
    """Measure once, with a coworkd of its own."""
    with temporary_directory() as directory, open_guest(directory) as guest, guest.connect() as client:
        client.session_ensure(name=SESSION)
        print(compose_files_section(measure_files(client, QUICK_FILES, lambda what: print(what, flush=True))))


if __name__ == "__main__":
    main()
