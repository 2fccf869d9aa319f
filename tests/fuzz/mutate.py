"""Bytes that are nearly right: what a peer sends that is broken, hostile, or of another version. Pure, from one `random.Random`."""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

import msgspec

ODD_INTEGERS = (
    -(2**63),
    -(2**31),
    -1,
    0,
    1,
    2,
    7,
    15,
    16,
    127,
    128,
    255,
    1000,
    1001,
    4096,
    65535,
    2**31,
    2**32,
    2**63 - 1,
)
ODD_TEXTS = (
    "",
    "a",
    ".",
    "..",
    "/",
    "a/b",
    "../../x",
    "x" * 65,
    "x" * 70_000,
    "\0",
    "é",
    "-v",
    "%s",
    "\n",
    "p1",
    "bob",
)
_ODD_BYTES = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xC0, 0xC1, 0xC4, 0xC6, 0xC9, 0xD3, 0xD9, 0xDB, 0xDD, 0xDF, 0xFF)


def mutate(chance: random.Random, data: bytes, others: Sequence[bytes] = (b"",)) -> bytes:
    """`data` with one to four things done to it: flipped, cut, doubled, or spliced with one of `others`."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(7):
            case 0 if place < len(made):
                made[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(made):
                made[place] = chance.choice(_ODD_BYTES)
            case 2:
                made[place : place + chance.randint(1, 8)] = b""
            case 3:
                made[place:place] = chance.randbytes(chance.randint(1, 8))
            case 4:
                made[place:place] = made[place : place + chance.randint(1, 64)]
            case 5:
                made[place:] = b""
            case _:
                other = chance.choice(others)
                made[place:] = other[chance.randrange(len(other) + 1) :]
    return bytes(made)


def cut(chance: random.Random, data: bytes) -> list[bytes]:
    """`data` in pieces of any size."""
    pieces = []
    while data:
        size = chance.choice((1, 2, 3, 17, 256, len(data)))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


Pool = Mapping[str, Sequence[Any]]
"""Values of sense for a field, by its name."""


class Maker:
    """Makes structs of msgspec's by the types of their fields: mostly what is meant, sometimes what is not."""

    def __init__(self, chance: random.Random, pool: Pool) -> None:
        self._chance = chance
        self._pool = pool

    def make(self, kind: type[msgspec.Struct], *, confused: bool = False) -> dict[str, Any]:
        """As a map that msgspec encodes as `kind`; `confused` puts something of another type into one field."""
        fields = msgspec.structs.fields(kind)
        tag = kind.__struct_config__.tag
        made = {"type": tag} if tag is not None else {}
        wrong = self._chance.choice(fields).name if confused and fields else None
        for field in fields:
            optional = field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT
            if optional and self._chance.random() < 0.5:
                continue
            if field.name == wrong:
                made[field.name] = self.anything()
            elif field.name in self._pool and self._chance.random() < 0.8:
                made[field.name] = self._chance.choice(self._pool[field.name])
            else:
                made[field.name] = self._value(field.type)
        return made

    def anything(self, depth: int = 2) -> Any:
        """A value of any type."""
        made: tuple[Callable[[], Any], ...] = (
            lambda: None,
            lambda: True,
            lambda: self._chance.choice(ODD_INTEGERS),
            lambda: self._chance.random() * 10.0 ** self._chance.randint(-3, 300),
            lambda: self._chance.choice(ODD_TEXTS),
            lambda: self._chance.randbytes(self._chance.randint(0, 40)),
            lambda: [self.anything(depth - 1) for _ in range(self._chance.randint(0, 3))] if depth else [],
            lambda: {self._chance.choice(ODD_TEXTS): self.anything(depth - 1)} if depth else {},
        )
        return self._chance.choice(made)()

    def _value(self, kind: Any) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is Literal:
            return self._chance.choice(arguments)
        if origin in (Union, types.UnionType):
            return self._value(self._chance.choice(arguments))
        if origin is tuple:
            of = arguments if Ellipsis not in arguments else arguments[:1] * self._chance.randint(0, 4)
            return [self._value(each) for each in of]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.make(kind)
        return self._plain(kind)

    def _plain(self, kind: Any) -> Any:
        if kind is bool:
            return self._chance.random() < 0.5
        if kind is int:
            return self._chance.choice(ODD_INTEGERS)
        if kind is float:
            return self._chance.choice((0.0, -1.0, 1e-9, 0.5, 1e300, float("inf"), float("nan")))
        if kind is str:
            return self._chance.choice(ODD_TEXTS)
        if kind is bytes:
            return self._chance.choice(ODD_TEXTS).encode()
        return None
