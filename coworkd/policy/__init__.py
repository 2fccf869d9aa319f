"""Policies: bytes of layered files → profiles, ceiling and names; and what of a request they leave over."""

from coworkd.policy.ceiling import Ceiling, parse_ceiling
from coworkd.policy.keys import flatten
from coworkd.policy.kinds import Kind, tell_kind
from coworkd.policy.layers import Layer, PolicyFile
from coworkd.policy.narrow import narrow, narrow_request, narrow_spool, narrow_timeout
from coworkd.policy.profiles import DEFAULT_PROFILE, PolicySet, load_policies, parse_profile

__all__ = [
    "DEFAULT_PROFILE",
    "Ceiling",
    "Kind",
    "Layer",
    "PolicyFile",
    "PolicySet",
    "flatten",
    "load_policies",
    "narrow",
    "narrow_request",
    "narrow_spool",
    "narrow_timeout",
    "parse_ceiling",
    "parse_profile",
    "tell_kind",
]
