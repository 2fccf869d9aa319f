"""The admin's filter: OCI seccomp JSON, in the dialect that docker and podman share, as a rule set for one architecture.

Rules
- moby's `default.json` and podman's `seccomp.json` load unchanged and mean what they mean to a container without capabilities:
  `includes.caps` never matches, `excludes.caps` never excludes, `minKernel` and `arches` are judged for the guest.
- Only narrower than there: arguments are compared on the bits the kernel looks at (`argument_widths`), and where rules of one
  syscall overlap the strictest decides (`rules`), also against an unconditional permission, which libseccomp would let win.
- A name that the guest's architecture has not got is left out, with a warning; but a rule stricter than the default whose name no
  architecture knows is an error, for it is a typing mistake that would leave open what it should close.
- A file that does not list the guest's architecture is an error: it would kill every command.
- A rule that compares one argument twice becomes one rule per comparison, as in runc; this is told as a warning.

Does not read files, compile, or know the base filter. Every fault is `InvalidParams` with `file`, `line`, `key`.
Sources: OCI runtime-spec `config-linux.md`; docker docs "Seccomp security profiles"; containers/common `docs/`.
"""

from __future__ import annotations

import re
from itertools import chain

from coworkd.seccomp.argument_widths import argument_mask
from coworkd.seccomp.located_json import Located, fail, nearest_word, parse_json
from coworkd.seccomp.numbers import Arch, exists_elsewhere, nearest, numbers
from coworkd.seccomp.oci_fields import MASKED_EQ, OPERATORS, Fields, read_action
from coworkd.seccomp.rules import LONG_MASK, Action, Condition, Op, Rule, RuleSet

_TOP_KEYS = (
    "defaultAction",
    "defaultErrnoRet",
    "defaultErrno",
    "architectures",
    "archMap",
    "flags",
    "listenerPath",
    "listenerMetadata",
    "syscalls",
)
_SYSCALL_KEYS = ("names", "name", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes")
_ARG_KEYS = ("index", "value", "valueTwo", "op")
_FILTER_KEYS = ("caps", "arches", "minKernel")
_FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)
_ARCHITECTURE_NAMES = """
    X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X
    PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB
"""
_ARCHITECTURES = tuple(f"SCMP_ARCH_{name}" for name in _ARCHITECTURE_NAMES.split())
_GO_ARCH_NAMES = """
    386 amd64 x32 x86 arm arm64 loong64 m68k mips mips3l64 mips3l64n32 mips64 mips64n32 mips64le mipsle mipsel
    mipsel64 mipsel64n32 parisc parisc64 ppc ppc64 ppc64le riscv64 s390 s390x sh sheb
"""
_GO_ARCHES = tuple(_GO_ARCH_NAMES.split())
_OWN_GO_ARCH = {Arch.X86_64: "amd64", Arch.AARCH64: "arm64"}
_KERNEL = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\Z")
_CAPABILITY = re.compile(r"CAP_[A-Z0-9_]+\Z")
_LAST_ARGUMENT = 5


def load_oci(data: bytes, *, name: str, arch: Arch, kernel: tuple[int, int]) -> RuleSet:
    """Read the file `name` for `arch` under `kernel` (major, minor); raises `InvalidParams`. What was left out is in `warnings`."""
    return _Reader(name, arch, kernel).read(parse_json(data, name))


class _Reader:
    """One reading of one file."""

    def __init__(self, name: str, arch: Arch, kernel: tuple[int, int]) -> None:
        self.name, self.arch, self.kernel = name, arch, kernel
        self.warnings: list[str] = []

    def warn(self, line: int, text: str) -> None:
        self.warnings.append(f"{self.name}:{line}: {text}")

    def read(self, root: Located) -> RuleSet:
        top = Fields(self.name, root, "a seccomp profile", _TOP_KEYS)
        default = read_action(top, "defaultAction", "defaultErrnoRet", "defaultErrno")
        self.read_architectures(top)
        for flag, line in top.texts("flags"):
            if flag not in _FLAGS:
                fail(self.name, line, f"flags: {flag!r} is no flag{nearest_word(flag, _FLAGS)}", key="flags")
            self.warn(line, f"{flag} has no effect here: bubblewrap installs filters without flags")
        for key in ("listenerPath", "listenerMetadata"):
            if top.text(key):
                self.warn(root.line, f"{key} has no effect here: nothing is notified")
        rules = [self.read_syscall(node, default) for node in top.array("syscalls")]
        return RuleSet(
            source=self.name,
            arch=self.arch,
            default=default,
            rules=tuple(chain.from_iterable(rules)),
            warnings=tuple(self.warnings),
        )

    def read_architectures(self, top: Fields) -> None:
        listed = [word for word, _ in top.texts("architectures")]
        if listed and top.array("archMap"):
            top.fault("archMap", "stands beside architectures; keep one")
        for node in top.array("archMap"):
            entry = Fields(self.name, node, "an entry of archMap", ("architecture", "subArchitectures"))
            listed.append(entry.chosen("architecture", _ARCHITECTURES))
            for word, line in entry.texts("subArchitectures"):
                self.check_architecture(word, line, "subArchitectures")
        for word, line in top.texts("architectures"):
            self.check_architecture(word, line, "architectures")
        own = f"SCMP_ARCH_{self.arch.value.upper()}"
        if listed and own not in listed:
            key = "archMap" if "archMap" in top else "architectures"
            top.fault(key, f"{own}, this guest's, is not among them, so every command would be killed; add it")

    def check_architecture(self, word: str, line: int, key: str) -> None:
        if word not in _ARCHITECTURES:
            spelling = nearest_word(word, _ARCHITECTURES)
            fail(self.name, line, f"{key}: {word!r} is no architecture{spelling}", key=key)

    def read_syscall(self, node: Located, default: Action) -> list[Rule]:
        fields = Fields(self.name, node, "an entry of syscalls", _SYSCALL_KEYS)
        action = read_action(fields, "action", "errnoRet", "errno")
        names = fields.texts("names")
        single = fields.node("name")
        if single is not None:
            if names:
                fields.fault("name", "stands beside names; keep one")
            names = [(fields.text("name") or "", single.line)]
        if not names:
            fields.fault("names", "is missing or empty: the entry is about no syscall")
        reason = fields.text("comment") or ""
        applies = self.applies(fields)
        arguments = fields.array("args")
        rules: list[Rule] = []
        for syscall, line in names:
            alternatives = self.read_conditions(syscall, arguments)
            number = self.resolve(syscall, line, action, default)
            if applies and number is not None:
                rules.extend(
                    Rule(syscall=syscall, number=number, action=action, conditions=all_of, reason=reason, line=line)
                    for all_of in alternatives
                )
        return rules

    def resolve(self, syscall: str, line: int, action: Action, default: Action) -> int | None:
        number = numbers(self.arch).get(syscall)
        if number is None and not exists_elsewhere(syscall):
            near = nearest(syscall, self.arch)
            spelling = f"; did you mean {near!r}?" if near else ""
            if action.strictness < default.strictness:
                fail(self.name, line, f"names: no architecture has a syscall {syscall!r}{spelling}", key="names")
            self.warn(line, f"no architecture has a syscall {syscall!r}{spelling}; left out")
        return number

    def applies(self, fields: Fields) -> bool:
        """Whether an entry is meant for this guest. Both parts are read even if the first says no, so that both are checked."""
        met = [self.read_filter(fields, "includes"), self.read_filter(fields, "excludes")]
        (caps, arches, kernel), (_, not_arches, not_kernel) = met
        own = _OWN_GO_ARCH[self.arch]
        included = not caps and (not arches or own in arches) and (kernel is None or self.kernel >= kernel)
        excluded = own in not_arches or (not_kernel is not None and self.kernel >= not_kernel)
        return included and not excluded

    def read_filter(self, fields: Fields, key: str) -> tuple[list[str], list[str], tuple[int, int] | None]:
        node = fields.node(key)
        if node is None:
            return [], [], None
        entry = Fields(self.name, node, key, _FILTER_KEYS)
        for word, line in entry.texts("caps"):
            if not _CAPABILITY.match(word):
                fail(self.name, line, f"caps: {word!r} is no capability; they are written CAP_SYS_ADMIN", key="caps")
        for word, line in entry.texts("arches"):
            if word not in _GO_ARCHES:
                spelling = nearest_word(word, _GO_ARCHES)
                fail(self.name, line, f"arches: {word!r} is no architecture{spelling}", key="arches")
        kernel: tuple[int, int] | None = None
        text = entry.text("minKernel")
        if text:
            match = _KERNEL.match(text)
            if match is None:
                entry.fault("minKernel", f"{text!r} is no version; it is written 5.4")
            kernel = (int(match[1]), int(match[2]))
        return [word for word, _ in entry.texts("caps")], [word for word, _ in entry.texts("arches")], kernel

    def read_conditions(self, syscall: str, nodes: list[Located]) -> list[tuple[Condition, ...]]:
        """The alternatives of an entry's `args`; most often one."""
        conditions = [self.read_condition(syscall, node) for node in nodes]
        indexes = [condition.index for condition in conditions]
        if len(set(indexes)) == len(indexes):
            return [tuple(conditions)]
        self.warn(nodes[0].line, f"{syscall}: one argument is compared twice, so each comparison is a rule of its own")
        return [(condition,) for condition in conditions]

    def read_condition(self, syscall: str, node: Located) -> Condition:
        fields = Fields(self.name, node, "an entry of args", _ARG_KEYS)
        index = fields.number("index", most=_LAST_ARGUMENT)
        value, second = fields.number("value"), fields.number("valueTwo") or 0
        operator = fields.chosen("op", (*OPERATORS, MASKED_EQ))
        if index is None or value is None:
            fields.fault("index" if index is None else "value", "is missing")
        width = argument_mask(syscall, index)
        if operator == MASKED_EQ:
            if second & ~value:
                fields.fault("valueTwo", f"{second:#x} has bits outside of the mask {value:#x}, so it never matches")
            if second & ~width:
                fields.fault("valueTwo", f"{second:#x} has bits the kernel does not look at in this argument")
            return Condition(index, Op.EQ, second, value & width)
        if value & ~width and width != LONG_MASK:
            sign = (width >> 1) + 1
            if value != LONG_MASK & ~(width & ~sign) | value & width:
                bits = width.bit_length()
                fields.fault("value", f"the kernel looks at {bits} bits of this argument; {value:#x} does not fit")
            value &= width
        return Condition(index, OPERATORS[operator], value, width)
