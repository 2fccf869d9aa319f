"""The verbs of the blocking client: all that the table has, but what needs a handle."""

from __future__ import annotations

from coworkd.client.methods import all_methods
from coworkd.client.verbs import Verbs

BY_HAND = {"process.attach", "events.subscribe", "forward.open", "file.upload", "file.download"}


def test_every_method_has_its_verb() -> None:
    names = {name.replace(".", "_") for name in set(all_methods()) - BY_HAND}
    verbs = {name for name in vars(Verbs) if not name.startswith("_")} - {"call", "start_process"}
    assert {name.replace("process_run", "run").replace("process_start", "start") for name in names} == verbs
