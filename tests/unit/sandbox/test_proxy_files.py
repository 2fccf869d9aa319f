from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from coworkd.model.launch import TreeCopy, TreeEntry, TreeFile, TreeFileBind
from coworkd.sandbox.proxy_files import compose_proxy_files
from tests.unit.sandbox.spawn_room import MERGED, UNMERGED


def files(**changes: object) -> dict[bytes, TreeEntry]:
    return {entry.path: entry for entry in compose_proxy_files(structs.replace(MERGED, **changes))}


def content(entry: TreeEntry) -> str:
    assert isinstance(entry, TreeFile)
    return entry.data.decode()


def test_ssh_goes_through_a_script_that_is_there() -> None:
    made = files()
    script = made[b"/etc/coworkd/connect.py"]
    assert isinstance(script, TreeCopy)
    assert Path(script.source.decode()).is_file()
    assert "/usr/bin/python3 -I -S /etc/coworkd/connect.py 127.0.0.1 3128 %h %p" in content(
        made[b"/etc/ssh/ssh_config"]
    )


@pytest.mark.needs("ssh")
@pytest.mark.parametrize(
    ("host", "command"),
    [
        ("git.example.com", "/usr/bin/python3 -I -S /etc/coworkd/connect.py 127.0.0.1 3128 %h %p"),
        ("127.0.0.1", "none"),
        ("localhost", "none"),
    ],
)
def test_ssh_reads_its_configuration(tmp_path: Path, host: str, command: str) -> None:
    (tmp_path / "config").write_text(content(files()[b"/etc/ssh/ssh_config"]))
    done = subprocess.run(
        ["/usr/bin/ssh", "-G", "-F", str(tmp_path / "config"), host],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert said.get("proxycommand", "none") == command


def test_a_guest_without_python_has_no_ssh_configuration() -> None:
    assert [entry.path for entry in compose_proxy_files(UNMERGED)] == [b"/etc/coworkd"]


def test_each_java_has_its_own_properties_with_ours_at_the_end() -> None:
    javas = (
        (b"/etc/java-17/net.properties", b"a=1\nhttp.proxyHost=other"),
        (b"/opt/jdk/conf/net.properties", b"b=2\n"),
    )
    made = files(java_net_properties=javas)
    for number, (path, own) in enumerate(javas):
        source = b"/etc/coworkd/java/%d.properties" % number
        assert made[path] == TreeFileBind(source=source, path=path, read_only=True, optional=True, of_tree=True)
        said = content(made[source])
        assert said.startswith(own.decode() + "\n")
        lines = dict(line.partition("=")[::2] for line in said.splitlines() if "=" in line)
        assert (lines["http.proxyHost"], lines["https.proxyPort"]) == ("127.0.0.1", "3128")
        assert (lines["socksProxyHost"], lines["socksProxyPort"]) == ("127.0.0.1", "1080")
        assert lines["http.nonProxyHosts"] == "localhost|127.*|[::1]"
