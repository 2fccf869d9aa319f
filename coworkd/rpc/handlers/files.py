"""`file.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import FilesApi
from coworkd.rpc.methods import Method


def file_methods(files: FilesApi) -> tuple[Method, ...]:
    """The methods of files."""

    async def read(params: calls.FileRead, link: LinkPort) -> calls.FileData:
        return await files.read(params)

    async def list_(params: calls.FileListParams, link: LinkPort) -> calls.FileListed:
        return await files.list(params)

    async def stat(params: calls.FilePath, link: LinkPort) -> calls.FileStated:
        return await files.stat(params)

    return (
        Method(name="file.read", params=calls.FileRead, handler=read),
        Method(name="file.write", params=calls.FileWrite, handler=files.write),
        Method(name="file.list", params=calls.FileListParams, handler=list_),
        Method(name="file.stat", params=calls.FilePath, handler=stat),
        Method(name="file.mkdir", params=calls.FileMkdir, handler=files.mkdir),
        Method(name="file.move", params=calls.FileMove, handler=files.move),
        Method(name="file.remove", params=calls.FileRemove, handler=files.remove),
        Method(name="file.upload", params=calls.FileUpload, handler=files.upload),
        Method(name="file.download", params=calls.FileDownload, handler=files.download),
    )
