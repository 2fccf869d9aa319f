"""Hosts: whatever a client asks for → the one spelling that is decided on, dialled and logged.

Rules
- 1 to 255 characters, an IP address or of `A-Z a-z 0-9 . _ -`. No `%`: a zone would smuggle a suffix past a pattern while the
  kernel dials what stands before it.
- As the host of a WHATWG URL: lower case; a name whose last label is a number is an IPv4 address in any of inet_aton's
  spellings (`127.1`, `0x7f000001`, `2130706433`, octal) or nothing; IPv6 compressed.
- On top of that one trailing dot is dropped, IPv6 has no brackets, and an IPv4-mapped address is the IPv4 address.
- Labels have 1 to 63 characters: no resolver takes others, and an empty one would be a subdomain that is none.
- `canonical_host` of its own result is that result.

Sources: WHATWG URL, "host parsing" and "IPv4 parser"; RFC 1035 2.3.4; RFC 4291 2.5.5.2 (IPv4-mapped); RFC 6761 6.3 (localhost).
"""

from __future__ import annotations

import ipaddress
import re

MAX_HOST_LENGTH = 255
MAX_LABEL_LENGTH = 63

_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}\Z")
_NUMBER = re.compile(r"[0-9]+\Z|0[xX][0-9A-Fa-f]*\Z")
_DIGITS = {8: re.compile(r"[0-7]+\Z"), 10: re.compile(r"[0-9]+\Z"), 16: re.compile(r"[0-9A-Fa-f]+\Z")}


class BadHost(ValueError):
    """What was asked for is no host. `reason` is the sentence behind it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def canonical_host(text: str) -> str:
    """Return the canonical spelling of `text`; IPv6 with or without brackets. Raises `BadHost`."""
    if not 1 <= len(text) <= MAX_HOST_LENGTH:
        raise BadHost(f"a host has 1 to {MAX_HOST_LENGTH} characters, not {len(text)}")
    bare = strip_brackets(text)
    if ":" in bare:
        return _canonical_ipv6(bare)
    if not _NAME.match(bare):
        raise BadHost(f"a host is an IP address or of letters, digits, '.', '_' and '-', not {text!a}")
    name = bare.lower().removesuffix(".")
    labels = name.split(".")
    if ends_in_number(labels):
        return canonical_ipv4(labels)
    for label in labels:
        if not 1 <= len(label) <= MAX_LABEL_LENGTH:
            raise BadHost(f"a label of a host has 1 to {MAX_LABEL_LENGTH} characters: {text!a}")
    return name


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP address."""
    return ":" in host or _IPV4.match(host) is not None


def is_loopback_name(host: str) -> bool:
    """Whether a canonical host is a name that means the machine of whoever resolves it (RFC 6761 section 6.3)."""
    return host == "localhost" or host.endswith(".localhost")


def strip_brackets(text: str) -> str:
    """`text` without the brackets around all of it."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _canonical_ipv6(bare: str) -> str:
    if "%" in bare or not bare.isascii():
        raise BadHost(f"an IPv6 address has no zone here: {bare!a}")
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError as error:
        raise BadHost(f"{bare!a} is not an IPv6 address") from error
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else str(mapped)


def ends_in_number(labels: list[str]) -> bool:
    """Whether a name of these labels, without the empty one behind a trailing dot, can only be an IPv4 address."""
    return _NUMBER.match(labels[-1]) is not None


def canonical_ipv4(labels: list[str]) -> str:
    """Return the dotted quad for lower-case `labels` in any spelling of inet_aton. Raises `BadHost`."""
    numbers = [_ipv4_number(label) for label in labels]
    last = numbers.pop()
    if len(numbers) > 3 or any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        raise BadHost(f"{'.'.join(labels)!r} ends in a number and is no IPv4 address")
    for place, number in enumerate(numbers):
        last += number << (24 - 8 * place)
    return str(ipaddress.IPv4Address(last))


def _ipv4_number(label: str) -> int:
    digits, radix = label, 10
    if label.startswith("0x"):
        digits, radix = label[2:] or "0", 16
    elif len(label) > 1 and label.startswith("0"):
        digits, radix = label[1:], 8
    if not _DIGITS[radix].match(digits):
        raise BadHost(f"{label!r} is no number of an IPv4 address")
    return int(digits, radix)
