"""What a soak says at its end: what was held after warming up and at the end, how memory went, and what became of every command. Pure.

Counts (descriptors, threads, processes, zombies, cgroups, mounts, namespaces) may not be more at the end than after warming up. Memory may
grow by `ROOM_KIB` of each program, which is what bounded rings and tables take until they are full; behind that it has to be flat: of the
looks at full tables, the later half may be higher in its mean than the earlier by `LEVEL_KIB`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from msgspec import Struct

from tests.root.accounting import IDLE_THREADS, grown

ROOM_KIB = {"coworkd": 32 * 1024, "launcher": 3 * 1024, "egress": 3 * 1024, "others": 12 * 1024}
"""Of coworkd: events and answers that are kept, each 8 MiB as they are sent, with what Python keeps around them."""
LEVEL_KIB = {"coworkd": 1024, "launcher": 192, "egress": 512, "others": 2048}
"""What allocators, and garbage until it is collected, move up and down by themselves."""
LEVEL_LOOKS = 6
"""Fewer say nothing about that."""


class Look(Struct, frozen=True, kw_only=True):
    """One look while nothing runs."""

    at_s: float
    held: Mapping[str, int]
    memory_kib: Mapping[str, int]


class Statement(Struct, frozen=True, kw_only=True):
    """`looks` begins with the one after warming up, and ends with `full` looks at one coworkd whose tables are full; `faults` and
    `outcomes` count what was done and what came of it."""

    seed: int
    minutes: float
    looks: Sequence[Look]
    full: int = 0
    faults: Mapping[str, int]
    outcomes: Mapping[str, int]
    wrong: Sequence[str]

    def problems(self) -> list[str]:
        """Why it did not pass; empty where it did."""
        found = list(self.wrong)
        if not self.looks:
            return [*found, "it came to no look"]
        first, last = self.looks[0], self.looks[-1]
        for name, (before, after) in sorted(grown(first.held, last.held).items()):
            if name not in IDLE_THREADS:
                told = " ".join(str(look.held.get(name, 0)) for look in self.looks)
                found.append(f"{name}: {before} after warming up, {after} at the end; look by look: {told}")
        for name, room in ROOM_KIB.items():
            more = last.memory_kib.get(name, 0) - first.memory_kib.get(name, 0)
            if more > room:
                found.append(f"{name} grew by {more} KiB, more than {room}")
        for name, level in LEVEL_KIB.items():
            if (risen := self.risen_kib(name)) > level:
                found.append(
                    f"{name} is not flat with full tables: its mean rose by {risen:.0f} KiB, more than {level}"
                )
        return found

    def risen_kib(self, name: str) -> float:
        """How much higher the later half of the looks at full tables is than the earlier one; 0 for too few."""
        if self.full < LEVEL_LOOKS:
            return 0.0
        kept = [look.memory_kib.get(name, 0) for look in self.looks[-self.full :]]
        half = len(kept) // 2
        return fmean(kept[-half:]) - fmean(kept[:half])

    def lines(self) -> list[str]:
        """For people: a table of memory, then the counts."""
        names = sorted(self.looks[0].memory_kib) if self.looks else []
        said = [f"{self.minutes:.1f} minutes, seed {self.seed}", ""]
        said += [f"{'minute':>8}" + "".join(f"{name + ' KiB':>16}" for name in names) + f"{'descriptors':>14}"]
        for look in self.looks:
            memory = "".join(f"{look.memory_kib.get(name, 0):>16,}" for name in names)
            said.append(f"{look.at_s / 60:>8.1f}{memory}{descriptors(look.held):>14}")
        said += [
            f"{'slope':>8}" + "".join(f"{slope(self.looks, name):>+16.1f}" for name in names) + "   KiB a minute",
            f"{'risen':>8}"
            + "".join(f"{self.risen_kib(name):>+16.1f}" for name in names)
            + f"   KiB, last {self.full} looks",
            "",
        ]
        said += [f"{'faults':>10}: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))]
        said += [f"{'commands':>10}: " + ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))]
        problems = self.problems()
        said += [f"NOT PASSED: {each}" for each in problems] or [
            "passed: nothing grew, and every command is accounted for"
        ]
        return said


def descriptors(held: Mapping[str, int]) -> int:
    """All that both programs hold open."""
    others = ("threads", "mounts")
    programs = ("coworkd: ", "launcher: ", "egress: ")
    return sum(count for name, count in held.items() if name.startswith(programs) and not name.endswith(others))


def slope(looks: Sequence[Look], name: str) -> float:
    """KiB a minute by least squares; 0 for one look."""
    points = [(look.at_s / 60, look.memory_kib.get(name, 0)) for look in looks]
    if not points:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
