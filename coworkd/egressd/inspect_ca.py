"""The inspection's own authority, and the certificates it signs: made in memory, gone with this process.

Rules
- No key is ever in a file: OpenSSL's loader takes nothing but file names, so certificate and key pass through a memfd that is closed
  right after. All leaves share one key, made with the authority's.
- The authority ends with this process, not by a date: a guest's clock may be set by years after it was made.
- A leaf is valid for a week, from an hour ago, for clocks differ; it is made anew when a day of it is left. At most 256 are kept, the least
  lately used goes. One is made anew after 1,000 connections as well, for OpenSSL keeps sessions of clients with each context.
- A server context serves one host: a client that names another in its hello (SNI) gets an alert and no connection.
- The upstream is verified as any client would: system trust, host name, TLS 1.2 or newer; HTTP/1.1 is all that is offered.

`cryptography` and `ssl` are loaded with this module, and that only once inspection is used.

Sources: RFC 5280, RFC 6066 section 3, memfd_create(2).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MAX_LEAVES = 256
MAX_USES = 1000
_BEFORE = datetime.timedelta(hours=1)
_LEAF = datetime.timedelta(days=7)
_AUTHORITY = (
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc),
)
_RENEW_S = 6 * 86400.0
_MAX_COMMON_NAME = 64
_PROTOCOLS = ["http/1.1"]


class _Server:
    """What is kept for one host."""

    __slots__ = ("context", "made_at", "uses")

    def __init__(self, made_at: float, context: ssl.SSLContext) -> None:
        self.made_at = made_at
        self.context = context
        self.uses = 0


class InspectionCa:
    """One authority. `clock` gives the seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._make_authority()
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        self._servers: OrderedDict[str, _Server] = OrderedDict()
        self._client: ssl.SSLContext | None = None

    def server_context(self, host: str) -> ssl.SSLContext:
        """What a client of `host` (canonical, no brackets) is met with."""
        now = self._clock()
        server = self._servers.pop(host, None)
        if server is None or not 0 <= now - server.made_at < _RENEW_S or server.uses >= MAX_USES:
            server = _Server(now, self._make_server(host))
            while len(self._servers) >= MAX_LEAVES:
                self._servers.popitem(last=False)
        server.uses += 1
        self._servers[host] = server
        return server.context

    def client_context(self) -> ssl.SSLContext:
        """What servers are verified by: this system's trust, and `trust`."""
        if self._client is None:
            self._client = _make_client()
        return self._client

    def trust(self, pem: str) -> None:
        """Verify servers by these certificates as well, in place of those given before; "" for none. Raises `ssl.SSLError`."""
        context = _make_client()
        if pem:
            context.load_verify_locations(cadata=pem)
        self._client = context

    # -- making

    def _make_authority(self) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coworkd inspection, until restart")])
        public = self._key.public_key()
        usage = _key_usage(signs_certificates=True)
        return (
            _builder(subject, subject, public, *_AUTHORITY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _make_server(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        context.set_alpn_protocols(_PROTOCOLS)
        _load_chain(context, self._make_leaf(host), self._leaf_key)

        def judge_name(_tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
            if name is None or name.lower().rstrip(".") == host:
                return None
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

        context.sni_callback = judge_name
        return context

    def _make_leaf(self, host: str) -> x509.Certificate:
        name: x509.GeneralName
        try:
            name = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        # A subject has at most 64 characters; nobody looks at it where there is a subjectAltName.
        common = host if len(host) <= _MAX_COMMON_NAME else "inspected host"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        public = self._leaf_key.public_key()
        now = datetime.datetime.fromtimestamp(self._clock(), tz=datetime.timezone.utc)
        return (
            _builder(subject, self._certificate.subject, public, now - _BEFORE, now + _LEAF)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    begins: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _make_client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies, host names too
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = False
    context.load_default_certs()
    context.set_alpn_protocols(_PROTOCOLS)
    return context


def _load_chain(context: ssl.SSLContext, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Hand OpenSSL a certificate and its key without a file that anybody could find."""
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fd = os.memfd_create("coworkd-leaf", os.MFD_CLOEXEC)
    with open(fd, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")
