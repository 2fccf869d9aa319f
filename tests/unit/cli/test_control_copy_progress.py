import io

from coworkd.cli.control_copy_progress import EVERY_S, Progress, readable


def test_numbers_are_for_people() -> None:
    assert [readable(count) for count in (0, 1023, 1024, 1536, 5 << 20, 3 << 40, 5 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 TiB",
        "5120.0 TiB",
    ]


def test_pieces_pass_unchanged_and_nothing_is_shown_without_a_terminal() -> None:
    progress = Progress(None)
    assert list(progress.through([b"a", b"b"], 2)) == [b"a", b"b"]
    progress.end()


def test_the_line_is_written_over_a_few_times_a_second_and_taken_away() -> None:
    out = io.StringIO()
    now = [100.0]
    progress = Progress(out, clock=lambda: now[0])
    for number, _ in enumerate(progress.through([bytes(1024)] * 10, 10 * 1024)):
        now[0] += EVERY_S / 4
        if number == 0:
            assert out.getvalue() == ""
    shown = out.getvalue().split("\r\x1b[K")
    assert shown[1] == "1.0 KiB of 10.0 KiB (10 %)  20.0 KiB/s"
    assert 2 <= len(shown) - 1 <= 4
    progress.end()
    assert out.getvalue().endswith("\r\x1b[K")
    before = out.getvalue()
    progress.end()
    assert out.getvalue() == before


def test_without_a_total_only_what_passed_is_shown() -> None:
    out = io.StringIO()
    progress = Progress(out, clock=iter(range(100)).__next__)
    list(progress.through([b"x" * 10], None))
    assert out.getvalue() == "\r\x1b[K10 B  10 B/s"
