"""`netpolicy.srt_credentials`: what the keys of `credentials` ask of each other."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.netpolicy.schema import Findings
from coworkd.netpolicy.srt_credentials import is_covered
from coworkd.netpolicy.srt_schema import SRT
from tests.unit.netpolicy.verdicts import settings

ALLOWED = ["a.example", "*.b.example:443"]


def found(credentials: dict[str, Any], **changes: Any) -> list[tuple[str, str]]:
    findings = Findings("s.json")
    tree = settings(network__allowedDomains=ALLOWED, credentials=credentials, **changes)
    SRT(tree, findings.root)
    return [(finding.key, finding.message) for finding in findings.found]


def variable(**more: Any) -> dict[str, Any]:
    return {"allowPlaintextInject": True, "envVars": [{"name": "A", "mode": "mask", **more}]}


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        variable(),
        variable(injectHosts=["a.example", "x.b.example", "*.c.b.example"]),
        variable(decode="jwt", maskClaims=["sub"]),
        {"files": [{"path": "/a/", "mode": "deny"}], "envVars": [{"name": "A", "mode": "deny", "injectHosts": []}]},
        {
            "allowPlaintextInject": True,
            "envVars": [{"name": name, "mode": "mask"} for name in "ABC"],
            "awsPairs": [{"accessKeyIdVar": "A", "secretAccessKeyVar": "B", "sessionTokenVar": "C"}],
        },
    ],
)
def test_what_goes_together_passes(credentials: dict[str, Any]) -> None:
    assert found(credentials) == []


@pytest.mark.parametrize(
    ("credentials", "key", "says"),
    [
        ({"envVars": [{"name": "A", "mode": "mask"}]}, "credentials", "needs network.tlsTerminate"),
        (variable(injectHosts=["c.example"]), "credentials.envVars[0].injectHosts[0]", "not allowed"),
        (variable(injectHosts=[]), "credentials.envVars[0]", "empty injectHosts"),
        (variable(maskClaims=["sub"]), "credentials.envVars[0].maskClaims", "goes with decode"),
        (variable(decode="jwt", maskClaims=[]), "credentials.envVars[0].maskClaims", "is empty"),
        (variable(extract="x"), "credentials.envVars[0].extract", "captures nothing"),
        (
            {"allowPlaintextInject": True, "files": [{"path": "/a/", "mode": "mask"}]},
            "credentials.files[0].path",
            "is a directory",
        ),
        ({"files": [{"path": "/a/*/", "mode": "deny"}]}, "credentials.files[0].path", "match no path"),
        (
            {**variable(), "awsPairs": [{"accessKeyIdVar": "A", "secretAccessKeyVar": "A"}]},
            "credentials.awsPairs[0].secretAccessKeyVar",
            "has a place already",
        ),
        (
            {**variable(decode="jwt"), "awsPairs": [{"accessKeyIdVar": "A", "secretAccessKeyVar": "B"}]},
            "credentials.awsPairs[0].accessKeyIdVar",
            "masked as a whole",
        ),
        (
            {"awsPairs": [{"accessKeyIdVar": "A", "secretAccessKeyVar": "B"}]},
            "credentials.awsPairs[0].accessKeyIdVar",
            "no variable of credentials.envVars",
        ),
    ],
)
def test_what_does_not_go_together_is_told(credentials: dict[str, Any], key: str, says: str) -> None:
    [told, *_] = [finding for finding in found(credentials) if finding[0] == key]
    assert says in told[1]


def test_where_tls_is_not_opened_nothing_is_put_in() -> None:
    opened = {"excludeDomains": ["a.example", "*.b.example"]}
    [(key, _)] = found(variable(injectHosts=["a.example"]), network__tlsTerminate=opened)
    assert key == "credentials.envVars[0].injectHosts[0]"
    [(key, said)] = found(variable(), network__tlsTerminate=opened)
    assert (key, "nowhere" in said) == ("credentials.envVars[0]", True)


@pytest.mark.parametrize(
    ("pattern", "by", "expected"),
    [
        ("A.example", ["a.Example"], True),
        ("x.a.example", ["*.a.example"], True),
        ("a.example", ["*.a.example"], False),
        ("*.x.a.example", ["*.A.example"], True),
        ("*.a.example", ["*.a.example"], True),
        ("*.a.example", ["a.example", "*.x.a.example"], False),
        ("1.2.3.4", ["*.3.4"], False),
    ],
)
def test_a_pattern_is_covered_where_all_it_matches_is(pattern: str, by: list[str], expected: bool) -> None:
    assert is_covered(pattern, by) is expected
