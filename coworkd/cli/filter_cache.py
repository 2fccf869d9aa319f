"""python -m coworkd.cli.filter_cache --arch A --kernel N.N --libseccomp PATH --size N --mtime N --policies DIR --output DIR

Makes the filters that a machine's policies need ahead, on another machine: a guest under emulation would make them for half a minute at
each boot. Each is checked against its rules here, as it would be there; a guest whose policies or libseccomp are others makes its own.
"""

from __future__ import annotations

import getopt
import sys
from pathlib import Path

from coworkd.policy import load_policies
from coworkd.seccomp import Arch, compile_ruleset, load_base, load_oci
from coworkd.seccomp.compile import identify_library
from coworkd.seccomp.egress_filter import load_egress_filter
from coworkd.seccomp.rules import RuleSet
from coworkd.services.policies import read_layer

_OPTIONS = ("arch", "kernel", "libseccomp", "size", "mtime", "policies", "output")


def main(argv: list[str]) -> int:
    """0 once all are there, 2 for unusable arguments."""
    try:
        pairs, rest = getopt.getopt(argv, "", [f"{name}=" for name in _OPTIONS])
        given = {name.removeprefix("--"): value for name, value in pairs}
        major, minor = given["kernel"].split(".")[:2]
        kernel = (int(major), int(minor))
        library = identify_library(given["libseccomp"], int(given["size"]), int(given["mtime"]) * 1_000_000_000)
        arch, policies, output = Arch(given["arch"]), given["policies"], Path(given["output"])
    except (getopt.GetoptError, KeyError, ValueError) as error:
        print(f"filter_cache: {error}\n{__doc__}", file=sys.stderr)
        return 2
    if rest:
        print(f"filter_cache: unexpected {rest[0]!r}", file=sys.stderr)
        return 2
    for ruleset in rulesets(policies, arch, kernel):
        made = compile_ruleset(ruleset, cache_dir=output, library=library)
        print(
            f"{ruleset.source}: {len(made.program.bpf) // 8} instructions by {made.compiler}{made.remark and f', {made.remark}'}"
        )
    return 0


def rulesets(policies: str, arch: Arch, kernel: tuple[int, int]) -> list[RuleSet]:
    """All that a coworkd with these policies compiles as it comes up. Raises `InvalidParams`, `BadFile`."""
    loaded = load_policies([read_layer(policies)])
    return [
        *(load_base(name, arch) for name in ("dev", "strict")),
        *(load_oci(file.data, name=file.file, arch=arch, kernel=kernel) for file in loaded.seccomp.values()),
        load_egress_filter(arch),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
