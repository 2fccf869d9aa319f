"""What the health port answers, put together in its own thread from what the loop has written.

`/live`   does this coworkd's loop turn? 200, or 503 when it has not for `stuck_s`. Whether there is anything to do is told beside it.
`/ready`  has everything come up? 200, or 503; which parts do not work.
`/metrics` the newest counts, and their age, in the text format of Prometheus.

Rules
- Nothing secret and nothing of a session: who may ask here needs no token. Parts are told by their names, why they do not work is for
  `hello` to say.
- Nothing waits for the loop: it may be what hangs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from coworkd import __version__
from coworkd.services.health_http import JSON, Answer, refuse
from coworkd.services.health_pulse import Pulse
from coworkd.wire.prometheus import CONTENT_TYPE, State, compose_metrics, part_names

_encoder = msgspec.json.Encoder()


class HealthState(Protocol):
    """How far coming up is; read from another thread."""

    @property
    def ready(self) -> bool: ...

    @property
    def doing(self) -> str: ...

    @property
    def degraded(self) -> dict[str, str]: ...

    @property
    def pulse(self) -> Pulse: ...


class Answers:
    """Each request is one call of `answer`."""

    def __init__(self, health: HealthState, *, stuck_s: float) -> None:
        self._health = health
        self._stuck_s = stuck_s
        self._paths: dict[str, Callable[[], Answer]] = {
            "/live": self._live,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }

    def answer(self, path: str) -> Answer:
        found = self._paths.get(path)
        return refuse(404, "there are /live, /ready and /metrics") if found is None else found()

    def _live(self) -> Answer:
        pulse = self._health.pulse
        turned_ago_s = pulse.turned_ago_s
        live = turned_ago_s < self._stuck_s
        running = None if pulse.counted is None else _running(pulse.counted.stats.processes)
        said = {
            "live": live,
            "turned_ago_s": round(turned_ago_s, 3),
            "loop_lag_s": round(pulse.lag_s, 3),
            "idle_for_s": round(pulse.idle_for_s, 3),
            "running": running,
            "uptime_s": round(pulse.uptime_s, 3),
            "pid": os.getpid(),
            "version": __version__,
        }
        return _json(200 if live else 503, said)

    def _ready(self) -> Answer:
        ready = self._health.ready
        doing = None if ready else self._health.doing
        return _json(200 if ready else 503, {"ready": ready, "doing": doing, "degraded": self._parts()})

    def _metrics(self) -> Answer:
        pulse = self._health.pulse
        state = State(
            version=__version__,
            ready=self._health.ready,
            degraded=self._parts(),
            turned_ago_s=pulse.turned_ago_s,
            counted_ago_s=pulse.counted_ago_s,
        )
        text = compose_metrics(None if pulse.counted is None else pulse.counted.stats, state)
        return Answer(status=200, kind=CONTENT_TYPE, body=text.encode())

    def _parts(self) -> tuple[str, ...]:
        return part_names(list(self._health.degraded))  # one step, which no other thread can come between


def _running(processes: dict[str, int]) -> int:
    return sum(count for state, count in processes.items() if state != "exited")


def _json(status: int, said: Mapping[str, object]) -> Answer:
    return Answer(status=status, kind=JSON, body=_encoder.encode(said) + b"\n")
