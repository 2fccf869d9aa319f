"""A health service of constants, for the tests of `rpc`."""

from __future__ import annotations

from coworkd.model.calls import HelloAnswer


class FakeHealth:
    """Answers `hello`."""

    def hello_answer(self, features: tuple[str, ...], protocol: int = 1, /) -> HelloAnswer:
        return HelloAnswer(
            protocol=protocol, version="0", boot_id="boot", features=features, stages=(), degraded={"disk": "none"}
        )
