"""Which of Apple's names host_stub/vz uses, and under what guard, read from its source.

A name of Apple's is an attribute that begins with VZ or NS, one that ends in an underscore (a selector with arguments), or one in
camel case (a selector without). Words like `init` or `close` look like anybody's; the fake watches those.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from host_stub import vz
from host_stub.vz.framework import FLOOR

ROOM = Path(vz.__file__).parent
NOT_APPLES = {"protocolNamed"}
"""PyObjC's own."""


class Use(NamedTuple):
    where: str
    name: str
    macos: tuple[int, int]
    """The oldest macOS on which this place is reached."""


def uses() -> list[Use]:
    return [use for path in sorted(ROOM.glob("*.py")) for use in _visit(path, ast.parse(path.read_text()), FLOOR)]


def used_selectors() -> set[str]:
    return {use.name.replace("_", ":") for use in uses() if not use.name.startswith(("VZ", "NS"))}


def _visit(path: Path, node: ast.AST, floor: tuple[int, int]) -> Iterator[Use]:
    if isinstance(node, ast.FunctionDef):
        floor = max([floor, *(_guard(decorator) for decorator in node.decorator_list)])
    if isinstance(node, ast.Attribute) and _is_apples(node.attr):
        yield Use(f"{path.name}:{node.lineno}", node.attr, floor)
    for child in ast.iter_child_nodes(node):
        yield from _visit(path, child, floor)


def _guard(decorator: ast.expr) -> tuple[int, int]:
    match decorator:
        case ast.Call(
            func=ast.Name(id="since"), args=[ast.Constant(value=int(major)), ast.Constant(value=int(minor)), _]
        ):
            return major, minor
    return 0, 0


def _is_apples(name: str) -> bool:
    if name.startswith("_") or name in NOT_APPLES:
        return False
    return bool(re.fullmatch(r"(VZ|NS)[A-Z]\w+|[a-zA-Z]\w*_|[a-z]+[A-Z]\w*", name))
