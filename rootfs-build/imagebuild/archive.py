"""The first stage: the wanted packages out of the archive, as one tar.

mmdebstrap lets APT check signatures and find what depends on what, then unpacks; **no maintainer script runs**. So the machine's own
architecture is as good as a foreign one, nothing of the target is executed, and the same packages give the same bytes everywhere. What
the scripts would have done for the packages of our lists is done in `effects`.

Packages that are needed only to install or to configure (`packages/not-needed.txt`) are told to APT as being there.

Source: mmdebstrap(1), deb-control(5) for the status file.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from imagebuild.cache import Cache
from imagebuild.recipe import Recipe, compose_packages
from imagebuild.run import run

_NEVER = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
)
"""Paths that dpkg does not even unpack. The licences that packages want kept are in /usr/share/doc/*/copyright."""
_STAND_IN = """Package: {name}
Status: install ok installed
Architecture: all
Multi-Arch: foreign
Version: 9999
Maintainer: nobody <nobody@localhost>
Provides: {provides}
Description: stands in for what no image needs
"""
_PROVIDES = {"debconf": "debconf-2.0", "initramfs-tools": "linux-initramfs-tool"}


def compose_stand_ins(names: Sequence[str]) -> str:
    """A dpkg status file in which every one of `names` is installed."""
    return "\n".join(
        _STAND_IN.format(name=name, provides=_PROVIDES.get(name, f"{name}-stand-in")) for name in sorted(names)
    )


def fetch_packages(recipe: Recipe, *, not_needed: Sequence[str], cache: Cache, fresh: bool = False) -> Path:
    """The tar of all packages of `recipe`, from the cache or the archive. Raises `Trouble`."""
    wanted = compose_packages(recipe)
    stand_ins = compose_stand_ins([name for name in not_needed if name not in wanted])
    key = {
        "architecture": recipe.architecture.debian,
        "suite": recipe.suite.name,
        "packages": wanted,
        "sources": recipe.sources,
        "stand_ins": stand_ins,
        "epoch": recipe.source_date_epoch,
        "never": _NEVER,
    }

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            status = Path(work, "status")
            status.write_text(stand_ins)
            sources = []
            for number, text in enumerate(recipe.sources):
                form = (
                    "sources"
                    if text.lstrip().lower().startswith(("types:", "uris:", "suites:", "enabled:"))
                    else "list"
                )
                sources.append(Path(work, f"{number}.{form}"))
                sources[-1].write_text(text)
            argv = compose_mmdebstrap(recipe, wanted, status=status, sources=sources, output=path)
            run(argv, env={"SOURCE_DATE_EPOCH": str(recipe.source_date_epoch)})

    return cache.entry(
        f"packages-{recipe.suite.name}-{recipe.architecture.name}", key, make, suffix=".tar", fresh=fresh
    )


def compose_mmdebstrap(
    recipe: Recipe, packages: Sequence[str], *, status: Path, sources: Sequence[Path], output: Path
) -> list[str]:
    """The argv that writes the tar `output`. The list of what was unpacked is /var/lib/cowork-packages in it."""
    return [
        "mmdebstrap",
        "--variant=extract",
        f"--architectures={recipe.architecture.debian}",
        "--format=tar",
        "--skip=check/qemu",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NEVER),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=APT::Install-Recommends "false"',
        *((f"--keyring={recipe.keyring}",) if recipe.keyring else ()),
        f'--setup-hook=cp "{status}" "$1/var/lib/dpkg/status"',
        '--extract-hook=for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb -W --showformat=\'${Package} ${Version}\\n\' "$deb"; '
        'done | sort >"$1/var/lib/cowork-packages"',
        f"--include={','.join(packages)}",
        recipe.suite.name,
        str(output),
        *map(str, sources),
    ]


def read_package_versions(tar: Path) -> list[tuple[str, str]]:
    """Name and version of every package that was unpacked, sorted."""
    with tarfile.open(tar) as archive:
        member = archive.extractfile("./var/lib/cowork-packages")
        assert member is not None
        lines = member.read().decode().splitlines()
    return sorted((line.split(" ")[0], line.split(" ")[1]) for line in lines)
