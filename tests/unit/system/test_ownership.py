from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coworkd.system.ownership import give


def test_a_path_descriptor_is_enough(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    fd = os.open(tmp_path / "link", os.O_PATH | os.O_NOFOLLOW)
    try:
        give(fd, os.geteuid(), os.getegid())
    finally:
        os.close(fd)


def test_what_the_kernel_refuses_is_told() -> None:
    with pytest.raises(OSError) as caught:
        give(-2, os.geteuid(), os.getegid())
    assert caught.value.errno == errno.EBADF
