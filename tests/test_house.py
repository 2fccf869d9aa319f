"""The rules of the house, as tests: linters, types, floors, sizes, names, docs that run.

Each test names the file, the rule and what to do. What a rule excuses stands in a table here, with its reason.
Files are those that git tracks or would track, so that rubbish in the tree is not judged.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import coworkd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from coworkd.policy import PolicySet

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

MODULE_LINES = 600
FUNCTION_LINES = 60
ADR_LINES = 60

FORBIDDEN_STEMS = frozenset({"utils", "util", "helpers", "helper", "common", "base", "misc"})

NO_MIRROR = {
    "coworkd/egressd/pump.py": "declares Protocols only; tests/unit/egressd/test_exchange.py drives one",
    "coworkd/model/call_shapes.py": "declares types only",
    "coworkd/model/calls_audit.py": "declares types only; tests/unit/services/test_audit_export.py asks by them",
    "coworkd/model/calls_boot.py": "declares types only; tests/unit/services/test_boot_times.py answers by them",
    "coworkd/model/calls_egress.py": "declares types only; tests/unit/wire converts every one of them",
    "coworkd/model/calls_files.py": "declares types only; tests/unit/wire converts every one of them",
    "coworkd/model/calls_folders.py": "declares types only; tests/unit/wire converts every one of them",
    "coworkd/model/calls_process.py": "declares types only; tests/unit/wire converts every one of them",
    "coworkd/model/calls_storage.py": "declares types only; tests/unit/wire converts every one of them",
    "coworkd/model/calls_update.py": "declares types only; tests/unit/services/test_updates.py asks by them",
    "coworkd/model/files.py": "declares types only; tests/unit/workers speaks them",
    "coworkd/model/disk.py": "declares types only",
    "coworkd/model/folder.py": "declares types only",
    "coworkd/model/calls.py": "declares types only; tests/unit/wire converts every one of them",
    "coworkd/model/errors.py": "declares types only; tests/unit/wire/test_fault.py turns every one into bytes and back",
    "coworkd/model/egress.py": "declares types only",
    "coworkd/model/event.py": "declares types only",
    "coworkd/model/launch.py": "declares types only",
    "coworkd/model/measure.py": "declares types only",
    "coworkd/model/network.py": "declares types only",
    "coworkd/model/launch_tree.py": "declares types only",
    "coworkd/model/limits.py": "declares types only",
    "coworkd/model/policy.py": "declares types only",
    "coworkd/model/ports.py": "declares Protocols only; mypy checks them against what is given",
    "coworkd/model/process.py": "declares types only",
    "coworkd/model/session.py": "declares types only",
    "coworkd/model/share.py": "declares types only",
    "coworkd/model/stage.py": "declares types only",
    "coworkd/model/calls_limits.py": "declares types only; tests/unit/services/test_session_limits.py asks by them",
    "coworkd/model/calls_tools.py": "declares types only; tests/unit/services/test_tools.py asks by them",
    "coworkd/model/tool.py": "declares types only; tests/unit/workers/test_tool_fetch.py speaks them",
    "coworkd/model/stream.py": "declares types and a Protocol only",
    "coworkd/model/watch.py": "declares types only",
    "coworkd/proxy/events.py": "declares types only",
    "host_stub/words.py": "declares types and Protocols only",
    "rootfs-build/imagebuild/trouble.py": "declares one exception",
}

TESTED_IN_VM: dict[str, str] = {}
"""What needs a booted guest; the test named is of the gate's vm tier."""

TESTED_AS_ROOT = {
    "coworkd/egressd/lockdown.py": "gives up root for good; tests/root/test_egress_walls.py tries to get over the walls",
    "coworkd/system/discard.py": "tells a real device; tests/root/test_disk.py gives blocks back to the host",
    "coworkd/system/loop_devices.py": "makes real ones; tests/root/test_disk.py puts every disk of its own on one",
    "coworkd/workers/disk.py": "mounts for real; tests/root/test_disk.py talks to it over its socket",
    "coworkd/workers/disk_bring_up.py": "mounts for real; tests/root/test_disk.py brings disks up of every kind",
    "coworkd/workers/disk_steps.py": "formats and repairs for real; tests/root/test_disk.py damages what it has made",
    "coworkd/workers/disk_target.py": "opens real devices; tests/root/test_disk.py has them in use, cut and missing",
    "coworkd/launcher/folder_place.py": "mounts inside a session; tests/root/test_launcher_folders.py looks from there",
    "coworkd/launcher/folder_server.py": "gives up root for good; tests/root/test_launcher_folders.py looks what is left",
    "coworkd/launcher/folders.py": "forks into namespaces; tests/root/test_launcher_folders.py asks it over its socket",
    "coworkd/launcher/processes.py": "reaps every child there is; tests/root/test_launcher.py asks it over its socket",
    "coworkd/launcher/server.py": "is the program itself; tests/root/test_launcher.py talks to it over its socket",
    "coworkd/launcher/sessions.py": "builds and holds namespaces; tests/root/test_launcher.py opens sessions",
    "coworkd/launcher/spawn.py": "forks sandboxes; tests/root/test_launcher.py starts them",
    "coworkd/launcher/worker.py": "gives up root for good; tests/root/test_launcher_workers.py looks at what is left",
    "coworkd/launcher/workers.py": "forks into namespaces; tests/root/test_launcher_workers.py asks it over its socket",
    "coworkd/system/capabilities.py": "gives up root for good; tests/root/test_egress_walls.py looks at what is left",
    "coworkd/system/landlock.py": "closes files for good; tests/root/test_egress_walls.py tries to open them",
    "coworkd/workers/watch_fanotify.py": "marks file systems; tests/root/test_activity_live.py changes files in them",
    "coworkd/launcher/standby.py": "forks into namespaces and cgroups; tests/root/test_launcher.py starts from it",
}
"""What a unit test could only pretend to run. The test named is driven by the gate's root tier."""

MAN_PAGES = {"coworkd.8", "coworkctl.1", "cowork-vm.1", "coworkd.toml.5", "coworkd-policy.5"}

# In parts, so that no tracked file holds such a name, this one included.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("ports", "ubuntu", "com"),
    )
)


def run(*argv: str) -> str | None:
    """What the command printed, where it failed; None where it ended with 0."""
    done = subprocess.run(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return None if done.returncode == 0 else f"$ {shlex.join(argv)}\n{done.stdout}"


def assert_runs(*argv: str) -> None:
    said = run(*argv)
    if said is not None:
        pytest.fail(said, pytrace=False)


def assert_none(title: str, rows: list[str]) -> None:
    if rows:
        pytest.fail(f"{title}\n  " + "\n  ".join(rows), pytrace=False)


def tracked(*patterns: str) -> list[Path]:
    """Files of the project, relative to its root: what git tracks, and what is new and not ignored."""
    git = ("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--")
    done = subprocess.run((*git, *patterns), cwd=ROOT, check=True, capture_output=True, text=True)
    names = sorted(set(done.stdout.split("\0")) - {""})
    return [Path(name) for name in names if (ROOT / name).is_file()]


def text_files() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            yield path, data.decode("utf-8", "replace")


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), filename=str(path))


# -- linters, types, floors ---------------------------------------------------------------------------------------


def test_ruff_finds_nothing() -> None:
    assert_runs(str(BIN / "ruff"), "check", "--no-cache", "--output-format=concise", ".")


def test_ruff_format_changes_nothing() -> None:
    assert_runs(str(BIN / "ruff"), "format", "--no-cache", "--check", "--output-format=concise", ".")


def test_mypy_strict_finds_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = ROOT / ".mypy_cache" if sys.flags.dont_write_bytecode == 0 else tmp_path_factory.mktemp("mypy")
    assert_runs(str(BIN / "mypy"), "--no-color-output", "--cache-dir", str(cache))


def test_import_contracts_hold() -> None:
    assert_runs(str(BIN / "lint-imports"), "--no-logo", "--no-cache", "--config", ".importlinter")


# -- sizes and names ----------------------------------------------------------------------------------------------


def test_modules_are_small() -> None:
    rows = []
    for path in tracked("*.py"):
        lines = (ROOT / path).read_text().count("\n")
        if lines > MODULE_LINES:
            rows.append(f"{path}: {lines} lines")
    assert_none(f"modules over {MODULE_LINES} lines, to be split into rooms:", rows)


def test_functions_are_short() -> None:
    rows = []
    for path in tracked("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    rows.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert_none(f"functions over {FUNCTION_LINES} lines, to be split:", rows)


def exports_only(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
    return False


def test_package_inits_only_export() -> None:
    rows = [
        f"{path}:{statement.lineno} {ast.unparse(statement).splitlines()[0]}"
        for path in tracked("coworkd/*__init__.py", "host_stub/*__init__.py", "rootfs-build/*__init__.py")
        for statement in parsed(path).body
        if not exports_only(statement)
    ]
    assert_none("an __init__ holds more than a docstring, imports, __all__ and __version__:", rows)


def test_modules_say_what_they_are() -> None:
    """The unit tests of a module need not: their place says what they are."""
    rows = [
        str(path)
        for path in tracked("*.py")
        if parsed(path).body and not ast.get_docstring(parsed(path)) and not is_mirror(path)
    ]
    assert_none("modules without a docstring:", rows)


def test_names_say_what_a_module_is_for() -> None:
    rows = [str(path) for path in tracked("*.py") if FORBIDDEN_STEMS & {*path.parent.parts, path.stem}]
    assert_none(f"a module or room is called one of {sorted(FORBIDDEN_STEMS)}:", rows)


def is_mirror(path: Path) -> bool:
    return path.parts[:2] == ("tests", "unit") and path.name.startswith("test_")


# -- the tests mirror the modules ---------------------------------------------------------------------------------


def modules_that_need_a_mirror() -> list[Path]:
    there = tracked("coworkd/*.py", "host_stub/*.py", "rootfs-build/imagebuild/*.py")
    return [path for path in there if path.stem not in ("__init__", "__main__")]


def mirror_of(module: Path) -> Path:
    """`coworkd/` has no room of its own in tests/unit, the two others have."""
    inner = module.parts[:-1] if module.parts[0] == "host_stub" else module.parts[1:-1]
    return Path("tests/unit", *inner, f"test_{module.name}")


def test_each_module_has_its_unit_test() -> None:
    there = set(tracked("tests/unit/*.py"))
    rows = [
        f"{module}: no {mirror_of(module)}"
        for module in modules_that_need_a_mirror()
        if str(module) not in {*NO_MIRROR, *TESTED_AS_ROOT, *TESTED_IN_VM} and mirror_of(module) not in there
    ]
    assert_none("modules without their mirror in tests/unit:", rows)


def test_each_unit_test_has_its_module() -> None:
    mirrors = {mirror_of(module) for module in modules_that_need_a_mirror()}
    rows = [str(path) for path in tracked("tests/unit/*.py") if is_mirror(path) and path not in mirrors]
    assert_none("unit tests of no module (renamed or moved?):", rows)


@pytest.mark.parametrize("name", sorted(TESTED_AS_ROOT | TESTED_IN_VM))
def test_modules_tested_elsewhere_name_their_test(name: str) -> None:
    """The module is there and has no mirror by now, and so is the test that stands for one."""
    named = re.findall(r"tests/(?:root|vm)/test_\w+\.py", (TESTED_AS_ROOT | TESTED_IN_VM)[name])
    assert named
    assert {Path(name), *map(Path, named)} <= set(tracked("*.py"))
    assert mirror_of(Path(name)) not in set(tracked("tests/unit/*.py"))


@pytest.mark.parametrize("name", sorted(NO_MIRROR))
def test_modules_without_a_mirror_declare_only(name: str) -> None:
    """An excuse holds as long as the module has no behaviour of its own: an `__init__` that stores is all there is."""
    bodies = [
        f"{name}:{node.lineno} {node.name}"
        for node in ast.walk(parsed(Path(name)))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "__init__" and has_body(node)
    ]
    assert_none("a module excused from a unit test has code by now: give it one, and take it off NO_MIRROR:", bodies)


def has_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)) for line in function.body)


# -- what must not stand in the tree ------------------------------------------------------------------------------


def test_no_file_names_a_package_registry() -> None:
    rows = [
        f"{path}: {host}"
        for path, text in text_files()
        for host in REGISTRY_HOSTS
        if re.search(rf"(?<![\w]){re.escape(host)}", text)
    ]
    assert_none("the locks and docs must work behind any mirror:", rows)


def test_no_file_holds_a_path_of_this_machine() -> None:
    places = {"/".join(("", "work", place)) for place in ("main", "shared", ".library", ".mirror")}
    places.add("/".join(("", "root", ".pyenv")))
    places |= {str(place) for place in (ROOT, Path.home()) if len(place.parts) > 2}
    rows = [
        f"{path}:{number} {place}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        for place in sorted(places)
        if place in line
    ]
    assert_none("paths that exist on one machine only:", rows)


def test_locks_hold_pins_and_hashes_only() -> None:
    line = re.compile(r"[a-z0-9-]+==[^ ]+( ; .*)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    rows = [
        f"{path}:{number} {text}"
        for path in tracked("requirements/*.lock")
        for number, text in enumerate((ROOT / path).read_text().splitlines(), 1)
        if not line.fullmatch(text)
    ]
    assert_none("a lock holds a line that is neither a pin nor a hash:", rows)


def test_locks_cover_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        "runtime": project["dependencies"],
        "host": project["dependencies"] + project["optional-dependencies"]["host"],
        "test": project["dependencies"] + project["optional-dependencies"]["test"],
    }
    rows = []
    for lock, requirements in asked.items():
        pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / f"{lock}.lock").read_text(), re.M))
        rows += [f"{lock}.lock lacks {name}" for name in map(name_of, requirements) if name not in pinned]
    assert_none("run `make lock`:", rows)


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


# -- docs ---------------------------------------------------------------------------------------------------------


def test_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == coworkd.__version__


def test_changelog_has_an_unreleased_part() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_decisions_are_short_and_listed() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    rows = []
    for path in tracked("docs/adr/[0-9]*.md"):
        text = (ROOT / path).read_text()
        if text.count("\n") > ADR_LINES:
            rows.append(f"{path}: {text.count(chr(10))} lines, {ADR_LINES} at most")
        if f"({path.name})" not in index:
            rows.append(f"{path}: not in docs/adr/README.md")
        for part in ("## Context", "## Decision", "## Consequences", "## What would change our mind"):
            if part not in text:
                rows.append(f"{path}: no {part!r}")
    assert_none("decisions that do not follow docs/adr/template.md:", rows)


def test_man_pages_are_all_there() -> None:
    there = {path.name for path in tracked("docs/man/*")}
    assert_none("man pages that are missing:", sorted(MAN_PAGES - there))
    assert_none("man pages that test_house.py does not know:", sorted(there - MAN_PAGES))


@pytest.mark.parametrize("page", sorted(MAN_PAGES))
def test_man_page_builds_without_a_warning(page: str) -> None:
    assert shutil.which("mandoc"), "mandoc is not installed: ./setup test installs it"
    if (ROOT / "docs/man" / page).exists():  # test_man_pages_are_all_there tells of a missing one
        assert_runs("mandoc", "-T", "lint", "-W", "warning", f"docs/man/{page}")


def test_links_between_docs_lead_somewhere() -> None:
    rows = []
    for path in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / path).read_text()):
            if "://" not in target and not (ROOT / path.parent / target).exists():
                rows.append(f"{path}: {target}")
    assert_none("links that lead nowhere:", rows)


def command_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The commands of a doc's `sh` and `console` blocks, as words, with `sudo`, prompt and .venv/bin/ taken off."""
    fenced = False
    pending = ""
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = line.strip() in ("```sh", "```console") and not fenced
            continue
        if not fenced:
            continue
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        words = shlex.split(pending.removeprefix("$ "), comments=True)
        pending = ""
        while words and (words[0] in ("sudo", "-E") or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            words = words[1:]
        if words:
            yield number, [words[0].removeprefix(".venv/bin/"), *words[1:]]


def documented(program: str) -> list[tuple[str, list[str]]]:
    return [
        (f"{path}:{number}", words[1:])
        for path in tracked("README.md", "CONTRIBUTING.md", "docs/*.md")
        for number, words in command_lines(path)
        if words[0] == program
    ]


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    rows = [
        f"{where}: make {word}"
        for where, words in documented("make")
        for word in words
        if "=" not in word and word not in targets
    ]
    assert_none("the docs name targets that the Makefile does not have:", rows)


def test_make_help_tells_every_target() -> None:
    done = subprocess.run(("make", "help"), cwd=ROOT, check=True, capture_output=True, text=True)
    for target in ("setup", "demo", "test", "unit", "root-test", "fuzz", "lint", "bench", "vectors", "man", "lock"):
        assert re.search(rf"^  make {target} +\S", done.stdout, re.M), f"make help does not tell {target!r}"


def assert_parses(parse: Callable[[list[str]], object], program: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = documented(program)
    assert examples, f"no document shows how to call {program}"
    rows = []
    for where, words in examples:
        try:
            parse(words)
        except SystemExit as end:
            if end.code != 0:  # --help and --version end with 0
                said = capsys.readouterr().err.strip().splitlines() or ["(nothing on standard error)"]
                rows.append(f"{where}: {program} {shlex.join(words)}\n      {said[-1]}")
    assert_none(f"the docs show calls that {program} refuses:", rows)


def test_documented_coworkctl_calls_parse(capsys: pytest.CaptureFixture[str]) -> None:
    from coworkd.cli.control_args import parse

    assert_parses(parse, "coworkctl", capsys)


def parse_cowork_vm(words: list[str]) -> None:
    """Go down the groups as click does, without running anything; what is coworkctl's is parsed as its own."""
    import click

    from coworkd.cli.control_args import parse
    from host_stub.cli.commands import cowork_vm

    command: click.Command | None = cowork_vm
    context = cowork_vm.make_context("cowork-vm", list(words))
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    passed_on = {"exec": ["run"], "shell": ["shell"], "tool": ["tool"], "ctl": []}
    if context.info_name in passed_on and context.parent is not None and context.parent.parent is None:
        parse([*passed_on[context.info_name], *context.params["words"]])


def test_documented_cowork_vm_calls_parse() -> None:
    import click

    rows = []
    for where, words in documented("cowork-vm"):
        try:
            parse_cowork_vm(words)
        except (click.ClickException, SystemExit) as error:
            rows.append(f"{where}: cowork-vm {shlex.join(words)}\n      {error}")
    assert_none("the docs show calls that cowork-vm refuses:", rows)
    assert documented("cowork-vm"), "no document shows how to call cowork-vm"


def test_documented_coworkd_calls_parse(capsys: pytest.CaptureFixture[str]) -> None:
    from coworkd.cli.daemon import build_parser

    assert_parses(build_parser().parse_args, "coworkd", capsys)


# Rooms are imported where they are used: one that does not import fails its own test here and no other.


def shipped_policies() -> PolicySet:
    from coworkd.policy import Layer, load_policies

    files = {path.relative_to("policies").as_posix(): (ROOT / path).read_bytes() for path in tracked("policies/*")}
    return load_policies([Layer(root="policies", files=files)])


def test_shipped_policies_load() -> None:
    assert {"default", "strict"} <= set(shipped_policies().profiles)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_shipped_seccomp_profiles_load(machine: str) -> None:
    from coworkd.seccomp.numbers import Arch
    from coworkd.seccomp.oci import load_oci

    files = shipped_policies().seccomp
    assert "default" in files
    for file in files.values():
        load_oci(file.data, name=file.file, arch=Arch(machine), kernel=(6, 1))
