"""Which sessions there are, judged from what is found at start: records, homes, and who has which number on this root file system. Pure.

Rules
- A record counts. A home without one is a session all the same, `incomplete`, with its owner's uid: nothing is lost with a record.
- A number belongs to one alone. Where an account or group of this root has a session's, the session gets a new one; where two sessions
  have one, the one whose home says so keeps it (the older one, if both do). Nobody else is touched.
- A home that is owned by another than its session goes over to it (`SessionRecord.reown_from`), as does that of a session that got a
  new number. Until that is done nothing runs in it.
- A record of a later format keeps its name and number.

Does not do anything: `session_recovering` does. Whose number a living process has is not asked: whoever runs under a session's number at
start is the session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, structs

from coworkd.model.session import RECORD_FORMAT, SessionRecord
from coworkd.model.uids import MAX_UID, MIN_UID

ADOPTED_PROFILE = "default"


class Found(Struct, frozen=True, kw_only=True):
    """What is found at start."""

    records: Mapping[str, SessionRecord]
    reserved: Mapping[str, int | None] = {}
    """Name → uid of records that are a later coworkd's."""
    homes: Mapping[str, int]
    """Name → owner."""
    owners: Mapping[int, str]
    """Uid or gid → account or group of this root."""
    ranges: Sequence[range] = ()
    """Subordinate ranges (subuid(5))."""
    now: float


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is not as it was left."""

    session: str
    before: SessionRecord | None
    """The record as it is on disk; None where there is none."""
    reason: str


class Recovery(Struct, frozen=True, kw_only=True):
    """What comes of it. Records that are told in `findings` are not on disk yet."""

    records: dict[str, SessionRecord]
    findings: tuple[Finding, ...]


def plan_recovery(found: Found) -> Recovery:
    """Every session there is, and what has to be told of it."""
    return _Plan(found).make()


class _Plan:
    def __init__(self, found: Found) -> None:
        self._found = found
        self._findings: list[Finding] = []
        self._free: Iterator[int] | None = None
        self._reserved = {uid: name for name, uid in found.reserved.items() if uid is not None}
        self._held = _holders(found)

    def make(self) -> Recovery:
        records = {name: self._judge(record) for name, record in self._found.records.items()}
        for name, owner in sorted(self._found.homes.items()):
            if name not in records and name not in self._found.reserved and MIN_UID <= owner <= MAX_UID:
                records[name] = self._adopt(name, owner)
        return Recovery(records=records, findings=tuple(self._findings))

    def _judge(self, record: SessionRecord) -> SessionRecord:
        if record.state == "deleting":
            return record
        foreign = self._foreign(record.uid, record.name)
        owner = self._found.homes.get(record.name)
        wanted = record
        if foreign is not None:
            uid = self._next_uid()
            wanted = _with_uid(record, uid, (*record.reown_from, record.uid))
            self._tell(record, f"uid {record.uid} is {foreign}'s on this system; it gets {uid}")
        if owner is not None and owner != wanted.uid and owner not in wanted.reown_from:
            wanted = structs.replace(wanted, reown_from=(*wanted.reown_from, owner))
            self._tell(record, f"its home belongs to uid {owner}; it goes over to {wanted.uid}")
        elif wanted is record and record.reown_from:
            self._tell(record, f"its home goes over to uid {record.uid}, which was cut short")
        return wanted

    def _adopt(self, name: str, owner: int) -> SessionRecord:
        foreign = self._foreign(owner, name)
        record = SessionRecord(
            format=RECORD_FORMAT,
            name=name,
            uid=owner,
            gid=owner,
            profile=ADOPTED_PROFILE,
            created_at=self._found.now,
            state="incomplete",
        )
        if foreign is not None:
            record = _with_uid(record, self._next_uid(), (owner,))
        reason = f"its home was there without a record, owned by uid {owner}"
        reason += "" if foreign is None else f", which is {foreign}'s; it gets {record.uid}"
        self._findings.append(Finding(session=name, before=None, reason=reason))
        return record

    def _foreign(self, uid: int, name: str) -> str | None:
        """Who else has the number, in words; None for nobody."""
        other = self._found.owners.get(uid)
        if other is not None and other != name:
            return f"account or group {other}"
        if uid in self._reserved:
            return f"session {self._reserved[uid]}"
        holder = self._held.setdefault(uid, name)
        return None if holder == name else f"session {holder}"

    def _next_uid(self) -> int:
        if self._free is None:
            self._free = _free_uids(self._found)
        return next(self._free)

    def _tell(self, record: SessionRecord, reason: str) -> None:
        self._findings.append(Finding(session=record.name, before=record, reason=reason))


def _holders(found: Found) -> dict[int, str]:
    """Of each number the session that has it: the one whose home says so, else the oldest."""
    holders: dict[int, str] = {}

    def rank(record: SessionRecord) -> tuple[bool, float, str]:
        return (found.homes.get(record.name) != record.uid, record.created_at, record.name)

    for record in sorted(found.records.values(), key=rank):
        holders.setdefault(record.uid, record.name)
    return holders


def _free_uids(found: Found) -> Iterator[int]:
    """Numbers nobody has, each once: the highest first, far from where new sessions begin, and subordinate ranges last.

    There are several times as many numbers as there may be sessions.
    """
    taken = {record.uid for record in found.records.values()}
    taken.update(uid for record in found.records.values() for uid in record.reown_from)
    taken.update(uid for uid in found.reserved.values() if uid is not None)
    taken.update(found.homes.values(), found.owners)
    free = [uid for uid in range(MAX_UID, MIN_UID - 1, -1) if uid not in taken]
    return iter(sorted(free, key=lambda uid: any(uid in given for given in found.ranges)))


def _with_uid(record: SessionRecord, uid: int, reown_from: tuple[int, ...]) -> SessionRecord:
    return structs.replace(record, uid=uid, gid=uid, reown_from=tuple(dict.fromkeys(reown_from)))
