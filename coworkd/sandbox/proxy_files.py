"""Files in a session's root that lead programs to the proxies where no variable does: ssh's configuration, and Java's.

- ssh reads `/etc/ssh/ssh_config` behind the user's own, which wins. Its ProxyCommand needs a Python; a guest without one has none, and
  there ssh reaches nothing but the loopback.
- Each Java of the guest has a `net.properties` of its own, which is the guest's with the proxies at its end; the last of several
  equal names holds (java.util.Properties). It is laid over the guest's file, and read by HttpURLConnection, HttpClient and plain
  sockets alike, without a line on stderr (`sandbox.proxy_variables` says why that counts). One that a session installs itself is its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from coworkd.model.launch import (
    HTTP_PROXY_PORT,
    SOCKS_PROXY_PORT,
    TreeCopy,
    TreeDir,
    TreeEntry,
    TreeFile,
    TreeFileBind,
)
from coworkd.model.layout import GuestLayout
from coworkd.sandbox.proxy_variables import PROXY_HOST

OWN_DIRECTORY = b"/etc/coworkd"
_CONNECT_SOURCE = os.path.join(os.path.dirname(__file__), "connect.py")
_CONNECT = OWN_DIRECTORY + b"/connect.py"
_SSH_CONFIG = """\
# The proxies are the only way out. ~/.ssh/config is read first, and holds where it says something else.
Host localhost 127.* ::1
    ProxyCommand none
Host *
    ProxyCommand {python} -I -S {connect} {host} {port} %h %p
"""
_LOCAL = "localhost|127.*|[::1]"
_NET_PROPERTIES = f"""

# The proxies are the only way out of this sandbox.
http.proxyHost={PROXY_HOST}
http.proxyPort={HTTP_PROXY_PORT}
https.proxyHost={PROXY_HOST}
https.proxyPort={HTTP_PROXY_PORT}
http.nonProxyHosts={_LOCAL}
socksProxyHost={PROXY_HOST}
socksProxyPort={SOCKS_PROXY_PORT}
socksNonProxyHosts={_LOCAL}
ftp.nonProxyHosts={_LOCAL}
""".encode()


def compose_proxy_files(layout: GuestLayout) -> Iterator[TreeEntry]:
    """To be made once `/etc` and what it has of the guest stand."""
    yield TreeDir(path=OWN_DIRECTORY, mode=0o755)
    if layout.python is not None:
        yield from _ssh(layout.python)
    if layout.java_net_properties:
        yield TreeDir(path=OWN_DIRECTORY + b"/java", mode=0o755)
    for number, (path, content) in enumerate(layout.java_net_properties):
        own = OWN_DIRECTORY + b"/java/%d.properties" % number
        yield TreeFile(path=own, data=content + _NET_PROPERTIES)
        yield TreeFileBind(source=own, path=path, of_tree=True, optional=True)


def _ssh(python: bytes) -> Iterator[TreeEntry]:
    config = _SSH_CONFIG.format(
        python=os.fsdecode(python), connect=os.fsdecode(_CONNECT), host=PROXY_HOST, port=HTTP_PROXY_PORT
    )
    yield TreeCopy(source=os.fsencode(_CONNECT_SOURCE), path=_CONNECT)
    yield TreeDir(path=b"/etc/ssh", mode=0o755)
    yield TreeFile(path=b"/etc/ssh/ssh_config", data=config.encode())
