from __future__ import annotations

import json
from typing import Any

import pytest

from coworkd.release.manifest import FILE_LIMIT, check_fits, check_manifest, directories, parse_manifest
from coworkd.release.refusal import ReleaseRefused
from host_stub.release import compose_bytes
from tests.unit.release.release_house import CODE, HERE, file_of, manifest_of

GOOD = manifest_of(CODE)


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(compose_bytes(GOOD)), **values}).encode()


def why(data: bytes) -> str:
    with pytest.raises(ReleaseRefused) as refused:
        parse_manifest(data)
    return refused.value.why


def test_what_is_written_is_read() -> None:
    assert parse_manifest(compose_bytes(GOOD)) == GOOD
    assert GOOD.total_bytes == sum(map(len, CODE.values()))


@pytest.mark.parametrize(
    "path",
    [
        "code/../coworkd/x",
        "code//x",
        "/code/x",
        "code/x/",
        "code/./x",
        "code/...",
        "code/a\0b",
        "code/a\nb",
        "code/a b",
        "code/é",
        "code\\x",
        "code",
        "manifest.json",
        "policies/x",
        "bin/x",
        "code/" + "x" * 260,
        "code/" + "x/" * 20 + "y",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    files = [*json.loads(compose_bytes(GOOD))["files"], {"path": path, "size": 0, "sha256": "0" * 64}]
    assert why(changed(files=files)) == "unsafe_path"


@pytest.mark.parametrize(
    "pair",
    [
        ("code/x", "code/x"),
        ("code/x", "code/X"),
        ("code/x", "code/x/y"),
        ("code/x/y", "code/X/z"),
        ("code/X/y", "code/x"),
    ],
)
def test_names_that_meet_on_a_disk_without_capitals_are_refused(pair: tuple[str, str]) -> None:
    files = (*GOOD.files, *(file_of(path, b"") for path in pair))
    with pytest.raises(ReleaseRefused) as refused:
        check_manifest(manifest_of(CODE, files=files))
    assert refused.value.why == "malformed"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"format": 2}, "malformed"),
        ({"name": "other"}, "malformed"),
        ({"version": "1.1rc1"}, "malformed"),
        ({"minimum_version": "x"}, "malformed"),
        ({"architecture": "riscv64"}, "malformed"),
        ({"python": ["2.7"]}, "malformed"),
        ({"contents": []}, "malformed"),
        ({"contents": ["code", "code"]}, "malformed"),
        ({"contents": ["code", "tools"]}, "malformed"),
        ({"contents": ["policies"]}, "unsafe_path"),
        ({"files": []}, "too_big"),
        ({"files": [{"path": "code/x", "size": 0, "sha256": "0" * 64}]}, "missing_file"),
        ({"files": [{"path": "code/x", "size": -1, "sha256": "0" * 64}]}, "too_big"),
        ({"files": [{"path": "code/x", "size": 1 << 40, "sha256": "0" * 64}]}, "too_big"),
        ({"files": [{"path": "code/x", "size": 1, "sha256": "0" * 63}]}, "malformed"),
        ({"files": [{"path": "code/x", "size": 1, "sha256": "F" * 64}]}, "malformed"),
        ({"files": [{"path": "code/x", "size": 1, "sha256": "0" * 64, "mode": 0o4755}]}, "malformed"),
        ({"files": [{"path": "code/x", "size": 1, "sha256": "0" * 64}] * (FILE_LIMIT + 1)}, "too_big"),
        ({"surprise": 1}, "malformed"),
    ],
)
def test_what_breaks_a_rule_is_refused(values: dict[str, Any], word: str) -> None:
    assert why(changed(**values)) == word


def test_too_much_together_is_refused() -> None:
    large = [{"path": f"code/{n}", "size": 60 << 20, "sha256": "0" * 64} for n in range(5)]
    listed = [*json.loads(compose_bytes(GOOD))["files"], *large]
    assert why(changed(files=listed)) == "too_big"


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b'{"format": 1, "format": 1}', b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    assert why(data) == "malformed"


def test_a_huge_manifest_is_not_read() -> None:
    assert why(b" " * (2 << 20) + b" ") == "too_big"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"architecture": "aarch64"}, "wrong_architecture"),
        ({"python": ("3.10",)}, "wrong_python"),
        ({"minimum_version": "1.1"}, "image_too_old"),
        ({"version": "1.0"}, "not_newer"),
        ({"version": "0.9"}, "not_newer"),
        ({"words": 999}, "wrong_words"),
    ],
)
def test_what_is_for_another_guest_is_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ReleaseRefused) as refused:
        check_fits(manifest_of(CODE, **values), HERE)
    assert refused.value.why == word


def test_what_fits_is_taken() -> None:
    check_fits(manifest_of(CODE, architecture="x86_64", python=("3.10", "3.11")), HERE)
    check_fits(manifest_of({"policies/egress/x.json": b"{}"}, words=0), HERE)


def test_directories_come_parents_first() -> None:
    assert directories(GOOD) == ("code", "code/coworkd")
