"""Config: `coworkd.toml` → one frozen `Config`.

Invariants: every key has a default; an unknown key, a wrong type or a size out of bounds refuses the whole file
(`BadFile`, with file, line, key and nearest spelling); what a command may do is never said here, but in the policies.

Does not open sockets or directories, and does not check that paths exist. Described in coworkd.toml(5).
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Literal

from msgspec import Struct

from coworkd.model.bridge import BridgeSpec, parse_bridge
from coworkd.model.errors import InvalidParams, NotFound
from coworkd.settings import BadFile, BadValue, Finding, Given, Parser, read_tables
from coworkd.settings.findings import did_you_mean
from coworkd.settings.values import absolute_path, choice, flag, integer, listed, number, size, text

DEFAULT_PATH = "/etc/coworkd/coworkd.toml"
ADMIN_PRESETS = "/etc/coworkd/presets.json"
LogLevel = Literal["debug", "info", "warning", "error"]

_MIB = 1024 * 1024
_UNIX = re.compile(r"unix://(/[^?#]*)\Z")
_VSOCK_LISTEN = re.compile(r"vsock://:([0-9]{1,10})\Z")
_VSOCK_DIAL = re.compile(r"vsock://([0-9]{1,10}):([0-9]{1,10})\Z")
_VIRTIO = re.compile(r"virtio://(/[^?#]*)\Z")
_TARGET = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})\Z")
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,16}\Z")
_TAG = re.compile(r"[A-Za-z0-9._-]{1,35}\Z")
_BRIDGE_KEYS = ("name", "listen", "connect")
_HOST_CID = 2
"""The only peer there is for a guest (vsock(7), VMADDR_CID_HOST)."""
_MAX_PORT = 0xFFFF_FFFE
"""VMADDR_PORT_ANY, 0xffffffff, is no port."""


class LogConfig(Struct, frozen=True, kw_only=True):
    """`[log]`: `file` gets the structured lines as JSON, besides what goes to standard error; empty for none."""

    level: LogLevel = "info"
    file: str = ""


class AuditConfig(Struct, frozen=True, kw_only=True):
    """`[audit]`: bounds of the log in bytes: of one file, of all files, of the blocks kept for a full disk."""

    rotate_bytes: int = 8 * _MIB
    keep_bytes: int = 64 * _MIB
    reserve_bytes: int = _MIB


class SpoolConfig(Struct, frozen=True, kw_only=True):
    """`[spool]`: what is kept of each stream, and after how long output that stays open is told as such."""

    stream_bytes: int = _MIB
    total_bytes: int = 256 * _MIB
    """What all streams that are kept in memory may take together before each is held to its part of it."""
    drain_s: float = 0.5


class FinishedConfig(Struct, frozen=True, kw_only=True):
    """`[finished]`: how long finished processes are kept; whichever bound is met first drops the oldest."""

    keep_s: float = 24 * 3600.0
    keep_count: int = 1024
    keep_bytes: int = 64 * _MIB


class NetworkConfig(Struct, frozen=True, kw_only=True):
    """`[network]`: what `reachability` tries to connect to, `HOST:PORT`, through the session's way out; empty: nothing is tried."""

    probe: str = ""


class EgressConfig(Struct, frozen=True, kw_only=True):
    """`[egress]`: where the way out through the host is (a profile's `egress.upstream = "host"`)."""

    host: str = f"vsock://{_HOST_CID}:5006"


class ApprovalsConfig(Struct, frozen=True, kw_only=True):
    """`[approvals]`: how long a delete waits for somebody to answer; then it is refused."""

    timeout_s: float = 120.0


class StorageConfig(Struct, frozen=True, kw_only=True):
    """`[storage]`: where sessions live. `auto`: on the session disk if there is one, else in `sessions_dir` as it is, which is told."""

    kind: Literal["auto", "disk", "loop", "directory"] = "auto"
    label: str = "cowork-sessions"
    """The serial number or label of the session disk."""
    device: str = ""
    """The session disk's device node, where it is not to be looked for."""
    wait_s: float = 5.0
    """How long coming up waits for a `disk` that is late; `auto` does not wait."""
    loop_file: str = ""
    """Of `loop`: the file with the file system, made where it is missing."""
    loop_size: int = 10 * 1024 * _MIB
    reserve_percent: float = 5.0
    """What sessions never get of a disk that is made new."""
    trim_s: float = 24 * 3600.0
    """How often the device is told what is free; 0: only when asked, and after deletes."""


class RetentionConfig(Struct, frozen=True, kw_only=True):
    """`[retention]`: sessions that go by themselves, the longest idle first; 0 turns a rule off. See `services.session_retention`."""

    max_age_days: float = 0.0
    max_sessions: int = 0
    max_total_bytes: int = 0
    announce_s: float = 3600.0
    """How long before it goes it is said."""
    dry_run: bool = False
    """Nothing goes by itself, nothing is said; `session.retention` tells what would."""


class ToolsConfig(Struct, frozen=True, kw_only=True):
    """`[tools]`: what is installed from the share (`services.tools`)."""

    keep: int = 3
    """How many versions of a tool stay, the one in use among them."""
    max_size: int = 4 * 1024 * _MIB
    """Of one version, as it comes and as it is unpacked."""


class GuestConfig(Struct, frozen=True, kw_only=True):
    """`[guest]`: what coworkd may do with the machine it runs in. Nothing, where that is somebody's own."""

    keep_clock: bool = False
    """Whether hosts set its clock (`hello`, `sync_clock`)."""
    power_off: bool = False
    """Whether `shutdown` may turn it off."""
    shutdown_s: float = 20.0
    """The budget of a shutdown that names none."""


class ShareConfig(Struct, frozen=True, kw_only=True):
    """`[share]`: the host's share, mounted where `share_root` begins. `auto`: virtiofs, else 9p."""

    kind: Literal["none", "auto", "virtiofs", "9p"] = "none"
    tag: str = "claudeshared"
    mount_point: str = "/mnt/.virtiofs-root"
    wait_s: float = 3.0
    """How long coming up waits for a share that is late; afterwards it is adopted when it comes."""


class HealthConfig(Struct, frozen=True, kw_only=True):
    """`[health]`: where it is told how coworkd is, by a thread of its own."""

    endpoints: tuple[str, ...] = ("unix:///run/coworkd/health.sock",)
    """`unix:///PATH` and `vsock://:PORT`; none: nowhere."""
    stuck_s: float = 10.0
    """A loop that has not turned for so long is told as one that hangs."""


class UpdateConfig(Struct, frozen=True, kw_only=True):
    """`[update]`: releases of coworkd itself, from the update disk. Without a key there are none."""

    key: str = ""
    """The file of the public keys that releases are signed by. Empty: the image's, as `find_update_key` finds it."""
    label: str = "smol-bin"
    """The serial number or label of the update disk."""
    device: str = ""
    """The update disk's device node, where it is not to be looked for."""
    mount_point: str = "/smol/bin"
    commit_s: float = 60.0
    """How long a release must be healthy until it may stay."""


class Config(Struct, frozen=True, kw_only=True):
    """Everything a coworkd needs to know before it starts. `Config()` is what holds without a file."""

    state_dir: str = "/sessions/.coworkd"
    sessions_dir: str = "/sessions"
    skeleton: str = ""
    """A directory that new homes begin with a copy of; empty for none."""
    endpoints: tuple[str, ...] = ("unix:///run/coworkd/coworkd.sock",)
    """`unix:///PATH` and `vsock://:PORT` are listened on, `vsock://2:PORT` is dialled, `virtio:///PATH` is opened."""
    share_root: str = ""
    """Where the host's share is mounted, below which every folder's source is. Empty: folders are directories of this machine."""
    token_file: str = ""
    """A file with the token a host must say in `hello`; empty for none."""
    launcher_socket: str = "/run/coworkd/launcher.sock"
    egress_socket: str = "/run/coworkd/egress.sock"
    vendor_policies: str = ""
    """Empty: as `find_vendor_policies` finds them."""
    admin_policies: str = "/etc/coworkd/policies"
    cache_dir: str = "/var/cache/coworkd"
    presets: str = ""
    """The file of what the presets are on this machine. Empty: as `find_presets` finds it."""
    log: LogConfig = LogConfig()
    audit: AuditConfig = AuditConfig()
    spool: SpoolConfig = SpoolConfig()
    finished: FinishedConfig = FinishedConfig()
    storage: StorageConfig = StorageConfig()
    approvals: ApprovalsConfig = ApprovalsConfig()
    network: NetworkConfig = NetworkConfig()
    egress: EgressConfig = EgressConfig()
    retention: RetentionConfig = RetentionConfig()
    guest: GuestConfig = GuestConfig()
    share: ShareConfig = ShareConfig()
    tools: ToolsConfig = ToolsConfig()
    update: UpdateConfig = UpdateConfig()
    health: HealthConfig = HealthConfig()
    bridges: tuple[BridgeSpec, ...] = ()
    allow_bridges: bool = False
    """Whether a link may open a bridge that listens inside a session: a way past its egress policy."""

    @property
    def unix_sockets(self) -> tuple[str, ...]:
        """The paths of the sockets that hosts are answered at, the health port's among them."""
        uris = (*self.endpoints, *self.health.endpoints)
        return tuple(uri.removeprefix("unix://") for uri in uris if uri.startswith("unix://"))

    @property
    def presets_file(self) -> str | None:
        """The file of presets that is used; None where there is none."""
        return self.presets or find_presets()

    @property
    def policy_dirs(self) -> tuple[str, str]:
        """The vendor's layer and the admin's over it."""
        return (self.vendor_policies or find_vendor_policies(), self.admin_policies)


def load_config(path: str | None = None) -> Config:
    """Read `path`; without one `DEFAULT_PATH` where it exists, else the defaults.

    Raises `NotFound` where a named file is not there, `BadFile` (an `InvalidParams`) for what is wrong in it.
    """
    wanted = DEFAULT_PATH if path is None else path
    try:
        with open(wanted, "rb") as stream:
            data = stream.read()
    except FileNotFoundError as error:
        if path is None:
            return Config()
        raise NotFound(f"there is no configuration file {path}", path=path) from error
    except OSError as error:
        raise InvalidParams(
            f"configuration file {wanted} cannot be read: {error.strerror}", path=wanted, errno=error.errno
        ) from error
    return parse_config(data, file=wanted)


def parse_config(data: bytes, *, file: str) -> Config:
    """Return the configuration in the TOML bytes `data`, or raise `BadFile`."""
    given = read_tables(data, file=file, schema=_SCHEMA)
    values = {key: item.value for key, item in given.items()}
    config = Config(
        log=LogConfig(**_section(values, "log")),
        audit=AuditConfig(**_section(values, "audit")),
        spool=SpoolConfig(**_section(values, "spool")),
        finished=FinishedConfig(**_section(values, "finished")),
        storage=StorageConfig(**_section(values, "storage")),
        approvals=ApprovalsConfig(**_section(values, "approvals")),
        network=NetworkConfig(**_section(values, "network")),
        egress=EgressConfig(**_section(values, "egress")),
        retention=RetentionConfig(**_section(values, "retention")),
        guest=GuestConfig(**_section(values, "guest")),
        share=ShareConfig(**_section(values, "share")),
        tools=ToolsConfig(**_section(values, "tools")),
        update=UpdateConfig(**_section(values, "update")),
        health=HealthConfig(**_section(values, "health")),
        **{key: value for key, value in values.items() if "." not in key},
    )
    _check_audit_bounds(config.audit, given)
    _check_storage(config.storage, given)
    return config


def find_vendor_policies() -> str:
    """The directory of the policies that came with this coworkd: a checkout's own, else the installation's share."""
    checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    beside = os.path.join(checkout, "policies")
    if os.path.exists(os.path.join(checkout, "pyproject.toml")) and os.path.isdir(beside):
        return beside
    return os.path.join(sys.prefix, "share", "coworkd", "policies")


def find_presets() -> str | None:
    """The file of what the presets are on this machine: the admin's, else the installation's; None where there is neither."""
    installed = os.path.join(sys.prefix, "share", "coworkd", "presets.json")
    return next((path for path in (ADMIN_PRESETS, installed) if os.path.exists(path)), None)


def find_update_key() -> str | None:
    """The file of the keys that came with the image; None where there is none."""
    installed = os.path.join(sys.prefix, "share", "coworkd", "update.pub")
    return installed if os.path.exists(installed) else None


def _section(values: dict[str, Any], table: str) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{table}.")}


def _check_audit_bounds(audit: AuditConfig, given: dict[str, Given]) -> None:
    """A log must hold its newest file and one more, or rotation would drop what was just written."""
    if audit.keep_bytes >= 2 * audit.rotate_bytes:
        return
    key = "audit.keep_bytes" if "audit.keep_bytes" in given else "audit.rotate_bytes"
    said = f"keep_bytes ({audit.keep_bytes}) must be at least twice rotate_bytes ({audit.rotate_bytes})"
    raise BadFile([Finding(file=given[key].file, line=given[key].line, key=key, message=said)])


def _check_storage(storage: StorageConfig, given: dict[str, Given]) -> None:
    """Each kind has its keys; one that says nothing for the kind that is chosen would be a wish in vain."""
    if storage.kind == "loop" and not storage.loop_file:
        where = given["storage.kind"]
        said = "a loop disk wants its file: storage.loop_file"
        raise BadFile([Finding(file=where.file, line=where.line, key="storage.kind", message=said)])
    for key, kind in (("loop_file", "loop"), ("loop_size", "loop"), ("device", "disk")):
        where_given = given.get(f"storage.{key}")
        if where_given is not None and storage.kind != kind:
            said = f"means something only with storage.kind = {kind!r}, and that is {storage.kind!r}"
            raise BadFile([Finding(file=where_given.file, line=where_given.line, key=f"storage.{key}", message=said)])


def _label(value: object) -> str:
    label = text(value)
    if not _LABEL.match(label):
        raise BadValue(f"{label!r} cannot be the label of a file system: 1 to 16 of A-Z a-z 0-9 . _ -")
    return label


def _tag(value: object) -> str:
    tag = text(value)
    if not _TAG.match(tag):
        raise BadValue(f"{tag!r} cannot be the tag of a share: 1 to 35 of A-Z a-z 0-9 . _ -")
    return tag


def _endpoint(value: object) -> str:
    uri = text(value)
    if (unix := _UNIX.match(uri)) is not None:
        if len(unix[1].encode()) > 107:
            raise BadValue(f"{uri!r} has a path over 107 bytes, more than a unix socket's name can have (unix(7))")
        return uri
    if (listen := _VSOCK_LISTEN.match(uri)) is not None:
        return _with_port(uri, int(listen[1]))
    if (dial := _VSOCK_DIAL.match(uri)) is not None:
        if int(dial[1]) != _HOST_CID:
            raise BadValue(f"{uri!r} names CID {dial[1]}; the host is CID 2: vsock://2:{dial[2]}")
        return _with_port(uri, int(dial[2]))
    if _VIRTIO.match(uri) is not None:
        return uri
    raise BadValue(
        f"{uri!r} is not an endpoint: unix:///PATH, vsock://:PORT (listen), vsock://2:PORT (dial out) or "
        "virtio:///dev/virtio-ports/NAME"
    )


def _health_endpoint(value: object) -> str:
    uri = text(value)
    if _UNIX.match(uri) is None and _VSOCK_LISTEN.match(uri) is None:
        raise BadValue(f"{uri!r} cannot be listened on: unix:///PATH or vsock://:PORT")
    return _endpoint(uri)


def _bridges(value: object) -> tuple[BridgeSpec, ...]:
    found: tuple[BridgeSpec, ...] = listed(_bridge)(value)
    names = [spec.name for spec in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise BadValue(f"{name!r} is the name of two bridges", place=place)
    return found


def _bridge(value: object) -> BridgeSpec:
    if not isinstance(value, dict):
        raise BadValue("wants tables: write [[bridges]] and its keys below")
    for key in value:
        if key not in _BRIDGE_KEYS:
            hint, close = did_you_mean(key, _BRIDGE_KEYS)
            raise BadValue(f"{key!r} is not a key of a bridge{hint}", nearest=close)
    for key in _BRIDGE_KEYS:
        if key not in value:
            raise BadValue(f"lacks {key!r}: a bridge has {', '.join(_BRIDGE_KEYS)}")
    try:
        return parse_bridge({key: text(value[key]) for key in _BRIDGE_KEYS})
    except InvalidParams as error:
        raise BadValue(error.message) from error


def _host_uri(value: object) -> str:
    uri = text(value)
    if _UNIX.match(uri) is None and _VSOCK_DIAL.match(uri) is None:
        raise BadValue(f"{uri!r} is no way to the host: vsock://2:PORT or unix:///PATH")
    return _endpoint(uri)


def _target(value: object) -> str:
    target = text(value)
    match = _TARGET.match(target)
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise BadValue(f"{target!r} is not HOST:PORT, such as example.org:443 or [2001:db8::1]:443")
    return target


def _with_port(uri: str, port: int) -> str:
    if not 0 < port <= _MAX_PORT:
        raise BadValue(f"{uri!r} has a port outside 1 to {_MAX_PORT}")
    return uri


_SCHEMA: dict[str, Parser] = {
    "state_dir": absolute_path,
    "sessions_dir": absolute_path,
    "skeleton": absolute_path,
    "share_root": absolute_path,
    "endpoints": listed(_endpoint),
    "token_file": absolute_path,
    "launcher_socket": absolute_path,
    "egress_socket": absolute_path,
    "vendor_policies": absolute_path,
    "admin_policies": absolute_path,
    "cache_dir": absolute_path,
    "presets": absolute_path,
    "bridges": _bridges,
    "allow_bridges": flag,
    "log.level": choice("debug", "info", "warning", "error"),
    "log.file": absolute_path,
    "audit.rotate_bytes": size(64 * 1024, 1 << 40),
    "audit.keep_bytes": size(128 * 1024, 1 << 44),
    "audit.reserve_bytes": size(0, 1 << 30),
    "spool.stream_bytes": size(64 * 1024, 1 << 40),
    "spool.total_bytes": size(1024 * 1024, 1 << 40),
    "spool.drain_s": number(0, 60),
    "finished.keep_s": number(0, 10 * 365 * 24 * 3600),
    "finished.keep_count": integer(1, 1_000_000),
    "finished.keep_bytes": size(0, 1 << 40),
    "approvals.timeout_s": number(1, 3600),
    "storage.kind": choice("auto", "disk", "loop", "directory"),
    "storage.label": _label,
    "storage.device": absolute_path,
    "storage.wait_s": number(0, 600),
    "storage.loop_file": absolute_path,
    "storage.loop_size": size(16 * _MIB, 1 << 46),
    "storage.reserve_percent": number(0, 50),
    "storage.trim_s": number(0, 365 * 24 * 3600),
    "network.probe": _target,
    "egress.host": _host_uri,
    "retention.max_age_days": number(0, 36500),
    "retention.max_sessions": integer(0, 1_000_000),
    "retention.max_total_bytes": size(0, 1 << 50),
    "retention.announce_s": number(0, 30 * 24 * 3600),
    "retention.dry_run": flag,
    "update.key": absolute_path,
    "update.label": _label,
    "update.device": absolute_path,
    "update.mount_point": absolute_path,
    "update.commit_s": number(1, 3600),
    "health.endpoints": listed(_health_endpoint),
    "health.stuck_s": number(1, 600),
    "guest.keep_clock": flag,
    "guest.power_off": flag,
    "guest.shutdown_s": number(1, 600),
    "share.kind": choice("none", "auto", "virtiofs", "9p"),
    "share.tag": _tag,
    "share.mount_point": absolute_path,
    "share.wait_s": number(0, 600),
    "tools.keep": integer(1, 100),
    "tools.max_size": size(_MIB, 1 << 40),
}
