import pytest

from coworkd.archive.entry import PATH_LIMIT_BYTES, ArchiveError, split_path


@pytest.mark.parametrize(
    ("path", "names"),
    [(b"a/b", (b"a", b"b")), (b"./a//b/", (b"a", b"b")), (b".", ()), (b"./", ()), (b"a/..b", (b"a", b"..b")), (b"\xff", (b"\xff",))],
)  # fmt: skip
def test_a_path_is_its_names(path: bytes, names: tuple[bytes, ...]) -> None:
    assert split_path(path) == names


@pytest.mark.parametrize(
    "path", [b"/etc/passwd", b"..", b"a/../b", b"a/..", b"a\0b", b"x/" * (PATH_LIMIT_BYTES // 2 + 1)]
)
def test_a_path_that_may_lead_out_is_refused(path: bytes) -> None:
    with pytest.raises(ArchiveError):
        split_path(path)
