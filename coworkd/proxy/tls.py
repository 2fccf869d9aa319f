"""One end of a TLS connection, without I/O: bytes of the wire in and out on one side, plain bytes on the other.

Rules
- What is to be sent before the handshake is done waits (`kept_bytes`) and goes right behind it; it is dropped where the handshake fails.
- `ended`: the peer said that it sends no more (close_notify). `torn`: its bytes stopped without that, so what ends there may have been cut
  by anybody on the way. `failed`: a sentence; nothing more is read or sent, but `outgoing` may hold the alert that tells the peer.
- Nothing that a peer sends raises.

Source: RFC 8446 sections 4 and 6; Python's ssl, "Memory BIO support".
"""

from __future__ import annotations

import ssl
from typing import Final

_READ_BYTES: Final = 65536

_SENTENCES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted",
    "HTTP_REQUEST": "it speaks plain HTTP where TLS is expected",
    "WRONG_VERSION_NUMBER": "what it sends is not TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks an old version of TLS only; 1.2 and 1.3 are taken",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it takes no version of TLS that we speak (1.2, 1.3)",
    "NO_SHARED_CIPHER": "it shares no cipher with us",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it found nothing in common with us",
    "TLSV1_UNRECOGNIZED_NAME": "it does not serve that name",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the certificate it was shown",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not trust the certificate it was shown",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not trust the certificate it was shown",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client's certificate, which cannot pass an inspection",
}


class TlsEnd:
    """A server where no `server_hostname` is given, else a client that verifies it as `context` says. Not thread-safe."""

    __slots__ = (
        "_closed",
        "_incoming",
        "_outgoing",
        "_tls",
        "_waiting",
        "ended",
        "established",
        "failed",
        "kept_bytes",
        "torn",
    )

    def __init__(self, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._closed = False
        self._waiting: list[bytes] = []
        self.kept_bytes = 0
        self.established = False
        self.ended = False
        self.torn = False
        self.failed: str | None = None
        try:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
            )
        except ValueError:  # a label of more than 63 characters, for one
            self.failed = "its name is none that TLS can ask for"

    def outgoing(self) -> bytes:
        """What is to be sent to the peer now; given once."""
        return self._outgoing.read()

    def begin(self) -> None:
        """Speak first, as a client does."""
        self._shake_hands()

    def receive_data(self, data: bytes) -> bytes:
        """What the peer sent, `b""` at its end of file; returns what it said."""
        if self.failed is not None or self._closed:
            return b""
        if not data:
            self._close()
            return b""
        self._incoming.write(data)
        if not self.established:
            self._shake_hands()
        return self._read() if self.established else b""

    def send(self, data: bytes) -> None:
        """Say something, once the handshake is done."""
        if self.failed is not None or not data:
            return
        if not self.established:
            self._waiting.append(data)
            self.kept_bytes += len(data)
            return
        try:
            view = memoryview(data)
            while view:  # a memory BIO takes all; OpenSSL may cut a write into several all the same
                view = view[self._tls.write(view) :]
        except (ssl.SSLError, OSError) as error:
            self._fail(error)

    def end(self) -> None:
        """Say that nothing more comes (close_notify); what the peer still says is read."""
        if self.established and self.failed is None:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                return  # it wants the peer's answer, which nobody waits for

    def _shake_hands(self) -> None:
        if self.failed is not None:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except (ssl.SSLError, ssl.CertificateError, OSError) as error:
            self._fail(error)
            return
        self.established = True
        waiting, self._waiting, self.kept_bytes = self._waiting, [], 0
        for data in waiting:
            self.send(data)

    def _close(self) -> None:
        """Everything that came was read, so a close_notify would be known by now. (Python has OpenSSL see no difference.)"""
        self._closed = True
        if not self.established:
            self._fail(ssl.SSLEOFError())
        elif not self.ended:
            self.ended = self.torn = True

    def _read(self) -> bytes:
        said = []
        while not self.ended:
            try:
                data = self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except (ssl.SSLError, OSError) as error:
                self._fail(error)
                break
            if data:
                said.append(data)
            else:
                self.ended = True
        return b"".join(said)

    def _fail(self, error: Exception) -> None:
        self.failed = _sentence(error)
        self._waiting.clear()
        self.kept_bytes = 0


def _sentence(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_SENTENCES['CERTIFICATE_VERIFY_FAILED']}: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "it closed the connection during the handshake"
    reason = getattr(error, "reason", None) or ""
    return _SENTENCES.get(reason, f"TLS failed ({reason.lower().replace('_', ' ') or type(error).__name__})")
