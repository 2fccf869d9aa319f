"""A contract for import-linter: the modules of one package form rooms, and rooms do not see each other.

import-linter's own `independence` takes each module, or each package, for a room. Here several modules side by side are
one, because the room is small: `rooms` has one room a line, its modules as glob patterns. Each module must be in
exactly one room, so a new one is not overlooked.

Only direct imports are looked at: an indirect one within the package is a chain of direct ones, and one through another
package would go up a floor, which the floors' contract refuses.
"""

from __future__ import annotations

import fnmatch
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class RoomsContract(Contract):
    """Options: `package`, and `rooms`, one a line."""

    type_name = "rooms"

    package = fields.StringField()
    rooms = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        package = str(self.package)
        rooms = [str(room).split() for room in self.rooms]  # type: ignore[attr-defined]
        problems: list[str] = []
        room_of: dict[str, int] = {}
        for module in sorted(graph.find_descendants(package)):
            name = module.removeprefix(f"{package}.").split(".")[0]
            found = [number for number, room in enumerate(rooms) if any(fnmatch.fnmatch(name, one) for one in room)]
            if len(found) == 1:
                room_of[module] = found[0]
            else:
                problems.append(f"{module} is in {len(found)} rooms, it must be in one: see .importlinter")
        for importer, room in room_of.items():
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if room_of.get(imported, room) != room:
                    problems.append(f"{importer} -> {imported}: another room; take it as a Protocol of model/ports.py")
        return ContractCheck(kept=not problems, metadata={"problems": problems})

    def render_broken_contract(self, check: ContractCheck) -> None:
        metadata: dict[str, Any] = check.metadata
        for problem in metadata["problems"]:
            output.print_error(problem)
