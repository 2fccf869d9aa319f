"""dm-verity: the hashes of every block of the root, and the one hash above them all.

The kernel's command line carries the root hash, so a host that boots this kernel with this command line gets this root, or errors where
it was changed. Salt and UUID are fixed: the same root has the same hashes.

Source: veritysetup(8), the kernel's Documentation/admin-guide/device-mapper/verity.rst.
"""

from __future__ import annotations

import re
from pathlib import Path

from imagebuild.recipe import VERITY_SALT, VERITY_UUID
from imagebuild.run import run
from imagebuild.trouble import Trouble

_ROOT_HASH = re.compile(r"^Root hash:\s+([0-9a-f]{64})$", re.MULTILINE)


def write_verity(root: Path, hashes: Path) -> str:
    """Write the file `hashes` for the image `root`; the root hash. Raises `Trouble`."""
    said = run(["veritysetup", "format", f"--salt={VERITY_SALT}", f"--uuid={VERITY_UUID}", str(root), str(hashes)])
    match = _ROOT_HASH.search(said)
    if match is None:
        raise Trouble(f"veritysetup did not say the root hash, but: {said.strip()[:200]}")
    return match[1]
