"""Checks that handlers call exactly the verb of their method, with what that verb wants."""

from __future__ import annotations

import inspect
from typing import Any

import trio

from coworkd.rpc.methods import Method


class Recorder:
    """Stands for any service: every verb notes its arguments and answers with the verb's name."""

    def __init__(self, protocol: type) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for name, verb in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                setattr(self, name, self._make(name, inspect.iscoroutinefunction(verb)))

    def _make(self, name: str, is_async: bool) -> Any:
        def note(*given: Any) -> str:
            self.calls.append((name, given))
            return f"answer of {name}"

        async def note_async(*given: Any) -> str:
            return note(*given)

        return note_async if is_async else note


def verbs_of(protocol: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")}


def wanted(protocol: type, verb: str) -> list[str]:
    """The names of a verb's arguments."""
    return [name for name in inspect.signature(getattr(protocol, verb)).parameters if name != "self"]


def assert_calls(method: Method, protocol: type, recorder: Recorder) -> None:
    """Run the handler, and see that the verb of the same name got what its signature names."""
    params, link = object(), object()
    recorder.calls.clear()

    async def main() -> Any:
        return await method.handler(params, link)  # type: ignore[arg-type]

    answer = trio.run(main)
    verb = method.name.rpartition(".")[2]
    expected = tuple({"params": params, "link": link}[name] for name in wanted(protocol, verb))
    assert recorder.calls == [(verb, expected)]
    assert answer == f"answer of {verb}"
