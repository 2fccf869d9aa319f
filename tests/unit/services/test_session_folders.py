from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.errors import InvalidParams, PolicyDenied, Unimplemented
from coworkd.model.policy import FolderMode
from coworkd.services.session_folders import (
    FOLDER_LIMIT,
    MOUNTABLE,
    contains,
    judge_folders,
    parse_listening,
    refuse_sockets,
)
from tests.unit.services.session_house import folder, profile

OWN = ("/var/lib/coworkd", "/sessions")


def judge(*modes: FolderMode, **fields: Any) -> None:
    judge_folders([folder(**fields)], profile(*modes), OWN)


@pytest.mark.parametrize("mode", MOUNTABLE)
def test_modes_that_are_allowed_and_mountable_pass(mode: FolderMode) -> None:
    judge("ro", "rwd", mode=mode)


@pytest.mark.parametrize("mode", ["rw", "staged"])
def test_modes_that_cannot_be_mounted_yet_are_told(mode: FolderMode) -> None:
    with pytest.raises(Unimplemented, match="use ro or rwd"):
        judge("ro", "rw", "rwd", "staged", mode=mode)


@pytest.mark.parametrize("mode", ["rw", "rwd", "staged"])
def test_modes_the_profile_does_not_allow_are_denied(mode: FolderMode) -> None:
    with pytest.raises(PolicyDenied, match="it allows ro") as caught:
        judge("ro", mode=mode)
    assert caught.value.details["key"] == "folders.mode"


@pytest.mark.parametrize("source", ["/srv", "/home/u/a b", "/sessionsx", "/var/lib/coworkdx/y", "/srv/ä"])
def test_absolute_normal_sources_pass(source: str) -> None:
    judge(source=source)


@pytest.mark.parametrize(
    "source",
    ["", "srv", "./srv", "~", "/srv/", "/srv//x", "//srv", "/srv/../etc", "/srv/.", "/a\0b", "/" + "x" * 4095, "C:\\x"],
)
def test_sources_that_are_not_absolute_and_normal_are_refused(source: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        judge(source=source)
    assert caught.value.details["key"] == "folders.source"


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/proc",
        "/proc/1",
        "/sys/fs",
        "/dev",
        "/run",
        "/run/user/1000",
        "/var",
        "/var/lib",
        "/var/lib/coworkd",
        "/var/lib/coworkd/audit",
        "/sessions/eve",
    ],
)
def test_the_kernels_and_coworkds_own_places_are_never_shared(source: str) -> None:
    with pytest.raises(PolicyDenied) as caught:
        judge(source=source)
    assert caught.value.details["key"] == "folders.source"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "x" * 65, "ä"])
def test_names_that_are_no_component_are_refused(name: str) -> None:
    with pytest.raises(InvalidParams):
        judge_folders([folder(name, source="/srv/x")], profile(), OWN)


def test_a_name_is_given_once() -> None:
    with pytest.raises(InvalidParams, match="twice"):
        judge_folders([folder("a"), folder("b"), folder("a")], profile(), OWN)


def test_folders_are_bounded() -> None:
    many = [folder(f"f{number}") for number in range(FOLDER_LIMIT + 1)]
    judge_folders(many[:-1], profile(), OWN)
    with pytest.raises(InvalidParams, match="at most"):
        judge_folders(many, profile(), OWN)


@pytest.mark.parametrize(
    ("outer", "inner", "inside"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a/b", "/a", False),
        ("/", "/a", True),
        ("/a/", "/a/b", True),
    ],
)
def test_contains(outer: str, inner: str, inside: bool) -> None:
    assert contains(outer, inner) is inside


HEADER = "Num       RefCount Protocol Flags    Type St Inode Path\n"


def line(path: str, flags: str = "00010000") -> str:
    return f"0000000000000000: 00000002 00000000 {flags} 0001 01 12345 {path}\n"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (HEADER, []),
        ("", []),
        (HEADER + line("/run/a"), ["/run/a"]),
        (HEADER + line("/run/a b"), ["/run/a b"]),
        (HEADER + line("/run/a", "00000000"), []),
        (HEADER + line("@abstract"), []),
        (HEADER + line(""), []),
        (HEADER + line("/x\n1 2 3 zz 5 6 7 /y"), ["/x"]),
        (HEADER + line("/x\nshort"), ["/x"]),
    ],
)
def test_parse_listening(text: str, paths: list[str]) -> None:
    assert parse_listening(text) == paths


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "share").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(bytes(tmp_path / "share") + b"/s\xff")
        server.listen()
        yield tmp_path / "share"


def test_a_folder_with_a_listening_socket_is_refused(listening: Path) -> None:
    with pytest.raises(PolicyDenied, match="listens on") as caught:
        refuse_sockets([folder(source=str(listening))], profile())
    assert "allow_sockets" in caught.value.message


def test_a_socket_elsewhere_or_an_admins_word_lets_it_pass(listening: Path) -> None:
    refuse_sockets([folder(source=f"{listening}-other")], profile())
    refuse_sockets([folder(source=str(listening))], profile(allow_sockets=True))
    refuse_sockets([], profile())
