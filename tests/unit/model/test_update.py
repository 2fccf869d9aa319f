"""The words between the programs have a version: whoever changes them counts it up, here as well."""

from __future__ import annotations

import hashlib
import types

import msgspec

from coworkd.model import disk, egress, files, folder, launch, launch_tree, limits, measure, stage, tool, update, watch

MODULES = (disk, egress, files, folder, launch, launch_tree, limits, measure, stage, tool, update, watch)
FINGERPRINTS = {1: "97b00adb612d98f4b0a3971c7bfbad4d7f5909301784238f0569564ca506689d"}
"""Of the shapes of every word, by version. A version that was released keeps its own."""


def words_of(module: types.ModuleType) -> list[type[msgspec.Struct]]:
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
    return sorted((kind for kind in found if kind.__module__ == module.__name__), key=lambda kind: kind.__name__)


def fingerprint() -> str:
    """Changes with every field that comes, goes, or is of another type; not with what is said about it."""
    lines = []
    for module in MODULES:
        for kind in words_of(module):
            fields = msgspec.structs.fields(kind)
            said = ", ".join(
                f"{field.encode_name}: {kind.__annotations__.get(field.name, field.type)}" for field in fields
            )
            lines.append(f"{module.__name__}.{kind.__name__}[{kind.__struct_config__.tag}]({said})")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_version_of_the_words_is_that_of_their_shapes() -> None:
    said = "the words between coworkd and its other programs have changed: count WORDS up in coworkd/model/update.py and put "
    assert FINGERPRINTS.get(update.WORDS) == fingerprint(), (
        f"{said}{update.WORDS + 1}: {fingerprint()!r} beside FINGERPRINTS"
    )
