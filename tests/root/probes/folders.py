"""The folders of a session: `given` is read-only, `shared` may be written and belongs to root outside."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess

from tests.root.probes.kernel import Given, attempt, libc, probe, syscall


def _given_file(given: Given) -> str:
    return str(given["given_file"])


@probe("folder.ro-write")
def ro_write(given: Given) -> str:
    return attempt(lambda: os.open(_given_file(given), os.O_WRONLY))


@probe("folder.ro-create")
def ro_create(given: Given) -> str:
    return attempt(lambda: os.mkdir(os.path.dirname(_given_file(given)) + "/made"))


@probe("folder.ro-unlink")
def ro_unlink(given: Given) -> str:
    return attempt(lambda: os.unlink(_given_file(given)))


@probe("folder.ro-rename")
def ro_rename(given: Given) -> str:
    return attempt(lambda: os.rename(_given_file(given), _given_file(given) + ".moved"))


@probe("folder.ro-chmod")
def ro_chmod(given: Given) -> str:
    return attempt(lambda: os.chmod(_given_file(given), 0o666))


@probe("folder.ro-truncate")
def ro_truncate(given: Given) -> str:
    return attempt(lambda: os.truncate(_given_file(given), 0))


@probe("folder.ro-times")
def ro_times(given: Given) -> str:
    return attempt(lambda: os.utime(_given_file(given), (0, 0)))


@probe("folder.ro-attribute")
def ro_attribute(given: Given) -> str:
    return attempt(lambda: os.setxattr(_given_file(given), "user.x", b"y"))


@probe("folder.ro-reopen")
def ro_reopen(given: Given) -> str:
    fd = os.open(_given_file(given), os.O_RDONLY)
    return attempt(lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR))


@probe("folder.ro-reopen-path")
def ro_reopen_path(given: Given) -> str:
    fd = os.open(_given_file(given), os.O_PATH)
    return attempt(lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR))


@probe("folder.ro-by-init-root")
def ro_by_init(given: Given) -> str:
    return attempt(lambda: os.open("/proc/1/root" + _given_file(given), os.O_RDWR))


@probe("folder.ro-hard-link")
def ro_link(given: Given) -> str:
    """Out of the read-only folder into the home, where it could be written."""
    return attempt(lambda: os.link(_given_file(given), given["home"] + "/linked"))


@probe("folder.ro-map")
def ro_map(given: Given) -> str:
    fd = os.open(_given_file(given), os.O_RDONLY)
    return attempt(lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))


@probe("folder.ro-protect")
def ro_protect(given: Given) -> str:
    """A shared read-only mapping made writable afterwards."""
    fd = os.open(_given_file(given), os.O_RDONLY)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    return attempt(lambda: syscall(given["numbers"]["mprotect"], address, 4096, mmap.PROT_READ | mmap.PROT_WRITE))


@probe("folder.rename-mount-point")
def rename_mount_point(given: Given) -> str:
    return attempt(lambda: os.rename(given["home"] + "/mnt", given["home"] + "/moved"))


@probe("folder.remove-mount-point")
def remove_mount_point(given: Given) -> str:
    return attempt(lambda: os.rmdir(given["home"] + "/mnt"))


@probe("folder.rename-folder")
def rename_folder(given: Given) -> str:
    return attempt(lambda: os.rename(given["home"] + "/mnt/given", given["home"] + "/mnt/moved"))


@probe("folder.exchange-mount-point")
def exchange_mount_point(given: Given) -> str:
    """renameat2 with RENAME_EXCHANGE: a link of ours against mnt."""
    link = given["home"] + "/a-link"
    if not os.path.islink(link):
        os.symlink("/etc", link)
    here = (1 << 64) - 100
    mnt = (given["home"] + "/mnt").encode()
    return attempt(lambda: syscall(given["numbers"]["renameat2"], here, link.encode(), here, mnt, 2))


@probe("folder.climb-out")
def climb_out(given: Given) -> str:
    """`..` from a folder leads to this session's own mnt, not to the folder's neighbours outside."""
    fd = os.open(given["shared_folder"], os.O_RDONLY)
    names = sorted(os.listdir(os.open("..", os.O_RDONLY, dir_fd=fd)))
    return " ".join(names)


@probe("folder.link-out")
def link_out(given: Given) -> str:
    """A link in the shared folder to the guest's own files leads to the sandbox's, where they are not."""
    link = given["shared_folder"] + "/to-shadow"
    if not os.path.islink(link):
        os.symlink("/etc/shadow", link)
    return attempt(lambda: os.open(link, os.O_RDONLY))


@probe("folder.rwd-write")
def rwd_write(given: Given) -> str:
    """What a rwd folder is for."""
    path = given["shared_folder"] + "/written"
    with open(path, "w") as file:
        file.write("by a probe")
    os.rename(path, path + "-and-moved")
    os.mkdir(given["shared_folder"] + "/directory")
    os.rmdir(given["shared_folder"] + "/directory")
    return "own" if os.stat(path + "-and-moved").st_uid == given["uid"] else "foreign"


def _status_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=4, check=False)
    return "refused" if done.returncode else "done"


@probe("setid.program-chmod")
def program_chmod(given: Given) -> str:
    path = given["shared_folder"] + "/by-chmod"
    open(path, "w").close()
    return _status_of("/usr/bin/chmod", "u+s,g+s", path)


@probe("setid.program-install")
def program_install(given: Given) -> str:
    return _status_of("/usr/bin/install", "-m", "4755", "/usr/bin/id", given["shared_folder"] + "/by-install")


@probe("setid.program-cp")
def program_cp(given: Given) -> str:
    """`cp -p` of a set-user-id program of /usr: the bits do not come along, whatever cp says."""
    subprocess.run(
        ("/usr/bin/cp", "-p", "/usr/bin/su", given["shared_folder"] + "/by-cp"),
        capture_output=True,
        timeout=4,
        check=False,
    )
    return f"{os.stat(given['shared_folder'] + '/by-cp').st_mode & 0o6000:o}"


@probe("setid.directory")
def directory(given: Given) -> str:
    path = given["shared_folder"] + "/a-directory"
    os.mkdir(path)
    return attempt(lambda: os.chmod(path, 0o2755))


@probe("setid.copystat")
def copystat(given: Given) -> str:
    path = given["shared_folder"] + "/by-copystat"
    open(path, "w").close()
    return attempt(lambda: shutil.copystat("/usr/bin/su", path))


@probe("setid.write-keeps-none")
def write_clears(given: Given) -> str:
    """The host put a set-user-id file there: writing to it takes the bit away, and it cannot be given back."""
    path = given["planted_writable_setuid"]
    with open(path, "ab") as file:
        file.write(b"x")
    return f"{os.stat(path).st_mode & 0o6000:o} " + attempt(lambda: os.chmod(path, 0o4755))
