import os
from pathlib import Path

import pytest

from coworkd.system.file_system import PROC_SUPER_MAGIC, SYSFS_MAGIC, file_system_kind


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
@pytest.mark.parametrize(("path", "kind"), [("/proc", PROC_SUPER_MAGIC), ("/sys", SYSFS_MAGIC)])
def test_the_kernels_own_file_systems_are_known(path: str, kind: int, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        assert file_system_kind(fd) == kind
    finally:
        os.close(fd)


def test_a_place_for_files_is_another(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert file_system_kind(fd) not in (0, PROC_SUPER_MAGIC, SYSFS_MAGIC)
    finally:
        os.close(fd)


def test_a_bad_descriptor_is_told() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        file_system_kind(-1)
