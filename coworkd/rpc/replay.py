"""The same `request_id` gets the first answer again.

Rules
- An answer, good or bad, is kept by (method, request_id) for `KEEP_S` after it was given, over all links.
- A repetition while the first is still running waits for it; it never starts a second one.
- The same id with other parameters is `InvalidParams`: it was meant as another call.
- At most `KEEP_BYTES` of encoded answers are kept, each counted with `ENTRY_BYTES` more. The oldest go first, but for that they were given:
  a repetition is told so then, and is not done again. That takes half of the room at most, so that the newest answers are always there
  whole; the oldest of it go too.
- A call that was cancelled (coworkd stops) leaves nothing; who waited for it gets `Unavailable`.

The clock is trio's, monotonic. Not here: whether a method takes part (`methods.Method.mutating`), and calls without an id.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import trio

from coworkd.model.calls import Mutating
from coworkd.model.errors import CoworkError, InvalidParams, Unavailable
from coworkd.wire.fault import compose_fault, parse_fault

KEEP_S = 600.0
KEEP_BYTES = 8 * 1024 * 1024
ENTRY_BYTES = 512
REQUEST_ID_CHARACTERS = 128

Key = tuple[str, str]
_GIVEN = bytes(
    msgpack.packb(
        (
            True,
            compose_fault(
                Unavailable(
                    "the first call with this request_id was done and answered, but its answer is not kept any more: look at"
                    " what it did",
                    stage="answered",
                )
            ),
        )
    )
)


class _Kept:
    """One call: running until `done` has gone; then `encoded` is its answer, or None if it was cancelled. There are thousands of them."""

    __slots__ = ("done", "encoded", "fingerprint", "given_at", "waiting")

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.done: trio.Event | None = trio.Event()
        self.waiting = 0
        """How many repetitions wait for it."""
        self.encoded: bytes | None = None
        self.given_at = 0.0

    async def wait(self) -> None:
        """Return once it is over."""
        if self.done is None:
            await trio.lowlevel.checkpoint()
            return
        self.waiting += 1
        try:
            await self.done.wait()
        finally:
            self.waiting -= 1

    def over(self) -> None:
        """Wake who waits; the event is of no use to those who come later."""
        if self.done is not None:
            self.done.set()
            self.done = None

    def answer(self) -> Any:
        """The kept answer, or raise the kept error."""
        if self.encoded is None:
            raise Unavailable("the first call with this request_id was cut off; ask what it did, then call again")
        failed, value = msgpack.unpackb(self.encoded, raw=False, use_list=True)
        if failed:
            raise parse_fault(value)
        return value


class Replay:
    """Kept answers of a server. `keep_bytes` and `keep_s` are for tests."""

    def __init__(self, *, keep_bytes: int = KEEP_BYTES, keep_s: float = KEEP_S) -> None:
        self._keep_bytes = keep_bytes
        self._keep_s = keep_s
        self._running: dict[Key, _Kept] = {}
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._whole: OrderedDict[Key, _Kept] = OrderedDict()
        """Those of `_kept` whose answer is still there."""
        self._kept_bytes = 0

    async def call(self, method: str, params: Mutating, run: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `run` composes (maps and scalars), or what it did the first time. Raises `run`'s `CoworkError`s."""
        request_id = params.request_id or ""
        if not 0 < len(request_id) <= REQUEST_ID_CHARACTERS:
            raise InvalidParams(f"request_id has 1 to {REQUEST_ID_CHARACTERS} characters", key="request_id")
        key = (method, request_id)
        self._expire()
        found = self._running.get(key) or self._kept.get(key)
        fingerprint = _fingerprint(params)
        if found is None:
            return await self._first(key, fingerprint, run)
        if found.fingerprint != fingerprint:
            raise InvalidParams(
                "this request_id was used for other parameters; choose a new one for a new call", key="request_id"
            )
        await found.wait()
        return found.answer()

    def asked_again(self, method: str, request_id: str) -> bool:
        """Whether a repetition waits for that call, which still runs."""
        found = self._running.get((method, request_id))
        return found is not None and found.waiting > 0

    async def _first(self, key: Key, fingerprint: bytes, run: Callable[[], Awaitable[Any]]) -> Any:
        entry = self._running[key] = _Kept(fingerprint)
        try:
            try:
                answer = await run()
            except CoworkError as error:
                entry.encoded = bytes(msgpack.packb((True, compose_fault(error))))
                raise
            entry.encoded = bytes(msgpack.packb((False, answer)))
            return answer
        finally:
            del self._running[key]
            if entry.encoded is not None:
                self._keep(key, entry, entry.encoded)
            entry.over()

    def _keep(self, key: Key, entry: _Kept, encoded: bytes) -> None:
        entry.given_at = trio.current_time()
        self._kept[key] = self._whole[key] = entry
        self._kept_bytes += len(encoded) + ENTRY_BYTES
        while self._kept_bytes > self._keep_bytes:
            given = len(self._kept) - len(self._whole)
            if given and (len(self._whole) <= 1 or given * ENTRY_BYTES >= self._keep_bytes // 2):
                self._drop_oldest()
            else:
                self._fade_oldest()

    def _fade_oldest(self) -> None:
        """All such share what they say."""
        _, entry = self._whole.popitem(last=False)
        self._kept_bytes -= len(entry.encoded or b"")
        entry.encoded = _GIVEN

    def _expire(self) -> None:
        oldest_kept = trio.current_time() - self._keep_s
        while self._kept and next(iter(self._kept.values())).given_at < oldest_kept:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        key, entry = self._kept.popitem(last=False)
        if self._whole.pop(key, None) is not None:
            self._kept_bytes -= len(entry.encoded or b"")
        self._kept_bytes -= ENTRY_BYTES


def _fingerprint(params: Mutating) -> bytes:
    """Equal parameters in any order of their keys give the same bytes. They may have a MiB of input: BLAKE2 is quick without OpenSSL."""
    encoded = msgspec.msgpack.encode(params, order="deterministic", enc_hook=bytes)
    return hashlib.blake2b(encoded, digest_size=32).digest()
