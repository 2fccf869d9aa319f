from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.auditlog.kinds import admit
from coworkd.model import calls
from coworkd.model.errors import DiskFailed, InvalidParams, LimitExceeded, NotFound
from coworkd.services import trust as trust_module
from coworkd.services.trust import Trust
from coworkd.services.trust_files import Change
from tests.unit.certificates import FAR, NOW_S, make, make_authority

ROOT = make_authority()
OTHER = make_authority("Other Root")


class FakeAudit:
    """Notes records that the real log would take; refuses while `full`."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Mapping[str, Any]]] = []
        self.full = False

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise DiskFailed("the audit log is full")
        self.records.append((kind, admit(kind, fields)))


class Scene:
    def __init__(self, tmp_path: Path) -> None:
        self.audit = FakeAudit()
        self.state = tmp_path / "state"
        self.system = tmp_path / "none"
        self.changes: list[None] = []

    def trust(self) -> Trust:
        return Trust(
            str(self.state),
            self.audit,
            clock=lambda: NOW_S,
            system_certs=str(self.system),
            on_change=self._changed,
        )

    async def _changed(self) -> None:
        self.changes.append(None)

    @property
    def bundle(self) -> str:
        return (self.state / "trust" / "current" / "ca-bundle.pem").read_text()

    def run(self, script: Callable[[Trust], Awaitable[None]]) -> None:
        async def main() -> None:
            trust = self.trust()
            await trust.load()
            await script(trust)

        trio.run(main)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_nothing_is_added_and_no_variable_needed_at_first(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        assert trust.bundle_path_inside is None
        assert (await trust.list()).installed == ()

    scene.run(script)
    assert scene.bundle == ""


def test_install_tells_what_is_trusted_and_sandboxes_see_it(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        answer = await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem + OTHER.pem))
        assert [(one.name, one.subject, one.not_after) for one in answer.installed] == [
            ("acme", "CN=Acme Root", FAR.timestamp()),
            ("acme", "CN=Other Root", FAR.timestamp()),
        ]
        assert trust.bundle_path_inside == "/etc/coworkd/trust/ca-bundle.pem"
        assert trust.directory == str(scene.state / "trust" / "current")

    scene.run(script)
    assert scene.bundle == ROOT.pem + OTHER.pem


def test_install_is_recorded_with_fingerprints_and_names_and_no_more(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        [told] = (await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))).installed
        await trust.remove(calls.CaName(name="acme"))
        assert [(kind, dict(fields)) for kind, fields in scene.audit.records] == [
            (
                "ca.install",
                {"name": "acme", "sha256": told.sha256, "certificates": [f"{told.sha256} CN=Acme Root"]},
            ),
            ("ca.remove", {"name": "acme", "sha256": told.sha256}),
        ]

    scene.run(script)


def test_what_was_installed_is_there_after_a_restart(scene: Scene) -> None:
    async def first(trust: Trust) -> None:
        await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))

    async def second(trust: Trust) -> None:
        assert [one.name for one in (await trust.list()).installed] == ["acme"]

    scene.run(first)
    scene.run(second)
    assert scene.bundle == ROOT.pem


def test_install_under_a_name_replaces_what_had_it(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        await trust.install(calls.CaInstall(name="acme", pem=OTHER.pem))

    scene.run(script)
    assert scene.bundle == OTHER.pem


def test_remove_takes_it_away_and_an_unknown_name_is_not_found(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        await trust.remove(calls.CaName(name="acme"))
        assert trust.bundle_path_inside is None
        with pytest.raises(NotFound, match=r"ca\.list"):
            await trust.remove(calls.CaName(name="acme"))

    scene.run(script)
    assert scene.bundle == ""


@pytest.mark.parametrize("name", ["", "../x", ".x", "a/b", "A", "a b", "é", "a\n", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(scene: Scene, name: str) -> None:
    async def script(trust: Trust) -> None:
        with pytest.raises(InvalidParams, match="is no name"):
            await trust.install(calls.CaInstall(name=name, pem=ROOT.pem))
        with pytest.raises(InvalidParams, match="is no name"):
            await trust.remove(calls.CaName(name=name))

    scene.run(script)


def test_a_bad_certificate_changes_nothing(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        with pytest.raises(InvalidParams):
            await trust.install(calls.CaInstall(name="acme", pem=OTHER.pem + make("server.example").pem))
        assert [one.subject for one in (await trust.list()).installed] == ["CN=Acme Root"]

    scene.run(script)
    assert scene.bundle == ROOT.pem
    assert len(scene.audit.records) == 1


def test_what_cannot_be_recorded_is_not_done(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        scene.audit.full = True
        with pytest.raises(DiskFailed, match="audit log"):
            await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        assert trust.bundle_path_inside is None

    scene.run(script)
    assert scene.bundle == ""
    assert list((scene.state / "trust").rglob("*.new")) == []
    assert list((scene.state / "trust").rglob("*acme*")) == []


def test_a_cancelled_install_is_done_whole_once_it_was_recorded(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        with trio.CancelScope() as scope:
            note = scene.audit.record

            async def record(kind: str, fields: Mapping[str, Any], /) -> None:
                scope.cancel()
                await note(kind, fields)

            scene.audit.record = record  # type: ignore[method-assign]
            await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        assert trust.bundle_path_inside is not None

    scene.run(script)
    assert scene.bundle == ROOT.pem


def test_a_file_system_that_fails_half_way_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: Change) -> None:
        raise OSError(5, "Input/output error")

    async def script(trust: Trust) -> None:
        monkeypatch.setattr(Change, "commit", commit)
        with pytest.raises(DiskFailed, match="next start"):
            await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))

    scene.run(script)


def test_there_is_a_bound_of_names(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(trust: Trust) -> None:
        monkeypatch.setattr(trust_module, "MAX_NAMES", 1)
        await trust.install(calls.CaInstall(name="one", pem=ROOT.pem))
        with pytest.raises(LimitExceeded, match=r"ca\.remove"):
            await trust.install(calls.CaInstall(name="two", pem=OTHER.pem))
        await trust.install(calls.CaInstall(name="one", pem=OTHER.pem))

    scene.run(script)


def test_the_inspections_authority_comes_goes_and_stays_out_of_the_list(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        await trust.set_inspection_ca(OTHER.pem.encode())
        assert scene.bundle == ROOT.pem + OTHER.pem
        assert [one.name for one in (await trust.list()).installed] == ["acme"]
        await trust.remove(calls.CaName(name="acme"))
        assert scene.bundle == OTHER.pem
        assert trust.bundle_path_inside is not None
        await trust.set_inspection_ca(None)
        assert scene.bundle == ""
        assert trust.bundle_path_inside is None

    scene.run(script)


def test_a_change_of_what_is_installed_is_told_and_no_other(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        await trust.set_inspection_ca(OTHER.pem.encode())
        assert (trust.installed_pem, len(scene.changes)) == ("", 0)
        await trust.install(calls.CaInstall(name="acme", pem=ROOT.pem))
        await trust.install(calls.CaInstall(name="again", pem=ROOT.pem))
        assert (trust.installed_pem, len(scene.changes)) == (ROOT.pem, 2)
        await trust.remove(calls.CaName(name="acme"))
        await trust.remove(calls.CaName(name="again"))
        assert (trust.installed_pem, len(scene.changes)) == ("", 4)

    scene.run(script)


def test_an_inspection_authority_that_is_none_is_refused(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        with pytest.raises(InvalidParams):
            await trust.set_inspection_ca(b"\xff")

    scene.run(script)


def test_installs_at_once_are_all_kept(scene: Scene) -> None:
    async def script(trust: Trust) -> None:
        async with trio.open_nursery() as nursery:
            for name, made in (("one", ROOT), ("two", OTHER)):
                nursery.start_soon(trust.install, calls.CaInstall(name=name, pem=made.pem))

    scene.run(script)
    assert scene.bundle == ROOT.pem + OTHER.pem
