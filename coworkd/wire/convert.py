"""Maps of the wire → parameter types, and answers → what MessagePack can carry: dicts end here.

Rules
- An unknown parameter is refused, with the nearest right spelling; so are wrong types (`bool` is no integer, a float is
  no integer, an integer is taken where a float is wanted), a missing parameter, a value that is not one of those named.
- Text (keys too), arguments and paths hold no NUL; floats are finite. Plain `bin` (stdin, input) may hold anything.
- Every refusal is `InvalidParams`; `details.key` is the path of the parameter, as `folders[0].mode`.
- What travels as text where it is UTF-8 and else as bin is `OsBytes`, both ways.

Not here: ranges and meanings of values; services judge those. Source: docs/protocol.md, C-2, C-7, W-6, W-10.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes

T = TypeVar("T", bound=msgspec.Struct)

_NATIVE = (bytes,)
_FLAWLESS = frozenset([bytes, int, bool, type(None)])
"""Any value of these may stand in a call."""
_WITH_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?\Z", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value (.*)\Z", re.DOTALL)
_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")


def parse_params(params: Mapping[str, Any], kind: type[T]) -> T:
    """Return `params` as `kind`, or raise `InvalidParams`."""
    flaw = _find_flaw(params)
    if flaw is not None:
        where, what = flaw
        key = where.lstrip(".")
        raise InvalidParams(f"parameter {key}: {what}", key=key)
    try:
        return msgspec.convert(params, kind, dec_hook=_from_wire, builtin_types=_NATIVE)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from error


def read_answer(answer: Any, kind: type[T]) -> T:
    """Return what a guest answered as `kind`, unknown fields ignored. Raises `msgspec.ValidationError`."""
    return msgspec.convert(answer, kind, dec_hook=_from_wire, builtin_types=_NATIVE)


def compose_answer(answer: Any) -> Any:
    """Return a Struct (or a mapping of them) as maps, lists and scalars; payloads in `bin` are not copied."""
    return msgspec.to_builtins(answer, enc_hook=_to_wire, builtin_types=_NATIVE)


def nearest(name: str, known: list[str]) -> str | None:
    """The right spelling `name` was probably meant to be, or None."""
    found = get_close_matches(name[:64].lower(), known, n=1, cutoff=0.6)
    return found[0] if found else None


def _from_wire(kind: type, value: object) -> object:
    if kind is not OsBytes:
        raise NotImplementedError(f"no wire form is known for {kind!r}")
    parsed = OsBytes.from_wire(value)
    if 0 in parsed:
        raise ValueError("a NUL byte cannot be part of an argument or a path")
    return parsed


def _to_wire(value: object) -> object:
    if type(value) is OsBytes:
        return value.to_wire()
    raise NotImplementedError(f"no wire form is known for {type(value)!r}")


def _find_flaw(value: Any) -> tuple[str, str] | None:
    """Path and reason of the first value no call may hold."""
    steps: Any
    if isinstance(value, list):
        steps = enumerate(value)
    elif type(value) is dict or isinstance(value, Mapping):
        steps = value.items()
    elif isinstance(value, str):
        return ("", "text cannot hold a NUL character") if "\0" in value else None
    elif isinstance(value, float):
        return None if math.isfinite(value) else ("", "a number must be finite")
    else:
        return None
    for step, each in steps:
        if type(step) is not int and "\0" in step:
            return f".{step.partition(chr(0))[0]}", "a name cannot hold a NUL character"
        if type(each) in _FLAWLESS or (type(each) is str and "\0" not in each):
            continue
        found = _find_flaw(each)
        if found is not None:
            return (f"[{step}]" if type(step) is int else f".{step}") + found[0], found[1]
    return None


def _invalid(problem: str, kind: type) -> InvalidParams:
    """Word msgspec's error for whoever made the call."""
    split = _WITH_PATH.match(problem)
    what, path = (split["what"], split["path"] or "") if split else (problem, "")
    unknown, missing, choice = _UNKNOWN.match(what), _MISSING.match(what), _ENUM.match(what)
    if unknown:
        return _unknown_parameter(unknown[1], path, kind)
    if missing:
        key = _join(path, missing[1])
        return InvalidParams(f"parameter {key} is missing", key=key)
    if choice:
        choices = _choices_at(kind, path)
        return InvalidParams(f"parameter {path}: {choice[1]} is not one of {', '.join(choices)}", key=path)
    return InvalidParams(f"parameter {path or '(all)'}: {what[:1].lower()}{what[1:]}", key=path)


def _unknown_parameter(name: str, path: str, kind: type) -> InvalidParams:
    fields = _fields_at(kind, path)
    close = nearest(name, fields)
    remedy = f"did you mean {close!r}?" if close else f"it takes {', '.join(fields) or 'none'}"
    where = f" in {path}" if path else ""
    return InvalidParams(f"unknown parameter {name[:64]!r}{where}; {remedy}", key=_join(path, name), nearest=close)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _fields_at(kind: type, path: str) -> list[str]:
    from msgspec.inspect import StructType

    return [
        field.encode_name
        for found in _types_at(kind, path)
        if isinstance(found, StructType)
        for field in found.fields
    ]  # fmt: skip


def _choices_at(kind: type, path: str) -> list[str]:
    from msgspec.inspect import LiteralType

    return [repr(value) for found in _types_at(kind, path) if isinstance(found, LiteralType) for value in found.values]


def _types_at(kind: type, path: str) -> list[Any]:
    """The types that may stand at a path as `folders[0].mode`. Only errors come here: `inspect` is imported late."""
    from msgspec import inspect

    found = [inspect.type_info(kind)]
    for step in _STEP.findall(path):
        found = [below for each in _members(found) for below in _below(each, step)]
    return _members(found)


def _members(types: list[Any]) -> list[Any]:
    from msgspec.inspect import UnionType

    return [each for found in types for each in (found.types if isinstance(found, UnionType) else (found,))]


def _below(kind: Any, step: str) -> list[Any]:
    from msgspec import inspect

    if step.startswith("["):
        if isinstance(kind, inspect.DictType):
            return [kind.value_type]
        return [kind.item_type] if isinstance(kind, inspect.ListType | inspect.VarTupleType) else []
    return [each.type for each in getattr(kind, "fields", ()) if each.encode_name == step]
