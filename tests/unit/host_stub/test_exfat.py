"""exFAT images: what exfatprogs says of them, and what is read back by a reader of our own that follows the specification."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_stub.exfat import ExfatFile, write_exfat

NAMES = st.text("abcdefgXYZ019._-+@", min_size=1, max_size=40).filter(lambda name: name.strip("."))


def image(files: Mapping[str, bytes], *, label: str = "smol-bin") -> bytes:
    out = io.BytesIO()
    given = {path: ExfatFile(size=len(data), chunks=(data,)) for path, data in files.items()}
    write_exfat(out, given, label=label, serial=0x12345678)
    return out.getvalue()


class Reader:
    """Reads an image as the specification says it is to be read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        fields = struct.unpack_from("<QQIIIIIIHHBB", data, 64)
        self.sectors, self._fat, self._heap, self.clusters, self.root = (
            fields[1],
            fields[2],
            fields[4],
            fields[5],
            fields[6],
        )
        assert fields[10:12] == (9, 3)

    def clusters_at(self, first: int, size: int) -> bytes:
        begin = self._heap * 512 + (first - 2) * 4096
        return self._data[begin : begin + size]

    def chain(self, first: int) -> bytes:
        data = b""
        while first != 0xFFFFFFFF:
            data += self.clusters_at(first, 4096)
            (first,) = struct.unpack_from("<I", self._data, self._fat * 512 + 4 * first)
        return data

    def files(self) -> dict[str, bytes]:
        return dict(self._walk(self.chain(self.root), ""))

    def _walk(self, directory: bytes, path: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        at = 0
        while at < len(directory) and directory[at]:
            if directory[at] != 0x85:
                at += 32
                continue
            count = directory[at + 1]
            first, size = struct.unpack_from("<IQ", directory, at + 32 + 20)
            length = directory[at + 32 + 3]
            text = b"".join(directory[at + 64 + 32 * n + 2 : at + 96 + 32 * n] for n in range(count - 1))
            name = path + text.decode("utf-16-le")[:length]
            content = self.clusters_at(first, size) if size else b""
            if directory[at + 4] & 0x10:
                found += self._walk(content, f"{name}/")
            else:
                found.append((name, content))
            at += 32 * (count + 1)
        return found


SOME = {
    "manifest.json": b"{}",
    "code/coworkd/__init__.py": b"",
    "code/coworkd/a-name-that-is-longer-than-fifteen-characters.py": b"x" * 5000,
    "code/big": b"0123456789abcdef" * 20_000,
    **{f"code/many/{number:04}": bytes([number % 256]) * number for number in range(300)},
}


def test_what_goes_in_comes_out() -> None:
    assert Reader(image(SOME)).files() == SOME


def test_the_same_tree_gives_the_same_bytes() -> None:
    assert image(SOME) == image(SOME)


@pytest.mark.parametrize("files", [{}, {"a": b""}, SOME], ids=["empty", "one", "some"])
@pytest.mark.needs("exfat-check")
def test_fsck_finds_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "image"
    path.write_bytes(image(files))
    program = shutil.which("fsck.exfat", path="/usr/sbin:/sbin:/usr/bin")
    assert program is not None
    done = subprocess.run([program, "-n", "-v", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clean" in done.stdout
    assert f"files {len(files)}" in done.stdout


def test_blkid_knows_it_by_its_label(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(image(SOME))
    program = shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin")
    assert program is not None
    said = subprocess.run([program, "-p", "-o", "export", str(path)], capture_output=True, text=True, check=True).stdout
    assert {"LABEL=smol-bin", "TYPE=exfat"} <= set(said.split())


@pytest.mark.parametrize(
    "files",
    [
        {"a/b": b"", "a": b""},
        {"a": b"", "a/b": b""},
        {"x": b"", "X": b""},
        {"a:b": b""},
        {"": b""},
        {"é": b""},
        {"n" * 256: b""},
    ],
)
def test_names_that_cannot_be_are_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        image(files)


@pytest.mark.parametrize("label", ["", "twelve-chars", "é"])
def test_labels_that_cannot_be_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        image({}, label=label)


@pytest.mark.parametrize("data", [b"abc", b"abcde"])
def test_a_file_of_another_size_than_it_said_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        write_exfat(io.BytesIO(), {"a": ExfatFile(size=4, chunks=(data,))}, label="x", serial=0)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=9000), max_size=30))
def test_any_files_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    unique = {name.lower(): data for name, data in files.items()}
    assert Reader(image(unique)).files() == unique
