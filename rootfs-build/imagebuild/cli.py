"""The command `rootfs-build/build`: argv and exit codes only.

Exit codes: 0 done, 1 it could not be built (with the reason), 2 words it does not know.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from imagebuild.cache import Cache
from imagebuild.manifest import describe_file
from imagebuild.package_lists import read_package_lists
from imagebuild.pipeline import CHECKOUT, ROOM, Build, build_image
from imagebuild.recipe import ARCHITECTURES, SOURCE_DATE_EPOCH, SUITES, Recipe
from imagebuild.sources import compose_mirror_sources, find_own_sources
from imagebuild.trouble import Trouble

_SETS = ("tools", "office")
_MOST_KEYS = 8
"""What coworkd takes of them (`coworkd.release.minisign`)."""
_KEY = re.compile(r"RW[A-Za-z0-9+/]{54}", re.ASCII)


def build_parser() -> argparse.ArgumentParser:
    """The parser, also for the test of the documents' command lines."""
    parser = argparse.ArgumentParser(
        prog="rootfs-build/build", description="Build the guest's image: kernel, initrd, root, disk, manifest."
    )
    own = os.uname().machine
    parser.add_argument("--arch", choices=(*ARCHITECTURES, "all"), default=own if own in ARCHITECTURES else "x86_64")
    parser.add_argument(
        "--suite", choices=tuple(SUITES), default="bookworm", help="the distribution's release (default: bookworm)"
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="where packages come from (default: this machine's own APT sources)",
    )
    parser.add_argument(
        "--keyring",
        metavar="FILE",
        default="",
        help="the keys that sign a mirror's packages, where APT does not have them",
    )
    parser.add_argument(
        "--packages",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="a list of packages in place of packages/minimal.txt",
    )
    parser.add_argument("--with", dest="sets", choices=_SETS, action="append", default=[], help="add a set of packages")
    parser.add_argument(
        "--full-kernel", action="store_true", help="the distribution's full kernel, which knows 9p, not the cloud one"
    )
    parser.add_argument("--verity", action="store_true", help="make the root checked by dm-verity")
    parser.add_argument(
        "--update-key", metavar="FILE", type=Path, help="the minisign public keys that updates must be signed with"
    )
    parser.add_argument(
        "--console-login", action="store_true", help="give a root shell on the console: for debugging only"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=CHECKOUT / "build" / "image", help="default: build/image"
    )
    parser.add_argument("--cache", metavar="DIR", type=Path, default=None, help="default: ~/.cache/coworkd-image")
    parser.add_argument(
        "--refresh", action="store_true", help="ask the archive for the newest packages, whatever the cache has"
    )
    parser.add_argument(
        "--no-compress", action="store_true", help="make no compressed copies: quicker, for whoever only boots it"
    )
    parser.add_argument(
        "--check-reproducible",
        action="store_true",
        help="build everything twice, nothing cached the second time, and compare",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is asked for."""
    arguments = build_parser().parse_args(argv)
    names = tuple(ARCHITECTURES) if arguments.arch == "all" else (arguments.arch,)
    try:
        for name in names:
            recipe = compose_recipe(arguments, name)
            compress = not arguments.no_compress
            cache = Cache(arguments.cache or default_cache())
            build = Build(cache=cache, output=arguments.output, say=_say, fresh=arguments.refresh, compress=compress)
            made = build_image(recipe, build)
            if arguments.check_reproducible:
                check_reproducible(recipe, build, made)
            print(made, flush=True)
    except Trouble as error:
        print(f"rootfs-build: {error}", file=sys.stderr)
        return 1
    return 0


def compose_recipe(arguments: argparse.Namespace, name: str) -> Recipe:
    """What the words on the command line mean for one architecture. Raises `Trouble`."""
    suite = SUITES[arguments.suite]
    lists = arguments.packages or [ROOM / "packages" / "minimal.txt"]
    lists = [*lists, *(ROOM / "packages" / f"{one}.txt" for one in arguments.sets)]
    mirrors = compose_mirror_sources(arguments.mirror, suite, keyring=arguments.keyring)
    return Recipe(
        architecture=ARCHITECTURES[name],
        suite=suite,
        packages=read_package_lists(lists, family=suite.family),
        sources=mirrors or find_own_sources(suite),
        keyring=arguments.keyring,
        full_kernel=arguments.full_kernel,
        verity=arguments.verity,
        update_key=read_update_key(arguments.update_key) if arguments.update_key else "",
        console_login=arguments.console_login,
        source_date_epoch=int(os.environ.get("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH)),
    )


def read_update_key(path: Path) -> str:
    """The lines of one to eight keys of a minisign public key file: more than one while a key is changed. Raises `Trouble`."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"the update key {path} cannot be read: {error}") from error
    keys = [line for line in lines if not line.startswith("untrusted comment:")]
    if not 0 < len(set(keys)) == len(keys) <= _MOST_KEYS or any(_KEY.fullmatch(key) is None for key in keys):
        raise Trouble(
            f"{path} is no public key of minisign: a line of 56 characters that begins with RW, or up to {_MOST_KEYS} of them"
        )
    return "\n".join(keys)


def check_reproducible(recipe: Recipe, build: Build, made: Path) -> None:
    """Build again with an empty cache, elsewhere, and compare the manifests, which have every SHA-256. Raises `Trouble`."""
    with tempfile.TemporaryDirectory(prefix=".again-", dir=build.output) as work:
        again = replace(build, cache=Cache(Path(work, "cache")), output=Path(work, "image"))
        differing = compare_images(made, build_image(recipe, again))
    if differing:
        raise Trouble(f"not reproducible: two builds differ in {', '.join(differing)}")
    build.say("reproducible: a second build, with nothing cached, gave the same SHA-256 of every file")


def compare_images(one: Path, other: Path) -> list[str]:
    """The names of files of which two images do not have the same bytes."""
    names = sorted({path.name for directory in (one, other) for path in directory.iterdir()})
    both = [name for name in names if (one / name).exists() and (other / name).exists()]
    unequal = {name for name in both if describe_file(one / name) != describe_file(other / name)}
    return [name for name in names if name in unequal or name not in both]


def default_cache() -> Path:
    """Where builds are remembered (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "coworkd-image")


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
