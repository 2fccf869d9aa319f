"""A bundle: the directory of one machine.

    BUNDLE/bundle.json            how it is to be run (`bundle_settings`)
    BUNDLE/manifest.json          what the image is (`manifest`)
    BUNDLE/vmlinuz initrd.img rootfs.img rootfs.img.zst rootfs.img.origin     the image, read-only to the guest (`bundle_image`)
    BUNDLE/sessions.img           the session disk (`session_disk`)
    BUNDLE/share/shared/          what the guest sees of the host, where no other directory was named
    BUNDLE/logs/                  keeper.log, serial.log, coworkd.log, egress.log
    BUNDLE/run/                   lock, keeper.sock, vsock.sock, console.sock: of the machine that runs
    BUNDLE/state/                 last.json, and what the back end keeps: EFI variables, the machine identifier

Rules
- It is made beside its place and renamed there: a bundle is whole or not there.
- The directory is its owner's alone (0700): sockets and disks in it are the machine. The guest writes below `share/` only: nothing it puts
  there keeps the bundle from being opened, and no share holds the bundle.
- Its path is short enough for every socket below `run/`; the kernel's limit is 108 bytes, 104 on macOS.

All of it blocks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

import psutil

from coworkd.wire.endpoint import HybridEndpoint
from host_stub import bundle_image, session_disk
from host_stub.bundle_files import Progress, sync_directory, telling, write_whole
from host_stub.bundle_settings import FIRST_CID, LAST_CID, Settings, compose_settings, parse_settings
from host_stub.manifest import FILE_NAME as MANIFEST_NAME
from host_stub.manifest import MAX_BYTES as MANIFEST_MAX_BYTES
from host_stub.manifest import Manifest, parse_manifest
from host_stub.words import (
    HEALTH_PORT,
    ROOT_DISK_SERIAL,
    RPC_PORT,
    SESSION_DISK_SERIAL,
    UPDATE_DISK_SERIAL,
    Disk,
    MachineSpec,
    Share,
    Trouble,
)

SETTINGS_NAME = "bundle.json"
MAX_PATH_BYTES = 80
"""104 bytes of a socket's path on macOS with its end, less what stands below `run/` and `state/`."""
_DIRECTORIES = ("logs", "run", "state")
_SHARED = "share/shared"
"""The guest's to change as it likes: that it is a directory is looked at before a boot, and nothing else depends on it."""


class Bundle:
    """A bundle that is there, with its settings and manifest as read when it was opened."""

    def __init__(self, path: Path, settings: Settings, manifest: Manifest) -> None:
        self.path = path
        self.settings = settings
        self.manifest = manifest

    @property
    def session_disk(self) -> Path:
        return self.path / session_disk.FILE_NAME

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def vsock(self) -> Path:
        return self.run / "vsock.sock"

    @property
    def keeper_socket(self) -> Path:
        return self.run / "keeper.sock"

    @property
    def serial_log(self) -> Path:
        return self.logs / "serial.log"

    @property
    def uri(self) -> str:
        """What `coworkctl --to` takes, and the client's `connect`."""
        return str(HybridEndpoint(path=str(self.vsock), port=RPC_PORT))

    @property
    def health(self) -> HybridEndpoint:
        """Where the guest tells whether it lives (docs/health.md)."""
        return HybridEndpoint(path=str(self.vsock), port=HEALTH_PORT)

    def check(self, progress: Progress) -> tuple[str, ...]:
        """Check all that is booted, and mend it where that can be; a sentence for each that was mended. Raises `Trouble`."""
        if self.manifest.architecture != self.settings.architecture:
            raise Trouble(
                "wrong_architecture",
                f"the bundle {self.path} is for {self.settings.architecture}, and its image is of {self.manifest.architecture}",
                remedy=f"bring in an image of {self.settings.architecture}: cowork-vm renew --image DIR",
            )
        session_disk.look_at(self.session_disk)
        self._check_share()
        return bundle_image.check_artifacts(self.path, self.manifest.needed(self.settings.boot), progress)

    def spec(self) -> MachineSpec:
        """What a back end is told. Only after `check`."""
        settings = self.settings
        files = {name: self.path / artifact.file for name, artifact in self.manifest.needed(settings.boot).items()}
        root = files["rootfs" if settings.boot == "kernel" else "disk"]
        disks = [
            Disk(path=root, serial=ROOT_DISK_SERIAL, read_only=True),
            Disk(path=self.session_disk, serial=SESSION_DISK_SERIAL, bus=settings.session_bus),
        ]
        if settings.update_disk is not None:
            disks.append(Disk(path=Path(settings.update_disk), serial=UPDATE_DISK_SERIAL, read_only=True))
        words = (self.manifest.command_line, settings.command_line)
        return MachineSpec(
            architecture=settings.architecture,
            boot=settings.boot,
            kernel=files.get("kernel"),
            initrd=files.get("initrd"),
            command_line=" ".join(filter(None, words)) if settings.boot == "kernel" else "",
            disks=tuple(disks),
            shares=(Share(path=self.share),),
            cpus=settings.cpus,
            memory_bytes=settings.memory_bytes,
            network=settings.network,
            vsock=self.vsock,
            cid=settings.cid,
            serial_log=self.serial_log,
            console=self.run / "console.sock",
            state_dir=self.state,
        )

    @property
    def share(self) -> Path:
        return self.path / "share" if self.settings.share is None else Path(self.settings.share)

    def _check_share(self) -> None:
        if not (self.share / "shared").is_dir():
            raise Trouble(
                "no_share",
                f"the shared directory {self.share} has no directory `shared` in it, which is what sessions see",
                remedy=f"make it: mkdir -p {self.share / 'shared'}",
            )
        self.judge_share()

    def judge_share(self) -> None:
        """Raise `Trouble` (`bad_share`) where what the guest may write would hold what decides about the guest."""
        share, bundle = self.share.resolve(), self.path.resolve()
        egress = self.settings.egress.settings
        if share in (bundle, *bundle.parents) or (bundle in share.parents and share != bundle / "share"):
            held = self.path
        elif egress is not None and share in Path(egress).resolve().parents:
            held = Path(egress)
        else:
            return
        raise Trouble(
            "bad_share",
            f"the shared directory {self.share} and {held} lie within one another: the guest could write what decides about it",
            remedy="share another directory: name it with --share, or as `share` in bundle.json",
        )


def open_bundle(path: Path, *, manifest: Manifest | None = None) -> Bundle:
    """The bundle at `path`. Raises `Trouble` (`no_bundle`, `bad_settings`, `bad_manifest`, `path_too_long`).

    With a `manifest` its own is not read: for a bundle that gets this one, whatever is wrong with its own.
    """
    path = _judge_path(path)
    if not (path / SETTINGS_NAME).is_file():
        raise Trouble("no_bundle", f"there is no machine at {path}", remedy="make one: cowork-vm create --image DIR")
    settings = parse_settings(_read(path / SETTINGS_NAME), source=str(path / SETTINGS_NAME))
    manifest = read_manifest(path) if manifest is None else manifest
    with telling("making directories in", path):
        for name in _DIRECTORIES:
            (path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        (path / _SHARED).mkdir(mode=0o700, parents=True)
    return Bundle(path, settings, manifest)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an image's directory, or of a bundle. Raises `Trouble` (`no_image`, `bad_manifest`)."""
    if not (directory / MANIFEST_NAME).is_file():
        raise Trouble(
            "no_image",
            f"{directory} holds no image: it has no {MANIFEST_NAME}",
            remedy="build one, or name the directory it is in with --image",
        )
    return parse_manifest(_read(directory / MANIFEST_NAME), source=str(directory / MANIFEST_NAME))


def create_bundle(
    path: Path, image: Path, settings: Settings, *, session_disk_bytes: int, progress: Progress
) -> Bundle:
    """Make a bundle from the image in a directory. Raises `Trouble` (`bundle_there`, `wrong_architecture`, `no_space` …)."""
    path = _judge_path(path)
    manifest = read_manifest(image)
    if manifest.architecture != settings.architecture:
        raise Trouble(
            "wrong_architecture",
            f"the image {image} is of {manifest.architecture}, not {settings.architecture}",
            remedy=f"name an image of {settings.architecture}, or leave --architecture away",
        )
    artifacts = manifest.needed(settings.boot)
    Bundle(path, settings, manifest).judge_share()
    _require_nothing_at(path)
    with telling("making", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_begun(path)
        new = path.with_name(f".{path.name}.new-{os.getpid()}")
        new.mkdir(mode=0o700)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, new, ignore_errors=True)
        _fill(new, image, settings, session_disk_bytes)
        bundle_image.import_artifacts(image, new, artifacts, progress)
        with telling("making", path):
            sync_directory(new)
            new.rename(path)
            sync_directory(path.parent)
        undo.pop_all()
    return open_bundle(path)


def renew_image(bundle: Bundle, image: Path, *, progress: Progress) -> Bundle:
    """Put another image (or the same again) into a bundle whose machine does not run. The session disk is not touched.

    The manifest is written last: where this ends half-way, what is there differs from the manifest that is there, and is not booted.
    """
    manifest = read_manifest(image)
    if manifest.architecture != bundle.settings.architecture:
        raise Trouble(
            "wrong_architecture",
            f"the image {image} is of {manifest.architecture}, and the bundle {bundle.path} of {bundle.settings.architecture}",
            remedy="name an image of the bundle's architecture, or make another bundle",
        )
    bundle_image.import_artifacts(image, bundle.path, manifest.needed(bundle.settings.boot), progress)
    with telling("writing", bundle.path / MANIFEST_NAME):
        write_whole(bundle.path / MANIFEST_NAME, [_read(image / MANIFEST_NAME)])
    return open_bundle(bundle.path)


def remove_bundle(bundle: Bundle) -> None:
    """Delete a bundle whose machine does not run, with its session disk. What has its name afterwards is not a bundle any more."""
    with telling("removing", bundle.path):
        _open_up(bundle.path / "share")
        (bundle.path / SETTINGS_NAME).unlink()
        shutil.rmtree(bundle.path)


def _open_up(top: Path) -> None:
    """A guest may have made directories that nobody may look into."""
    for directory, names, _ in os.walk(top):
        for path in (Path(directory, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o700)


def choose_cid() -> int:
    """A vsock address that hardly another machine of this host has."""
    return FIRST_CID + secrets.randbelow(LAST_CID - FIRST_CID + 1)


def _fill(new: Path, image: Path, settings: Settings, session_disk_bytes: int) -> None:
    with telling("writing to", new):
        for name in (*_DIRECTORIES, _SHARED):
            (new / name).mkdir(mode=0o700, parents=True)
        write_whole(new / SETTINGS_NAME, [compose_settings(settings)])
        write_whole(new / MANIFEST_NAME, [_read(image / MANIFEST_NAME)])
    session_disk.create(new / session_disk.FILE_NAME, session_disk_bytes)


def _judge_path(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise Trouble(
            "path_too_long",
            f"the path {path} has {len(os.fsencode(path))} bytes, and sockets below it can have it only to {MAX_PATH_BYTES}",
            remedy="use a shorter one with --bundle",
        )
    return path


def _require_nothing_at(path: Path) -> None:
    with telling("looking at", path):
        there = path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir())))
    if there:
        raise Trouble(
            "bundle_there",
            f"{path} is there already",
            remedy="use it: cowork-vm up; or name another place with --bundle; or remove it: cowork-vm rm",
        )


def _clear_begun(path: Path) -> None:
    """Remove what a `create` that was killed has left beside `path`."""
    for begun in path.parent.glob(f".{path.name}.new-*"):
        number = begun.name.rpartition("-")[2]
        if number.isdigit() and (int(number) == os.getpid() or not psutil.pid_exists(int(number))):
            shutil.rmtree(begun)


def _read(path: Path) -> bytes:
    with telling("reading", path), path.open("rb") as file:
        return file.read(MANIFEST_MAX_BYTES + 1)
