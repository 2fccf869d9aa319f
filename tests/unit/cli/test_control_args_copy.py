import pytest

from coworkd.cli.control_args import parse


def test_cp_takes_two_sides_and_how() -> None:
    args = parse(["cp", "-r", "work:a", "b"])
    assert (args.source, args.target, args.recursive, args.quiet) == ("work:a", "b", True, False)
    assert args.handler == "control_copy:copy"


def test_cp_takes_no_more_and_no_less() -> None:
    for words in (["cp", "a"], ["cp", "a", "b", "c"]):
        with pytest.raises(SystemExit):
            parse(words)
