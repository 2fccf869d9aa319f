"""No example is too slow: on a machine that is busy any may be, and time is what `budget` and the steps of each test bound."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
