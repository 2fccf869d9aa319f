"""`create`, `renew`, `grow` and `rm`: the bundle itself. All but `grow` need that its machine does not run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from host_stub import session_disk
from host_stub.bundle import (
    Bundle,
    choose_cid,
    create_bundle,
    open_bundle,
    read_manifest,
    remove_bundle,
    renew_image,
)
from host_stub.bundle_files import shown_bytes
from host_stub.bundle_settings import EgressSettings, Settings, compose_settings, parse_settings
from host_stub.cli.options import Size, bundle_option, bundle_path, the_bundle
from host_stub.cli.telling import say, showing_progress
from host_stub.keeper_client import open_keeper
from host_stub.keeper_lock import hold_lock
from host_stub.words import Trouble

IMAGE_VARIABLE = "COWORK_IMAGE"
DEFAULT_MEMORY = "2G"
DEFAULT_CPUS = 4
_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@bundle_option
@click.option(
    "--image", type=_DIRECTORY, envvar=IMAGE_VARIABLE, required=True, help="The directory an image was built in."
)
@click.option("--architecture", type=click.Choice(["x86_64", "aarch64"]), help="Refuse an image of any other.")
@click.option("--cpus", type=click.IntRange(1, 64), help="Default: as many as here, at most 4.")
@click.option("--memory", type=Size(), default=DEFAULT_MEMORY, show_default=True)
@click.option(
    "--disk", type=Size(), default="10G", show_default=True, help="The session disk; takes the room that is used."
)
@click.option("--share", type=_DIRECTORY, help="Sessions see its `shared` directory. Default: one in the bundle.")
@click.option("--update-disk", type=_FILE, help="An update disk (smol-bin).")
@click.option("--boot", type=click.Choice(["kernel", "efi"]), default="kernel", show_default=True)
@click.option("--backend", type=click.Choice(["auto", "qemu", "vz"]), default="auto", show_default=True)
@click.option("--accelerator", type=click.Choice(["auto", "kvm", "hvf", "tcg"]), default="auto", show_default=True)
@click.option("--network", type=click.Choice(["none", "nat"]), default="none", show_default=True)
@click.option("--session-bus", type=click.Choice(["virtio", "nvme", "usb"]), default="virtio", show_default=True)
@click.option("--restart", type=click.Choice(["hung", "always", "never"]), default="hung", show_default=True)
@click.option("--command-line", default="", help="More words for the guest's kernel.")
@click.option("--egress-settings", type=_FILE, help="srt-settings: the hosts any session may reach through this host.")
@click.option("--egress-allow-private", is_flag=True, help="Let sessions reach private addresses too.")
def create(bundle: Path | None, image: Path, disk: int, architecture: str | None, **options: Any) -> None:
    """Make a machine from an image."""
    settings = _settings(architecture or read_manifest(image).architecture, options)
    with showing_progress() as progress:
        made = create_bundle(bundle_path(bundle), image, settings, session_disk_bytes=disk, progress=progress)
    say(f"made {made.path} of {made.manifest.name} {made.manifest.version} ({made.manifest.architecture})")


@click.command()
@bundle_option
@click.option(
    "--image", type=_DIRECTORY, envvar=IMAGE_VARIABLE, required=True, help="The directory an image was built in."
)
def renew(bundle: Path | None, image: Path) -> None:
    """Put another image into a machine, or the same again. Sessions stay."""
    there = _to_renew(bundle, image)
    with hold_lock(there), showing_progress() as progress:
        renewed = renew_image(there, image, progress=progress)
    say(f"{renewed.path} has {renewed.manifest.name} {renewed.manifest.version} now")


@click.command()
@bundle_option
@click.argument("size", type=Size())
def grow(bundle: Path | None, size: int) -> None:
    """Make the session disk SIZE large, such as 20G."""
    there = the_bundle(bundle)
    with open_keeper(there) as keeper:
        if keeper is None:
            with hold_lock(there):
                session_disk.grow(there.session_disk, size)
            say(f"the session disk has {shown_bytes(size)}; its file system grows at the next start")
            return
        keeper.grow(size)
    from coworkd.client.sync import connect
    from coworkd.model.errors import CoworkError

    try:
        with connect(there.uri, client_name="cowork-vm grow") as client:
            client.storage_grow()
    except CoworkError as error:
        raise Trouble(
            "grown_outside",
            f"the session disk has {shown_bytes(size)}, and its file system has not grown: {error.message}",
            remedy="grow it when the guest is ready: cowork-vm ctl storage grow; or start the machine again",
        ) from error
    say(f"the session disk and its file system have {shown_bytes(size)}")


@click.command()
@bundle_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(bundle: Path | None, yes: bool) -> None:
    """Delete a machine with all its sessions."""
    there = the_bundle(bundle)
    used = session_disk.look_at(there.session_disk).used_bytes if there.session_disk.exists() else 0
    if not yes:
        click.confirm(f"Delete {there.path} and {shown_bytes(used)} of sessions for good?", abort=True, err=True)
    with hold_lock(there):
        remove_bundle(there)
    say(f"{there.path} is deleted")


def _to_renew(given: Path | None, image: Path) -> Bundle:
    """The bundle, also one whose own manifest is of no use any more: it gets another."""
    try:
        return the_bundle(given)
    except Trouble as trouble:
        if trouble.code not in ("bad_manifest", "manifest_format", "no_image"):
            raise
    return open_bundle(bundle_path(given), manifest=read_manifest(image))


def _settings(architecture: str, options: dict[str, Any]) -> Settings:
    """What was asked for, judged as a file of settings is."""
    share, update = options.pop("share"), options.pop("update_disk")
    egress_file, private = options.pop("egress_settings"), options.pop("egress_allow_private")
    for named in (update, egress_file):
        if named is not None and not named.is_file():
            raise Trouble("no_file", f"{named} is not there", remedy="look whether the path is right")
    memory, cpus = options.pop("memory"), options.pop("cpus")
    asked = Settings(
        architecture=architecture,  # type: ignore[arg-type]
        memory_bytes=memory,
        cpus=cpus or min(DEFAULT_CPUS, os.cpu_count() or 1),
        share=None if share is None else str(share.absolute()),
        update_disk=None if update is None else str(update.absolute()),
        egress=EgressSettings(
            settings=None if egress_file is None else str(egress_file.absolute()), allow_private=private
        ),
        cid=choose_cid(),
        **options,
    )
    return parse_settings(compose_settings(asked), source="the command line")
