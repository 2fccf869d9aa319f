"""Become a program inside a lab's namespaces: `python -m tests.root.enter NET MOUNT DIRECTORY PROGRAM ARGUMENT…`.

NET and MOUNT are paths of namespaces (`-` for none). The pid stays, so who started this can signal the program.
"""

from __future__ import annotations

import os
import sys

from coworkd.system import namespaces


def main() -> None:
    net, mount, directory, *argv = sys.argv[1:]
    for path, kind in ((net, namespaces.CLONE_NEWNET), (mount, namespaces.CLONE_NEWNS)):
        if path != "-":
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, kind)
            os.close(fd)
    os.chdir(directory)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
