"""Why a session may not do with a granted folder what is expected: the folder's own state, its mode, and what really happens there. Pure.

The order is that in which a person would mend it: not granted, not mounted, closed, a mode that forbids, a source whose owner or host
refuses, questions that nobody answered.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coworkd.model.calls import Finding, FolderInfo
from coworkd.model.errors import CoworkError

_MODES = {
    "ro": ("degraded", "read-only: every write is refused", "coworkctl folder mode {session} {name} rw"),
    "rw": (
        "ok",
        "writable; what the session did not make itself is not deleted without being asked for",
        "coworkctl folder mode {session} {name} rwd, or answer: coworkctl approve",
    ),
    "rwd": ("ok", "writable, deletes included", ""),
    "staged": (
        "ok",
        "writable for the session; nothing reaches the source before it is accepted",
        "coworkctl folder commit {session} {name}",
    ),
}
_TCC = (
    "macOS asks before a program reads some folders (Desktop, Documents, Downloads, iCloud, other volumes): System Settings, Privacy & "
    "Security, Files and Folders, allow the program that runs cowork-vm (or give it Full Disk Access), then share it again"
)


def find_folder(folders: Sequence[FolderInfo], session: str, path: str) -> tuple[FolderInfo | None, str]:
    """The folder that `path` lies in, and the path as the session sees it.

    `path` is the session's (`/sessions/NAME/mnt/FOLDER/…`), begins with a folder's name, or lies in a folder's source.
    """
    inside = path if path.startswith("/") else posixpath.join(f"/sessions/{session}/mnt", path)
    inside = posixpath.normpath(inside)
    for folder in sorted(folders, key=lambda folder: -len(folder.source)):
        if _below(inside, folder.path):
            return folder, inside
        if _below(posixpath.normpath(path), posixpath.normpath(folder.source)):
            return folder, posixpath.normpath(posixpath.join(folder.path, posixpath.relpath(path, folder.source)))
    return None, inside


def explain_grant(
    folders: Sequence[FolderInfo], session: str, path: str, folder: FolderInfo | None
) -> Iterator[Finding]:
    """Whether it is granted, and how it stands."""
    if folder is None:
        names = ", ".join(f"{folder.name} ({folder.source}, {folder.mode})" for folder in folders) or "none"
        yield Finding(
            check="granted",
            state="failed",
            detail=f"{path} is in no folder of {session}; it has {names}",
            remedy=f"coworkctl folder mount {session} HOST_DIR:NAME:rw",
        )
        return
    yield Finding(check="granted", state="ok", detail=f"{folder.source} as {folder.name}, mode {folder.mode}")
    if folder.state == "failed":
        yield Finding(
            check="mounted",
            state="failed",
            detail=folder.error or "it could not be mounted",
            remedy=f"mend its source on the host, then coworkctl folder mount {session} "
            f"{folder.source}:{folder.name}:{folder.mode}. {_TCC}",
        )
    elif folder.state == "closed":
        yield Finding(check="mounted", state="ok", detail="the session is closed; it is mounted when a command starts")
    else:
        yield Finding(check="mounted", state="ok", detail=f"at {folder.path}, {folder.mounted_as or 'somehow'}")
    state, detail, remedy = _MODES[folder.mode]
    shown = remedy.format(session=session, name=folder.name)
    yield Finding(check="mode", state="degraded" if state == "degraded" else "ok", detail=detail, remedy=shown)
    for why in folder.degraded:
        yield Finding(check="mounted", state="degraded", detail=why, remedy="docs/debugging.md")


def explain_look(path: str, error: CoworkError | None) -> Finding:
    """What came of looking at the path with the session's own rights."""
    if error is None:
        return Finding(check="seen", state="ok", detail=f"the session sees {path}")
    number = error.details.get("errno")
    remedy = "is the path right? names are case-sensitive in the guest"
    if number in (1, 13):
        remedy = f"its owner and mode on the host say who may read it; {_TCC}"
    elif number in (5, 107, 110, 116):
        remedy = "the host's share has lost it or hangs: share it again; cowork-vm doctor looks at the host's side"
    return Finding(check="seen", state="failed", detail=f"{path}: {error.message}", remedy=remedy)


def explain_questions(records: Sequence[Mapping[str, Any]], name: str, session: str) -> Iterator[Finding]:
    """Deletes of this folder that somebody refused, or nobody answered: the newest."""
    refused = [
        record
        for record in records
        if record.get("kind") == "approval.answer"
        and record.get("name") == name
        and record.get("answer") not in ("once", "session")
    ]
    if refused:
        last = refused[-1]
        why = last.get("reason") or f"answered {last.get('answer')}"
        yield Finding(
            check="asked",
            state="degraded",
            detail=f"{len(refused)} questions about deletes in it were not granted, the last one: {why}",
            remedy=f"coworkctl approve shows what waits; coworkctl folder mode {session} {name} rwd asks no more",
        )


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
