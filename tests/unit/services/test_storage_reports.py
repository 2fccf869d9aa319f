"""What repairs said, kept."""

from __future__ import annotations

from pathlib import Path

from coworkd.services.storage_reports import REPORTS_KEPT, keep_report


def test_a_report_is_kept_under_its_time(tmp_path: Path) -> None:
    path = Path(keep_report(str(tmp_path), "fixed é\n", at=0.0))
    assert path == tmp_path / "fsck" / "19700101-000000.txt"
    assert path.read_text() == "fixed é\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_the_newest_stay(tmp_path: Path) -> None:
    paths = [Path(keep_report(str(tmp_path), "x", at=60.0 * number)) for number in range(REPORTS_KEPT + 3)]
    assert sorted((tmp_path / "fsck").iterdir()) == paths[3:]
