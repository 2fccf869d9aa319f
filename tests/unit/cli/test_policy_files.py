"""`cli.policy_files`: what an admin types, what comes out, and the exit status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coworkd.cli.policy_files import add_parser
from coworkd.model.errors import InvalidParams, NotFound
from tests.unit.policy.policy_layers import SECCOMP, SRT, VENDOR_FILES

NO_SOCKETS = json.dumps(
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 13,
                "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}],
            }
        ],
    },
    indent=1,
)


class Shell:
    """Runs `coworkctl policy …` in a directory with a vendor layer in `vendor/`."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys
        for path, text in VENDOR_FILES.items():
            self.write(f"vendor/{path}", text)

    def write(self, path: str, text: str) -> str:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return str(target)

    def run(self, command: str, *words: str, **context: Any) -> tuple[int, str]:
        """`context` is what coworkctl adds to the arguments: `json`, `call`."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--json", action="store_true")
        add_parser(parser.add_subparsers())
        before = ["--json"] if context.pop("json", False) else []
        args = parser.parse_args([*before, "policy", command, "--files", str(self.root / "vendor"), *words])
        if "call" in context:
            args.layers = None
        vars(args).update(context)
        return args.handler(args), self._capsys.readouterr().out


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_check_tells_each_kind_of_good_file(shell: Shell) -> None:
    files = [
        shell.write("a.toml", 'inherits = "default"\n'),
        shell.write("ceiling.toml", "[limits]\nnofile = 3\n"),
        shell.write("s.json", SECCOMP),
        shell.write("e.json", SRT),
        str(shell.root / "vendor"),
    ]
    status, out = shell.run("check", *files)
    assert status == 0
    kinds = ["profile", "ceiling", "seccomp", "egress", "directory"]
    assert out.splitlines() == [f"{file}: ok ({kind})" for file, kind in zip(files, kinds, strict=True)]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("p.toml", 'inherits = "default"\n[limits]\nnofil = 3\n', "3: limits.nofil: "),
        ("p.toml", 'inherits = "defult"\n', "1: inherits: there is no profile 'defult'; did you mean 'default'?"),
        ("p.toml", "[limits]\nnofile = 3\n", "1: sandbox.base: is missing"),
        ("p.toml", "a = 1\na = 2\n", "2: a: is given twice"),
        ("P.toml", 'inherits = "default"\n', "1: has a name nobody can refer to"),
        ("ceiling.toml", '\n[egress]\nsettings = ["web"]\n', "3: egress.settings: there is no egress/web.json"),
        ("s.json", '{"defaultAction": "SCMP_ACT_ALLOW",\n"defaultAction": "SCMP_ACT_ALLOW"}', "2: defaultAction: "),
        ("e.json", SRT.replace('"allowedDomains":[]', '"allowedDomains":["*.com"]'), "1: network.allowedDomains[0]: "),
        ("x.json", '{"defaultActon": 1}', "1: defaultActon: "),
        ("x.json", "{", "1: is not JSON"),
    ],
)
def test_check_tells_file_line_and_key(shell: Shell, name: str, text: str, place: str) -> None:
    file = shell.write(name, text)
    status, out = shell.run("check", file)
    assert status == 1
    assert out.startswith(f"{file}:{place}")
    assert len(out.splitlines()) == 1


def test_check_of_a_missing_file_is_a_finding(shell: Shell) -> None:
    status, out = shell.run("check", "/nowhere/x.toml")
    assert (status, out) == (1, "/nowhere/x.toml:1: cannot be read: No such file or directory\n")


def test_check_goes_on_after_a_bad_file(shell: Shell) -> None:
    bad, good = shell.write("b.toml", "x = 1\n"), shell.write("e.json", SRT)
    status, out = shell.run("check", bad, good)
    assert status == 1
    assert out.splitlines()[-1] == f"{good}: ok (egress)"


def test_check_of_a_directory_looks_into_its_seccomp_files(shell: Shell) -> None:
    shell.write("etc/seccomp/mine.json", '{\n"defaultAction": "SCMP_ACT_ALOW"}')
    status, out = shell.run("check", str(shell.root / "etc"))
    assert status == 1
    assert out.startswith(f"{shell.root}/etc/seccomp/mine.json:2: defaultAction: ")


def test_check_notes_what_does_nothing_in_settings(shell: Shell) -> None:
    idle = SRT.replace('"network":{', '"allowPty":true,"network":{')
    file = shell.write("etc/egress/default.json", idle)
    note = "allowPty does nothing here: it is for macOS (note)"
    assert shell.run("check", file) == (0, f"{note}\n{file}: ok (egress)\n")
    status, out = shell.run("check", str(shell.root / "etc"))
    assert (status, out.splitlines()[0]) == (0, f"{file}: {note}")


def test_check_speaks_json_whether_asked_before_or_after_the_command(shell: Shell) -> None:
    bad = shell.write("b.toml", "x = 1\n")
    for status, out in (shell.run("check", bad, json=True), shell.run("check", "--json", bad)):
        assert status == 1
        (one,) = json.loads(out)["files"]
        assert (one["file"], one["kind"]) == (bad, "profile")
        assert one["findings"][0]["line"] == 1


def test_show_from_files_tells_values_and_where_they_come_from(shell: Shell) -> None:
    shell.write("vendor/ceiling.toml", "[limits]\npids_max = 7\n")
    status, out = shell.run("show")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["limits.nofile", "4096", f"{shell.root}/vendor/profiles/default.toml:17"] in lines
    assert ["folders.modes", "[ro,", "rw,", "rwd,", "staged]", f"{shell.root}/vendor/profiles/default.toml:24"] in lines
    assert "narrowed: limits.pids_max: profile 'default' says 1024, the ceiling leaves 7" in out


def test_show_asks_the_daemon_where_there_is_a_link(shell: Shell) -> None:
    _, out = shell.run("show", json=True)
    asked: list[tuple[str, Mapping[str, Any]]] = []

    def call(method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append((method, params))
        return {**json.loads(out), "name": "remote"}

    status, shown = shell.run("show", "--profile", "remote", call=call)
    assert status == 0
    assert asked == [("policy.show", {"profile": "remote"})]
    assert shown.startswith("profile remote ")


def test_show_of_an_unknown_profile_is_not_found(shell: Shell) -> None:
    with pytest.raises(NotFound, match="did you mean 'default'"):
        shell.run("show", "--profile", "defalt")


def test_explain_names_filter_and_rule(shell: Shell) -> None:
    status, out = shell.run("explain", "--syscall", "unshare")
    assert status == 0
    assert "unshare" in out
    assert "is refused for profile default: ERRNO(EPERM)" in out
    assert "base:dev" in out


def test_explain_takes_arguments_and_the_architecture(shell: Shell) -> None:
    shell.write("vendor/seccomp/default.json", NO_SOCKETS)
    words = ["explain", "--syscall", "socket", "--arch", "aarch64", "--json"]
    refused = json.loads(shell.run(*words, "--arg", "0=0x2")[1])
    assert (refused["allowed"], refused["action"], refused["arch"]) == (False, "ERRNO(EACCES)", "aarch64")
    assert json.loads(shell.run(*words, "--arg", "0=1", "--arg", "2=0")[1])["allowed"] is True


def test_explain_says_which_arguments_it_took_as_zero(shell: Shell) -> None:
    _, out = shell.run("explain", "--syscall", "ioctl")
    assert "depends on argument 1; taken as 0 here: give --arg" in out


@pytest.mark.parametrize("spelling", ["0", "x=1", "0=y", "=", "0=1.5"])
def test_explain_refuses_arguments_it_cannot_read(shell: Shell, spelling: str) -> None:
    with pytest.raises(InvalidParams, match="is not N=V"):
        shell.run("explain", "--syscall", "socket", "--arg", spelling)


def test_explain_refuses_an_argument_given_twice(shell: Shell) -> None:
    with pytest.raises(InvalidParams, match="twice"):
        shell.run("explain", "--syscall", "socket", "--arg", "0=1", "--arg", "0=2")


def test_diff_of_profiles_by_name(shell: Shell) -> None:
    shell.write("vendor/profiles/small.toml", 'inherits = "default"\n[limits]\nnofile = 8\n[folders]\nmodes = ["ro"]\n')
    status, out = shell.run("diff", "default", "small")
    assert status == 0
    assert out.splitlines() == [
        "- limits.nofile = 4096",
        "+ limits.nofile = 8",
        "- folders.modes = [ro, rw, rwd, staged]",
        "+ folders.modes = [ro]",
    ]


def test_diff_of_settings_files_does_not_mind_order(shell: Shell) -> None:
    one = shell.write("a.json", SRT.replace('"allowedDomains":[]', '"allowedDomains":["b.c","a.b"]'))
    two = shell.write("b.json", SRT.replace('"allowedDomains":[]', '"allowedDomains":["a.b","b.c"]'))
    assert shell.run("diff", one, two) == (0, "")


def test_diff_of_seccomp_files_names_syscalls(shell: Shell) -> None:
    one, two = shell.write("a.json", SECCOMP), shell.write("b.json", NO_SOCKETS)
    _, out = shell.run("diff", one, two, "--json")
    (change,) = json.loads(out)
    assert (change["key"], change["a"]) == ("socket", None)
    assert "ERRNO(EACCES)" in change["b"]


def test_diff_of_two_kinds_is_refused(shell: Shell) -> None:
    one, two = shell.write("a.json", SECCOMP), shell.write("b.json", SRT)
    with pytest.raises(InvalidParams, match="only one kind"):
        shell.run("diff", one, two)


def test_diff_of_a_missing_file_is_not_found(shell: Shell) -> None:
    with pytest.raises(NotFound, match="cannot be read"):
        shell.run("diff", "/nowhere/a.json", "default")
