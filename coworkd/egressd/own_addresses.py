"""This machine's own addresses, asked of the kernel and remembered for a moment: a client that asks in a loop costs it little."""

from __future__ import annotations

from collections.abc import Callable

from coworkd.system.own_address import is_own_address

_KEPT_S = 1.0
_KEPT_LIMIT = 1024


class OwnAddresses:
    """Answers of the last second."""

    def __init__(self, clock: Callable[[], float], ask: Callable[[str], bool] = is_own_address) -> None:
        self._clock = clock
        self._ask = ask
        self._known: dict[str, bool] = {}
        self._since = clock()

    def has(self, address: str) -> bool:
        """Whether `address` is ours. Raises as `is_own_address` does; that is not kept."""
        now = self._clock()
        if now - self._since > _KEPT_S or len(self._known) >= _KEPT_LIMIT:
            self._known.clear()
            self._since = now
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = self._ask(address)
        return known
