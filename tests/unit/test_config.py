"""`config`: the file, its defaults, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd import config
from coworkd.config import Config, find_presets, find_vendor_policies, load_config, parse_config
from coworkd.model.errors import InvalidParams, NotFound
from coworkd.settings import BadFile


def refusal(text: str) -> BadFile:
    with pytest.raises(BadFile) as caught:
        parse_config(text.encode(), file="coworkd.toml")
    return caught.value


def test_an_empty_file_is_the_defaults() -> None:
    assert parse_config(b"", file="f") == Config()


EVERY_KEY = """
state_dir = "/s"
sessions_dir = "/h"
skeleton = "/k"
share_root = "/r"
endpoints = ["unix:///a/b.sock", "vsock://:5005", "vsock://2:5007", "virtio:///dev/virtio-ports/x"]
token_file = "/t"
launcher_socket = "/l"
vendor_policies = "/v"
admin_policies = "/a"
cache_dir = "/c"
presets = "/p"
egress_socket = "/e"
allow_bridges = true
bridges = [{ name = "b", listen = "session://work:80", connect = "unix:///b.sock" }]
[log]
level = "debug"
file = "/j"
[audit]
rotate_bytes = "1M"
keep_bytes = "3M"
reserve_bytes = 0
[spool]
stream_bytes = "2M"
total_bytes = "8M"
drain_s = 1
[finished]
keep_s = 60
keep_count = 5
keep_bytes = "4M"
[storage]
kind = "loop"
label = "mine"
wait_s = 3
loop_file = "/f"
loop_size = "64M"
reserve_percent = 2.5
trim_s = 0
[approvals]
timeout_s = 30
[retention]
max_age_days = 30
max_sessions = 100
max_total_bytes = "1G"
announce_s = 60
dry_run = true
[tools]
keep = 5
max_size = "2G"
[network]
probe = "example.org:443"
[egress]
host = "unix:///x/host.sock"
[update]
key = "/u.pub"
label = "mine-too"
device = "/dev/u"
mount_point = "/smol"
commit_s = 5
[guest]
keep_clock = true
power_off = true
shutdown_s = 9
[share]
kind = "9p"
tag = "ours"
mount_point = "/mnt/ours"
wait_s = 4
[health]
endpoints = ["unix:///h.sock", "vsock://:5008"]
stuck_s = 7
"""


def test_every_key_reaches_its_field() -> None:
    read = parse_config(EVERY_KEY.encode(), file="f")
    assert read.endpoints == ("unix:///a/b.sock", "vsock://:5005", "vsock://2:5007", "virtio:///dev/virtio-ports/x")
    assert read.policy_dirs == ("/v", "/a")
    assert (read.state_dir, read.sessions_dir, read.token_file, read.launcher_socket) == ("/s", "/h", "/t", "/l")
    assert (read.cache_dir, read.log.level, read.log.file) == ("/c", "debug", "/j")
    assert (read.audit.rotate_bytes, read.audit.keep_bytes, read.audit.reserve_bytes) == (1 << 20, 3 << 20, 0)
    assert (read.spool.stream_bytes, read.spool.total_bytes, read.spool.drain_s) == (2 << 20, 8 << 20, 1.0)
    assert (read.finished.keep_s, read.finished.keep_count, read.finished.keep_bytes) == (60.0, 5, 4 << 20)
    assert (read.storage.kind, read.storage.label, read.storage.wait_s) == ("loop", "mine", 3.0)
    assert (read.storage.loop_file, read.storage.loop_size) == ("/f", 64 << 20)
    assert (read.storage.reserve_percent, read.storage.trim_s) == (2.5, 0.0)
    assert (read.presets_file, read.network.probe) == ("/p", "example.org:443")
    assert (read.egress_socket, read.egress.host) == ("/e", "unix:///x/host.sock")
    assert (read.retention.max_age_days, read.retention.max_sessions) == (30.0, 100)
    assert (read.retention.max_total_bytes, read.retention.announce_s, read.retention.dry_run) == (1 << 30, 60.0, True)
    assert read.approvals.timeout_s == 30.0
    assert (read.update.key, read.update.label, read.update.device) == ("/u.pub", "mine-too", "/dev/u")
    assert (read.update.mount_point, read.update.commit_s) == ("/smol", 5.0)
    assert (read.tools.keep, read.tools.max_size) == (5, 2 << 30)
    assert (read.guest.keep_clock, read.guest.power_off, read.guest.shutdown_s) == (True, True, 9.0)
    assert (read.share.kind, read.share.tag) == ("9p", "ours")
    assert (read.share.mount_point, read.share.wait_s) == ("/mnt/ours", 4.0)
    assert (read.health.endpoints, read.health.stuck_s) == (("unix:///h.sock", "vsock://:5008"), 7.0)
    assert read.unix_sockets == ("/a/b.sock", "/h.sock")
    assert read.allow_bridges
    assert (read.skeleton, read.share_root) == ("/k", "/r")
    assert [str(read.bridges[0].listen), str(read.bridges[0].connect)] == ["session://work:80", "unix:///b.sock"]
    # Every key of the schema stands in the text above, so none can be forgotten here.
    assert all(f"{key.rpartition('.')[2]} = " in EVERY_KEY for key in config._SCHEMA if key != "storage.device")


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("\nstate_dri = '/x'", 2, "state_dri", "did you mean 'state_dir'"),
        ("level = 'info'", 1, "level", "did you mean 'log.level'"),
        ("[log]\nlevel = 'warn'", 2, "log.level", "did you mean 'warning'"),
        ("state_dir = 'relative'", 1, "state_dir", "absolute"),
        ("[audit]\nrotate_bytes = '1M'\nkeep_bytes = '1M'", 3, "audit.keep_bytes", "twice rotate_bytes"),
        ("[audit]\nrotate_bytes = '1G'", 2, "audit.rotate_bytes", "twice rotate_bytes"),
        ("[finished]\nkeep_s = nan", 2, "finished.keep_s", "not nan"),
    ],
)
def test_mistakes_are_told_with_line_and_key(text: str, line: int, key: str, says: str) -> None:
    first = refusal(text).findings[0]
    assert (first.line, first.key) == (line, key)
    assert says in first.message


@pytest.mark.parametrize(
    "uri",
    [
        "tcp://1.2.3.4:5",
        "unix://relative",
        "unix:///" + "x" * 200,
        "vsock://3:5005",
        "vsock://:0",
        "vsock://:4294967295",
        "vsock://2:99999999999",
        "vsock://2",
        "hybrid:///a?port=1",
        "virtio://x",
        "",
    ],
)
def test_endpoints_that_cannot_be_meant_are_refused(uri: str) -> None:
    first = refusal(f'endpoints = [\n"unix:///a",\n"{uri}"]').findings[0]
    assert (first.line, first.key) == (3, "endpoints")


@pytest.mark.parametrize("uri", ["vsock://2:5008", "virtio:///dev/x", "http://127.0.0.1:80", "vsock://:0"])
def test_health_is_told_only_where_it_is_listened(uri: str) -> None:
    assert refusal(f"[health]\nendpoints = ['{uri}']").details["line"] == 2


def test_load_of_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no configuration file"):
        load_config(str(tmp_path / "absent.toml"))


def test_load_of_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="cannot be read"):
        load_config(str(tmp_path))


def test_load_without_a_name_takes_the_default_file_or_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "coworkd.toml"
    monkeypatch.setattr(config, "DEFAULT_PATH", str(path))
    assert load_config() == Config()
    path.write_text("state_dir = '/elsewhere'\n")
    assert load_config().state_dir == "/elsewhere"


def test_vendor_policies_of_a_checkout_are_its_own() -> None:
    assert (Path(find_vendor_policies()) / "profiles" / "default.toml").is_file()


def test_vendor_policies_of_an_installation_are_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib" / "coworkd"
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert find_vendor_policies() == str(tmp_path / "share" / "coworkd" / "policies")


@pytest.mark.parametrize(
    "target", ["example.org", "example.org:0", "example.org:65536", "https://a.example:1", "a b:1"]
)
def test_a_probe_is_a_host_and_a_port(target: str) -> None:
    first = refusal(f'[network]\nprobe = "{target}"').findings[0]
    assert (first.line, first.key) == (2, "network.probe")
    assert parse_config(b'[network]\nprobe = "[2001:db8::1]:443"', file="f").network.probe == "[2001:db8::1]:443"


def test_presets_are_the_admins_or_the_installations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admin, installed = tmp_path / "etc.json", tmp_path / "share" / "coworkd" / "presets.json"
    monkeypatch.setattr(config, "ADMIN_PRESETS", str(admin))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert find_presets() is None
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert find_presets() == str(installed)
    admin.touch()
    assert find_presets() == Config().presets_file == str(admin)


@pytest.mark.parametrize("uri", ["tcp://h:1", "vsock://3:5006", "vsock://:5006", "vsock://2:0", "unix://x", ""])
def test_a_way_to_the_host_is_vsock_or_a_unix_socket(uri: str) -> None:
    with pytest.raises(BadFile):
        parse_config(f'[egress]\nhost = "{uri}"\n'.encode(), file="f")


BRIDGE = """
[[bridges]]
name = "one"
listen = "unix:///a.sock"
connect = "vsock://2:7000"
"""


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (BRIDGE.replace("listen", "listn"), 2, "did you mean 'listen'"),
        (BRIDGE.replace('listen = "unix:///a.sock"', ""), 2, "lacks 'listen'"),
        (BRIDGE.replace("unix:///a.sock", "tcp://localhost:1"), 2, "address"),
        (BRIDGE.replace('"one"', "1"), 2, "text"),
        (BRIDGE + BRIDGE.replace("a.sock", "b.sock"), 7, "name of two bridges"),
        (BRIDGE + BRIDGE, 7, "listed twice"),
        ('bridges = ["unix:///a"]', 1, "[[bridges]]"),
        ("[bridges]\nname = 1", 1, "list"),
    ],
)
def test_a_bridge_that_cannot_be_is_refused_where_it_stands(text: str, line: int, said: str) -> None:
    first = refusal(text).findings[0]
    assert first.line == line
    assert said in first.message


def test_bridges_stand_in_their_order() -> None:
    read = parse_config((BRIDGE + BRIDGE.replace("one", "two").replace("a.sock", "b.sock")).encode(), file="f")
    assert [spec.name for spec in read.bridges] == ["one", "two"]


def test_the_session_disk_may_be_named() -> None:
    read = parse_config(b'[storage]\nkind = "disk"\ndevice = "/dev/vdb"\n', file="f")
    assert (read.storage.kind, read.storage.device) == ("disk", "/dev/vdb")


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('kind = "loop"', "storage.kind", "wants its file"),
        ('loop_file = "/f"', "storage.loop_file", "only with storage.kind = 'loop'"),
        ('kind = "directory"\ndevice = "/dev/vdb"', "storage.device", "only with storage.kind = 'disk'"),
        ('kind = "disk"\nloop_size = "1G"', "storage.loop_size", "only with storage.kind = 'loop'"),
        ('label = "two words"', "storage.label", "label of a file system"),
        ('label = "seventeen-letters"', "storage.label", "label of a file system"),
        ('kind = "loop"\nloop_file = "/f"\nloop_size = "1M"', "storage.loop_size", "16777216"),
    ],
)
def test_what_says_nothing_for_the_kind_of_storage_is_refused(text: str, key: str, said: str) -> None:
    (finding,) = refusal(f"[storage]\n{text}\n").findings
    assert finding.key == key
    assert said in finding.message
