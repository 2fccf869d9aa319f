"""What every call has in common: the kinds of parameters and answers. The calls themselves are in `model.calls`."""

from __future__ import annotations

from msgspec import Struct


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Parameters of one call."""


class Mutating(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Parameters of a call that changes something: the same `request_id` gets the first answer again for 10 minutes."""

    request_id: str | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """The answer of one call."""


class Empty(Answer, frozen=True, kw_only=True):
    """Nothing to say but that it was done."""


class NoParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call without parameters: `[{}]`."""
