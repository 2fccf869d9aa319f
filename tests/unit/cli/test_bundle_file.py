"""The file of a bundle, opened by somebody else's tar."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from coworkd.cli.bundle_file import DIRECTORY, PART_BYTES, compose_bundle, write_new

AT = 1_700_000_000.0


def opened(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            assert (member.mode, member.mtime) == (0o600, AT)
            found[member.name.removeprefix(f"{DIRECTORY}/")] = file.read()
    return found


def test_each_part_is_a_file_and_the_manifest_tells_of_each() -> None:
    manifest = {
        "made_at": AT,
        "parts": [
            {"file": "info.json", "source": "info", "left_out": 2},
            {"file": "stats.json", "source": "stats", "missing": "it hangs"},
        ],
    }
    found = opened(compose_bundle({"info.json": '{"a": "ä"}'}, manifest, at=AT))
    assert list(found) == ["manifest.json", "README", "info.json"]
    assert json.loads(found["info.json"]) == {"a": "ä"}
    told = json.loads(found["manifest.json"])
    assert told["parts"] == [
        {"file": "info.json", "source": "info", "left_out": 2, "bytes": len(found["info.json"])},
        {"file": "stats.json", "source": "stats", "missing": "it hangs"},
    ]


def test_a_part_that_is_too_long_is_missing() -> None:
    manifest = {"parts": [{"file": "x.json", "source": "x"}]}
    found = opened(compose_bundle({"x.json": "x" * PART_BYTES}, manifest, at=AT))
    assert "x.json" not in found
    assert json.loads(found["manifest.json"])["parts"][0]["missing"].startswith("too long")


def test_the_file_is_private_and_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    write_new(str(path), b"x")
    assert (path.read_bytes(), stat.S_IMODE(os.stat(path).st_mode)) == (b"x", 0o600)
    with pytest.raises(FileExistsError):
        write_new(str(path), b"y")
    assert path.read_bytes() == b"x"


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    with pytest.raises(TypeError):
        write_new(str(path), "text")  # type: ignore[arg-type]
    assert not path.exists()
