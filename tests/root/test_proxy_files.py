"""What leads ssh and Java to the proxies, in a real sandbox; and what is laid over the guest's own files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd.model import launch
from coworkd.sandbox.tree import compose_tree
from tests.root.launcher_talk import LAYOUT, UID, Started, Talk, open_launcher, session_request, spawn_request
from tests.root.test_listeners import accept_any, opened

pytestmark = pytest.mark.needs("userns", "netns")
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
JAVA = """
import java.net.*;
import java.net.http.*;
public class Ask {
    public static void main(String[] words) throws Exception {
        if (words[0].equals("connection")) {
            System.out.println(((HttpURLConnection) new URL("http://www.example.test/a").openConnection()).getResponseCode());
        } else if (words[0].equals("client")) {
            HttpRequest request = HttpRequest.newBuilder(new URI("http://www.example.test/a")).build();
            HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        } else {
            new Socket("www.example.test", 7);
        }
    }
}
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    with open_launcher(tmp_path) as started:
        yield started


@contextlib.contextmanager
def bob(
    launcher: Started, home: Path, tree: tuple[launch.TreeEntry, ...] | None = None, **fields: Any
) -> Iterator[tuple[Talk, list[socket.socket]]]:
    """The session, with its home, and what it is served by."""
    request = session_request(home)
    if tree is not None:
        request = structs.replace(request, tree=(*request.tree, *tree))
    if fields:
        request = structs.replace(
            request,
            tree=compose_tree(name="bob", uid=UID, home=bytes(home), tmp_max_bytes=8 << 20, layout=LAYOUT, **fields),
        )
    talk = launcher.ready()
    with contextlib.ExitStack() as stack:
        yield talk, [stack.enter_context(each) for each in opened(talk, request)]


def start(talk: Talk, argv: list[str]) -> tuple[int, int]:
    """stdout and stderr of a command that runs."""
    spawned = talk.start(spawn_request(argv))
    fds = dict(zip(spawned.fds, talk.fds[-len(spawned.fds) :], strict=True))
    del talk.fds[-len(spawned.fds) :]
    for name in ("stdout_spool", "stderr_spool"):
        os.close(fds[name])
    return fds["stdout"], fds["stderr"]


def ended(talk: Talk, *fds: int) -> tuple[str, ...]:
    """All that the one command has said, once it has ended; its stderr does not block."""
    assert isinstance(talk.wait(launch.Exited, launch.StartError), launch.Exited)
    said = []
    for fd in fds:
        with open(fd, "rb") as file:
            said.append(file.read().decode())
    return tuple(said)


def sh(talk: Talk, script: str) -> str:
    ended, output = talk.run(spawn_request(["sh", "-c", script]))
    talk.ask(launch.Forget(id=0, process="p1"))
    assert isinstance(ended, launch.Exited), ended
    return output.decode()


def read_head(link: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += link.recv(1)
    return head


# -- ssh ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("ssh")
@pytest.mark.parametrize(
    "argv",
    [
        ["ssh", "-oBatchMode=yes", "git@git.example.test"],
        ["git", "ls-remote", "ssh://git@git.example.test/a.git"],
        ["git", "ls-remote", "git@git.example.test:a.git"],
    ],
    ids=["ssh", "git-url", "git-short"],
)
def test_ssh_comes_through_the_proxy(launcher: Started, tmp_path: Path, argv: list[str]) -> None:
    with bob(launcher, tmp_path / "home") as (talk, listeners):
        stdout, stderr = start(talk, argv)
        with accept_any(listeners) as link:
            assert read_head(link).startswith(b"CONNECT git.example.test:22 HTTP/1.1\r\n")
            link.sendall(OPEN)
            assert link.recv(100).startswith(b"SSH-2.0-OpenSSH")
            link.sendall(b"SSH-2.0-no more than a banner\r\n")
            assert len(link.recv(100_000)) > 100  # its key exchange: it takes us for a server
        assert "closed" in ended(talk, stdout, stderr)[1]


@pytest.mark.needs("ssh")
def test_ssh_says_why_it_was_refused(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path / "home") as (talk, listeners):
        stdout, stderr = start(talk, ["ssh", "-oBatchMode=yes", "git@git.example.test"])
        with accept_any(listeners) as link:
            read_head(link)
            link.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\nConnection blocked by network allowlist")
        assert "git.example.test:22: Connection blocked by network allowlist" in ended(talk, stdout, stderr)[1]


@pytest.mark.needs("ssh")
def test_the_users_own_configuration_of_ssh_wins(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path / "home") as (talk, _):
        sh(talk, "mkdir -m 700 ~/.ssh; printf 'Host mine\\n ProxyCommand none\\n' > ~/.ssh/config")
        assert sh(talk, "ssh -G mine | grep -c proxycommand") == "0\n"
        assert sh(talk, "ssh -G other | grep -c proxycommand") == "1\n"


# -- Java ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the class `Ask`."""
    made = tmp_path_factory.mktemp("java")
    (made / "Ask.java").write_text(JAVA)
    subprocess.run(["/usr/bin/javac", "-nowarn", "-d", str(made), str(made / "Ask.java")], check=True)
    return made


@pytest.mark.needs("java")
@pytest.mark.parametrize(
    ("how", "head"),
    [
        ("connection", b"GET http://www.example.test/a HTTP/1.1\r\n"),
        ("client", b"GET http://www.example.test/a HTTP/1.1\r\n"),
    ],
)
def test_java_comes_through_the_proxy_without_a_word(
    launcher: Started, tmp_path: Path, compiled: Path, how: str, head: bytes
) -> None:
    (tmp_path / "home").mkdir()
    shutil.copy(compiled / "Ask.class", tmp_path / "home")
    with bob(launcher, tmp_path / "home") as (talk, listeners):
        stdout, stderr = start(talk, ["java", "-cp", "/sessions/bob", "Ask", how])
        with accept_any(listeners) as link:
            assert read_head(link).startswith(head)
            link.sendall(b"HTTP/1.1 234 Fine\r\nContent-Length: 0\r\n\r\n")
        assert ended(talk, stdout, stderr) == ("234\n", "")


@pytest.mark.needs("java")
def test_a_socket_of_java_comes_through_socks_with_its_name(launcher: Started, tmp_path: Path, compiled: Path) -> None:
    (tmp_path / "home").mkdir()
    shutil.copy(compiled / "Ask.class", tmp_path / "home")
    with bob(launcher, tmp_path / "home") as (talk, listeners):
        stdout, stderr = start(talk, ["java", "-cp", "/sessions/bob", "Ask", "socket"])
        with accept_any(listeners) as link:
            assert link.recv(2)[0] == 5
            link.recv(10)
            link.sendall(b"\x05\x00")
            assert link.recv(100) == b"\x05\x01\x00\x03\x10www.example.test\x00\x07"
            link.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            assert ended(talk, stdout, stderr) == ("", "")


# -- what is laid over --------------------------------------------------------------------------------------------


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    made = tmp_path / "trust"
    (made / "certs").mkdir(parents=True)
    (made / "bundle.pem").write_text("one")
    (made / "certs" / "ca-certificates.crt").write_text("one")
    return made


def test_the_trust_is_read_only_live_and_over_the_guests(launcher: Started, tmp_path: Path, trust: Path) -> None:
    look = "cat /etc/coworkd/trust/bundle.pem /etc/ssl/certs/ca-certificates.crt; ls /etc/ssl/certs"
    with bob(launcher, tmp_path / "home", trust=bytes(trust)) as (talk, _):
        assert sh(talk, look) == "oneoneca-certificates.crt\n"
        for path in (trust / "bundle.pem", trust / "certs" / "ca-certificates.crt"):
            path.with_suffix(".new").write_text("two")
            path.with_suffix(".new").rename(path)
        assert sh(talk, look) == "twotwoca-certificates.crt\n"
        for place in ("/etc/coworkd/trust", "/etc/ssl/certs", "/etc/coworkd", "/etc/ssh"):
            assert sh(talk, f"touch {place}/x 2>&1 | grep -o 'Read-only file system'") == "Read-only file system\n"
        sh(talk, "rm -f /etc/coworkd/trust/bundle.pem; echo x > /etc/ssl/certs/ca-certificates.crt")
    assert (trust / "bundle.pem").read_text() == "two"


def test_a_file_is_laid_over_another(launcher: Started, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine\n")
    (tmp_path / "mine").chmod(0o4755)
    bind = launch.TreeFileBind(source=bytes(tmp_path / "mine"), path=b"/usr/bin/env")
    with bob(launcher, tmp_path / "home", (bind,)) as (talk, _):
        assert sh(talk, "cat /usr/bin/env; rm -f /usr/bin/env 2>/dev/null || echo kept") == "mine\nkept\n"
        options = sh(talk, "grep ' /usr/bin/env ' /proc/self/mountinfo | cut -d' ' -f6").strip().split(",")
        assert {"ro", "nosuid", "nodev"} <= set(options)
    assert Path("/usr/bin/env").read_bytes() != b"mine\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"source": b"/no/such"}, True),
        ({"path": b"/usr/bin/no-such-program"}, True),
        ({"path": b"/no/such"}, True),
        ({"path": b"/usr/bin/no-such-program", "make": True}, True),
        ({"path": b"/tmp/made", "make": True}, False),
    ],
)
def test_an_optional_file_that_has_no_place_is_told(
    launcher: Started, tmp_path: Path, fields: dict[str, Any], told: bool
) -> None:
    (tmp_path / "mine").write_text("mine\n")
    known = {"source": bytes(tmp_path / "mine"), "path": b"/usr/bin/env", "optional": True}
    bind = launch.TreeFileBind(**{**known, **fields})
    talk = launcher.ready()
    request = session_request(tmp_path / "home")
    reply = talk.ask(structs.replace(request, tree=(*request.tree, bind)))
    assert isinstance(reply, launch.Opened), reply
    assert (bind.path.decode() in reply.missing) is told


@pytest.mark.parametrize(
    "fields",
    [
        {"source": b"/no/such"},
        {"source": b"/dev/null"},
        {"source": b"/usr"},
        {"source": b"/proc/self/exe"},
        {"path": b"/usr/bin/no-such-program"},
        {"path": b"/usr/bin"},
        {"path": b"/dev/null"},
        {"path": b"/sessions/bob/link"},
        {"path": b"/sessions/bob/link", "make": True},
        {"path": b"/sessions/bob/way/file", "make": True},
        {"source": b"/etc/no-such", "of_tree": True},
        {"source": b"/sessions/bob/link", "of_tree": True},
    ],
)
def test_a_file_that_cannot_be_laid_over_another_refuses_the_session(
    launcher: Started, tmp_path: Path, fields: dict[str, Any]
) -> None:
    (tmp_path / "mine").write_text("mine\n")
    request = session_request(tmp_path / "home")
    (tmp_path / "home" / "link").symlink_to("/etc/passwd")
    (tmp_path / "home" / "way").symlink_to("/tmp")
    bind = launch.TreeFileBind(**{"source": bytes(tmp_path / "mine"), "path": b"/usr/bin/env", **fields})
    talk = launcher.ready()
    assert isinstance(talk.ask(structs.replace(request, tree=(*request.tree, bind))), launch.Refused)
    assert isinstance(talk.ask(request), launch.Opened)
