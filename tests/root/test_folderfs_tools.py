"""Real programs in a guarded folder: what they make themselves they may delete, so they work; what the user has stays.

Each works as the session's user on a folder that belongs to another, and the folder's owner on the host side is judged too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root.folder_mount import OWNER_UID, Guarded, guarded

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("fuse"), pytest.mark.needs("mountns")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the user has."""
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.getuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)
    place = tmp_path / "source"
    (place / "kept").mkdir(parents=True)
    (place / "letter.txt").write_text("Dear all,\n")
    (place / "kept" / "photo.jpg").write_bytes(b"\xff\xd8" * 1000)
    own(place)
    return place


def own(place: Path) -> None:
    """Give a tree to the owner."""
    os.chown(place, OWNER_UID, OWNER_UID)
    for root, directories, files in os.walk(place):
        for name in (*directories, *files):
            os.chown(os.path.join(root, name), OWNER_UID, OWNER_UID, follow_symlinks=False)


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(source, journal=tmp_path / "journal") as mounted:
        yield mounted
        assert (source / "letter.txt").exists()
        assert (source / "kept" / "photo.jpg").read_bytes() == b"\xff\xd8" * 1000
        for root, directories, files in os.walk(source):
            for name in (*directories, *files):
                assert os.lstat(os.path.join(root, name)).st_uid == OWNER_UID, name


# -- git ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("git")
def test_git_in_a_repository_of_its_own(folder: Guarded) -> None:
    folder.ok(
        """
        git init -q -b main project; cd project
        for n in 1 2 3 4 5; do echo "line $n" > file-$n; git add .; git commit -qm "commit $n"; done
        git checkout -qb topic HEAD~2; echo topic > topic; git add .; git commit -qm topic
        git rebase -q main
        echo more >> file-1; git stash -q; test "$(git status --porcelain)" = ""; git stash pop -q; git checkout -q -- file-1
        git checkout -q main; git merge -q topic; git branch -d topic
        git rm -q file-2; git commit -qm remove; git mv file-3 moved; git commit -qm move
        git gc -q --prune=now; git fsck --strict
        git worktree add -q ../second; git worktree remove ../second
        git clone -q . ../clone; git -C ../clone log --oneline | grep -c commit; rm -rf ../clone
        git clean -fdx; git reset -q --hard HEAD~1; git reflog expire --expire=now --all; git gc -q --prune=now
        test -z "$(find .git -name '*.lock')"
        """
    )
    folder.ok("rm -rf project")


@pytest.fixture
def repository(source: Path) -> Path:
    """The user's own repository in the folder, made on the host side, with two branches."""
    place = source / "repo"
    script = """
    git init -q -b main . && echo one > one && echo two > two && git add . && git commit -qm first
    git checkout -qb other && echo changed > one && git rm -q two && git commit -qam second && git checkout -q main
    """
    place.mkdir()
    os.chown(place, OWNER_UID, OWNER_UID)
    become = ["setpriv", f"--reuid={OWNER_UID}", f"--regid={OWNER_UID}", "--clear-groups"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nowhere",
        "GIT_AUTHOR_NAME": "u",
        "GIT_AUTHOR_EMAIL": "u@example.test",
    }
    environment |= {"GIT_COMMITTER_NAME": "u", "GIT_COMMITTER_EMAIL": "u@example.test"}
    subprocess.run([*become, "sh", "-ec", script], cwd=place, check=True, env=environment)
    return place


@pytest.mark.needs("git")
def test_git_commits_in_the_users_repository(folder: Guarded, repository: Path) -> None:
    folder.ok(
        """
        cd repo; git status --porcelain; echo three > three; echo more >> one; git add .; git commit -qm third
        git tag v1; git branch side; git branch -d side; git log --oneline | wc -l; git stash list
        test -z "$(find .git -name '*.lock')"
        """
    )
    assert (repository / "two").exists()


@pytest.mark.needs("git")
def test_git_cannot_take_a_file_of_the_users_away(folder: Guarded, repository: Path) -> None:
    """A checkout that would delete says so, and the file is there; with deletes allowed it works."""
    done = folder.sh("cd repo; git checkout other 2>&1; git rm -q two; git clean -fdxq; git reset -q --hard other")
    assert "unable to unlink" in done.stdout + done.stderr
    assert (repository / "two").read_text() == "two\n"
    folder.rule("allow")
    folder.ok("cd repo; git checkout -qf main; git checkout -q other; test ! -e two; git checkout -q main")


# -- editors and offices -------------------------------------------------------------------------------------------


@pytest.mark.needs("vim")
@pytest.mark.parametrize("options", ["backupcopy=no", "backupcopy=yes", "backupcopy=auto", "backup", "nowritebackup"])
def test_vim_saves(folder: Guarded, source: Path, options: str) -> None:
    folder.ok(
        f"vim -Nu NONE -es -c 'set swapfile directory=. {options}' -c 'normal Gohello' -c wq letter.txt; cat letter.txt"
    )
    assert (source / "letter.txt").read_text() == "Dear all,\nhello\n"
    rest = sorted(each.name for each in source.iterdir())
    assert [each for each in rest if each.startswith(".")] == []
    assert rest == ["kept", "letter.txt", *(["letter.txt~"] if options == "backup" else [])]
    # One of them is the user's still: what was moved away may go only while something stands in its place.
    folder.ok("rm -f letter.txt~")
    assert folder.sh("rm -f letter.txt").returncode != 0


def test_saving_through_a_temporary_file(folder: Guarded, source: Path) -> None:
    """As office programs save: a lock file, a new file beside, renamed over, the lock deleted."""
    folder.ok(
        """
        echo me > .~lock.letter.txt#
        echo new > lu1234.tmp; sync lu1234.tmp; mv lu1234.tmp letter.txt
        rm .~lock.letter.txt#
        """
    )
    assert (source / "letter.txt").read_text() == "new\n"
    assert folder.sh("rm -f letter.txt").returncode != 0


def test_saving_by_moving_the_old_one_away(folder: Guarded, source: Path) -> None:
    """As other office programs save: the old one renamed, the new one renamed to its name, the old one deleted."""
    folder.ok("echo new > A1B2.tmp; mv letter.txt C3D4.tmp; mv A1B2.tmp letter.txt; rm C3D4.tmp")
    assert sorted(each.name for each in source.iterdir()) == ["kept", "letter.txt"]
    assert (source / "letter.txt").read_text() == "new\n"
    assert folder.sh("rm -f letter.txt").returncode != 0


def test_sed_in_place(folder: Guarded, source: Path) -> None:
    folder.ok("sed -i s/all/both/ letter.txt; sed -i.bak s/both/you/ letter.txt")
    assert (source / "letter.txt").read_text() == "Dear you,\n"


# -- packages ------------------------------------------------------------------------------------------------------


@pytest.mark.needs("npm")
@pytest.mark.needs("node")
def test_npm_packs_installs_and_removes(folder: Guarded) -> None:
    folder.ok(
        """
        export npm_config_cache=/mnt/.npm npm_config_offline=true npm_config_audit=false npm_config_fund=false
        export npm_config_update_notifier=false
        mkdir lib app
        (cd lib; echo '{"name":"lib","version":"1.0.0","bin":{"lib":"bin.js"}}' > package.json
         printf '#!/usr/bin/env node\\nconsole.log(6*7)\\n' > bin.js; for n in {1..60}; do echo "$n" > f$n.js; done; npm pack -s)
        cd app; echo '{"name":"app","version":"1.0.0"}' > package.json
        npm install -s ../lib/lib-1.0.0.tgz; test "$(npx --no-install lib)" = 42
        npm install -s ../lib/lib-1.0.0.tgz; npm ci -s; npm uninstall -s lib; test ! -e node_modules/lib
        """
    )
    folder.ok("rm -rf lib app .npm")


def test_pip_installs_and_removes(folder: Guarded) -> None:
    folder.ok(
        """
        export HOME=/mnt/home TMPDIR=/mnt/tmp PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1; mkdir home tmp
        /usr/bin/python3 -m venv env
        mkdir -p wheel/demo demo.dist; cd wheel
        echo 'VALUE = 1' > demo/__init__.py; mkdir demo-1.0.dist-info
        printf 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n' > demo-1.0.dist-info/METADATA
        printf 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n' > demo-1.0.dist-info/WHEEL
        printf 'demo/__init__.py,,\\ndemo-1.0.dist-info/METADATA,,\\ndemo-1.0.dist-info/WHEEL,,\\ndemo-1.0.dist-info/RECORD,,\\n' \
            > demo-1.0.dist-info/RECORD
        /usr/bin/python3 -m zipfile -c ../demo-1.0-py3-none-any.whl demo demo-1.0.dist-info; cd ..
        env/bin/pip install -q demo-1.0-py3-none-any.whl; env/bin/python -c 'import demo; assert demo.VALUE == 1'
        env/bin/pip install -q --force-reinstall demo-1.0-py3-none-any.whl
        env/bin/pip uninstall -qy demo; ! env/bin/python -c 'import demo' 2>/dev/null
        """
    )
    folder.ok("rm -rf env wheel demo.dist home tmp demo-1.0-py3-none-any.whl")


# -- copies, archives, databases -----------------------------------------------------------------------------------


def test_tar_and_copies(folder: Guarded, source: Path) -> None:
    folder.ok(
        """
        mkdir -p tree/deep; for n in {1..50}; do echo $n > tree/deep/f$n; done; ln -s deep/f1 tree/link; ln tree/deep/f1 tree/hard
        tar -cf tree.tar tree; mkdir out; tar -xpf tree.tar -C out; diff -r tree out/tree
        test "$(stat -c %h out/tree/hard)" = 2; cp -a tree copy; diff -r tree copy; mv copy moved; rm -rf moved out tree tree.tar
        """
    )
    assert sorted(each.name for each in source.iterdir()) == ["kept", "letter.txt"]


@pytest.mark.needs("rsync")
def test_rsync(folder: Guarded) -> None:
    folder.ok(
        """
        mkdir a; for n in {1..50}; do head -c 5000 /dev/urandom > a/$n; done
        rsync -a a/ b/; diff -r a b; echo x >> a/7; rsync -a --inplace a/ b/; diff -r a b; rm a/9; rsync -a --delete a/ b/; diff -r a b
        rm -r a b
        """
    )


def test_pythons_shutil(folder: Guarded) -> None:
    folder.ok(
        """
        /usr/bin/python3 - <<'end'
import os, shutil, tempfile
os.makedirs("x/y/z"); open("x/y/z/f", "w").write("1" * 100000)
shutil.copytree("x", "w"); shutil.move("w", "v"); shutil.rmtree("x")
with tempfile.TemporaryDirectory(dir=".") as place: open(place + "/f", "w").close()
with tempfile.NamedTemporaryFile(dir=".") as file: file.write(b"1"); file.flush()
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"12345"); file.seek(0); assert file.read() == b"12345"
shutil.copystat("v/y/z/f", "letter.txt"); shutil.rmtree("v")
assert sorted(os.listdir()) == ["kept", "letter.txt"], os.listdir()
end
        """
    )


def test_sqlite_in_every_journal_mode(folder: Guarded) -> None:
    folder.ok(
        """
        /usr/bin/python3 - <<'end'
import os, sqlite3
for mode in "delete", "truncate", "persist", "wal":
    base = sqlite3.connect("base.db"); base.execute(f"pragma journal_mode={mode}")
    base.execute("create table if not exists t(x)")
    for n in range(20):
        with base: base.executemany("insert into t values(?)", [(n,)] * 10)
    assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    base.close()
base = sqlite3.connect("base.db"); assert base.execute("select count(*) from t").fetchone() == (800,); base.close()
for each in list(os.listdir()):
    if each.startswith("base"): os.unlink(each)
end
        """
    )


def test_a_compiler_builds(folder: Guarded) -> None:
    if shutil.which("make") is None:
        pytest.fail("make is missing")
    folder.ok(
        """
        mkdir c; cd c; printf 'int main(void){return 0;}\\n' > main.c
        printf 'all: main\\nmain: main.o\\n\\tgcc -o $@ $^\\nclean:\\n\\trm -f main main.o\\n' > Makefile
        make -s; ./main; touch main.c; make -s; make -s clean; cd ..; rm -r c
        """
    )
