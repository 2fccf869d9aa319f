"""The hearing half of a folder's socket: what the supervisor says, and what becomes of it.

Rules
- A rule holds from its `Ruled` on, for what waits too: `allow` and `deny` decide it, and it is withdrawn; with `ask` it is told again, with
  the same numbers, for whoever listens now may be new.
- A verdict of an ask that does not wait any more is passed over. A message that is none of ours is left out.
- The end of file is the launcher's end: ours as well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec

from coworkd.folderfs.asks import Asks
from coworkd.folderfs.folder import Answer
from coworkd.folderfs.listing import list_below
from coworkd.folderfs.operations_remove import Removals
from coworkd.folderfs.told import Told
from coworkd.model.folder import ListBelow, Listed, Rule, Ruled, ToFolder, Verdict, Withdrawn
from coworkd.system import packet

_decoder: msgspec.msgpack.Decoder[ToFolder] = msgspec.msgpack.Decoder(ToFolder)
_MESSAGES_A_ROUND = 64


class Control:
    """Listens. `answer` answers a request of the kernel's by its `unique`."""

    def __init__(
        self,
        control: socket.socket,
        *,
        source_fd: int,
        told: Told,
        asks: Asks,
        removals: Removals,
        answer: Callable[[int, Answer], object],
    ) -> None:
        self._control = control
        self._source_fd = source_fd
        self._told = told
        self._asks = asks
        self._removals = removals
        self._answer = answer

    def receive(self) -> bool:
        """Take what has come; False at the end of file."""
        for _ in range(_MESSAGES_A_ROUND):
            try:
                data, ancillary, flags, _ = self._control.recvmsg(*packet.RECEIVE_ARGUMENTS)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                return False
            if not data:
                return False
            try:
                message, fds = packet.unpack(data, ancillary, flags)
                for fd in fds:
                    os.close(fd)
                self._hear(_decoder.decode(message))
            except (packet.BrokenPacket, *packet.UNDECODABLE):
                continue
        return True

    def refuse_overdue(self) -> None:
        """Refuse what has waited too long."""
        for ask in self._asks.overdue():
            self._answer(ask.unique, self._decide(ask.number, allow=False))
            self._told.say(Withdrawn(ask=ask.number))

    def _hear(self, message: ToFolder) -> None:
        match message:
            case Rule():
                self._rule(message)
            case Verdict():
                ask = self._asks.take(message.ask)
                if ask is not None:
                    self._answer(ask.unique, self._removals.carry_out(ask, allow=message.allow))
            case ListBelow():
                listed = list_below(self._source_fd, message)
                if not self._told.say(listed):
                    self._told.say(Listed(id=message.id, paths=(), more=True))

    def _rule(self, rule: Rule) -> None:
        self._removals.deletes = rule.deletes
        self._asks.timeout_s = rule.ask_timeout_s
        self._told.say(Ruled(id=rule.id))
        if rule.deletes == "ask":
            self._asks.tell_again()
            return
        for ask in self._asks:
            self._answer(ask.unique, self._decide(ask.number, allow=rule.deletes == "allow"))
            self._told.say(Withdrawn(ask=ask.number))

    def _decide(self, number: int, *, allow: bool) -> Answer:
        ask = self._asks.take(number)
        return None if ask is None else self._removals.carry_out(ask, allow=allow)
