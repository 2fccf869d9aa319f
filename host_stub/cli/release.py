"""`release keygen|build|sign|disk`: releases of coworkd itself, from a package directory to an update disk. No machine is needed."""

from __future__ import annotations

from pathlib import Path

import click

import coworkd
from coworkd.release.manifest import MANIFEST, Architecture
from host_stub.cli.telling import say
from host_stub.release import compose_manifest, gather, running_python, write_signed
from host_stub.release_key import parse_secret_key, write_keys
from host_stub.update_disk import Kind, write_update_disk
from host_stub.words import Trouble

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_NEW = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def release() -> None:
    """Make, sign and pack releases of coworkd."""


@release.command()
@click.argument("name")
@click.option("--directory", type=_DIRECTORY, default=Path(), help="Where NAME.key and NAME.pub are put.")
def keygen(name: str, directory: Path) -> None:
    """Make a key: NAME.key signs releases, NAME.pub goes into the image."""
    secret, public = write_keys(directory, name)
    say(f"made {secret}, which has no password: keep it where nobody else reads it")
    say(f"made {public}: build the image with --update-key {public}")


@release.command()
@click.argument("target", type=_NEW)
@click.option("--code", type=_DIRECTORY, help="The package directory `coworkd`. Default: the one that runs this.")
@click.option("--policies", type=_DIRECTORY, help="A vendor's layer of policies, which takes the place of the image's.")
@click.option("--no-code", is_flag=True, help="Policies alone: the image's own code goes on running.")
def build(target: Path, code: Path | None, policies: Path | None, no_code: bool) -> None:
    """Gather a release in the new directory TARGET, bytecode included."""
    if no_code and policies is None:
        raise click.UsageError("--no-code wants --policies: there would be nothing in it")
    package = None if no_code else code or Path(coworkd.__file__).parent
    gather(target, code=package, policies=policies)
    say(f"gathered {target}: sign it with `cowork-vm release sign`")


@release.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--key", type=_FILE, required=True, help="The secret key, of minisign's format, without a password.")
@click.option("--version", required=True, help="Two to four numbers, such as 1.4.2.")
@click.option("--architecture", type=click.Choice(["any", "x86_64", "aarch64"]), default="any", show_default=True)
@click.option("--minimum-version", default="0.0", show_default=True, help="The oldest image it runs on.")
@click.option("--python", multiple=True, help="A version of Python it is for; may be repeated. Default: this one's.")
@click.option("--any-python", is_flag=True, help="It is for any version of Python.")
def sign(
    directory: Path,
    key: Path,
    version: str,
    architecture: Architecture,
    minimum_version: str,
    python: tuple[str, ...],
    any_python: bool,
) -> None:
    """Write the manifest of DIRECTORY and its signature."""
    secret = parse_secret_key(_read(key), file=str(key))
    versions = () if any_python or not (directory / "code").is_dir() else python or (running_python(),)
    manifest = compose_manifest(
        directory, version=version, architecture=architecture, minimum_version=minimum_version, python=versions
    )
    try:
        write_signed(directory, manifest, secret)
    except OSError as error:
        said = f"{error.filename} cannot be written: {error.strerror}"
        raise Trouble("not_written", said, remedy="see to room and rights there") from error
    say(f"signed {directory / MANIFEST}: {version}, {len(manifest.files)} files, by {secret.public.name}")


@release.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("image", type=_NEW)
@click.option("--kind", type=click.Choice(["exfat", "ext4"]), default="exfat", show_default=True)
def disk(directory: Path, image: Path, kind: Kind) -> None:
    """Make IMAGE, an update disk, of the signed release in DIRECTORY."""
    manifest = write_update_disk(directory, image, kind=kind)
    say(f"made {image}: {manifest.version}; give it to a machine with `cowork-vm create --update-disk {image}`")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Trouble("unreadable", f"{path} cannot be read: {error.strerror}", remedy="see to its rights") from error
