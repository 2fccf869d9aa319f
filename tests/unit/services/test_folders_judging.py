from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.errors import InvalidParams, PolicyDenied
from coworkd.model.policy import FolderMode
from coworkd.services.folders_judging import FOLDER_LIMIT, FolderRules, Place, contains, judge_mode, parse_listening
from tests.unit.services.session_house import folder, profile

OWN = ("/var/lib/coworkd", "/sessions")


LOCAL = FolderRules(share_root="", own_directories=OWN)
SHARED = FolderRules(share_root="/mnt/.virtiofs-root", own_directories=OWN)


def judge(*modes: FolderMode, **fields: Any) -> None:
    LOCAL.judge([folder(**fields)], profile(*modes))


@pytest.mark.parametrize("mode", ["ro", "rw", "rwd", "staged"])
def test_every_mode_the_profile_allows_passes(mode: FolderMode) -> None:
    judge("ro", "rw", "rwd", "staged", mode=mode)
    judge_mode(folder(mode=mode), profile(mode))


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


@pytest.mark.parametrize(
    ("source", "below"),
    [
        ("work", b"work"),
        ("/work", b"work"),
        ("/", b"."),
        (".", b"."),
        ("work//a/./b/", b"work/a/b"),
        ("run", b"run"),
        ("a\nb ...", b"a\nb ..."),
    ],
)
def test_with_a_share_root_sources_are_below_it(source: str, below: bytes) -> None:
    grant = folder(source=source)
    SHARED.judge([grant], profile())
    assert SHARED.place(grant) == Place(b"/mnt/.virtiofs-root", below)
    assert contains("/mnt/.virtiofs-root", SHARED.path(grant))


@pytest.mark.parametrize("source", ["", "..", "a/../b", "/..", "a/..", "a\0b", "x" * 4096])
def test_nothing_leads_out_of_the_share(source: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        SHARED.judge([folder(source=source)], profile())
    assert caught.value.details["key"] == "folders.source"


def test_a_share_that_holds_coworkds_own_is_never_shared_whole() -> None:
    rules = FolderRules(share_root="/var", own_directories=OWN)
    rules.judge([folder(source="log")], profile())
    for source in ("/", "lib", "lib/coworkd/audit"):
        with pytest.raises(PolicyDenied):
            rules.judge([folder(source=source)], profile())


def test_without_a_share_root_a_source_is_below_the_root() -> None:
    assert LOCAL.place(folder(source="/srv/a b")) == Place(b"/", b"srv/a b")
    assert LOCAL.path(folder(source="/srv/a b")) == "/srv/a b"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "x" * 65, "ä"])
def test_names_that_are_no_component_are_refused(name: str) -> None:
    with pytest.raises(InvalidParams):
        LOCAL.judge([folder(name, source="/srv/x")], profile())


def test_a_name_is_given_once() -> None:
    with pytest.raises(InvalidParams, match="twice"):
        LOCAL.judge([folder("a"), folder("b"), folder("a")], profile())


def test_folders_are_bounded() -> None:
    many = [folder(f"f{number}") for number in range(FOLDER_LIMIT + 1)]
    LOCAL.judge(many[:-1], profile())
    with pytest.raises(InvalidParams, match="at most"):
        LOCAL.judge(many, profile())


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
        LOCAL.refuse_sockets([folder(source=str(listening))], profile())
    assert "allow_sockets" in caught.value.message


def test_a_socket_elsewhere_or_an_admins_word_lets_it_pass(listening: Path) -> None:
    LOCAL.refuse_sockets([folder(source=f"{listening}-other")], profile())
    LOCAL.refuse_sockets([folder(source=str(listening))], profile(allow_sockets=True))
    LOCAL.refuse_sockets([], profile())
