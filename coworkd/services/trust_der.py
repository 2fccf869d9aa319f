"""As much of X.509 as the trust store asks: is a certificate an authority's, and under which name does OpenSSL look it up.

A reader of DER (X.690) for certificates that OpenSSL has already parsed; what it does not understand is `BrokenDer`, never a guess.
`subject_hash` is what `openssl x509 -subject_hash` prints: the first four bytes, little-endian, of SHA-1 over the subject in canonical
form, where text is UTF-8, lower case, with single spaces.

Sources: RFC 5280 sections 4.1 and 4.2.1.9; X509_NAME_hash_ex(3), x509v3 `x509_name_canon`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_BOOLEAN, _INTEGER, _OCTET_STRING, _OID, _SEQUENCE, _SET = 0x01, 0x02, 0x04, 0x06, 0x30, 0x31
_UTF8_STRING = 0x0C
_EXTENSIONS = 0xA3
_VERSION = 0xA0
_BASIC_CONSTRAINTS = bytes.fromhex("551d13")
_TEXTS = {
    0x0C: "utf-8",
    0x13: "latin-1",
    0x14: "latin-1",
    0x16: "latin-1",
    0x1A: "latin-1",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
"""Tags of text, with how OpenSSL reads them; other values are hashed as they stand."""
_SPACES = " \t\n\v\f\r"
_LOWER = {ord(letter): ord(letter) + 32 for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
"""OpenSSL lowers ASCII alone."""


class BrokenDer(ValueError):
    """That is no DER, or not the structure that was expected."""


def is_authority(der: bytes) -> bool:
    """Whether basicConstraints says that this certificate is a CA's. One without them (version 1 …) is none."""
    for tag, content in _elements(_body(der)):
        if tag == _EXTENSIONS:
            return any(_says_authority(extension) for _, extension in _elements(_only(content, _SEQUENCE)))
    return False


def subject_hash(der: bytes) -> str:
    """The eight hex digits of its link in a directory of hashed certificates."""
    fields = [content for tag, content in _elements(_body(der)) if tag != _VERSION]
    if len(fields) < 5:
        raise BrokenDer("the certificate has no subject")
    canonical = b"".join(_element(_SET, _canonical_set(part)) for _, part in _elements(fields[4]))
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _body(der: bytes) -> bytes:
    """TBSCertificate."""
    tag, content = next(_elements(_only(der, _SEQUENCE)), (0, b""))
    if tag != _SEQUENCE:
        raise BrokenDer("the certificate has no body")
    return content


def _says_authority(extension: bytes) -> bool:
    parts = list(_elements(extension))
    if not parts or parts[0] != (_OID, _BASIC_CONSTRAINTS):
        return False
    tag, value = parts[-1]
    if tag != _OCTET_STRING:
        raise BrokenDer("basicConstraints has no value")
    first = next(_elements(_only(value, _SEQUENCE)), None)
    return first == (_BOOLEAN, b"\xff")


def _canonical_set(pairs: bytes) -> bytes:
    """One relative name, its attributes in the order DER wants of a SET OF."""
    made = []
    for _, pair in _elements(pairs):
        parts = list(_elements(pair))
        if len(parts) != 2 or parts[0][0] != _OID:
            raise BrokenDer("a name has an attribute that is no pair")
        made.append(_element(_SEQUENCE, _element(*parts[0]) + _canonical_value(*parts[1])))
    return b"".join(sorted(made))


def _canonical_value(tag: int, value: bytes) -> bytes:
    encoding = _TEXTS.get(tag)
    if encoding is None:
        return _element(tag, value)
    try:
        text = value.decode(encoding).strip(_SPACES)
    except UnicodeDecodeError as error:
        raise BrokenDer(f"a name is not {encoding}") from error
    for space in _SPACES[1:]:
        text = text.replace(space, " ")
    text = " ".join(word for word in text.split(" ") if word).translate(_LOWER)
    return _element(_UTF8_STRING, text.encode())


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _only(data: bytes, tag: int) -> bytes:
    """The content of the one element that `data` is."""
    elements = list(_elements(data))
    if len(elements) != 1 or elements[0][0] != tag:
        raise BrokenDer(f"not one element of tag {tag:#04x}")
    return elements[0][1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element, in order. Tags over 30 and indefinite lengths do not occur in certificates."""
    at = 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
            raise BrokenDer("an element begins and does not go on")
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 4 or at + count > len(data):
                raise BrokenDer("an element has no proper length")
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            raise BrokenDer("an element is longer than what holds it")
        yield tag, data[at : at + size]
        at += size
