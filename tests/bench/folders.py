"""What a folder costs: the same work in a plain directory, in a guarded folder, and through bindfs, by turns.

`measure_folders` gives seconds of each course, round by round; `compose_folder_rows` the medians and the ratios to plain. By itself:
`python -m tests.bench.folders [--quick]`. The directory of a plain one stands on the same file system as the sources of the others.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from tests.bench.others import NotInstalled, need
from tests.root.folder_mount import ENVIRONMENT, OWNER_UID, SESSION_UID, guarded

PLAIN, OURS, BINDFS = "plain", "coworkd, rw", "bindfs"
MIB = 1024 * 1024
_READY_S = 10.0


class FolderEffort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    files: int
    tracked: int
    packages: int
    bulk_bytes: int


FULL_FOLDERS = FolderEffort(rounds=3, files=10_000, tracked=5_000, packages=3_000, bulk_bytes=256 * MIB)
QUICK_FOLDERS = FolderEffort(rounds=3, files=2_000, tracked=1_000, packages=600, bulk_bytes=64 * MIB)


class Course(Struct, frozen=True, kw_only=True):
    """Some work: a shell script run in the folder; `before` is not timed."""

    name: str
    script: str
    before: str = ":"
    bulk_bytes: int = 0
    """What it moves, where a rate is told."""


class FolderFigures(Struct, frozen=True, kw_only=True):
    """Seconds of each round: course → contestant → rounds. `absent` says why one is not there."""

    effort: FolderEffort
    courses: tuple[Course, ...]
    seconds: dict[str, dict[str, list[float]]]
    absent: dict[str, str]


_PYTHON = "/usr/bin/python3 -S -c"
# A program that starts costs the same everywhere and would hide what is measured, so metadata courses run in one.
_CREATE = "import os\nos.mkdir('m')\nfor n in range({files}):\n os.close(os.open(f'm/{{n}}', os.O_CREAT | os.O_WRONLY))"
_STAT = "import os\nfor n in range({files}): os.stat(f'm/{{n}}')"
_UNLINK = "import os\nfor n in range({files}): os.unlink(f'm/{{n}}')\nos.rmdir('m')"
_SAVE = """import os
os.makedirs('s', exist_ok=True)
for n in range({files} // 4):
    with open('s/t', 'w') as f: f.write('x' * 2000)
    os.rename('s/t', 's/f')
"""
_WRITE = "b = bytes(1 << 20)\nwith open('big', 'wb', 0) as f:\n for n in range({mib}): f.write(b)"
_READ = "b = bytearray(1 << 20)\nwith open('big', 'rb', 0) as f:\n while f.readinto(b): pass"
_TREE = """import os
for n in range({packages} // 20):
    os.makedirs(f'pack/package/lib-{{n}}/dist')
    for k in range(20): open(f'pack/package/lib-{{n}}/dist/{{k}}.js', 'w').write('x' * 1500)
"""


def compose_courses(effort: FolderEffort) -> tuple[Course, ...]:
    sizes = {"files": effort.files, "mib": effort.bulk_bytes // MIB, "packages": effort.packages}

    def python(text: str) -> str:
        return f"{_PYTHON} {_quoted(text.format(**sizes))}"

    repository = f"""test -d r && exit; mkdir r; cd r; git init -q
    {_PYTHON} "import os
for n in range({effort.tracked}):
    os.makedirs(f'd{{n // 100}}', exist_ok=True); open(f'd{{n // 100}}/{{n}}', 'w').write(str(n))"
    git add .; git commit -qm all; git status > /dev/null; sleep 2"""
    return (
        Course(name=f"create {effort.files:,} files", script=python(_CREATE)),
        Course(name=f"stat {effort.files:,} files", script=python(_STAT)),
        Course(name="list them, with attributes (ls -l)", script="ls -lU m > /dev/null", before="sleep 1.1"),
        Course(name=f"delete {effort.files:,} files", script=python(_UNLINK)),
        Course(name=f"save by renaming, {effort.files // 4:,} times", script=python(_SAVE)),
        Course(name=f"git status, {effort.tracked:,} files", script="cd r; git status > /dev/null", before=repository),
        Course(
            name=f"install a package of {effort.packages:,} files (tar)",
            before=f"test -e pack.tar && exit; {python(_TREE)}; tar -cf pack.tar -C pack package; rm -r pack",
            script="mkdir n; tar -xf pack.tar -C n; mv n/package node_modules; rmdir n; rm -r node_modules",
        ),
        Course(name="write in sequence", script=python(_WRITE), before="rm -f big", bulk_bytes=effort.bulk_bytes),
        Course(
            name="read in sequence, pages dropped",
            script=python(_READ),
            before="sync big; sleep 1.1; touch -d @1000 big",
            bulk_bytes=effort.bulk_bytes,
        ),
        Course(name="read in sequence, again", script=python(_READ), bulk_bytes=effort.bulk_bytes),
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


Runner = Callable[[str], None]
"""Runs a shell script in the folder to its end; raises `subprocess.CalledProcessError`."""


def measure_folders(directory: Path, effort: FolderEffort, progress: Callable[[str], None]) -> FolderFigures:
    """All courses, round by round, contestants by turns in each."""
    courses = compose_courses(effort)
    absent: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for name, opener in ((PLAIN, _open_plain), (OURS, _open_ours), (BINDFS, _open_bindfs)):
            try:
                runners[name] = stack.enter_context(opener(_make_source(directory, name)))
            except NotInstalled as error:
                absent[name] = str(error)
        seconds: dict[str, dict[str, list[float]]] = {each.name: {name: [] for name in runners} for each in courses}
        for number in range(effort.rounds):
            progress(
                f"folders: round {number + 1} of {effort.rounds}, {len(courses)} courses in {len(runners)} kinds of folder"
            )
            for course in courses:
                for name, run in runners.items():
                    run(course.before)
                    began = time.perf_counter()
                    run(course.script)
                    seconds[course.name][name].append(time.perf_counter() - began)
    return FolderFigures(effort=effort, courses=courses, seconds=seconds, absent=absent)


def compose_folder_rows(figures: FolderFigures) -> list[tuple[str, ...]]:
    """A head, then one row a course: medians, with the ratio to plain, and rates where bytes are moved."""
    names = list(next(iter(figures.seconds.values())))
    rows: list[tuple[str, ...]] = [("", *names)]
    for course in figures.courses:
        rounds = figures.seconds[course.name]
        plain = statistics.median(rounds[PLAIN])
        cells = []
        for name in names:
            median = statistics.median(rounds[name])
            rate = f", {course.bulk_bytes / MIB / median:,.0f} MiB/s" if course.bulk_bytes else ""
            ratio = "" if name == PLAIN else f" ({median / plain:.1f} ×)"
            cells.append(f"{median:.3f} s{rate}{ratio}")
        rows.append((course.name, *cells))
    return rows + [(name, f"not measured: {why}") for name, why in figures.absent.items()]


# -- the contestants ----------------------------------------------------------------------------------------------


def _make_source(directory: Path, name: str) -> Path:
    place = directory / name.replace(" ", "-").replace(",", "")
    place.mkdir()
    owner = SESSION_UID if name == PLAIN else OWNER_UID
    os.chown(place, owner, owner)
    return place


@contextlib.contextmanager
def _open_plain(source: Path) -> Iterator[Runner]:
    become = ["setpriv", f"--reuid={SESSION_UID}", f"--regid={SESSION_UID}", "--clear-groups"]
    yield lambda script: _run([*become, "bash", "-ec", script], cwd=source)


@contextlib.contextmanager
def _open_ours(source: Path) -> Iterator[Runner]:
    with guarded(source, journal=source.parent / "journal") as folder:
        yield lambda script: _run(folder.command("bash", "-ec", script), cwd=source)


@contextlib.contextmanager
def _open_bindfs(source: Path) -> Iterator[Runner]:
    need("bindfs")
    mounted = source.parent / "bindfs-mounted"
    mounted.mkdir()
    owner, session = str(OWNER_UID), str(SESSION_UID)
    options = [f"--force-user={session}", f"--force-group={session}"]
    options += [f"--create-for-user={owner}", f"--create-for-group={owner}", "--chown-ignore", "--chgrp-ignore"]
    with subprocess.Popen(["bindfs", "-f", *options, str(source), str(mounted)]) as child:
        try:
            deadline = time.monotonic() + _READY_S
            while not os.path.ismount(mounted):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise NotInstalled("bindfs does not mount here")
                time.sleep(0.02)
            become = ["setpriv", f"--reuid={SESSION_UID}", f"--regid={SESSION_UID}", "--clear-groups"]
            yield lambda script: _run([*become, "bash", "-ec", script], cwd=mounted)
        finally:
            subprocess.run(["umount", str(mounted)], check=False)
            child.wait(_READY_S)


def _run(argv: list[str], *, cwd: Path) -> None:
    subprocess.run(argv, cwd=cwd, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ENVIRONMENT)


def main() -> None:
    effort = QUICK_FOLDERS if "--quick" in sys.argv[1:] else FULL_FOLDERS
    with tempfile.TemporaryDirectory(prefix="coworkd-bench-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        figures = measure_folders(Path(name), effort, lambda text: print(text, file=sys.stderr, flush=True))
    for row in compose_folder_rows(figures):
        print(" | ".join(row))


if __name__ == "__main__":
    main()
