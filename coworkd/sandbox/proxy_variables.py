"""The variables that lead programs to the proxies of their session, and to the certificates it trusts. Data.

What is where, and why
- An address, never a name: 127.0.0.1 needs no resolver. HTTP for all that can speak CONNECT; SOCKS5 only for FTP, which tools would
  otherwise send as `GET ftp://…`; `socks5h`, because names are resolved outside.
- `NO_PROXY` has the loopback and nothing else: nothing but the loopback can be reached without the proxies, private addresses
  included, and through them a refusal has its reason.
- Java has no quiet variable: JAVA_TOOL_OPTIONS and JDK_JAVA_OPTIONS print a line with every start. `sandbox.proxy_files` gives the
  guest's Javas a `net.properties` instead; Maven and Gradle look at system properties only, and their own variables are quiet.
- ssh, and so git over ssh, scp and rsync over ssh, has a configuration file (`sandbox.proxy_files`): GIT_SSH_COMMAND stays free.
- Node.js takes the proxies on its own from 22.21 and 24 on, with NODE_USE_ENV_PROXY.
"""

from __future__ import annotations

from collections.abc import Mapping

from coworkd.model.launch import HTTP_PROXY_PORT, SOCKS_PROXY_PORT

PROXY_HOST = "127.0.0.1"
_HTTP = f"http://{PROXY_HOST}:{HTTP_PROXY_PORT}"
_SOCKS = f"socks5h://{PROXY_HOST}:{SOCKS_PROXY_PORT}"
_DIRECT = "localhost,127.0.0.1,::1"
_JAVA = " ".join(
    f"-D{scheme}.proxyHost={PROXY_HOST} -D{scheme}.proxyPort={HTTP_PROXY_PORT}" for scheme in ("http", "https")
)

PROXY_VARIABLES: Mapping[str, str] = {
    "HTTP_PROXY": _HTTP,
    "HTTPS_PROXY": _HTTP,
    "http_proxy": _HTTP,
    "https_proxy": _HTTP,
    "ALL_PROXY": _HTTP,
    "all_proxy": _HTTP,
    "NO_PROXY": _DIRECT,
    "no_proxy": _DIRECT,
    "FTP_PROXY": _SOCKS,
    "ftp_proxy": _SOCKS,
    "GRPC_PROXY": _HTTP,
    "grpc_proxy": _HTTP,
    "RSYNC_PROXY": f"{PROXY_HOST}:{HTTP_PROXY_PORT}",
    "DOCKER_HTTP_PROXY": _HTTP,
    "DOCKER_HTTPS_PROXY": _HTTP,
    "CLOUDSDK_PROXY_TYPE": "http",
    "CLOUDSDK_PROXY_ADDRESS": PROXY_HOST,
    "CLOUDSDK_PROXY_PORT": str(HTTP_PROXY_PORT),
    "NODE_USE_ENV_PROXY": "1",
    "YARN_HTTP_PROXY": _HTTP,
    "YARN_HTTPS_PROXY": _HTTP,
    "MAVEN_OPTS": f"{_JAVA} -Daether.connector.http.useSystemProperties=true",
    "GRADLE_OPTS": _JAVA,
}
"""Name → value, for commands of a session that has proxies."""

TRUST_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    "YARN_HTTPS_CA_FILE_PATH",
    "COMPOSER_CAFILE",
    "BUNDLE_SSL_CA_CERT",
    "HEX_CACERTS_PATH",
)
"""Names that hold the file of trusted certificates. Java and the tools of GnuTLS look at the guest's own places, which are covered."""
