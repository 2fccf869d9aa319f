"""Where packages come from: the mirrors this machine itself uses, or what the person who builds says.

The builder knows no mirror by name. Without `--mirror` it takes those of this machine's APT sources that are of the wanted suite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from imagebuild.recipe import Suite
from imagebuild.trouble import Trouble

APT_DIRECTORY = Path("/etc/apt")
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?:\s+(?P<components>.*))?\Z")


def compose_mirror_sources(mirrors: Sequence[str], suite: Suite, *, keyring: str = "") -> tuple[str, ...]:
    """Sources for `--mirror URL`, each asked for the suite and its updates; a mirror may also be a whole `deb …` line."""
    option = f"[signed-by={keyring}] " if keyring else ""
    lines = []
    for mirror in mirrors:
        if mirror.startswith("deb "):
            lines.append(mirror)
        elif re.match(r"(https?|file|copy)://\S+\Z|(file|copy):/\S+\Z", mirror):
            pockets = (suite.name, f"{suite.name}-updates")
            lines += [f"deb {option}{mirror} {pocket} {' '.join(suite.components)}" for pocket in pockets]
        else:
            raise Trouble(
                f"--mirror {mirror!r} is neither the URL of a mirror nor a line such as 'deb URL SUITE COMPONENTS'"
            )
    return ("".join(f"{line}\n" for line in lines),) if lines else ()


def find_own_sources(suite: Suite, *, directory: Path = APT_DIRECTORY) -> tuple[str, ...]:
    """This machine's own APT sources that are of `suite`. Raises `Trouble` where there are none."""
    found = []
    for path in _source_files(directory):
        text = path.read_text(errors="replace")
        wanted = _wanted_stanzas(text, suite.name) if path.suffix == ".sources" else _wanted_lines(text, suite.name)
        found += [wanted] if wanted else []
    if not found:
        raise Trouble(
            f"no APT source of this machine is of {suite.name}; name a mirror by --mirror URL, and --keyring FILE where its signature "
            "is by a key this machine does not trust"
        )
    return tuple(found)


def _source_files(directory: Path) -> Iterable[Path]:
    one = directory / "sources.list"
    if one.exists():
        yield one
    parts = directory / "sources.list.d"
    if parts.is_dir():
        yield from sorted(path for path in parts.iterdir() if path.suffix in (".list", ".sources"))


def _of_suite(word: str, suite: str) -> bool:
    return word == suite or word.startswith(f"{suite}-")


def _wanted_lines(text: str, suite: str) -> str:
    """The lines of a one-line-style file that are of the suite."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    matches = [match for line in lines if (match := _ONE_LINE.match(line))]
    return "".join(f"{match.group(0)}\n" for match in matches if _of_suite(match["suite"], suite))


def _wanted_stanzas(text: str, suite: str) -> str:
    """The stanzas of a deb822-style file that name the suite and are not switched off, without their comments and architectures."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        fields = {
            line.partition(":")[0].strip().lower(): line.partition(":")[2].strip() for line in lines if ":" in line
        }
        if fields.get("enabled", "yes").lower() in ("no", "false") or "deb" not in fields.get("types", "").split():
            continue
        if any(_of_suite(word, suite) for word in fields.get("suites", "").split()):
            found.append("\n".join(line for line in lines if not line.lower().startswith("architectures:")))
    return "\n\n".join(found) + "\n" if found else ""
