"""Certificates a host installs, as the tools inside a session see them: by the variables, and without any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client import Client, connect
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import exited
from tests.unit.certificates import make, make_authority

pytestmark = [pytest.mark.root, pytest.mark.needs("root"), pytest.mark.needs("bubblewrap")]

PROBES = Path(__file__).parent / "probes"
ROOT = make_authority("Live Root")
SERVER = make("localhost", by=ROOT, hosts=("localhost",))
PYTHON = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1]).read())"
NODE = "fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t), e => { console.error(e); process.exit(1) })"
BARE = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/tmp"]
"""No variable names the bundle: what counts is what lies where the system's certificates lie."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("trust")) as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with connect(daemon.uri) as made:
        yield made


@pytest.fixture(scope="module")
def url(client: Client) -> Iterator[str]:
    """A server inside session `s` whose authority nobody knows but those it is installed for."""
    client.session_ensure(name="s")
    for name, data in {
        "server.pem": (SERVER.pem + SERVER.key_pem).encode(),
        "tls_server.py": (PROBES / "tls_server.py").read_bytes(),
        "Trusting.java": (PROBES / "Trusting.java").read_bytes(),
    }.items():
        client.run("s", ["sh", "-c", 'cat > "$1"', "sh", name], input=data)
    with client.start("s", ["python3", "tls_server.py", "server.pem"], stdin=True) as server:
        said = server.read(timeout_s=60)
        assert said is not None
        yield f"https://localhost:{int(said.data)}/"
    client.session_delete(session="s", force=True)


@pytest.fixture
def installed(client: Client, url: str) -> Iterator[None]:
    client.ca_install(name="live", pem=ROOT.pem)
    yield
    client.ca_remove(name="live")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["curl", "-sS"], marks=pytest.mark.needs("curl"), id="curl"),
        pytest.param([*BARE, "curl", "-sS"], marks=pytest.mark.needs("curl"), id="curl-bare"),
        pytest.param(["wget", "-qO-"], marks=pytest.mark.needs("wget"), id="wget"),
        pytest.param([*BARE, "wget", "-qO-"], marks=pytest.mark.needs("wget"), id="wget-bare"),
        pytest.param(["python3", "-c", PYTHON], marks=pytest.mark.needs("python3"), id="python"),
        pytest.param([*BARE, "python3", "-c", PYTHON], marks=pytest.mark.needs("python3"), id="python-bare"),
        pytest.param(["node", "-e", NODE], marks=pytest.mark.needs("node"), id="node"),
        pytest.param(["java", "Trusting.java"], marks=pytest.mark.needs("java"), id="java"),
    ],
)
def test_tools_trust_what_is_installed_and_nothing_before(client: Client, url: str, command: list[str]) -> None:
    assert client.run("s", [*command, url], timeout_s=60).exit.code != 0
    client.ca_install(name="live", pem=ROOT.pem)
    try:
        done = client.run("s", [*command, url], timeout_s=60)
        assert (done.stdout, done.exit.code) == (b"trusted", 0), done.stderr
    finally:
        client.ca_remove(name="live")
    assert client.run("s", [*command, url], timeout_s=60).exit.code != 0


@pytest.mark.needs("curl")
def test_a_command_that_runs_already_sees_it(client: Client, url: str) -> None:
    script = 'echo ready; read -r _; curl -sS -m 60 --cacert /etc/ssl/certs/ca-certificates.crt "$0"'
    with client.start("s", [*BARE, "sh", "-c", script, url], stdin=True) as running:
        said = running.read(timeout_s=60)
        assert said is not None
        client.ca_install(name="live", pem=ROOT.pem)
        try:
            done = running.communicate(b"go\n")
            assert (done.streams.get("stdout"), done.exit.exit) == (b"trusted", exited(0)), done.streams
        finally:
            client.ca_remove(name="live")


def test_a_session_cannot_change_what_it_trusts(client: Client, installed: None) -> None:
    script = (
        "echo x >> /etc/ssl/certs/ca-certificates.crt; rm /etc/coworkd/trust/ca-bundle.pem; ln -s /tmp /etc/ssl/certs/x"
    )
    done = client.run("s", ["sh", "-c", script])
    assert done.exit.code != 0
    assert len(done.stderr.splitlines()) == 3
    assert done.stderr.count(b"Read-only file system") >= 2
    assert (
        b"Live Root"
        in client.run(
            "s", ["sh", "-c", "openssl storeutl -noout -text /etc/coworkd/trust/ca-bundle.pem | grep Live"]
        ).stdout
    )


def test_the_system_s_own_certificates_are_still_there(client: Client, installed: None) -> None:
    count = ["sh", "-c", "ls /etc/ssl/certs/*.0 | wc -l; for f in /etc/ssl/certs/*.0; do test -s $f || echo $f; done"]
    inside = client.run("s", count).stdout.split()
    outside = len(list(Path("/etc/ssl/certs").glob("*.0")))
    assert inside == [b"%d" % (outside + 1)]


def test_what_is_installed_outlives_coworkd_and_is_audited(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "coworkd") as first, connect(first.uri) as client:
        client.ca_install(name="live", pem=ROOT.pem)
    with running_daemon(tmp_path / "coworkd") as second, connect(second.uri) as client:
        assert [one.subject for one in client.ca_list().installed] == ["CN=Live Root"]
        client.ca_remove(name="live")
        kinds = [record["kind"] for record in client.audit_tail(limit=100).records]
        assert [kind for kind in kinds if kind.startswith("ca.")] == ["ca.install", "ca.remove"]


def test_what_is_refused_is_said(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text(SERVER.pem)
    done = daemon.ctl("ca", "install", "server", str(tmp_path / "server.pem"))
    assert done.returncode == 1
    assert b"not a CA's" in done.stderr
    assert daemon.ctl("ca", "list").stdout.count(b"\n") == 1
