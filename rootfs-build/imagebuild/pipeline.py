"""From a recipe to the files of an image, stage after stage.

1. `packages`: the archive's packages as one tar (cached: minutes otherwise, over the network)
2. `system`: the tree without coworkd: accounts, links, modules, byte code of the distribution's Python (cached as one tar)
3. `tree`: coworkd, its wheels, its policies, its units on top
4. `rootfs`, `initrd`, `disk`: the images, their compressed copies, the manifest

The output directory is replaced as a whole, so whoever reads it finds an old image or a new one. What would be the same again is left
as it is (`unchanged`).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebuild import effects, ext4, kernel, units
from imagebuild.archive import fetch_packages, read_package_versions
from imagebuild.cache import Cache, hash_of_files
from imagebuild.disk import plan_partitions, write_disk, write_esp
from imagebuild.filters import install_filters
from imagebuild.initrd import compose_initrd
from imagebuild.manifest import compose_command_line, compose_manifest, describe_file
from imagebuild.package_lists import read_package_lists
from imagebuild.presets import resolve_presets
from imagebuild.python_code import HOME, compile_code, find_python, install_code, install_layout, python_version
from imagebuild.recipe import Recipe
from imagebuild.run import run
from imagebuild.settings import DEFAULT_PROFILE, JOURNAL, compose_settings
from imagebuild.tree import Tree, pack, unpack
from imagebuild.trim import drop_set_id, trim
from imagebuild.uki import compose_sections, compose_uki
from imagebuild.unchanged import image_key, is_unchanged, note
from imagebuild.verity import Verity, write_verity
from imagebuild.wheels import fetch_wheels, install_wheels

ROOM = Path(__file__).resolve().parents[1]
CHECKOUT = ROOM.parent
_COMPRESSION = ("-9", "-T2")


@dataclass(frozen=True, kw_only=True)
class Build:
    """Where things are kept while an image is built, and who is told."""

    cache: Cache
    output: Path
    """Gets a directory of the architecture's name."""
    say: Callable[[str], None]
    fresh: bool = False
    """Ask the archive again, whatever the cache has."""
    compress: bool = True


def build_image(recipe: Recipe, build: Build) -> Path:
    """Make the image; the directory it is in. Raises `Trouble`."""
    build.output.mkdir(parents=True, exist_ok=True)
    wanted = build.output / recipe.architecture.name
    with _stage(build, "packages"):
        not_needed = read_package_lists([ROOM / "packages" / "not-needed.txt"], family=recipe.suite.family)
        packages = fetch_packages(recipe, not_needed=not_needed, cache=build.cache, fresh=build.fresh)
    presets = resolve_presets(CHECKOUT, epoch=recipe.source_date_epoch)
    key = image_key(recipe, packages=packages, presets=presets, checkout=CHECKOUT, compress=build.compress)
    if not build.fresh and is_unchanged(wanted, key):
        build.say("unchanged: it was made from the same before")
        return wanted
    with tempfile.TemporaryDirectory(prefix=f".{recipe.architecture.name}-", dir=build.output) as work:
        made = Path(work, "image")
        made.mkdir()
        build_into(recipe, build, packages=packages, presets=presets, work=Path(work), made=made)
        made.chmod(0o755)
        _publish(made, wanted)
    note(wanted, key)
    return wanted


def build_into(recipe: Recipe, build: Build, *, packages: Path, presets: bytes, work: Path, made: Path) -> None:
    """Make every file of the image in the directory `made`; `work` is for what is in between."""
    with _stage(build, "system"):
        system = build.cache.entry(
            f"system-{recipe.suite.name}-{recipe.architecture.name}",
            _system_key(recipe, packages),
            lambda path: _make_system(recipe, packages, path),
            suffix=".tar",
        )
    with _stage(build, "tree"):
        wheels = fetch_wheels((CHECKOUT / "requirements" / "runtime.lock").read_text(), recipe, cache=build.cache)
        tree = Tree(work / "tree")
        unpack(system, tree)
        boot = {name: tree.path(f"boot/{name}").read_bytes() for name in ("vmlinuz", "stub", "modules")}
        for name in boot:
            tree.remove(f"boot/{name}")
        finish_tree(tree, recipe, wheels, presets=presets)
    with _stage(build, "rootfs"):
        ext4.write_ext4(tree, made / "rootfs.img", epoch=recipe.source_date_epoch)
        verity = write_verity(made / "rootfs.img", made / "rootfs.verity") if recipe.verity else None
    with _stage(build, "boot"):
        _write_boot(recipe, boot, tree, made, work=work, verity=verity)
    with _stage(build, "manifest"):
        artifacts = _describe(made, compress=build.compress)
        version = _version()
        text = compose_manifest(
            recipe, version=version, artifacts=artifacts, packages=read_package_versions(packages), verity=verity
        )
        (made / "manifest.json").write_text(text)


def finish_tree(tree: Tree, recipe: Recipe, wheels: Path, *, presets: bytes) -> None:
    """Put coworkd, and what makes the guest ours, on the system."""
    library = f"{HOME}/lib"
    install_layout(tree, recipe, CHECKOUT / "systemd" / "bin")
    install_wheels(wheels, tree, library)
    install_code(tree, CHECKOUT, presets=presets)
    compile_code(tree, [library], recipe)
    tree.write("etc/coworkd/coworkd.toml", compose_settings())
    tree.write("etc/coworkd/policies/profiles/default.toml", DEFAULT_PROFILE)
    tree.write("usr/lib/systemd/journald.conf.d/10-cowork.conf", JOURNAL)
    if recipe.update_key:
        tree.write(f"{HOME}/share/coworkd/update.pub", f"{recipe.update_key}\n")
    install_filters(tree, recipe, CHECKOUT, policies=f"{HOME}/share/coworkd/policies")
    units.install_units(tree, CHECKOUT / "systemd", console_login=recipe.console_login)
    tree.settle(recipe.source_date_epoch)


def _make_system(recipe: Recipe, packages: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        tree = Tree(Path(work, "tree"))
        unpack(packages, tree)
        tree.remove("var/lib/cowork-packages")
        effects.make_accounts(tree)
        effects.make_names(tree)
        effects.make_certificates(tree)
        effects.make_alternatives(tree)
        effects.make_directories(tree)
        boot = {"vmlinuz": kernel.take_kernel(tree), "stub": _take_stub(tree, recipe)}
        wanted = kernel.parse_module_list((ROOM / "modules.txt").read_text())
        order = kernel.keep_modules(tree, wanted, verity=recipe.verity)
        compile_code(tree, [f"usr/lib/python{recipe.suite.python}", "usr/lib/python3"], recipe)
        trim(tree)
        drop_set_id(tree)
        effects.make_library_cache(tree, recipe.architecture)
        for name, content in boot.items():
            tree.write(f"boot/{name}", content)
        tree.write("boot/modules", "".join(f"{name}\n" for name in order))
        tree.settle(recipe.source_date_epoch)
        pack(tree, path)


def _take_stub(tree: Tree, recipe: Recipe) -> bytes:
    return tree.path(f"usr/lib/systemd/boot/efi/{recipe.architecture.efi_stub}").read_bytes()


def _system_key(recipe: Recipe, packages: Path) -> Any:
    ours = [*sorted((ROOM / "imagebuild").glob("*.py")), ROOM / "modules.txt"]
    python = python_version(find_python(recipe.suite.python))
    return [hash_of_files([packages]), hash_of_files(ours), python, recipe.verity, recipe.source_date_epoch]


def _write_boot(
    recipe: Recipe, boot: dict[str, bytes], tree: Tree, made: Path, *, work: Path, verity: Verity | None
) -> None:
    """The kernel, the initrd, and the disk that boots by EFI. What they are made of lay in the system's /boot, which no image has."""
    initrd = compose_initrd(tree, recipe, script=(ROOM / "init").read_bytes(), modules=boot["modules"].decode().split())
    raw = work / "initrd"
    raw.write_bytes(initrd)
    run(["zstd", "-q", "-19", "-T1", str(raw), "-o", str(made / "initrd.img")])
    (made / "vmlinuz").write_bytes(boot["vmlinuz"])
    sections = compose_sections(
        os_release=tree.read("usr/lib/os-release"),
        command_line=compose_command_line(recipe, verity),
        kernel=boot["vmlinuz"],
        initrd=(made / "initrd.img").read_bytes(),
    )
    write_esp(work / "esp", recipe.architecture, compose_uki(boot["stub"], sections), epoch=recipe.source_date_epoch)
    hashes = made / "rootfs.verity" if verity else None
    write_disk(
        made / "disk.img",
        plan_partitions(recipe.architecture, root=made / "rootfs.img", esp=work / "esp", verity=hashes),
    )


def _describe(made: Path, *, compress: bool) -> dict[str, Any]:
    """Every artefact by its role; the big ones get a compressed copy beside them."""
    roles = {
        "kernel": "vmlinuz",
        "initrd": "initrd.img",
        "rootfs": "rootfs.img",
        "disk": "disk.img",
        "verity": "rootfs.verity",
    }
    found: dict[str, Any] = {}
    for role, name in roles.items():
        path = made / name
        if not path.exists():
            continue
        found[role] = describe_file(path)
        if compress and role in ("rootfs", "disk"):
            packed = made / f"{name}.zst"
            run(["zstd", "-q", *_COMPRESSION, str(path), "-o", str(packed)])
            found[role]["compressed"] = describe_file(packed)
    return found


def _version() -> str:
    text = (CHECKOUT / "pyproject.toml").read_text()
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("version = "))


def _publish(made: Path, wanted: Path) -> None:
    """Put the directory `made` in the place of `wanted`."""
    old = wanted.with_name(f".{wanted.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if wanted.exists():
        wanted.rename(old)
    made.rename(wanted)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _stage(build: Build, name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    build.say(f"{name:10} {time.monotonic() - started:6.1f} s")
