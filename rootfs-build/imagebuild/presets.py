"""What the egress presets (python, node, debian, ubuntu) are: asked of pip, npm and apt on the machine that builds.

The builder knows no registry by name. `coworkctl egress presets` of the checkout finds them; the guest has no pip.conf to ask.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from imagebuild.trouble import Trouble


def resolve_presets(checkout: Path, *, epoch: int) -> bytes:
    """The file of presets as this machine has them, made at `epoch`: when it was asked would be other bytes each time. Raises `Trouble`."""
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        raise Trouble("the checkout has no .venv to ask what the presets are; make it by ./setup")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "presets.json")
        command = [str(python), "-m", "coworkd.cli.control", "egress", "presets", "--write", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
        if done.returncode or not path.exists():
            raise Trouble(f"what the presets are cannot be found out: {(done.stderr or done.stdout).strip()}")
        try:
            found = json.loads(path.read_bytes())
            found["made_at"] = epoch
        except (ValueError, TypeError) as error:
            raise Trouble(f"what coworkctl wrote are no presets: {error}") from error
        return (json.dumps(found, indent=2) + "\n").encode()
