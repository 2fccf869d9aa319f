"""An embedded coworkd for one call: a child of this program on a directory of its own, gone with it.

The state lies in a fresh temporary directory and is removed at the end, unless `COWORKD_STATE` names one to keep.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from coworkd.model.errors import Unavailable

STATE_VARIABLE = "COWORKD_STATE"
_STOP_TIMEOUT_S = 15


@contextlib.contextmanager
def open_embedded() -> Iterator[str]:
    """The URI of a coworkd that lives as long as the `with`. Raises `Unavailable` where it does not come up."""
    kept = os.environ.get(STATE_VARIABLE)
    state = kept or tempfile.mkdtemp(prefix="coworkd-")
    sockets = tempfile.mkdtemp(prefix="coworkd-")
    try:
        with _child(state, os.path.join(sockets, "coworkd.sock")) as uri:
            yield uri
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
        if kept is None:
            shutil.rmtree(state)


@contextlib.contextmanager
def _child(state: str, socket: str) -> Iterator[str]:
    command = [sys.executable, "-m", "coworkd", "local", "--state", state, "--socket", socket, "--log-level", "error"]
    # A session of its own: the terminal's Ctrl-C is coworkctl's to pass on to the command, not coworkd's to die of.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline().decode()
        if not line.startswith("ready "):
            raise Unavailable("an embedded coworkd could not be started; its words are above, `coworkctl doctor` helps")
        yield line.removeprefix("ready ").strip()
    finally:
        child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
