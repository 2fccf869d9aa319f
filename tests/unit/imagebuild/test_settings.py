from __future__ import annotations

from coworkd.config import parse_config
from imagebuild.settings import JOURNAL, compose_settings


def test_coworkd_reads_its_settings() -> None:
    config = parse_config(compose_settings().encode(), file="coworkd.toml")
    assert config.endpoints == ("vsock://:5005", "unix:///run/coworkd/coworkd.sock")
    assert (config.share_root, config.storage.kind, config.egress.host) == (
        "/mnt/.virtiofs-root/shared",
        "disk",
        "vsock://2:5006",
    )
    assert config.health.endpoints == ("vsock://:5008", "unix:///run/coworkd/health.sock")
    assert config.policy_dirs == ("/opt/coworkd/share/coworkd/policies", "/etc/coworkd/policies")


def test_the_journal_is_of_memory_and_seen_at_the_console() -> None:
    assert {"Storage=volatile", "ForwardToConsole=yes"} <= set(JOURNAL.splitlines())
