from __future__ import annotations

import os
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed
from coworkd.services.trust_der import subject_hash
from coworkd.services.trust_files import TrustFiles
from coworkd.services.trust_pem import Certificate, parse_authorities
from tests.unit.certificates import DAY, NOW, NOW_S, make, make_authority

SYSTEM = make_authority("System Root")
ROOT = make_authority()


def authority(name: str) -> Certificate:
    [found] = parse_authorities(make_authority(name).pem, now=NOW_S)
    return found


ACME = parse_authorities(ROOT.pem, now=NOW_S)


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A guest's /etc/ssl/certs: a bundle, a certificate that is a link to elsewhere, its hashed link, a secret, Java's."""
    certs = tmp_path / "certs"
    (certs / "java").mkdir(parents=True)
    (certs / "ca-certificates.crt").write_text(SYSTEM.pem.rstrip("\n"))
    os.symlink("/usr/share/ca-certificates/System_Root.crt", certs / "System_Root.pem")
    os.symlink("System_Root.pem", certs / f"{subject_hash(SYSTEM.der)}.0")
    (certs / "own.crt").write_text("PEM")
    (certs / "secret.pem").write_text("KEY")
    (certs / "secret.pem").chmod(0o640)
    (certs / "java" / "cacerts").write_bytes(b"what Java had")
    return certs


@pytest.fixture
def files(tmp_path: Path, system: Path) -> TrustFiles:
    made = TrustFiles(str(tmp_path / "state"), system_certs=str(system))
    assert made.load(now=NOW_S) == {}
    return made


@pytest.fixture
def put(files: TrustFiles) -> Callable[..., None]:
    def put(**installed: tuple[Certificate, ...]) -> None:
        files.prepare(installed, (), now=NOW_S, put=next(iter(installed))).commit()

    return put


def tree(directory: Path) -> dict[str, str | bytes]:
    """Everything below it: links by target, files by content."""
    return {
        str(path.relative_to(directory)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_what_was_kept_comes_back(files: TrustFiles, put: Callable[..., None]) -> None:
    put(acme=ACME)
    assert files.load(now=NOW_S) == {"acme": ACME}


def test_what_is_kept_is_roots_alone_and_what_is_shown_everybodys(
    files: TrustFiles, put: Callable[..., None], tmp_path: Path
) -> None:
    put(acme=ACME)
    trust = tmp_path / "state" / "trust"
    modes = {
        name: stat.S_IMODE((trust / name).stat().st_mode)
        for name in ("installed", "installed/acme.pem", "current", "current/certs", "current/ca-bundle.pem")
    }
    assert modes == {
        "installed": 0o700,
        "installed/acme.pem": 0o600,
        "current": 0o755,
        "current/certs": 0o755,
        "current/ca-bundle.pem": 0o644,
    }


def test_the_bundle_is_the_systems_and_ours(files: TrustFiles, put: Callable[..., None]) -> None:
    put(acme=ACME, again=ACME)
    current = Path(files.directory)
    bundle = (current / "ca-bundle.pem").read_text()
    assert bundle == SYSTEM.pem + ROOT.pem
    assert (current / "certs" / "ca-certificates.crt").read_text() == bundle


def test_certs_stand_for_the_systems_directory(files: TrustFiles, put: Callable[..., None], system: Path) -> None:
    put(acme=ACME)
    shown = tree(Path(files.directory, "certs"))
    name = f"coworkd-{ACME[0].sha256[:32]}.pem"
    assert shown.pop(name) == ROOT.pem.encode()
    assert shown.pop(f"{subject_hash(ROOT.der)}.0") == name
    java = shown.pop("java/cacerts")
    assert isinstance(java, bytes)
    assert SYSTEM.der in java
    assert ROOT.der in java
    shown.pop("ca-certificates.crt")
    assert shown == {
        "System_Root.pem": "/usr/share/ca-certificates/System_Root.crt",
        f"{subject_hash(SYSTEM.der)}.0": "System_Root.pem",
        "own.crt": b"PEM",
    }


def test_two_authorities_of_one_name_have_two_links(files: TrustFiles, put: Callable[..., None]) -> None:
    put(one=(authority("Twin"),), two=(authority("Twin"),))
    digest = subject_hash(authority("Twin").der)
    certs = Path(files.directory, "certs")
    assert os.readlink(certs / f"{digest}.0") != os.readlink(certs / f"{digest}.1")


@pytest.mark.parametrize("where", ["-CAfile", "-CApath"])
def test_openssl_trusts_by_the_bundle_and_by_the_directory(
    files: TrustFiles, put: Callable[..., None], tmp_path: Path, where: str
) -> None:
    put(acme=ACME)
    (tmp_path / "server.pem").write_text(make("server.example", by=ROOT).pem)
    place = {"-CAfile": "ca-bundle.pem", "-CApath": "certs"}[where]
    other = {"-CAfile": "-no-CApath", "-CApath": "-no-CAfile"}[where]
    said = subprocess.run(
        ["openssl", "verify", where, os.path.join(files.directory, place), other, tmp_path / "server.pem"],
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip().endswith("OK"), said.stderr


def test_what_is_removed_leaves_no_trace(files: TrustFiles, put: Callable[..., None], tmp_path: Path) -> None:
    files.prepare({}, (), now=NOW_S).commit()
    before = tree(tmp_path / "state")
    put(acme=ACME)
    files.prepare({}, (), now=NOW_S, removed="acme").commit()
    assert tree(tmp_path / "state") == before


def test_the_inspections_authority_is_shown_and_not_kept(files: TrustFiles, tmp_path: Path) -> None:
    files.prepare({}, ACME, now=NOW_S).commit()
    assert ROOT.pem in Path(files.directory, "ca-bundle.pem").read_text()
    assert os.listdir(tmp_path / "state" / "trust" / "installed") == []


def test_bound_directories_keep_their_inodes_and_files_are_replaced(
    files: TrustFiles, put: Callable[..., None]
) -> None:
    put(acme=ACME)
    directories = [files.directory, os.path.join(files.directory, "certs")]
    inodes = [os.stat(path).st_ino for path in directories]
    with open(os.path.join(files.directory, "ca-bundle.pem"), "rb") as held:
        put(beta=(authority("Beta"),))
        assert held.read().decode() == SYSTEM.pem + ROOT.pem
    files.load(now=NOW_S)
    assert [os.stat(path).st_ino for path in directories] == inodes


def test_a_full_disk_changes_nothing(
    files: TrustFiles, put: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(acme=ACME)
    before = tree(tmp_path / "state")
    left = 0

    def fchmod(fd: int, mode: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", fchmod)
    for left in range(5):  # noqa: B007
        with pytest.raises(DiskFailed, match="No space"):
            files.prepare({"beta": (authority("Beta"),)}, (), now=NOW_S, put="beta")
        assert tree(tmp_path / "state") == before


def test_an_abandoned_change_leaves_nothing(files: TrustFiles, put: Callable[..., None], tmp_path: Path) -> None:
    put(acme=ACME)
    before = tree(tmp_path / "state")
    files.prepare({"beta": (authority("Beta"),)}, (), now=NOW_S, put="beta").abandon()
    assert tree(tmp_path / "state") == before


def test_what_cannot_be_trusted_any_more_is_left_out_and_told(
    files: TrustFiles, put: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(acme=ACME)
    installed = tmp_path / "state" / "trust" / "installed"
    (installed / "damaged.pem").write_bytes(b"\xff\xfe")
    (installed / "old.pem").write_text(make("old", authority=True, ends=NOW - DAY).pem)
    assert files.load(now=NOW_S) == {"acme": ACME}
    assert "damaged.pem" in caplog.text
    assert "old.pem" in caplog.text


def test_a_crash_before_the_last_rename_is_mended_by_the_next_load(
    files: TrustFiles, put: Callable[..., None], tmp_path: Path
) -> None:
    put(acme=ACME)
    os.unlink(os.path.join(files.directory, "ca-bundle.pem"))
    left = [Path(files.directory, "certs", ".gone.pem.new"), tmp_path / "state" / "trust" / "installed" / ".x.pem.new"]
    for path in left:
        path.write_text("half")
    files.prepare(files.load(now=NOW_S), (), now=NOW_S).commit()
    assert ROOT.pem in Path(files.directory, "ca-bundle.pem").read_text()
    assert not any(path.exists() for path in left)


def test_a_guest_without_certificates_trusts_what_is_installed(tmp_path: Path) -> None:
    files = TrustFiles(str(tmp_path / "state"), system_certs=str(tmp_path / "none"))
    files.load(now=NOW_S)
    files.prepare({"acme": ACME}, (), now=NOW_S, put="acme").commit()
    assert Path(files.directory, "ca-bundle.pem").read_text() == ROOT.pem
    assert not Path(files.directory, "certs", "java", "cacerts").exists()


def test_pythons_ssl_loads_the_bundle(files: TrustFiles, put: Callable[..., None]) -> None:
    put(acme=ACME)
    context = ssl.create_default_context(cafile=os.path.join(files.directory, "ca-bundle.pem"))
    assert len(context.get_ca_certs()) == 2


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(DiskFailed, match="cannot be made"):
        TrustFiles(str(tmp_path / "state")).load(now=NOW_S)
