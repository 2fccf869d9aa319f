"""The words of a filter: actions, conditions, rules, rule sets.

What a rule set means (this text is the specification; `verdict` is the same as code, `generate` compiles it, and every
compiled program is compared with it):

1. A call whose architecture is not the rule set's own is KILL_PROCESS. On x86_64, a number from the x32 bit up (but
   not -1) is ERRNO(ENOSYS).
2. Of the rules for its number whose conditions all hold, the one with the strictest action decides; between equals, the
   first. The order of strictness is the kernel's own.
3. Where none holds, the default action decides.

A condition compares `argument & mask` with `value`, unsigned. An argument that the kernel reads as an `int` has mask
0xffffffff: what stands in its upper half never matters, so it cannot be used to slip past.

Does not know BPF, files or libseccomp. Sources: seccomp(2) (return values and their precedence).
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from coworkd.seccomp.numbers import Arch

INT_MASK = 0xFFFF_FFFF
LONG_MASK = 0xFFFF_FFFF_FFFF_FFFF
MAX_ERRNO = 4095
"""The kernel clamps greater ones (`MAX_ERRNO` of linux/err.h), so they are not accepted."""


class Kind(str, Enum):
    """What a filter can answer, the strictest first."""

    KILL_PROCESS = "kill_process"
    KILL_THREAD = "kill_thread"
    TRAP = "trap"
    ERRNO = "errno"
    LOG = "log"
    ALLOW = "allow"


_RETURN_VALUES = {
    Kind.KILL_PROCESS: 0x8000_0000,
    Kind.KILL_THREAD: 0x0000_0000,
    Kind.TRAP: 0x0003_0000,
    Kind.ERRNO: 0x0005_0000,
    Kind.LOG: 0x7FFC_0000,
    Kind.ALLOW: 0x7FFF_0000,
}
_STRICTNESS = {kind: place for place, kind in enumerate(Kind)}


class Action(Struct, frozen=True):
    """An answer; `errno` only means something for `Kind.ERRNO`."""

    kind: Kind
    errno: int = 0

    @property
    def return_value(self) -> int:
        """The SECCOMP_RET_* value a program returns."""
        return _RETURN_VALUES[self.kind] | (self.errno if self.kind is Kind.ERRNO else 0)

    @property
    def strictness(self) -> int:
        """0 is the strictest."""
        return _STRICTNESS[self.kind]


ALLOW = Action(Kind.ALLOW)
KILL_PROCESS = Action(Kind.KILL_PROCESS)
FOREIGN_ARCH = KILL_PROCESS
X32 = Action(Kind.ERRNO, 38)


class Op(str, Enum):
    """How `argument & mask` is compared with `value`, unsigned."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GE = "ge"
    GT = "gt"


class Condition(Struct, frozen=True):
    """One comparison of one argument (`index` 0 to 5)."""

    index: int
    op: Op
    value: int
    mask: int = LONG_MASK

    def holds(self, argument: int) -> bool:
        """Whether an argument of 64 bits meets it."""
        left, right = argument & self.mask, self.value
        if self.op is Op.EQ:
            return left == right
        if self.op is Op.NE:
            return left != right
        if self.op is Op.LT:
            return left < right
        if self.op is Op.LE:
            return left <= right
        return left >= right if self.op is Op.GE else left > right


class Rule(Struct, frozen=True, kw_only=True):
    """One rule for one syscall: all `conditions` must hold. `reason` says why it is there, `line` where (OCI files)."""

    syscall: str
    number: int
    action: Action
    conditions: tuple[Condition, ...] = ()
    reason: str = ""
    line: int | None = None

    def holds(self, arguments: tuple[int, ...]) -> bool:
        """Whether a call of this number with these six arguments meets every condition."""
        return all(condition.holds(arguments[condition.index]) for condition in self.conditions)


class RuleSet(Struct, frozen=True, kw_only=True):
    """A whole filter for one architecture. `source` is for people: `base:dev`, or the name of a file."""

    source: str
    arch: Arch
    default: Action
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...] = ()
