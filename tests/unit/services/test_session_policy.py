from __future__ import annotations

import msgspec

from coworkd.model.egress import Allowance, EgressLimits, EgressSettings, Inspection, SessionEgress
from coworkd.model.policy import EffectivePolicy, SeccompProgram
from coworkd.services.session_policy import LIST_LIMIT, LIST_LIMIT_CHARACTERS, describe_policy
from tests.unit.services.session_house import profile

PROGRAM = SeccompProgram(sha256="0" * 64, bpf=b"", source="test")


def test_what_holds_is_told_with_what_presets_became() -> None:
    policy = EffectivePolicy(profile=profile(), base_filter=PROGRAM, admin_filter=PROGRAM, narrowed=("pids",))
    layer = EgressSettings(
        source="egress/default.json",
        allowed=("a.example",),
        presets=("python", "node"),
        preset_hosts={"python": ("index.example",)},
        inspect=Inspection(domains=("b.example",), token_sha256=("0" * 64,)),
        warnings=("node allows nothing",),
    )
    egress = SessionEgress(settings=(layer,), upstream="host", limits=EgressLimits(connections=3))
    allowance = Allowance(pattern="c.example", until=5.0)
    told = describe_policy(policy, egress, (allowance,), ("egress",))
    (shown,) = told.egress
    assert shown.presets == {"python": ("index.example",), "node": ()}
    assert (shown.inspected, shown.warnings) == (("b.example",), ("node allows nothing",))
    assert (told.upstream, told.egress_limits.connections, told.allowances) == ("host", 3, (allowance,))
    assert told.narrowed == ("pids", "egress")
    assert "0" * 64 not in repr(told)


def test_long_lists_are_told_as_far_as_a_message_takes_them() -> None:
    """An admin's file may have more patterns than an answer may; what was changed is answered all the same."""
    policy = EffectivePolicy(profile=profile(), base_filter=PROGRAM, admin_filter=PROGRAM)
    layer = EgressSettings(
        source="egress/big.json",
        allowed=tuple(f"h{number}.example" for number in range(5000)),
        denied=("x" * LIST_LIMIT_CHARACTERS, "a.example"),
        warnings=("w" * 200_000,),
    )
    told = describe_policy(policy, SessionEgress(settings=(layer, layer)), (), ())
    shown = told.egress[1]
    assert (len(shown.allowed), len(shown.denied), shown.warnings) == (LIST_LIMIT, 1, ())
    assert shown.left_out == 5000 - LIST_LIMIT + 1 + 1
    assert len(msgspec.msgpack.encode(told)) < 1 << 20
