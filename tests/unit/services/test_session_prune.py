from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from coworkd.model.errors import DiskFailed, InvalidParams, NotFound
from coworkd.model.session import FolderGrant
from coworkd.services.session_prune import CACHES, TMP
from tests.unit.services.disk_house import DiskHouse, open_disk_house
from tests.unit.services.process_house import in_trio


def left(house: DiskHouse, name: str = "bob") -> set[str]:
    return {str(path.relative_to(house.home(name))) for path in house.home(name).rglob("*") if path.is_file()}


@in_trio
async def test_caches_and_tmp_go_and_work_stays(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        for place in (*CACHES, *TMP):
            house.write(f"{place.decode()}/file")
        for name in ("work", ".npmrc", ".cargo/bin/tool", "go/src/main.go", ".m2/settings.xml", "cache/file"):
            house.write(name)
        told = await house.prune(dry_run=True)
        assert len(left(house)) == len(CACHES) + len(TMP) + 6
        assert house.audit.kinds == ["session.create"]
        gone = await house.prune()
        assert gone == told
        assert left(house) == {"work", ".npmrc", ".cargo/bin/tool", "go/src/main.go", ".m2/settings.xml", "cache/file"}
        assert (gone.files, len(gone.entries)) == (len(CACHES) + len(TMP), len(CACHES) + len(TMP))
        assert house.storage.freed_bytes == [gone.freed_bytes]
        assert house.events_of("session.pruned") == [{"session": "bob", "freed_bytes": gone.freed_bytes}]


@in_trio
async def test_only_what_is_named_goes(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        house.write(".cache/file")
        house.write("tmp/file")
        await house.prune(what=("tmp",))
        assert left(house) == {".cache/file"}
        assert house.audit.fields("session.prune")["what"] == ["tmp"]


@in_trio
async def test_nothing_goes_that_the_audit_log_does_not_have(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        house.write(".cache/file")
        house.audit.full.add("session.prune")
        with pytest.raises(DiskFailed):
            await house.prune()
        assert left(house) == {".cache/file"}


@in_trio
async def test_of_all_sessions_by_size(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        for name in ("bob", "eve"):
            await house.ensure(name)
            house.write(".cache/large", 50_000, name=name)
            house.write(".cache/small", 10, name=name)
        gone = await house.prune(None, larger_than_bytes=1000)
        assert [(entry.session, bytes(entry.path)) for entry in gone.entries] == [
            ("bob", b".cache/large"),
            ("eve", b".cache/large"),
        ]
        assert left(house) == left(house, "eve") == {".cache/small"}


@in_trio
async def test_what_was_touched_lately_stays(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        path = house.write(".cache/file")
        house.now = path.stat().st_ctime + 100
        assert (await house.prune(older_than_s=200)).files == 0
        assert (await house.prune(older_than_s=50)).files == 1


@in_trio
async def test_a_stage_goes_only_when_it_is_named_and_its_folder_is_not_the_sessions_any_more(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        for folder in ("mounted", "left"):
            (tmp_path / f"stages/bob/{folder}/upper").mkdir(parents=True)
            (tmp_path / f"stages/bob/{folder}/upper/file").write_bytes(bytes(20_000))
            house.stages.there["bob", folder] = (b"/", b"x")
        record = house.sessions.table.records["bob"]
        grant = FolderGrant(name="mounted", source="/srv/x", mode="staged")
        house.sessions.table.records["bob"] = structs.replace(record, folders=(grant,))
        assert (await house.prune()).files == 0
        told = await house.prune(what=("stages",), dry_run=True)
        assert set(house.stages.there) == {("bob", "mounted"), ("bob", "left")}
        gone = await house.prune(what=("stages",))
        assert gone == told
        assert [bytes(entry.path) for entry in gone.entries] == [b"mnt/left"]
        assert gone.freed_bytes >= 20_000
        assert set(house.stages.there) == {("bob", "mounted")}


@in_trio
async def test_what_a_session_that_is_closed_holds_back_stays(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        (tmp_path / "stages/bob/f/upper").mkdir(parents=True)
        house.stages.there["bob", "f"] = (b"/", b"x")
        grant = FolderGrant(name="f", source="/srv/x", mode="staged")
        house.sessions.table.records["bob"] = structs.replace(house.sessions.table.records["bob"], folders=(grant,))
        await house.sessions._openings.close("bob")
        await house.prune(what=("stages",))
        assert set(house.stages.there) == {("bob", "f")}


@in_trio
async def test_an_age_and_a_size_hold_for_stages_as_well(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        (tmp_path / "stages/bob/left/upper").mkdir(parents=True)
        file = tmp_path / "stages/bob/left/upper/file"
        file.write_bytes(bytes(20_000))
        house.stages.there["bob", "left"] = (b"/", b"x")
        house.now = file.stat().st_ctime + 100
        assert (await house.prune(what=("stages",), older_than_s=200)).files == 0
        assert (await house.prune(what=("stages",), larger_than_bytes=1_000_000)).files == 0
        assert set(house.stages.there) == {("bob", "left")}
        assert (await house.prune(what=("stages",), older_than_s=50, larger_than_bytes=1000)).files > 0
        assert set(house.stages.there) == set()


@in_trio
async def test_hostile_links_lead_nowhere(tmp_path: Path) -> None:
    """The plant of CVE-2026-87766, in every place there is."""
    outside = tmp_path / "outside/_cacache"
    outside.mkdir(parents=True)
    (outside / "kept").touch()
    async with open_disk_house(tmp_path) as house:
        await house.ensure()
        for plant in (".cache", ".npm", "tmp"):
            (house.home() / plant).symlink_to(outside.parent)
        (house.home() / ".ccache").mkdir()
        (house.home() / ".ccache/x").symlink_to(outside)
        gone = await house.prune()
        assert [bytes(entry.path) for entry in gone.entries] == [b".ccache/x"]
        assert (outside / "kept").exists()


@in_trio
async def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path) as house:
        with pytest.raises(NotFound):
            await house.prune()
        await house.ensure()
        for fields in ({"older_than_s": -1}, {"larger_than_bytes": -1}, {"what": ()}):
            with pytest.raises(InvalidParams):
                await house.prune(**fields)
