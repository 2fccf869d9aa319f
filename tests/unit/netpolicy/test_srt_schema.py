"""`netpolicy.srt_schema`: whole files against what sandbox-runtime says of them, and what a refusal tells."""

from __future__ import annotations

import re
from typing import Any

import pytest

from coworkd.netpolicy.schema import Findings
from coworkd.netpolicy.srt_schema import SRT
from coworkd.settings import Finding
from tests.unit.netpolicy.verdicts import settings, verdicts


def found(tree: object) -> list[Finding]:
    findings = Findings("s.json")
    SRT(tree, findings.root)
    return findings.found


@pytest.mark.parametrize(("tree", "keys"), verdicts("files"))
def test_a_file_is_valid_or_wrong_at_the_keys_where_sandbox_runtime_finds_it_so(tree: Any, keys: list[str]) -> None:
    told = {re.sub(r"\[([0-9]+)\]", r".\1", finding.key) for finding in found(tree)}
    assert len(told) == len(keys)
    # One of both may say where within a value.
    assert all(
        ours.startswith(theirs) or theirs.startswith(ours) for ours, theirs in zip(sorted(told), keys, strict=True)
    )


@pytest.mark.parametrize(
    ("tree", "key", "says"),
    [
        ({}, "network", "is missing"),
        ([], "", "wants an object"),
        (settings(network=[]), "network", "wants an object"),
        (settings(filesystem=None), "filesystem", "wants an object"),
        (settings(network={"allowedDomains": []}), "network.deniedDomains", "is missing"),
        (
            settings(network={"allowedDomain": [], "deniedDomains": []}),
            "network.allowedDomains",
            "is it 'allowedDomain'",
        ),
        (settings(network__allowedDomains="a.b"), "network.allowedDomains", "wants a list"),
        (settings(network__allowedDomains=[1]), "network.allowedDomains[0]", "wants a domain"),
        (settings(network__strictAllowlist=None), "network.strictAllowlist", "true or false"),
        (settings(network__httpProxyPort=0), "network.httpProxyPort", "1 to 65535"),
        (settings(network__httpProxyPort=True), "network.httpProxyPort", "1 to 65535"),
        (settings(network__deniedResolvedAddresses=["10/8x"]), "network.deniedResolvedAddresses[0]", "IP address"),
        (settings(network__deniedDomainReasons={"a.b": ""}), "network.deniedDomainReasons.a.b", "not empty"),
        (settings(network__filterRequest="x"), "network.filterRequest", "is code"),
        (settings(network__parentProxy={"http": "10.0.0.1:80"}), "network.parentProxy.http", "'http://10.0.0.1:80'"),
        (settings(network__mitmProxy={"domains": ["a.b"]}), "network.mitmProxy.socketPath", "is missing"),
        (settings(network__mitmProxy={"socketPath": "/s", "domains": []}), "network.mitmProxy.domains", "not empty"),
        (settings(network__tlsTerminate={"caKeyPath": "/k"}), "network.tlsTerminate", "go together"),
        (settings(network__allowMachLookup=["a*b"]), "network.allowMachLookup[0]", "only at the end"),
        (settings(filesystem__denyRead=[""]), "filesystem.denyRead[0]", "not empty"),
        (settings(filesystem__denyRead=["/a/*/"]), "filesystem.denyRead[0]", "would match no path"),
        (settings(filesystem__denyWrite=[{"path": "/a"}]), "filesystem.denyWrite[0]", "literal"),
        (settings(filesystem__allowGitConfig=1), "filesystem.allowGitConfig", "true or false"),
        (settings(bwrapPath="bin/bwrap"), "bwrapPath", "no absolute path"),
        (settings(windows={"sublayerGuid": "x"}), "windows.sublayerGuid", "no UUID"),
        (settings(windows={"proxyPortRange": [9, 1]}), "windows.proxyPortRange", "low ≤ high"),
        (settings(credentials={"injectHosts": []}), "credentials.injectHosts", "is not a key"),
    ],
)
def test_what_is_wrong_is_told_by_key(tree: Any, key: str, says: str) -> None:
    first = found(tree)[0]
    assert first.key == key
    assert says in first.message
