"""What the web servers give to package managers and git: an index with one wheel, a registry with one package, a repository."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

NAME, MODULE, VERSION = "lab-greeting", "lab_greeting", "1.0.0"
GREETING = "hello from a package"
REPOSITORY = "project.git"


def make_packages(root: Path, *, url: str) -> None:
    """Fill `root` (the web servers' directory); `url` is where it is reached."""
    make_index(root)
    make_registry(root / "npm" / NAME, url=f"{url}/npm/{NAME}")
    make_repository(root / "git" / REPOSITORY)


def make_index(root: Path) -> None:
    """`simple/NAME/` with a link to a wheel below `files/`, with its hash (PEP 503, PEP 427)."""
    wheel = f"{MODULE}-{VERSION}-py3-none-any.whl"
    (root / "files").mkdir()
    (root / "simple" / NAME).mkdir(parents=True)
    information = f"{MODULE}-{VERSION}.dist-info"
    contents = {
        f"{MODULE}.py": f"GREETING = {GREETING!r}\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_urlsafe(text.encode())},{len(text)}" for name, text in contents.items()]
    contents[f"{information}/RECORD"] = "\n".join([*rows, f"{information}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(root / "files" / wheel, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    digest = hashlib.sha256((root / "files" / wheel).read_bytes()).hexdigest()
    link = f'<a href="../../files/{wheel}#sha256={digest}">{wheel}</a>'
    (root / "simple" / NAME / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>\n")


def make_registry(root: Path, *, url: str) -> None:
    """A package document and its tarball, as npm asks for them."""
    root.mkdir(parents=True)
    files = {
        "package.json": json.dumps({"name": NAME, "version": VERSION, "main": "index.js"}),
        "index.js": f"module.exports = {json.dumps(GREETING)}\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    tarball = f"{NAME}-{VERSION}.tgz"
    (root / tarball).write_bytes(packed.getvalue())
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed.getvalue()).digest()).decode()
    version = {"name": NAME, "version": VERSION, "main": "index.js"}
    version_here = {**version, "dist": {"tarball": f"{url}/{tarball}", "integrity": integrity}}
    document = {"name": NAME, "dist-tags": {"latest": VERSION}, "versions": {VERSION: version_here}}
    (root / "index.json").write_text(json.dumps(document))


def make_repository(path: Path) -> None:
    """A bare repository with one commit, to which may be pushed."""
    work = path.parent / "work"
    work.mkdir(parents=True)
    _git(path.parent, "init", "--quiet", "--bare", "--initial-branch=main", str(path))
    _git(path, "config", "http.receivepack", "true")
    _git(path.parent, "init", "--quiet", "--initial-branch=main", str(work))
    (work / "README").write_text(f"{GREETING}\n")
    _git(work, "add", "README")
    _git(work, "commit", "--quiet", "-m", "first")
    _git(work, "push", "--quiet", str(path), "main")


def _git(directory: Path, *words: str) -> None:
    identity = {
        f"GIT_{who}_{what}": "lab@example.test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1", **identity}
    subprocess.run(["git", *words], cwd=directory, env=environment, check=True, capture_output=True, timeout=30)


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
