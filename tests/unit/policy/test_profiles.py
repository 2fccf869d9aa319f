"""`policy.profiles`: layers, inheritance, and all that can be wrong with a set."""

from __future__ import annotations

import pytest

from coworkd.policy.layers import Layer
from coworkd.policy.profiles import load_policies, parse_profile
from coworkd.settings import BadFile, Finding
from tests.unit.policy.policy_layers import SRT, make_layer, make_vendor

MIB = 1 << 20


def refusal(*layers: Layer) -> tuple[Finding, ...]:
    with pytest.raises(BadFile) as caught:
        load_policies(layers)
    return caught.value.findings


def test_the_vendors_layer_alone_is_a_set() -> None:
    policies = load_policies([make_vendor()])
    assert list(policies.profiles) == ["default"]
    assert policies.profiles["default"].limits.memory_max_bytes == 2800 * MIB
    assert policies.sources["default"]["limits.memory_max"] == "/vendor/profiles/default.toml:8"
    assert policies.ceiling.bounds == {}


def test_an_admins_file_replaces_whole_keys_lists_included() -> None:
    admin = make_layer("/etc", profiles__default_dot_toml='[folders]\nmodes = ["ro"]\n[limits]\nnofile = 8\n')
    profile = load_policies([make_vendor(), admin]).profiles["default"]
    assert profile.folders.modes == ("ro",)
    assert profile.limits.nofile == 8
    assert profile.limits.pids_max == 1024


def test_an_inheriting_profile_takes_what_the_admin_changed_in_its_parent() -> None:
    vendor = make_vendor(profiles__strict_dot_toml='inherits = "default"\n[sandbox]\nbase = "strict"\n')
    admin = make_layer("/etc", profiles__default_dot_toml="[limits]\nnofile = 8\n")
    policies = load_policies([vendor, admin])
    assert policies.profiles["strict"].limits.nofile == 8
    assert policies.profiles["strict"].sandbox.base == "strict"
    assert policies.sources["strict"]["limits.nofile"] == "/etc/profiles/default.toml:2"


def test_a_higher_layers_seccomp_file_takes_the_place_of_the_lower() -> None:
    admin = make_layer("/etc", seccomp__default_dot_json='{"defaultAction": "SCMP_ACT_ERRNO"}')
    assert load_policies([make_vendor(), admin]).seccomp["default"].file == "/etc/seccomp/default.json"


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ('inherits = "defualt"', 1, "inherits", "did you mean 'default'"),
        ('\ninherits = "x"', 2, "inherits", "names the profile itself"),
        ('inherits = "default"\n[sandbox]\nseccomp = "defualt"', 3, "sandbox.seccomp", "did you mean 'default'"),
        ('inherits = "default"\n[egress]\nsettings = "web"', 3, "egress.settings", "no egress/web.json"),
        ('[sandbox]\nbase = "dev"', 1, "sandbox.seccomp", "is missing"),
        ('inherits = "default"\n[limits]\nmemory_max = -1', 3, "limits.memory_max", "too small"),
        ("a = 1\na = 2", 2, "a", "twice"),
    ],
)
def test_a_wrong_profile_is_told_with_line_and_key(text: str, line: int, key: str, says: str) -> None:
    (finding,) = refusal(make_vendor(), make_layer("/etc", profiles__x_dot_toml=text))
    assert (finding.file, finding.line, finding.key) == ("/etc/profiles/x.toml", line, key)
    assert says in finding.message


def test_a_circle_of_inheritance_is_told_once_for_each_profile_in_it() -> None:
    vendor = make_vendor(profiles__a_dot_toml='inherits = "b"', profiles__b_dot_toml='inherits = "a"')
    findings = refusal(vendor)
    assert {finding.file for finding in findings} == {"/vendor/profiles/a.toml", "/vendor/profiles/b.toml"}
    assert all("goes in a circle" in finding.message for finding in findings)


def test_inheritance_is_bounded() -> None:
    chain = {f"profiles__p{number}_dot_toml": f'inherits = "p{number + 1}"' for number in range(30)}
    findings = refusal(make_vendor(**chain, profiles__p30_dot_toml='inherits = "default"'))
    assert all("16 profiles deep" in finding.message for finding in findings)


def test_a_set_without_the_default_profile_is_refused() -> None:
    (finding,) = refusal(make_layer("/vendor"))
    assert "no profile 'default'" in finding.message


def test_no_layers_at_all_are_refused() -> None:
    assert "no profile 'default'" in refusal()[0].message


def test_a_ceiling_that_names_what_is_not_there_is_refused() -> None:
    (finding,) = refusal(make_vendor(), make_layer("/etc", ceiling_dot_toml='[sandbox]\nseccomp = ["defalt"]'))
    assert (finding.file, finding.line, finding.nearest) == ("/etc/ceiling.toml", 2, "default")


def test_a_wrong_settings_file_refuses_the_set() -> None:
    (finding,) = refusal(
        make_vendor(
            egress__web_dot_json='{"network": {"allowedDomains": ["*.com"], "deniedDomains": []},\n'
            '"filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []}}'
        )
    )
    assert (finding.key, finding.line) == ("network.allowedDomains[0]", 1)


def test_settings_are_those_of_the_highest_layer_and_know_their_file() -> None:
    admin = make_layer("/etc", egress__default_dot_json=SRT.replace("[]", '["a.example"]', 1))
    read = load_policies([make_vendor(), admin]).egress_settings
    assert {name: (one.source, one.allowed) for name, one in read.items()} == {
        "default": ("/etc/egress/default.json", ("a.example",))
    }


def test_a_misspelt_ceiling_is_not_passed_over() -> None:
    (finding,) = refusal(make_vendor(), make_layer("/etc", ceilin_dot_toml=""))
    assert finding.nearest == "ceiling.toml"


def test_mistakes_of_all_files_come_together() -> None:
    findings = refusal(make_vendor(profiles__a_dot_toml="x = 1"), make_layer("/etc", ceiling_dot_toml="y = 2"))
    assert {finding.file for finding in findings} == {"/etc/ceiling.toml", "/vendor/profiles/a.toml"}


def test_parse_profile_gives_only_what_stands_there() -> None:
    given = parse_profile(b'inherits = "default"\n[limits]\ntmp_max = "1G"', file="f")
    assert {key: item.value for key, item in given.items()} == {"inherits": "default", "limits.tmp_max": 1 << 30}
