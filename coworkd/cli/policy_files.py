"""`coworkctl policy check|show|explain|diff`: policies as an admin handles them, as files.

What it adds to a parser: each command sets `handler`, a function of the parsed arguments that returns the exit status and
may raise `CoworkError`. Of the arguments it uses, beside its own: `json` (print JSON), and `call` where the caller has a
link: `call(method, params) -> map`. Without `call`, and always for `check`, `explain` and `diff`, it reads files:
the directories of `--files`, the lowest layer first, else those of the configuration.

Findings are one line each, `file:line: key: message`, on standard output. Exit status of `check`: 0 all right, 1 something found.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from coworkd.config import load_config
from coworkd.model.errors import InvalidParams, NotFound
from coworkd.model.policy import LimitsRequest, Profile
from coworkd.netpolicy.srt import parse_settings
from coworkd.policy import (
    DEFAULT_PROFILE,
    Kind,
    Layer,
    PolicySet,
    flatten,
    load_policies,
    narrow,
    parse_ceiling,
    parse_profile,
    tell_kind,
)
from coworkd.policy.keys import SIZE_KEYS
from coworkd.policy.layers import CEILING
from coworkd.seccomp import Arch, RuleSet, explain, host_arch, host_kernel, load_base, load_oci
from coworkd.seccomp.explain import describe_action, describe_rule
from coworkd.services.policies import describe, read_layer
from coworkd.settings import BadFile, Finding, nearest
from coworkd.settings.json_lines import parse_json
from coworkd.settings.values import size_text

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Call = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
_HERE = "\0"
"""Stands for the layer that holds only the file being checked; no path has a NUL."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `policy` and its commands; `set`, which needs a link, names its handler."""
    policy = subparsers.add_parser("policy", help="check, show, explain, compare and set policies")
    commands = policy.add_subparsers(dest="policy_command", required=True, metavar="COMMAND")
    check = _add(commands, "check", _check, "say what is wrong with policy files, of all kinds, or directories")
    check.add_argument("files", nargs="+", metavar="FILE")
    show = _add(commands, "show", _show, "show what a profile comes to, and which file said so")
    show.add_argument("--profile", metavar="P")
    explained = _add(commands, "explain", _explain, "say whether a syscall is allowed, and by which rule")
    explained.add_argument("--syscall", required=True, metavar="NAME")
    explained.add_argument("--arg", action="append", default=[], metavar="N=V", help="argument N (0 to 5) of the call")
    explained.add_argument("--profile", metavar="P")
    explained.add_argument("--arch", choices=[arch.value for arch in Arch], help="default: this machine's")
    diff = _add(commands, "diff", _diff, "compare two policy files of one kind, or two profiles by name")
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")
    _add_set(commands)


def _add_set(commands: Subparsers) -> None:
    said = "change what holds for a session, from its next connection on"
    parser = commands.add_parser("set", help=said, description=f"{said[0].upper()}{said[1:]}.")
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("--profile", metavar="P", help="another profile")
    settings = parser.add_mutually_exclusive_group()
    settings.add_argument("--egress", metavar="FILE", help="an srt-settings file that narrows the profile's")
    settings.add_argument("--no-egress", action="store_true", help="take such a file away: the profile alone holds")
    parser.add_argument("--keep-open", action="store_true", help="leave connections open that are forbidden now")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    parser.set_defaults(handler="control_session_policy:set_policy")


def _add(commands: Subparsers, name: str, handler: Callable[[argparse.Namespace], int], what: str) -> Any:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    # SUPPRESS: a default here would overwrite a --json that stood before the command.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    said = "a policy directory instead of the configured ones; repeat it for layers, the lowest first"
    parser.add_argument("--files", dest="layers", action="append", metavar="DIR", help=said)
    parser.set_defaults(handler=handler)
    return parser


# -- check --------------------------------------------------------------------------------------------------------


class _Checked(Struct, frozen=True, kw_only=True):
    file: str
    kind: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    """What is right but has no effect, or was left out for this kernel or architecture."""


def _check(args: argparse.Namespace) -> int:
    below = _read_layers(args)
    checked = [_check_one(path, below) for path in args.files]
    if _wants_json(args):
        print(json.dumps({"files": [msgspec.to_builtins(one) for one in checked]}, indent=2))
    else:
        for one in checked:
            lines = [*map(str, one.findings), *(f"{note} (note)" for note in one.notes)]
            print("\n".join(lines if one.findings else [*lines, f"{one.file}: ok ({one.kind})"]))
    return 1 if any(one.findings for one in checked) else 0


def _check_one(path: str, below: Sequence[Layer]) -> _Checked:
    """Everything wrong with one file or directory, seen over the layers `below`."""
    kind = "directory" if os.path.isdir(path) else ""
    try:
        if kind:
            notes = _check_directory(path, below)
        else:
            with open(path, "rb") as stream:
                data = stream.read()
            kind = tell_kind(data, file=path).value
            notes = _check_file(data, path, Kind(kind), below)
    except OSError as error:
        finding = Finding(file=path, line=1, key="", message=f"cannot be read: {error.strerror}")
        return _Checked(file=path, kind=kind, findings=(finding,))
    except InvalidParams as error:
        return _Checked(file=path, kind=kind, findings=_findings(error, path))
    return _Checked(file=path, kind=kind, findings=(), notes=tuple(dict.fromkeys(notes)))


def _check_file(data: bytes, path: str, kind: Kind, below: Sequence[Layer]) -> list[str]:
    if kind is Kind.SECCOMP:
        return _check_seccomp(data, path)
    if kind is Kind.EGRESS:
        return list(parse_settings(data, file=path).warnings)
    if kind is Kind.CEILING:
        parse_ceiling(data, file=path)
        _check_in_place(CEILING, data, path, below)
    else:
        parse_profile(data, file=path)
        _check_in_place(f"profiles/{os.path.basename(path)}", data, path, below)
    return []


def _check_seccomp(data: bytes, path: str) -> list[str]:
    kernel = host_kernel()
    return [note for arch in Arch for note in load_oci(data, name=path, arch=arch, kernel=kernel).warnings]


def _check_in_place(place: str, data: bytes, path: str, below: Sequence[Layer]) -> None:
    """Whether what the file refers to exists once it lies over the layers `below`."""
    try:
        load_policies([*below, Layer(root=_HERE, files={place: data})])
    except BadFile as error:
        own = [
            msgspec.structs.replace(finding, file=path) for finding in error.findings if finding.file.startswith(_HERE)
        ]
        if own:
            raise BadFile(own) from error


def _check_directory(path: str, below: Sequence[Layer]) -> list[str]:
    layer = read_layer(path)
    others = [other for other in below if not _same_place(other.root, path)]
    policies = load_policies([*others, layer])
    findings: list[Finding] = []
    notes: list[str] = []
    for file in policies.seccomp.values():
        try:
            notes.extend(_check_seccomp(file.data, file.file))
        except InvalidParams as error:
            findings.extend(_findings(error, file.file))
    if findings:
        raise BadFile(findings)
    for settings in policies.egress_settings.values():
        notes.extend(f"{settings.source}: {warning}" for warning in settings.warnings)
    return notes


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _findings(error: InvalidParams, path: str) -> tuple[Finding, ...]:
    if isinstance(error, BadFile):
        return error.findings
    file, line = str(error.details.get("file") or path), int(error.details.get("line") or 1)
    message = error.message.removeprefix(f"{file}:{line}: ")
    key = str(error.details.get("key") or "")
    return (Finding(file=file, line=line, key=key, message=message.removeprefix(f"{key}: ")),)


# -- show ---------------------------------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    call: Call | None = getattr(args, "call", None)
    if call is not None and not args.layers:
        shown = dict(call("policy.show", {"profile": args.profile} if args.profile else {}))
    else:
        policies = load_policies(_read_layers(args))
        narrowed, sentences = narrow(_find_profile(policies, args.profile), policies.ceiling, LimitsRequest())
        shown = describe(policies, narrowed, sentences)
    if _wants_json(args):
        print(json.dumps(shown, indent=2))
        return 0
    profile = msgspec.convert(shown, Profile)
    print(f"profile {profile.name}   (there are: {', '.join(shown['profiles'])})")
    sources: Mapping[str, str] = shown["sources"]
    _print_columns((key, _shown_at(key, value), sources.get(key, "")) for key, value in flatten(profile).items())
    for sentence in shown["narrowed"]:
        print(f"narrowed: {sentence}")
    return 0


def _find_profile(policies: PolicySet, name: str | None) -> Profile:
    wanted = name or DEFAULT_PROFILE
    profile = policies.profiles.get(wanted)
    if profile is None:
        close = nearest(wanted, policies.profiles)
        hint = f"; did you mean {close!r}?" if close is not None else ""
        raise NotFound(f"there is no profile {wanted!r}{hint}", key="profile")
    return profile


# -- explain ------------------------------------------------------------------------------------------------------


def _explain(args: argparse.Namespace) -> int:
    policies = load_policies(_read_layers(args))
    profile, _ = narrow(_find_profile(policies, args.profile), policies.ceiling, LimitsRequest())
    arch = Arch(args.arch) if args.arch else host_arch()
    file = policies.seccomp[profile.sandbox.seccomp]
    admin = load_oci(file.data, name=file.file, arch=arch, kernel=host_kernel())
    answer = explain(load_base(profile.sandbox.base, arch), admin, args.syscall, _parse_arguments(args.arg))
    if _wants_json(args):
        print(json.dumps({"profile": profile.name, "arch": arch.value, **msgspec.to_builtins(answer)}, indent=2))
        return 0
    verdict = "allowed" if answer.allowed else "refused"
    print(f"{answer.syscall} ({arch.value} {answer.number}) is {verdict} for profile {profile.name}: {answer.action}")
    print(f"  filter  {answer.filter}")
    print(f"  rule    {answer.rule}")
    if answer.reason:
        print(f"  reason  {answer.reason}")
    if answer.depends_on:
        print(
            f"  depends on {', '.join(f'argument {index}' for index in answer.depends_on)}; taken as 0 here: give --arg"
        )
    return 0


def _parse_arguments(spellings: Iterable[str]) -> dict[int, int]:
    given: dict[int, int] = {}
    for spelling in spellings:
        index, equals, value = spelling.partition("=")
        try:
            if not equals:
                raise ValueError
            parsed = (int(index, 10), int(value, 0))
        except ValueError as error:
            raise InvalidParams(f"--arg {spelling!r} is not N=V, such as 0=40 or 1=0x5412", key="arg") from error
        if parsed[0] in given:
            raise InvalidParams(f"--arg gives argument {parsed[0]} twice", key="arg")
        given[parsed[0]] = parsed[1]
    return given


# -- diff ---------------------------------------------------------------------------------------------------------


def _diff(args: argparse.Namespace) -> int:
    one, other = (_facts(spelling, args) for spelling in (args.a, args.b))
    if one[0] is not other[0]:
        raise InvalidParams(f"{args.a} is {one[0].value}, {args.b} is {other[0].value}; only one kind can be compared")
    differences = [
        (key, one[1].get(key), other[1].get(key))
        for key in [*one[1], *(key for key in other[1] if key not in one[1])]
        if one[1].get(key) != other[1].get(key)
    ]
    if _wants_json(args):
        print(json.dumps([{"key": key, "a": left, "b": right} for key, left, right in differences], indent=2))
        return 0
    for key, left, right in differences:
        if left is not None:
            print(f"- {key} = {left}")
        if right is not None:
            print(f"+ {key} = {right}")
    return 0


def _facts(spelling: str, args: argparse.Namespace) -> tuple[Kind, dict[str, str]]:
    """What a file or a profile's name says, as key → text."""
    if "/" not in spelling and not os.path.exists(spelling):
        policies = load_policies(_read_layers(args))
        flat = flatten(_find_profile(policies, spelling))
        return Kind.PROFILE, {key: _shown_at(key, value) for key, value in flat.items()}
    try:
        with open(spelling, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise NotFound(f"{spelling} cannot be read: {error.strerror}", file=spelling, errno=error.errno) from error
    kind = tell_kind(data, file=spelling)
    if kind in (Kind.PROFILE, Kind.CEILING):
        given = (parse_ceiling if kind is Kind.CEILING else parse_profile)(data, file=spelling)
        return kind, {key: _shown_at(key, item.value) for key, item in given.items()}
    if kind is Kind.SECCOMP:
        return kind, _seccomp_facts(load_oci(data, name=spelling, arch=host_arch(), kernel=host_kernel()))
    parse_settings(data, file=spelling)
    tree, _ = parse_json(data, file=spelling)
    return kind, dict(_leaves(tree, ""))


def _seccomp_facts(ruleset: RuleSet) -> dict[str, str]:
    facts = {"default": describe_action(ruleset.default)}
    for rule in ruleset.rules:
        said = describe_rule(msgspec.structs.replace(rule, line=None))
        facts[rule.syscall] = f"{facts[rule.syscall]}; {said}" if rule.syscall in facts else said
    return facts


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _leaves(inside, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield path, ", ".join(sorted(json.dumps(element, sort_keys=True) for element in value)) or "[]"
    else:
        yield path, json.dumps(value)


# -- what they share ----------------------------------------------------------------------------------------------


def _read_layers(args: argparse.Namespace) -> list[Layer]:
    return [read_layer(directory) for directory in args.layers or load_config().policy_dirs]


def _wants_json(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "json", False))


def _shown_at(key: str, value: Any) -> str:
    return size_text(value) if key in SIZE_KEYS else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_columns(rows: Iterable[tuple[str, str, str]]) -> None:
    table = list(rows)
    widths = [max((len(row[column]) for row in table), default=0) for column in (0, 1)]
    for key, value, source in table:
        print(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip())
