"""`folder.*`, but for what is held back (`folder.changes`, `folder.commit`, `folder.discard`)."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import FoldersApi
from coworkd.rpc.methods import Method


def folder_methods(folders: FoldersApi) -> tuple[Method, ...]:
    """The methods of folders."""

    async def mount(params: calls.FolderMount, link: LinkPort) -> calls.FolderAnswer:
        return await folders.mount(params)

    async def unmount(params: calls.FolderUnmount, link: LinkPort) -> calls.FolderUnmounted:
        return await folders.unmount(params)

    async def set_mode(params: calls.FolderSetMode, link: LinkPort) -> calls.FolderAnswer:
        return await folders.set_mode(params)

    async def list_(params: calls.FolderList, link: LinkPort) -> calls.Folders:
        return await folders.list(params)

    return (
        Method(name="folder.mount", params=calls.FolderMount, handler=mount),
        Method(name="folder.unmount", params=calls.FolderUnmount, handler=unmount),
        Method(name="folder.set_mode", params=calls.FolderSetMode, handler=set_mode),
        Method(name="folder.list", params=calls.FolderList, handler=list_),
    )
