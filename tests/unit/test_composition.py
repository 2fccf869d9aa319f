"""Every service built at once, with nothing running: what two of them share, and what holds without a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from coworkd.bring_up import Ground
from coworkd.cli.daemon import compose_local_config
from coworkd.composition import FALLBACK_AUDIT_BYTES, Composition
from coworkd.config import Config
from coworkd.model.layout import BwrapFeatures


async def never() -> NoReturn:
    raise AssertionError("nothing is connected while services are built")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    features = BwrapFeatures(path="/usr/bin/bwrap", version="bubblewrap 9", options=frozenset())
    monkeypatch.setattr("coworkd.composition.read_bwrap_features", lambda: features)
    made = compose_local_config(state=str(tmp_path / "state"), socket=str(tmp_path / "socket"))
    Path(made.state_dir).mkdir(parents=True)
    return made


@pytest.fixture
def ground(config: Config) -> Iterator[Ground]:
    made = Ground(config, connect=never)
    yield made
    made.close()


def built(config: Config, ground: Ground) -> Composition:
    return Composition(config, mode="local", connect=never, ground=ground)


def test_everything_is_built_and_nothing_is_connected(config: Config, ground: Ground) -> None:
    parts = built(config, ground)
    assert parts.sessions.count == 0
    assert (Path(config.state_dir) / "audit").is_dir()
    parts.close()


@pytest.mark.parametrize("state", ["absent", "ok"])
def test_a_log_without_its_disk_stays_small(
    config: Config, ground: Ground, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    bounds: list[int] = []

    def open_log(*arguments: object, limits: object, **options: object) -> NoReturn:
        bounds.append(limits.total_bytes)  # type: ignore[attr-defined]
        raise LookupError

    monkeypatch.setattr(ground.storage, "state", state)
    monkeypatch.setattr("coworkd.composition.AuditLog.open", open_log)
    with pytest.raises(LookupError):
        built(config, ground)
    assert bounds == [FALLBACK_AUDIT_BYTES if state == "absent" else config.audit.keep_bytes]
