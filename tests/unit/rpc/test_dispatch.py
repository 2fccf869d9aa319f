from __future__ import annotations

from typing import Any

import pytest

from coworkd.model.calls import CloseStdin, Empty, ForgetProcess, NoParams, ProcessName
from coworkd.model.errors import InternalError, InvalidParams, NotFound
from coworkd.model.ports import LinkPort
from coworkd.rpc.dispatch import Dispatcher
from coworkd.rpc.link import Link
from coworkd.rpc.methods import Method, MethodTable
from coworkd.rpc.replay import Replay
from coworkd.rpc.server import Server
from tests.unit.rpc.fakes import FakeAudit, FakeTransport, run


async def call(method: Method, dispatcher: Dispatcher | None = None, **params: Any) -> Any:
    link = Link(FakeTransport(), Server(MethodTable([]), FakeAudit()), name="fake:9")
    return await (dispatcher or Dispatcher(Replay())).call(method, params, link)


def test_parameters_become_types_and_answers_become_maps() -> None:
    async def handler(params: ProcessName, link: LinkPort) -> Empty:
        assert (params, link.name) == (ProcessName(process="p"), "fake:9")
        return Empty()

    async def main() -> None:
        assert await call(Method(name="m", params=ProcessName, handler=handler), process="p") == {}

    run(main)


def test_bad_parameters_do_not_reach_the_handler() -> None:
    async def handler(params: NoParams, link: LinkPort) -> Empty:
        raise AssertionError("reached")

    async def main() -> None:
        with pytest.raises(InvalidParams):
            await call(Method(name="m", params=NoParams, handler=handler), odd=1)

    run(main)


@pytest.mark.parametrize(("ids", "times"), [({"request_id": "a"}, 1), ({}, 2)])
def test_mutating_methods_are_replayed_where_they_have_an_id(ids: dict[str, str], times: int) -> None:
    done: list[str] = []

    async def handler(params: ForgetProcess, link: LinkPort) -> Empty:
        done.append(params.process)
        return Empty()

    async def main() -> None:
        method, dispatcher = Method(name="m", params=ForgetProcess, handler=handler), Dispatcher(Replay())
        for _ in range(2):
            await call(method, dispatcher, process="p", **ids)
        assert done == ["p"] * times

    run(main)


@pytest.mark.parametrize(("raised", "expected"), [(NotFound("x"), NotFound), (KeyError("x"), InternalError)])
def test_errors_of_handlers_become_faults(raised: Exception, expected: type[Exception]) -> None:
    async def handler(params: NoParams, link: LinkPort) -> Empty:
        raise raised

    async def main() -> None:
        with pytest.raises(expected):
            await call(Method(name="m", params=NoParams, handler=handler))

    run(main)


@pytest.mark.parametrize("params", [NoParams, CloseStdin])
def test_answers_that_cannot_be_composed_are_faults_of_ours(params: type[NoParams]) -> None:
    async def handler(params: NoParams, link: LinkPort) -> Any:
        return {"odd": object()}

    async def main() -> None:
        given: dict[str, Any] = {} if params is NoParams else {"process": "p", "request_id": "a"}
        with pytest.raises(InternalError, match="incident"):
            await call(Method(name="m", params=params, handler=handler), **given)

    run(main)


def test_text_of_an_answer_that_is_not_utf8_is_a_fault_of_ours() -> None:
    async def handler(params: CloseStdin, link: LinkPort) -> Any:
        return {"odd": "\udcff"}

    async def main() -> None:
        with pytest.raises(InternalError, match="incident"):
            await call(Method(name="m", params=CloseStdin, handler=handler), process="p", request_id="a")

    run(main)


def test_who_only_looks_is_counted_and_does_no_work() -> None:
    async def handler(params: NoParams, link: LinkPort) -> Empty:
        return Empty()

    async def main() -> None:
        dispatcher = Dispatcher(Replay())
        for name in ("ping", "stats", "session.list", "audit.verify", "ping"):
            await call(Method(name=name, params=NoParams, handler=handler), dispatcher)
        assert (dispatcher.requests_total, dispatcher.work_total) == (5, 1)

    run(main)
