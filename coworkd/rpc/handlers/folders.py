"""`folder.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import FoldersApi, StagesApi
from coworkd.rpc.methods import Method


def folder_methods(folders: FoldersApi, stages: StagesApi) -> tuple[Method, ...]:
    """The methods of folders, and of what those that are staged hold back."""

    async def mount(params: calls.FolderMount, link: LinkPort) -> calls.FolderAnswer:
        return await folders.mount(params)

    async def unmount(params: calls.FolderUnmount, link: LinkPort) -> calls.FolderUnmounted:
        return await folders.unmount(params)

    async def set_mode(params: calls.FolderSetMode, link: LinkPort) -> calls.FolderAnswer:
        return await folders.set_mode(params)

    async def list_(params: calls.FolderList, link: LinkPort) -> calls.Folders:
        return await folders.list(params)

    async def changes(params: calls.FolderChanges, link: LinkPort) -> calls.StagedChanges:
        return await stages.changes(params)

    async def commit(params: calls.FolderCommit, link: LinkPort) -> calls.FolderCommitted:
        return await stages.commit(params)

    async def discard(params: calls.FolderDiscard, link: LinkPort) -> calls.FolderDiscarded:
        return await stages.discard(params)

    return (
        Method(name="folder.mount", params=calls.FolderMount, handler=mount),
        Method(name="folder.unmount", params=calls.FolderUnmount, handler=unmount),
        Method(name="folder.set_mode", params=calls.FolderSetMode, handler=set_mode),
        Method(name="folder.list", params=calls.FolderList, handler=list_),
        Method(name="folder.changes", params=calls.FolderChanges, handler=changes),
        Method(name="folder.commit", params=calls.FolderCommit, handler=commit),
        Method(name="folder.discard", params=calls.FolderDiscard, handler=discard),
    )
