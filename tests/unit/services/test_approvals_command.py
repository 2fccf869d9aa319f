"""`services.approvals_command`: what rm and its like are about to delete."""

from __future__ import annotations

import pytest

from coworkd.services.approvals_command import Deletes, parse_deletes

FOLDER = b"/sessions/bob/mnt/project"


def _parse(*argv: bytes, directory: bytes = FOLDER, name: bytes = b"") -> Deletes | None:
    return parse_deletes(argv, name, directory, FOLDER)


@pytest.mark.parametrize(
    ("argv", "paths", "recursive"),
    [
        ((b"rm", b"a", b"b"), (b"a", b"b"), False),
        ((b"/bin/rm", b"-rf", b"d/"), (b"d",), True),
        ((b"rm", b"d", b"-R"), (b"d",), True),
        ((b"rm", b"--recursive", b"--", b"-r"), (b"-r",), True),
        ((b"rm", b"--", b"-r"), (b"-r",), False),
        ((b"rm", b"--interactive", b"a"), (b"a",), False),
        ((b"rm", b"-", b"a\nb", b"\xff"), (b"-", b"a\nb", b"\xff"), False),
        ((b"rm", b"x/../y", b"./y", b"//sessions/bob/mnt/project/y"), (b"y",), False),
        ((b"rm", b"../other/a", b"/etc/passwd", b""), (), False),
        ((b"rm", b"/sessions/bob/mnt/projectile"), (), False),
        ((b"rm", b"-r", b".."), (b"",), True),
        ((b"rm", b"-r", b"/"), (b"",), True),
        ((b"rm", b".."), (), False),
        ((b"rm", b"-r", b"."), (b"",), True),
        ((b"rmdir", b"-p", b"a/b"), (b"a/b",), False),
        ((b"unlink", b"a"), (b"a",), False),
    ],
)
def test_what_is_named_in_the_folder_is_found(
    argv: tuple[bytes, ...], paths: tuple[bytes, ...], recursive: bool
) -> None:
    assert _parse(*argv) == Deletes(paths, recursive)


def test_paths_are_relative_to_where_the_command_runs() -> None:
    assert _parse(b"rm", b"a", b"../b", directory=FOLDER + b"/sub") == Deletes((b"sub/a", b"b"), False)
    assert _parse(b"rm", b"mnt/project/a", directory=b"/sessions/bob") == Deletes((b"a",), False)


def test_another_name_of_the_program_counts_too() -> None:
    assert _parse(b"-", b"a", name=b"rm") == Deletes((b"a",), False)
    assert _parse(name=b"rm") == Deletes((), False)


def test_other_commands_have_no_list() -> None:
    assert _parse(b"git", b"rm", b"a", name=b"git") is None
    assert _parse() is None


def test_a_list_is_bounded() -> None:
    found = _parse(b"rm", *(b"%d" % number for number in range(20_000)))
    assert found is not None
    assert len(found.paths) == 10_000
