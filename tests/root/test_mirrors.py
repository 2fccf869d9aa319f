"""Mirrors that this machine's tools are set to, as the commands of a session are told of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.netpolicy.presets import PresetTable, ResolvedPreset
from coworkd.services.presets import write_presets
from tests.root.conftest import running_daemon
from tests.root.live import client_of, session_of

pytestmark = [pytest.mark.root, pytest.mark.needs("root"), pytest.mark.needs("bubblewrap", "python3")]

SESSION = "mirrored"
SHOW = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(('PIP_INDEX', 'NPM_CONFIG', 'npm_c'))}))"


def write(path: Path, host: str) -> None:
    env = {"PIP_INDEX_URL": f"https://{host}/simple"}
    node = ResolvedPreset(hosts=(host,), env={"NPM_CONFIG_REGISTRY": f"https://{host}/npm/"})
    table = PresetTable(made_at=1.0, presets={"python": ResolvedPreset(hosts=(host,), env=env), "node": node})
    write_presets(str(path), table)


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "presets.json"
    write(path, "first.example")
    return path


@pytest.fixture(scope="module")
def client(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    through = (sys.executable, "-m", "tests.root.mirrored_local", str(presets))
    with running_daemon(tmp_path_factory.mktemp("mirrors"), through=through) as daemon, client_of(daemon) as made:
        yield made


def told(client: Client, **env: str) -> dict[str, str]:
    """Which of the variables a command of the session has."""
    ran = client.run(SESSION, ["/usr/bin/python3", "-I", "-c", SHOW], env=env)
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def test_commands_are_told_of_mirrors_until_the_policy_is_another(client: Client, presets: Path) -> None:
    with session_of(client, SESSION):
        first = {"PIP_INDEX_URL": "https://first.example/simple", "NPM_CONFIG_REGISTRY": "https://first.example/npm/"}
        assert told(client) == first
        assert client.egress_check(session=SESSION, host="first.example").allowed
        write(presets, "second.example")
        client.policy_reload()
        assert told(client)["PIP_INDEX_URL"] == "https://second.example/simple"
        assert not client.egress_check(session=SESSION, host="first.example").allowed
        client.session_set_policy(session=SESSION, profile="strict")
        assert told(client) == {}


def test_what_a_session_or_a_command_is_given_wins(client: Client, presets: Path) -> None:
    write(presets, "first.example")
    client.policy_reload()
    with session_of(client, SESSION, env={"PIP_INDEX_URL": "session"}):
        assert told(client, npm_config_registry="request") == {
            "PIP_INDEX_URL": "session",
            "npm_config_registry": "request",
        }
        assert told(client, PIP_INDEX_URL="")["PIP_INDEX_URL"] == ""
