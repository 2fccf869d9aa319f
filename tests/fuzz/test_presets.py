"""Settings of pip, npm and apt that nobody checked: whatever stands in them, a file comes out that coworkd reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from coworkd.netpolicy.hosts import canonical_host
from coworkd.netpolicy.patterns import split_pattern
from coworkd.netpolicy.presets import parse_presets
from coworkd.services.presets import compose_file, compose_pattern, resolve_presets
from tests.unit.system.settings_machine import Programs, machine, put

WORDS = (
    *("[global]\n", "[install]\n", "index-url = ", "extra-index-url=", "find-links:", "no-index = yes\n", "\n  "),
    *("deb ", "deb-src [a=b] ", "URIs: ", "Enabled: no\n", "mirror+file:/etc/m", "\n\n", "# ", "cdrom:[x]/ "),
    *("registry=", "@a:registry=", "npmRegistryServer: ", 'registry "', "${X}", "%", "\0", "\r", '"', "'"),
    *(
        "https://a.example/ ",
        "http://u:p@b.example:81/x ",
        "ftp://[2001:db8::1]/ ",
        "https://*/ ",
        "https://[::1",
        "//",
    ),
)
TEXT = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=24).map("".join)
ANSWERS = st.one_of(
    TEXT, st.sampled_from(('{"registry": "https://a.example"}', '{"registry": []}', "[1]", "null", "{"))
)
FILES = (
    "/etc/pip.conf",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/x.sources",
    "/etc/m",
    "/root/.npmrc",
    "/root/.yarnrc",
)
URLS = st.one_of(
    TEXT, st.builds("{}://{}".format, st.sampled_from(("http", "https", "ftp", "x")), st.text(min_size=1, max_size=40))
)


@given(
    st.lists(TEXT, min_size=len(FILES), max_size=len(FILES)),
    ANSWERS,
    ANSWERS,
    st.sampled_from(("debian", "ubuntu", "x")),
)
def test_any_settings_come_to_a_file_that_can_be_read(texts: list[str], pip: str, npm: str, system: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        put(root, "/etc/os-release", f"ID={system}\n")
        for path, text in zip(FILES, texts, strict=True):
            put(root, path, text)
        programs = Programs({"/usr/bin/python3": pip, "npm": npm, "yarn": npm})
        resolved = resolve_presets(machine(root, programs=programs), clock=lambda: 1.0)
    assert parse_presets(compose_file(resolved.table), file="presets.json") == resolved.table
    assert all(note.isprintable() for note in resolved.notes)


@given(URLS)
def test_a_pattern_is_one_host_and_never_more(url: str) -> None:
    pattern = compose_pattern(url)
    if pattern is not None:
        host, _ = split_pattern(pattern)
        assert "*" not in host
        assert canonical_host(host) == host
        assert "@" not in pattern
