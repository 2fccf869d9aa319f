import os
import stat

import pytest

from coworkd.folderfs import mount
from coworkd.system import mounts


def test_options_of_a_directory() -> None:
    options = dict(mount.plan_options(fuse_fd=7, root_mode=stat.S_IFDIR | 0o750))
    assert options["fd"] == "7"
    assert options["rootmode"] == "40750"
    assert options["allow_other"] is None
    assert options["default_permissions"] is None


def test_a_file_is_no_root() -> None:
    with pytest.raises(ValueError, match="is a directory"):
        mount.plan_options(fuse_fd=7, root_mode=os.stat(__file__).st_mode)


def test_no_set_id_bits_and_no_devices() -> None:
    assert mount.ATTRIBUTES & mounts.MOUNT_ATTR_NOSUID
    assert mount.ATTRIBUTES & mounts.MOUNT_ATTR_NODEV
