"""What a `Front` tells its caller, and what the caller answers an `Asked` with.

Events come in the order in which they are to be acted on. Between `Asked` and the answer to it none comes but what was told before.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Protocol = Literal["connect", "http", "socks5", "unknown"]
"""`connect`: HTTP's CONNECT. `http`: a plain request to be forwarded. `unknown`: none of ours, or not known yet."""


class NeedData(Struct, frozen=True, kw_only=True):
    """Nothing more is to be told before something else is received or answered."""


NEED_DATA = NeedData()


class Send(Struct, frozen=True, kw_only=True):
    """Bytes for the client. Never empty."""

    data: bytes


class SendUpstream(Struct, frozen=True, kw_only=True):
    """Bytes for the server (or parent proxy) of the exchange that was granted. Never empty."""

    data: bytes


class Asked(Struct, frozen=True, kw_only=True):
    """The client wants to reach `host` and `port`. To be answered by `Front.grant` or `Front.refuse`, once."""

    protocol: Protocol
    host: str
    """As the client wrote it, IPv6 without its brackets: printable ASCII, 1 to 255 characters, not canonical."""
    port: int
    """1 to 65535."""
    tunnel: bool
    """Whether raw bytes follow once it is granted; otherwise one HTTP exchange does."""


class Misused(Struct, frozen=True, kw_only=True):
    """The client broke the rules; for the log. The typed answer and `Ended` follow."""

    reason: str
    """A sentence of ours: none of the client's bytes stand in it."""
    protocol: Protocol = "unknown"


class Tunnelled(Struct, frozen=True, kw_only=True):
    """From here on the bytes of both sides are the caller's: `Front.rest` goes upstream first, once every `Send` before was sent.

    What the client had ended (`b""`) before, it has ended for the tunnel.
    """


class UpstreamDone(Struct, frozen=True, kw_only=True):
    """This exchange's upstream connection is finished with, whether it has ended or not: close it, and give nothing more of it to
    `receive_upstream`. Another `Asked`, perhaps for another host, or `Ended` follows.
    """


class Ended(Struct, frozen=True, kw_only=True):
    """Close the client's connection once everything was sent. Nothing follows.

    The client may still be sending: shut down our side and drain for a moment before `close`, or a reset may overtake the answer.
    """

    abrupt: bool = False
    """An answer was cut short. Reset the connection (SO_LINGER with 0 s), so that nobody takes what came for all of it."""


Event = NeedData | Send | SendUpstream | Asked | Misused | Tunnelled | UpstreamDone | Ended


class Route(Struct, frozen=True, kw_only=True):
    """How a granted request travels. All of it but `host` matters for forwarded HTTP only."""

    host: str | None = None
    """The canonical host that was decided on, without brackets: it stands in what is sent. None: as the client wrote it."""
    absolute_form: bool = False
    """The upstream is an HTTP proxy, which must be told the whole URL."""
    proxy_authorization: str | None = None
    """Value of the Proxy-Authorization field for that proxy."""


RefusalKind = Literal["allowlist", "address", "dns", "connect", "timeout", "limit", "unavailable"]


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a client does not get what it asked for; `refusals` says how each kind is answered."""

    kind: RefusalKind
    reason: str
    """A sentence for whoever reads the answer."""
    denied_reason: str = ""
    """What the policy says to the one who is refused (`deniedDomainReasons`); stands in the status line as well."""
