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

    async def write(params: calls.FileWrite, link: LinkPort) -> calls.FileWritten:
        return await files.write(params, link)

    async def list_(params: calls.FileListParams, link: LinkPort) -> calls.FileListed:
        return await files.list(params)

    async def stat(params: calls.FilePath, link: LinkPort) -> calls.FileStated:
        return await files.stat(params)

    async def mkdir(params: calls.FileMkdir, link: LinkPort) -> calls.Empty:
        return await files.mkdir(params, link)

    async def move(params: calls.FileMove, link: LinkPort) -> calls.Empty:
        return await files.move(params, link)

    async def remove(params: calls.FileRemove, link: LinkPort) -> calls.FileRemoved:
        return await files.remove(params, link)

    async def upload(params: calls.FileUpload, link: LinkPort) -> calls.FileUploadOpened:
        return await files.upload(params, link)

    async def download(params: calls.FileDownload, link: LinkPort) -> calls.FileDownloadOpened:
        return await files.download(params, link)

    return (
        Method(name="file.read", params=calls.FileRead, handler=read),
        Method(name="file.write", params=calls.FileWrite, handler=write),
        Method(name="file.list", params=calls.FileListParams, handler=list_),
        Method(name="file.stat", params=calls.FilePath, handler=stat),
        Method(name="file.mkdir", params=calls.FileMkdir, handler=mkdir),
        Method(name="file.move", params=calls.FileMove, handler=move),
        Method(name="file.remove", params=calls.FileRemove, handler=remove),
        Method(name="file.upload", params=calls.FileUpload, handler=upload),
        Method(name="file.download", params=calls.FileDownload, handler=download),
    )
