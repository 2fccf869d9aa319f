"""QEMU's machine protocol (QMP) without I/O: bytes in, `next_event()` out.

Wire: one JSON object a line, CRLF from QEMU. First a greeting; nothing but `qmp_capabilities` may be sent until it was answered.
Each command carries an id of ours, and its answer the same id; events come in between, at any time.

Rules:
- QEMU is trusted as little as the guest it runs: a line over 1 MiB, an answer to what was not asked, what is no object: QmpError,
  and the connection is over.
- What is not known (new keys, new events) is passed on or left alone, as the protocol demands.

Sources: QEMU docs/interop/qmp-spec.rst.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

LINE_LIMIT_BYTES = 1 << 20
WAITING_LIMIT = 64


class QmpError(Exception):
    """What came is no QMP, or was not asked for."""


class Greeting(Struct, frozen=True, kw_only=True):
    version: str


class Answer(Struct, frozen=True, kw_only=True):
    id: int
    value: Any


class Refusal(Struct, frozen=True, kw_only=True):
    """`error_class` is QEMU's, such as GenericError or CommandNotFound."""

    id: int
    error_class: str
    description: str


class QmpEvent(Struct, frozen=True, kw_only=True):
    name: str
    data: dict[str, Any]


Received = Greeting | Answer | Refusal | QmpEvent


class QmpConnection:
    """One connection's state. `send` gives bytes to write, `receive_data` takes what was read."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._received: deque[Received] = deque()
        self._waiting: set[int] = set()
        self._next_id = 1
        self._greeted = False
        self._failed = False

    def send(self, command: str, arguments: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """The id and the bytes of a command. Raises QmpError where too many wait, or before the greeting."""
        if self._failed or not self._greeted:
            raise QmpError("QEMU has not greeted us")
        if len(self._waiting) >= WAITING_LIMIT:
            raise QmpError(f"{WAITING_LIMIT} commands wait for QEMU's answer")
        number, self._next_id = self._next_id, self._next_id + 1
        words: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            words["arguments"] = dict(arguments)
        self._waiting.add(number)
        return number, json.dumps(words).encode() + b"\n"

    def receive_data(self, data: bytes) -> None:
        """Take what was read; raises QmpError once it is no QMP, and from then on."""
        if self._failed:
            raise QmpError("the connection is over")
        self._buffer += data
        try:
            while (end := self._buffer.find(b"\n")) >= 0:
                if end > LINE_LIMIT_BYTES:
                    break
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                if line.strip():
                    self._received.append(self._parse(line))
            if len(self._buffer) > LINE_LIMIT_BYTES:
                raise QmpError(f"a line of more than {LINE_LIMIT_BYTES} bytes")
        except QmpError:
            self._failed = True
            self._buffer.clear()
            raise

    def next_event(self) -> Received | None:
        """The next that came, or None where more must be read."""
        return self._received.popleft() if self._received else None

    def _parse(self, line: bytes) -> Received:
        try:
            words = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpError("a line that is no JSON") from error
        if not isinstance(words, dict):
            raise QmpError("a line that is no object")
        if "QMP" in words:
            return self._greet(words["QMP"])
        if isinstance(words.get("event"), str):
            data = words.get("data", {})
            return QmpEvent(name=words["event"], data=data if isinstance(data, dict) else {})
        return self._answer(words)

    def _greet(self, words: Any) -> Greeting:
        if self._greeted:
            raise QmpError("a second greeting")
        self._greeted = True
        try:
            numbers = words["version"]["qemu"]
            version = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
        except (KeyError, TypeError):
            version = "unknown"
        return Greeting(version=version)

    def _answer(self, words: dict[str, Any]) -> Answer | Refusal:
        number = words.get("id")
        if type(number) is not int or number not in self._waiting:
            raise QmpError("an answer to what was not asked")
        self._waiting.discard(number)
        if "return" in words:
            return Answer(id=number, value=words["return"])
        error = words.get("error")
        if not isinstance(error, dict):
            raise QmpError("an answer that is neither a result nor an error")
        return Refusal(id=number, error_class=str(error.get("class")), description=str(error.get("desc")))
