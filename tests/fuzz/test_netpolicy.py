"""Any bytes are settings or a typed error, any host is canonical or refused, and no spelling gets past a denial or the guard."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coworkd.model.egress import Allowance, EgressSettings, SessionEgress
from coworkd.model.errors import InvalidParams
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.guard import NEVER, PRIVATE, Guard
from coworkd.netpolicy.hosts import BadHost, canonical_host, is_address
from coworkd.netpolicy.js_regex import BadRegex, count_groups
from coworkd.netpolicy.no_proxy import NoProxy
from coworkd.netpolicy.own_keys import OWN, read_own_keys
from coworkd.netpolicy.patterns import PatternIndex, refuse_domain, split_pattern
from coworkd.netpolicy.presets import parse_presets
from coworkd.netpolicy.proxy_url import parse_proxy_url
from coworkd.netpolicy.ranges import AddressSet, carried_ipv4, parse_address, parse_range
from coworkd.netpolicy.schema import Findings
from coworkd.netpolicy.srt import parse_settings, parse_settings_map
from coworkd.netpolicy.srt_schema import FILESYSTEM, NETWORK, TOP
from coworkd.netpolicy.urls import url_host
from coworkd.settings import BadFile, Finding
from tests.unit.netpolicy.verdicts import settings as settings_tree
from tests.unit.netpolicy.verdicts import verdicts

EXAMPLES = settings(max_examples=200, deadline=None)

HOST_SCRAPS = st.sampled_from(
    [
        *"aZ09.-_:[]%@/\\ \0\r\n*",
        "127",
        "0x7f",
        "0177",
        "2130706433",
        "::",
        "ffff",
        "example",
        "com",
        "xn--",
        "\u00e9",
        "\u212a",
        "\uff0e",
    ]
)
HOSTS = st.one_of(
    st.lists(HOST_SCRAPS, max_size=12).map("".join),
    st.text(max_size=300),
    st.ip_addresses().map(str),
    st.from_regex(
        r"(0x[0-9a-f]{1,8}|0[0-7]{1,4}|[0-9]{1,10})(\.(0x[0-9a-f]{1,4}|0[0-7]{1,3}|[0-9]{1,5})){0,3}\.?", fullmatch=True
    ),
)
# Not one of `0x…`: where it comes last, the name is an IPv4 address.
LABELS = st.from_regex(r"[a-z0-9_-]{0,3}[a-z_-]", fullmatch=True).filter(lambda label: not label.startswith("0x"))
NAMES = st.lists(LABELS, min_size=2, max_size=5).map(".".join)
PORTS = st.integers(1, 65535)
VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["a.example", "*", "/a*/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from([*NETWORK, *FILESYSTEM, *TOP, "coworkd", "path", "literal", "mode"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
VALID = [tree for tree, keys in verdicts("files") if not keys] + [settings_tree(coworkd={"presets": ["rust"]})]


Draw = Callable[[st.SearchStrategy[Any]], Any]


def canonical_or_refusal(text: str) -> tuple[str | None, str]:
    try:
        return canonical_host(text), ""
    except BadHost as error:
        return None, error.reason


def findings_of(read: Callable[..., object], data: bytes) -> Sequence[Finding]:
    """Why `read` refuses `data`; nothing where it takes it. Anything else it raises fails the test."""
    try:
        read(data, file="some.json")
    except BadFile as error:
        return error.findings
    return ()


def respell_name(draw: Draw, name: str) -> str:
    upper = "".join(char.upper() if draw(st.booleans()) else char for char in name)
    return str(draw(st.sampled_from([upper, f"{upper}.", f"[{upper}]"])))


def respell_ipv4(draw: Draw, address: int) -> str:
    """One of the ways of inet_aton, or IPv4-mapped."""
    count = draw(st.integers(1, 4))
    parts = [address >> (24 - 8 * place) & 0xFF for place in range(count - 1)]
    parts.append(address & (1 << (8 * (5 - count))) - 1)
    forms = [draw(st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}", "0x00{:x}"])).format(part) for part in parts]
    mapped = [f"::ffff:{ipaddress.IPv4Address(address)}", f"[::FFFF:{address >> 16:x}:{address & 0xFFFF:04X}]"]
    return str(draw(st.sampled_from([".".join(forms), ".".join(forms) + ".", *mapped])))


@EXAMPLES
@given(HOSTS)
def test_any_host_is_canonical_or_refused_and_stays_canonical(text: str) -> None:
    host, reason = canonical_or_refusal(text)
    assert reason.isascii()
    assert reason.isprintable()
    if host is None:
        assert reason
        return
    assert canonical_host(host) == host
    assert host == host.lower()
    assert not set(host) & set("%[]/@\\ \0\r\n")
    if is_address(host):
        assert str(ipaddress.ip_address(host)) == host


@EXAMPLES
@given(st.data(), st.integers(0, 2**32 - 1))
def test_every_spelling_of_an_address_is_that_address(data: st.DataObject, address: int) -> None:
    assert canonical_host(respell_ipv4(data.draw, address)) == str(ipaddress.IPv4Address(address))


@EXAMPLES
@given(HOSTS, st.integers(-5, 70000), st.lists(st.text(max_size=12) | HOSTS, max_size=5), st.lists(HOSTS, max_size=5))
def test_decide_never_raises_and_allows_only_what_it_names(
    host: str, port: int, allowed: list[str], denied: list[str]
) -> None:
    layer = EgressSettings(source="s", allowed=tuple(allowed), denied=tuple(denied))
    rules = Rules(SessionEgress(settings=(layer,)))
    verdict = rules.decide(host, port, now=0.0)
    msgspec.msgpack.encode(verdict)
    rules.route(verdict.host, port, tunnel=True)
    if verdict.allowed:
        assert canonical_host(host) == verdict.host
        assert PatternIndex(allowed).find(verdict.host, port) is not None
        assert PatternIndex(denied).find(verdict.host, port) is None


@EXAMPLES
@given(st.data(), NAMES, PORTS, st.booleans(), st.booleans(), st.booleans())
def test_no_spelling_of_a_denied_name_is_allowed(
    data: st.DataObject, name: str, port: int, below: bool, with_port: bool, in_request: bool
) -> None:
    pattern = f"*.{name}" if below else name
    denying = EgressSettings(
        source="d", allowed=(name, f"*.{name}"), denied=(f"{pattern}:{port}" if with_port else pattern,)
    )
    open_one = EgressSettings(source="o", allowed=(name, f"*.{name}"))
    layers = (open_one, denying) if in_request else (denying, open_one)
    allowances = (Allowance(pattern=name, until=9.0), Allowance(pattern=f"*.{name}", until=9.0))
    rules = Rules(SessionEgress(settings=layers, allowances=allowances))
    host = f"{data.draw(NAMES)}.{name}" if below else name
    assert not rules.decide(respell_name(data.draw, host), port, now=0.0).allowed
    assert Rules(SessionEgress(settings=(open_one,))).decide(respell_name(data.draw, host), port, now=0.0).allowed


@EXAMPLES
@given(st.data(), st.integers(0, 2**32 - 1), PORTS)
def test_no_spelling_of_a_denied_address_is_allowed_and_no_name_leads_there(
    data: st.DataObject, number: int, port: int
) -> None:
    address = str(ipaddress.IPv4Address(number))
    session = SessionEgress(
        settings=(EgressSettings(source="d", allowed=(address,), denied=(address,), allow_private=True),)
    )
    assert not Rules(session).decide(respell_ipv4(data.draw, number), port, now=0.0).allowed
    for form in ("{}", "::ffff:{}", "64:ff9b::{}", "::{}"):
        assert Guard(session).judge(form.format(address), is_own=False, port=port) is not None


SPECIAL = [
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4", "::1/128", "::/128"),
    *("fe80::/10", "fec0::/10", "ff00::/8", "100::/64", "2001:2::/48", "2001:10::/28", "2001:20::/28", "5f00::/16"),
]


@EXAMPLES
@given(st.data(), st.sampled_from(SPECIAL), st.booleans())
def test_the_guard_covers_every_special_range_and_what_carries_it(
    data: st.DataObject, special: str, private: bool
) -> None:
    network = ipaddress.ip_network(special)
    address = network[data.draw(st.integers(0, network.num_addresses - 1))]
    guard = Guard(SessionEgress(settings=(EgressSettings(source="s", allow_private=private),)))
    forms = [str(address)]
    if address.version == 4:
        number = int(address)
        forms += [
            f"::ffff:{address}",
            f"::{address}",
            f"::ffff:0:{address}",
            f"64:ff9b::{address}",
            f"64:ff9b:1:7::{address}",
        ]
        forms.append(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1")
        forms.append(str(ipaddress.IPv6Address(0x2001_0000 << 96 | 0x0808_0808 << 64 | number ^ 0xFFFF_FFFF)))
    for form in forms:
        assert guard.judge(form, is_own=False) is not None, form


@EXAMPLES
@given(st.ip_addresses(), st.booleans())
@example(ipaddress.ip_address("100.64.0.1"), False)
def test_what_the_guard_lets_pass_is_public_or_asked_for(address: Any, private: bool) -> None:
    guard = Guard(SessionEgress(settings=(EgressSettings(source="s", allow_private=private),)))
    if guard.judge(str(address), is_own=False) is not None:
        return
    parsed = parse_address(str(address))
    assert parsed is not None
    for one in (parsed, *carried_ipv4(parsed)):
        assert not any(one in addresses for _, addresses in NEVER)
        assert private or one not in PRIVATE
    assert guard.judge(str(address), is_own=True) is not None


@EXAMPLES
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_settings_or_an_error_that_names_the_file(data: bytes) -> None:
    for read in (parse_settings, parse_presets):
        assert all(found.file == "some.json" and found.line >= 1 for found in findings_of(read, data))


@EXAMPLES
@given(st.data(), st.sampled_from(VALID))
def test_any_change_to_valid_settings_gives_settings_that_can_travel_or_an_error_with_a_key(
    data: st.DataObject, valid: dict[str, Any]
) -> None:
    tree = json.loads(json.dumps(valid))
    inside = data.draw(st.sampled_from([tree, tree["network"], tree["filesystem"], tree.get("credentials", {})]))
    inside[data.draw(st.sampled_from([*NETWORK, *FILESYSTEM, *TOP, "coworkd", "envVars", "files", "awsPairs"]))] = (
        data.draw(VALUES)
    )
    with contextlib.suppress(InvalidParams):
        msgspec.msgpack.encode(parse_settings_map(tree, source="request"))
    try:
        text = json.dumps(tree, allow_nan=False)
    except ValueError:
        return
    findings = findings_of(parse_settings, text.encode())
    if findings:
        assert findings[0].key
        return
    read = parse_settings(text.encode(), file="some.json")
    msgspec.msgpack.encode(read)
    assert Rules(SessionEgress(settings=(read,))).decide("a.example", 443, now=0.0).host == "a.example"


@EXAMPLES
@given(VALUES)
def test_any_own_keys_are_read_or_refused(value: Any) -> None:
    findings = Findings("s")
    OWN(value, findings.root)
    if not findings.found:
        read_own_keys(value)


@EXAMPLES
@given(st.text(max_size=14) | st.text(alphabet="ab.*:[]1%/ ", max_size=14))
def test_any_domain_is_judged_and_denied_lists_take_all_that_allowed_lists_take(entry: str) -> None:
    split_pattern(entry)
    if refuse_domain(entry, denied=False) is None:
        assert refuse_domain(entry, denied=True) is None
    elif refuse_domain(entry, denied=True) is None:
        assert split_pattern(entry)[0] == "*"


@EXAMPLES
@given(st.text(alphabet=st.characters() | st.sampled_from("ab:/@[]%.?#\\0189"), max_size=20))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    url_host(text)
    url_host(f"http://{text}")
    parse_range(text)
    NoProxy(text).covers("a.example")
    proxy = parse_proxy_url(text)
    if proxy is not None:
        assert canonical_host(proxy.host) == proxy.host
        assert "@" not in proxy.shown
    with contextlib.suppress(BadRegex):
        assert count_groups(text) >= 0


@EXAMPLES
@given(st.text(alphabet="()[]{}|*+?^$\\.-,019<>=!:knabduxc", max_size=12))
def test_any_expression_is_counted_or_refused(text: str) -> None:
    with contextlib.suppress(BadRegex):
        assert count_groups(text) <= text.count("(")


@EXAMPLES
@given(st.lists(st.ip_addresses(v=4).map(str), max_size=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_a_set_agrees_with_the_ranges_it_was_made_of(
    addresses: list[str], length: int, asked: ipaddress.IPv4Address
) -> None:
    ranges = [f"{address}/{length}" for address in addresses]
    expected = any(asked in ipaddress.ip_network(one, strict=False) for one in ranges)
    assert (asked in AddressSet(ranges)) is expected
