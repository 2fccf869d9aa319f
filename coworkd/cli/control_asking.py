"""Asks a person at this terminal about deletes that wait, one after the other, as they come.

Rules
- What was shown is what is answered: the answer carries the revision that stood here. A list that grows is shown anew.
- What is typed within `GUARD_S` of a question's coming was meant for something else, and is dropped.
- A question that is closed elsewhere, or whose command has gone, is taken back.
- Where keys go to a command meanwhile, they come here while a question stands, and nothing of them reaches the command.
- Nobody at the keyboard (its end) means nobody is asked; the guest refuses in its own time.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from coworkd.cli.control_question import KEYS, Answer, Question, describe_end, lines_of, parse_key, question_of
from coworkd.cli.control_question import question_of_approval as _of_approval
from coworkd.cli.control_tables import shown
from coworkd.client import Client
from coworkd.client.sync import Subscription
from coworkd.model.errors import CoworkError
from coworkd.model.event import Event

LOOK_S = 0.1
GUARD_S = 0.5


class Keys(Protocol):
    """Where answers come from."""

    def begin(self) -> None:
        """A question stands: what is typed from now on is for it."""

    def end(self) -> None: ...

    def read(self) -> str | None:
        """What was typed since, without waiting; None at the end of the keyboard."""


class TypedKeys:
    """A terminal that nobody else reads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def begin(self) -> None:
        """There is nobody to take it from."""

    def end(self) -> None:
        """And nobody to give it back to."""

    def read(self) -> str | None:
        if not select.select([self._fd], [], [], 0)[0]:
            return ""
        data = os.read(self._fd, 1024)
        return data.decode("utf-8", "replace") if data else None


class Diversion(Protocol):
    """Somebody who reads the terminal for a command; `control_relay.StdinPump` is one."""

    def divert(self, take: Callable[[bytes], None] | None) -> None: ...


class DivertedKeys:
    """A terminal that is read for a command."""

    def __init__(self, pump: Diversion) -> None:
        self._pump = pump
        self._typed: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def begin(self) -> None:
        self._pump.divert(self._typed.put)

    def end(self) -> None:
        self._pump.divert(None)

    def read(self) -> str | None:
        typed = b""
        while not self._typed.empty():
            typed += self._typed.get()
        return typed.decode("utf-8", "replace")


class Asker:
    """Asks about what `wanted` says. `say` gets lines without their end."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        *,
        wanted: Callable[[Question], bool],
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._keys = keys
        self._wanted = wanted
        self._say = say
        self._waiting: dict[str, Question] = {}
        self._monotonic = monotonic
        self._standing: Question | None = None
        self._shown_at = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Ask in a thread of its own, until `stop`."""
        self._thread = threading.Thread(target=self._run_quietly, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the keyboard is given back."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(10 * LOOK_S)
        if self._standing is not None:
            self._keys.end()

    def run(self) -> None:
        """Ask until `stop`, or the end of the keyboard. Raises `Unavailable` where the link is gone."""
        subscription = self._client.events()
        for approval in self._client.approval_list().approvals:
            self._take(_of_approval(approval))
        while not self._stopped.is_set() and self._turn(subscription):
            continue

    def _run_quietly(self) -> None:
        try:
            self.run()
        except CoworkError:
            # The link is gone, or the command's end closed it: whoever reads its output is told.
            return

    def _turn(self, subscription: Subscription) -> bool:
        """One look at events and keys; False at the end of the keyboard."""
        event = subscription.read(timeout_s=LOOK_S)
        if event is not None:
            self._hear(event)
        if self._standing is None and self._waiting:
            self._stand(next(iter(self._waiting.values())))
        if self._standing is None:
            return True
        typed = self._keys.read()
        if typed is None:
            self._keys.end()
            return False
        answer = parse_key(typed)
        if answer is not None and self._monotonic() - self._shown_at >= GUARD_S:
            self._answer(self._standing, answer)
        return True

    def _hear(self, event: Event) -> None:
        if event.name == "approval.requested":
            self._take(question_of(event.params))
        elif event.name == "approval.closed":
            self._close(str(event.params.get("approval")), str(event.params.get("answer")))

    def _take(self, question: Question) -> None:
        if not self._wanted(question):
            return
        self._waiting[question.approval] = question
        if self._standing is not None and self._standing.approval == question.approval:
            self._stand(question)

    def _stand(self, question: Question) -> None:
        """Show it."""
        if self._standing is None:
            self._keys.begin()
        self._standing = question
        self._shown_at = self._monotonic()
        for line in (*lines_of(question), f"  {KEYS}"):
            self._say(line)

    def _close(self, approval: str, answer: str) -> None:
        self._waiting.pop(approval, None)
        if self._standing is not None and self._standing.approval == approval:
            self._give_back()
            self._say(f"  closed: {describe_end(answer)}")

    def _answer(self, question: Question, answer: Answer) -> None:
        self._waiting.pop(question.approval, None)
        self._give_back()
        try:
            answered = self._client.approval_answer(
                approval=question.approval, answer=answer, revision=question.revision
            )
        except CoworkError as error:
            self._say(f"  not answered: {shown(error.message)}")
        else:
            done = "refused" if answer == "deny" else "allowed"
            self._say(
                f"  {done}{', for this folder from now on' if answer == 'session' else ''} ({answered.count} waited)"
            )

    def _give_back(self) -> None:
        self._standing = None
        self._keys.end()
