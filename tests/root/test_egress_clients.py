"""Real programs in a sandbox, through the proxies, with nothing but the variables coworkd sets and the certificates it was given.

What each fetches is known to have come through coworkd-egress: the session has no other way, the servers saw the guest's own address,
and `egress.log` has the connection.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator

import pytest

from coworkd.model.session import FolderGrant
from tests.root.egress_room import FOLDER, HTTP_PORT, Room, open_room
from tests.root.live import exited, wait_until
from tests.root.servers import dns, packages
from tests.root.servers.ftp import CONTENT
from tests.root.servers.grpc_echo import PLAIN_PORT, TLS_PORT
from tests.root.servers.web import pattern

pytestmark = pytest.mark.needs("netns", "mountns", "bubblewrap", "python3")

INDEX = f"index.{dns.DOMAIN}"
HTTPS, HTTP = f"https://{INDEX}", f"http://{INDEX}"
SESSION = "clients"
LIBRARIES = "libraries"
SCRIPTS = f"/sessions/{SESSION}/mnt/{FOLDER}"
PYTHON_PATH = {"PYTHONPATH": f"/sessions/{SESSION}/mnt/{LIBRARIES}"}
PATTERN_SHA256 = hashlib.sha256(pattern(3_000_000)).hexdigest()
HELLO = f"hello from https, {INDEX}\n".encode()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with open_room(tmp_path_factory.mktemp("egress")) as opened:
        opened.client.ca_install(name="lab", pem=opened.lab.certificates.authority.read_text())
        yield opened


@pytest.fixture(scope="module")
def session(room: Room) -> Iterator[str]:
    libraries = FolderGrant(name=LIBRARIES, source=sysconfig.get_path("platlib"), mode="ro")
    with room.session(SESSION, folders=[libraries]) as name:
        yield name


@pytest.fixture(autouse=True)
def passed_through_egress(room: Room, session: str) -> Iterator[None]:
    """Whatever a test did: the log has an opened connection more, with its bytes, and nothing arrived on the guest itself."""
    opened = len([record for record in room.log(session) if record.kind == "open"])
    yield
    after = [record for record in room.log(session) if record.kind == "open"]
    assert len(after) > opened
    assert all(record.rule for record in after)
    wait_until(lambda: closed_with_bytes(room, session, after[-1].connection), "the end of the connection in the log")
    assert room.lab.seen(lambda entry: entry["server"] == "canary") == []


def closed_with_bytes(room: Room, session: str, connection: int) -> bool:
    return any(
        record.kind == "close" and record.connection == connection and record.sent_bytes + record.received_bytes > 0
        for record in room.log(session)
    )


# -- curl and wget ------------------------------------------------------------------------------------------------


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    "options",
    [
        (f"{HTTPS}/hello",),
        ("--proxy", f"http://127.0.0.1:{HTTP_PORT}", f"{HTTPS}/hello"),
        ("--proxy", "socks5h://127.0.0.1:1080", f"{HTTPS}/hello"),
        ("--proxy", f"socks5h://localhost/tmp/claude-socks-{SESSION}.sock", f"{HTTPS}/hello"),
        ("--proxy", f"socks5h://127.0.0.1:{HTTP_PORT}", f"{HTTPS}/hello"),
        ("--proxy", "http://127.0.0.1:1080", f"{HTTPS}/hello"),
        ("--proxy", "http://any:words@127.0.0.1:3128", f"{HTTPS}/hello"),
        ("--proxy", "socks5h://any:words@127.0.0.1:1080", f"{HTTPS}/hello"),
    ],
)
def test_curl_by_every_way(room: Room, session: str, options: tuple[str, ...]) -> None:
    assert room.run(session, "/usr/bin/curl", "-sS", *options).stdout == HELLO


@pytest.mark.needs("curl")
@pytest.mark.parametrize("host", [f"six.{dns.DOMAIN}", f"half.{dns.DOMAIN}", f"[{dns.SERVER6}]", dns.SERVER])
def test_curl_to_both_families(room: Room, session: str, host: str) -> None:
    assert room.run(session, "/usr/bin/curl", "-sS", f"https://{host}/hello").stdout.startswith(b"hello from https")


@pytest.mark.needs("curl")
@pytest.mark.parametrize("path", ["bytes", "chunked", "until-close"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl_gets_a_body_of_every_framing_whole(room: Room, session: str, scheme: str, path: str) -> None:
    script = f"curl -sS {scheme}://{INDEX}/{path}/3000000 | sha256sum; curl -sS {scheme}://{INDEX}/{path}/0 | wc -c"
    said = room.run(session, "/bin/bash", "-o", "pipefail", "-c", script).stdout.split()
    assert said == [PATTERN_SHA256.encode(), b"-", b"0"]


@pytest.mark.needs("curl")
def test_curl_posts_over_plain_http_in_both_framings(room: Room, session: str) -> None:
    script = f"""
    head -c 1500000 /dev/urandom >/tmp/body
    curl -sS --data-binary @/tmp/body {HTTP}/echo | cmp - /tmp/body
    curl -sS -H 'Transfer-Encoding: chunked' --data-binary @/tmp/body {HTTP}/echo | cmp - /tmp/body
    curl -sS -H 'Expect: 100-continue' -T /tmp/body {HTTP}/echo | cmp - /tmp/body
    curl -sS --head {HTTP}/bytes/100 | grep -qi 'content-length: 100'
    curl -sS -o /dev/null -w '%{{http_code}}' {HTTP}/status/204
    """
    assert room.run(session, "/bin/bash", "-e", "-o", "pipefail", "-c", script).stdout == b"204"


@pytest.mark.needs("curl")
def test_curl_keeps_a_proxied_connection_for_many_requests(room: Room, session: str) -> None:
    urls = [f"{HTTP}/hello", f"http://other.{dns.DOMAIN}/hello", f"{HTTP}/chunked/10", f"{HTTP}/hello"]
    ran = room.run(session, "/usr/bin/curl", "-sS", "-w", "%{num_connects} ", *urls)
    assert ran.stdout.count(b"hello from http") == 3
    assert ran.stdout.endswith(b"0 ")


@pytest.mark.needs("curl")
def test_curl_forwarded_headers_are_the_clients_without_the_hops(room: Room, session: str) -> None:
    options = ("-H", "X-Mine: kept", "-H", "Connection: X-Gone, keep-alive", "-H", "X-Gone: 1", "-H", "Proxy-Secret: 1")
    said = room.run(session, "/usr/bin/curl", "-sS", *options, f"{HTTP}/headers").stdout.decode().lower()
    assert '"x-mine", "kept"' in said
    assert f'"host", "{INDEX}"' in said
    assert "x-gone" not in said
    assert "proxy-" not in said


@pytest.mark.needs("wget")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_wget(room: Room, session: str, scheme: str) -> None:
    said = room.run(session, "/usr/bin/wget", "-q", "-O-", f"{scheme}://{INDEX}/hello").stdout
    assert said == f"hello from {scheme}, {INDEX}\n".encode()


# -- version control and packages ---------------------------------------------------------------------------------


@pytest.mark.needs("git")
def test_git_clones_fetches_and_pushes_over_https(room: Room, session: str) -> None:
    script = f"""
    cd "$(mktemp -d)"
    git clone --quiet {HTTPS}/git/{packages.REPOSITORY} project
    cd project
    cat README
    date +%s%N >new
    git add new
    git -c user.name=lab -c user.email=lab@example.test commit --quiet -m second
    git push --quiet origin main
    git fetch --quiet
    test "$(git ls-remote origin main | cut -f1)" = "$(git rev-parse HEAD)"
    """
    assert room.run(session, "/bin/sh", "-ec", script).stdout == f"{packages.GREETING}\n".encode()


def test_pip_installs_from_an_index(room: Room, session: str) -> None:
    script = f"""
    cd "$(mktemp -d)"
    python3 -m pip install --quiet --no-input --disable-pip-version-check --no-cache-dir --target here {packages.NAME}
    PYTHONPATH=here python3 -c 'import {packages.MODULE}; print({packages.MODULE}.GREETING)'
    """
    environment = {**PYTHON_PATH, "PIP_INDEX_URL": f"{HTTPS}/simple/", "PIP_RETRIES": "0"}
    ran = room.run(session, "/bin/sh", "-ec", script, env=environment)
    assert ran.stdout == f"{packages.GREETING}\n".encode()


@pytest.mark.needs("node", "npm")
def test_npm_installs_from_a_registry(room: Room, session: str) -> None:
    script = f"""
    cd "$(mktemp -d)"
    echo '{{"name": "mine", "version": "1.0.0"}}' >package.json
    npm install --silent --no-audit --no-fund --fetch-retries 0 --registry {HTTPS}/npm/ {packages.NAME}
    node -p 'require("{packages.NAME}")'
    """
    ran = room.run(session, "/bin/sh", "-ec", script, timeout_s=120)
    assert ran.stdout.splitlines()[-1] == packages.GREETING.encode()


# -- languages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("script", ["with_requests.py", "with_urllib.py"])
def test_python(room: Room, session: str, script: str, scheme: str) -> None:
    ran = room.run(session, "/usr/bin/python3", f"{SCRIPTS}/{script}", f"{scheme}://{INDEX}/hello", env=PYTHON_PATH)
    assert ran.stdout == f"hello from {scheme}, {INDEX}\n".encode()


@pytest.mark.needs("node")
def test_node_fetch(room: Room, session: str) -> None:
    ran = room.run(session, "/usr/bin/node", f"{SCRIPTS}/with_fetch.mjs", f"{HTTPS}/hello")
    assert ran.stdout == HELLO


@pytest.mark.needs("java")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_java(room: Room, session: str, scheme: str) -> None:
    url = f"{scheme}://{INDEX}/hello"
    ran = room.run(session, "/usr/bin/java", f"{SCRIPTS}/Fetch.java", url, timeout_s=120)
    said = f"hello from {scheme}, {INDEX}\n"
    assert ran.stdout.decode() == f"url: {said}client: {said}"


# -- FTP, gRPC, and protocols that change -------------------------------------------------------------------------


@pytest.mark.needs("curl")
def test_ftp_downloads_and_uploads(room: Room, session: str) -> None:
    url = f"ftp://{INDEX}/hello.txt"
    assert room.run(session, "/usr/bin/curl", "-sS", url).stdout == CONTENT
    room.run(session, "/usr/bin/curl", "-sS", "-T", "-", url, input=b"up it goes")
    wait_until(
        lambda: room.lab.seen(lambda entry: entry.get("uploaded") == "up it goes"), "the upload at the FTP server"
    )


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_grpc(room: Room, session: str, kind: str) -> None:
    port = PLAIN_PORT if kind == "plain" else TLS_PORT
    trust = "plain" if kind == "plain" else "$SSL_CERT_FILE"
    script = f'exec python3 {SCRIPTS}/with_grpc.py {INDEX}:{port} "{trust}"'
    ran = room.run(session, "/bin/sh", "-ec", script, env=PYTHON_PATH)
    assert ran.stdout == b"hello from grpc\n"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_upgraded_connection_echoes(room: Room, session: str, scheme: str) -> None:
    """What a WebSocket client does: 101, and then bytes of another protocol."""
    ran = room.run(session, "/usr/bin/python3", "-I", f"{SCRIPTS}/upgrade.py", scheme, INDEX)
    assert ran.stdout == b"echoed 300000\n"


# -- refusals as a person meets them ------------------------------------------------------------------------------


@pytest.mark.needs("curl")
def test_curl_shows_why_it_was_refused(room: Room, session: str) -> None:
    room.run(session, "/usr/bin/curl", "-sS", f"{HTTP}/hello")
    argv = ["/usr/bin/curl", "-sS", "-w", "%{http_code}", f"http://unlisted.{dns.DOMAIN}/"]
    ran = room.client.run(session, argv)
    assert ran.exit == exited(0)
    assert ran.stdout.startswith(b"Connection blocked by network allowlist\n")
    assert ran.stdout.endswith(b"403")
